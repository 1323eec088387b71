"""What a table is about, from its provenance: the words and anchors that all its pictures share."""

import math
from dataclasses import dataclass
from typing import Any

from layerscope.plots import names
from layerscope.table import Table


@dataclass(frozen=True)
class About:
    """The deciding metric, which way it is better, what a guess would score; what the Parts and steps are called.

    `chance` is in the unit of the table, NaN where nobody knows it; then `why_no_chance` may say why.
    """

    metric: str = "error"
    higher: bool = False
    chance: float = math.nan
    why_no_chance: str = ""
    part: str = "layer"
    step: str = "epoch"
    foreign: bool = False

    @classmethod
    def of(cls, table: Table) -> "About":
        """As the provenance says; a table that says nothing is of a classifier that layerscope trained."""
        facts, foreign = table.provenance, bool(table.provenance.get("model"))
        by = facts.get("by") or "layer"
        return cls(
            metric=str(facts.get("metric") or "error"),
            higher=facts.get("better") == "higher",
            chance=_number(facts.get("chance")),
            why_no_chance=str(facts.get("chance_reason") or "").rstrip("."),
            part=by if by in ("layer", "module") else "part",
            step="checkpoint" if foreign else "epoch",
            foreign=foreign,
        )

    @property
    def noun(self) -> str:
        """The deciding metric within a sentence."""
        return names.noun(self.metric)

    @property
    def knows_chance(self) -> bool:
        return math.isfinite(self.chance)

    def gap(self, unmodified: float) -> float:
        """From the unmodified network to guessing, positive where the network is better; NaN where not known."""
        return (unmodified - self.chance) if self.higher else (self.chance - unmodified)


def deciding(table: Table) -> str:
    """The metric that verdicts rest on."""
    return About.of(table).metric


def probe_warning(table: Table) -> str:
    """What to warn of where model or data gave something else the second time, and the user went on; empty if all was well."""
    probe = table.provenance.get("probe")
    note = str(probe.get("note") or "").rstrip(".") if isinstance(probe, dict) else ""
    size = _number(probe.get("max_difference")) if isinstance(probe, dict) else math.nan
    if not note:
        return ""
    largest = f" Outputs differed by up to {size:.3g}." if size > 0 else ""
    return (
        f"Before the analysis, a check failed, and the user asked to go on: {note}.{largest} Differences between networks "
        "may be this noise, which no interval covers."
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
