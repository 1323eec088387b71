"""Means over the networks of a population that differ in their seeds alone. Plain values, no drawing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerscope import stats
from layerscope.errors import UseError
from layerscope.table import Table

Row = Mapping[str, Any]
SEED = "seed"
"""What networks are averaged over; everything else of a grid changes what is asked."""


@dataclass(frozen=True)
class Mean:
    """Mean of n runs; low and high are the t interval of it over runs, NaN for a single one."""

    value: float
    low: float
    high: float
    n: int


def grid_of(table: Table) -> list[str]:
    """The names of a sweep's grid that vary in its table, in order; a table of anything else is an error."""
    if "grid" not in table.provenance:
        raise UseError("this is no table of a sweep: nothing varies in it; see layerscope sweep")
    return [name for name, _ in table.provenance["grid"] if len(set(table.frame[name])) > 1]


def numeric(table: Table) -> list[str]:
    """Those of them that are numbers, and no seeds."""
    kinds = dict(table.provenance["grid"])
    return [name for name in grid_of(table) if name != SEED and kinds[name] in ("Int64", "float64")]


def grouped(rows: Iterable[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by what they have in some columns, in the order they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return found


def mean(rows: Iterable[Row], level: float = 0.95) -> Mean:
    """The mean of `value` over rows, each of a run of its own."""
    values = np.array([row["value"] for row in rows], dtype=float)
    return Mean(float(values.mean()), *stats.mean(values, level), len(values))
