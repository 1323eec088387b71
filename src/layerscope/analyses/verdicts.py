"""Ambient, critical, destroyed or undecided: the rule, apart from where its numbers come from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.analyses.spec import RobustnessSpec
from layerscope.partition import WHOLE
from layerscope.stats import Interval

Row = dict[str, Any]


def verdict(delta: Interval, gap: float, ambient: float = 0.1, destroyed: float = 0.5) -> str:
    """The verdict on a change of error with an interval, where `gap` is chance error minus unmodified error.

    `ambient` if the upper bound is below `ambient` x gap, `critical` if the lower bound is above it, and `destroyed` if
    that is above `destroyed` x gap; else `undecided`, as always where the network is no better than chance.
    Source: zhang2022 gives no threshold (footnote 1); this rule is ours. Ambient does not mean removable.
    """
    if not gap > 0:
        return "undecided"
    if delta.low > destroyed * gap:
        return "destroyed"
    if delta.low > ambient * gap:
        return "critical"
    return "ambient" if delta.high < ambient * gap else "undecided"


@dataclass(frozen=True)
class Judge:
    """Sets verdicts on the rows of an analysis: on the differences of the deciding `metric` on the test data, where `chance`
    is its value for guessing (None: not known, and nothing can be decided)."""

    metric: str
    better: str
    chance: float | None
    spec: RobustnessSpec

    def decided(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, with a verdict on each change of a Part."""
        asked = {"perturbation": "none", "metric": self.metric, "split": "test"}
        unmodified = next((row.get("value") for row in rows if asked.items() <= row.items()), None)
        if unmodified is None:  # no test data, no verdicts
            return list(rows)
        gap = math.nan if self.chance is None else self._worse(self.chance - unmodified)
        return [row | {"verdict": self._verdict(row, gap)} if self._asks(row) else row for row in rows]

    def _asks(self, row: Row) -> bool:
        deciding = row["metric"] == f"{self.metric}_delta" and row.get("split") == "test"
        return deciding and row["perturbation"] != "none" and row["part"] != WHOLE

    def _verdict(self, row: Row, gap: float) -> str:
        if "low" not in row:
            return "undecided"
        low, high = sorted((self._worse(row["low"]), self._worse(row["high"])))
        return verdict(Interval(low, high), gap, self.spec.ambient, self.spec.destroyed)

    def _worse(self, change: float) -> float:
        """A change as one for the worse, whichever direction that is."""
        return -change if self.better == "higher" else change
