"""Errors and losses of a training, as its owner measured them: rows of `training.parquet`."""

import math
from collections.abc import Iterable
from typing import Any, SupportsFloat

import torch

from layerscope.errors import UseError
from layerscope.table import Table

Row = dict[str, Any]


def rows_of(step: int, split: str, error: SupportsFloat | None, loss: SupportsFloat | None, n: int | None) -> list[Row]:
    """The rows of one moment and one split. A number that is not finite is a row with a status."""
    given = {name: _number(value) for name, value in (("error", error), ("loss", loss)) if value is not None}
    if not given:
        raise UseError("log needs an error (a fraction), a loss, or both")
    if given.get("error", 0.0) < 0 or given.get("error", 0.0) > 1:
        raise UseError(f"an error is the share of samples that are wrong, from 0 to 1, not {given['error']:g}")
    return [_row(step, split, metric, value, n) for metric, value in given.items()]


def merged(*rows: Iterable[Row]) -> list[Row]:
    """All rows in one order; of those about the same thing the last one."""
    found = {(row["metric"], row["split"], row["step"]): row for some in rows for row in some}
    return [found[key] for key in sorted(found)]


def without_run(table: Table) -> list[Row]:
    """The rows again that a table was made of."""
    fields = list(_row(0, "", "", 0.0, None))
    values = (table.frame[name].astype(object).where(table.frame[name].notna(), None) for name in fields)
    return [dict(zip(fields, row, strict=True)) for row in zip(*values, strict=True)]


def _row(step: int, split: str, metric: str, value: float, n: int | None) -> Row:
    finite = math.isfinite(value)
    return {
        "step": step,
        "split": split,
        "metric": metric,
        "unit": "fraction" if metric == "error" else "",
        "value": value if finite else None,
        "n": n,
        "status": "ok" if finite else "diverged",
        "reason": "" if finite else f"the {metric} was not finite",
    }


def _number(value: SupportsFloat) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)
