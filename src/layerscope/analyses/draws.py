"""Several random draws of one Part as one number."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from layerscope import stats
from layerscope.stats import Interval

Row = dict[str, Any]


def over_draws(
    rows: Sequence[Row], level: float, constant: Collection[str] = (), *, bounded: bool = False
) -> list[Row]:
    """The mean over the draws of each Part, split and metric, with the interval `of_draws`. Of Parts whose law is
    `constant` all draws are the same one: its own interval, over samples, is what there is to say. Where draws are `bounded`,
    each known to within an interval that holds for these data, the interval is wider by what that says of their mean."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    failed: dict[tuple[str, str], Row] = {}
    for row in (row for row in rows if "draw" in row):
        groups.setdefault((row["part"], row["split"], row["metric"]), []).append(row)
        if row["status"] in ("failed", "not measured"):
            failed.setdefault((row["part"], row["split"]), row)
    return [
        _only(group[0])
        if part in constant
        else _mean_row(
            group, groups.get((part, split, f"{metric}_delta"), group), level, failed.get((part, split)), bounded
        )
        for (part, split, metric), group in groups.items()
    ]


def of_draws(values: np.ndarray, own: Iterable[Interval], level: float) -> Row:
    """The interval of a mean over draws (`stats.over_draws`), and a reason where it is not Student's; or why there is none."""
    n, draws = len(values), stats.unlike(values)
    if n < 2:
        return {"reason": "one draw has no interval over draws"}
    low, high = found = stats.over_draws(values, own, level)
    if math.isnan(low):
        return {"reason": f"all {n} draws give the same value, which does not say how far others lie from it"}
    row: Row = {"low": low, "high": high, "interval": "draws", "level": level}
    if found == stats.mean(values, level):
        return row
    if draws == 1:
        return row | {
            "reason": f"all {n} draws give the same value: the interval is what the samples of one leave open"
        }
    same = f"{n - draws + 1} of {n} draws give the same value"
    return row | {"reason": f"{same}: the interval is as wide as what the samples of {draws} leave open"}


def _only(row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name not in ("draw", "variant")}
    return kept | {"reason": row.get("reason") or "its law is constant, so that all draws are the same"}


def _mean_row(group: Sequence[Row], changes: Sequence[Row], level: float, failed: Row | None, bounded: bool) -> Row:
    """One number for all draws; there is none if one of them `failed` or was not measured, of whatever metric. What a draw's
    samples leave open is that of its change (`changes`): the unmodified network's value is the same for all draws."""
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
    own = (_own(row["value"], change, bounded) for row, change in zip(group, changes, strict=True))
    found = of_draws(values, own, level)
    if bounded and "low" in found:
        found["low"] -= float(np.mean([row["value"] - row["low"] for row in group]))
        found["high"] += float(np.mean([row["high"] - row["value"] for row in group]))
    return mean | {"status": "ok", **found}


def _own(value: float, change: Row, bounded: bool) -> Interval:
    """The interval around the value of a draw that the samples leave of its `change`. `bounded` ones have one that holds for
    these data, and no width once all are used: they get that of a share, with no more samples changed than it needs."""
    low, high = change.get("low", math.nan), change.get("high", math.nan)
    if bounded:
        changed = round(change["value"] * change["n"])
        low, high = stats.paired_proportions(max(changed, 0), max(-changed, 0), change["n"], change["level"])
    return Interval(value + low - change["value"], value + high - change["value"])
