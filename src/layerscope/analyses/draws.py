"""Several random draws of one Part as one number."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from layerscope import stats

Row = dict[str, Any]


def over_draws(
    rows: Sequence[Row], level: float, constant: Collection[str] = (), *, bounded: bool = False
) -> list[Row]:
    """The mean over the draws of each Part, split and metric, with Student's t interval over draws. Of Parts whose law is
    `constant` all draws are the same one: its own interval, over samples, is what there is to say. Where draws are `bounded`,
    each known to within an interval that holds for these data, the interval is wider by what that says of their mean."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    failed: dict[tuple[str, str], Row] = {}
    for row in (row for row in rows if "draw" in row):
        groups.setdefault((row["part"], row["split"], row["metric"]), []).append(row)
        if row["status"] in ("failed", "not measured"):
            failed.setdefault((row["part"], row["split"]), row)
    return [
        _only(group[0]) if part in constant else _mean_row(group, level, failed.get((part, split)), bounded)
        for (part, split, _), group in groups.items()
    ]


def _only(row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("draw", "variant")}
    return kept | {"reason": row.get("reason") or "its law is constant, so that all draws are the same"}


def _mean_row(group: Sequence[Row], level: float, failed: Row | None, bounded: bool) -> Row:
    """One number for all draws; there is none if one of them `failed` or was not measured, of whatever metric."""
    kept = ("part", "perturbation", "metric", "unit", "split", "engine")
    mean: Row = {name: group[0][name] for name in kept if name in group[0]}
    if failed is not None:
        return mean | {
            "status": failed["status"],
            "reason": f"draw {failed['draw']}: {failed['reason']}",
            "n": len(group),
        }
    values = np.array([row["value"] for row in group])
    mean |= {"value": float(values.mean()), "n": len(values)}
    if not np.isfinite(values).all():
        return mean | {
            "status": "not finite",
            "reason": "at least one draw gives outputs that overflow or are not numbers",
        }
    if len(values) < 2:
        return mean | {"status": "ok", "reason": "one draw has no interval over draws"}
    low, high = stats.mean(values, level)
    if bounded:
        low -= float(np.mean([row["value"] - row["low"] for row in group]))
        high += float(np.mean([row["high"] - row["value"] for row in group]))
    return mean | {"status": "ok", "low": low, "high": high, "interval": "draws", "level": level}
