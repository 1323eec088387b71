"""Whether the first checkpoint can be the start of a training: a network that has learned nothing guesses."""

from collections.abc import Iterable, Mapping
from typing import Any

from layerscope.partition import WHOLE
from layerscope.plots import names, words
from layerscope.plots.grid import Cell

LEARNED = 0.2
"""The share of what training gained over guessing, from which on a start is not plausible, if it surely has more."""


def odd_start(
    rows: Iterable[Mapping[str, Any]], metric: str, better: str, chance: float | None, where: str
) -> list[str]:
    """A warning if the whole network with the values of the first checkpoint is surely better than guessing, by more than
    `LEARNED` of what the unmodified network is: of the rows of a map, those of the deciding `metric` on the test data. `where`
    says which checkpoint it is. Nothing can be said where `chance` is not known."""
    mine = [row for row in rows if row.get("metric") == metric and row.get("split") == "test"]
    unmodified = next((row for row in mine if row["perturbation"] == "none"), {})
    whole = {"part": WHOLE, "perturbation": "rewind", "step": 0}
    start = next((row for row in mine if whole.items() <= row.items()), {})
    if chance is None or "value" not in unmodified or not {"value", "low", "high"} <= start.keys():
        return []
    sign = -1 if better == "higher" else 1
    gap = sign * (chance - unmodified["value"])
    gained = min(sign * (chance - start[end]) for end in ("low", "high"))
    if not gained > LEARNED * gap > 0:
        return []
    factor, unit = names.shown_unit(metric, start.get("unit") or "")
    value, low, high = (factor * start[name] for name in ("value", "low", "high"))
    cell = Cell(value, low, high, start["n"], level=start["level"])
    within = f"{words.level(cell)} interval {words.interval(cell, unit)}, n = {words.count(cell.n)}"
    return [
        f"the network of {where} has {words.number(cell.value, unit)} {unit or names.noun(metric)} ({within}), guessing "
        f"{words.number(factor * chance, unit)}: it has learned already, so that it may not be the start of this training"
    ]
