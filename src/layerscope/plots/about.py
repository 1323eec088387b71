"""What a table is about, from its provenance: the words and anchors that all its pictures share."""

import math
from dataclasses import dataclass
from typing import Any

from layerscope.plots import names
from layerscope.table import Table


@dataclass(frozen=True)
class About:
    """The deciding metric, which way it is better, what a guess would score; what the Parts and steps are called; whether
    the start is a `pretrained` network, where random values come from (`redraw`: law, permutation, moments); whether anything was
    `measured` on data.

    `chance` is in the unit of the table, NaN where nobody knows it; then `why_no_chance` may say why.
    """

    metric: str = "error"
    higher: bool = False
    chance: float = math.nan
    why_no_chance: str = ""
    part: str = "layer"
    step: str = "epoch"
    foreign: bool = False
    pretrained: bool = False
    redraw: str = "law"
    measured: bool = True

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
            step=str(facts.get("step_unit") or ("checkpoint" if foreign else "epoch")),
            foreign=foreign,
            pretrained=facts.get("start") == "pretrained",
            redraw=str(facts.get("redraw") or "law"),
            measured=not len(table) or bool(table.frame["split"].ne("").any()),
        )

    @property
    def noun(self) -> str:
        """The deciding metric within a sentence."""
        return names.noun(self.metric)

    @property
    def knows_chance(self) -> bool:
        return math.isfinite(self.chance)

    @property
    def start(self) -> str:
        """What the first checkpoint is called, where there is room for a word."""
        return "pretrained" if self.pretrained else "start"

    @property
    def origin(self) -> str:
        """What a Part is put back to, and how far it is from, within a sentence."""
        return "pretrained" if self.pretrained else "the start"

    @property
    def randomised(self) -> str:
        """What was done to Parts that were not put back, in a word."""
        return "permuted" if self.redraw == "permutation" else "re-randomised"

    @property
    def again(self) -> str:
        """The same of a single Part, within a sentence: it was, or can be, drawn afresh or permuted."""
        return "permuted" if self.redraw == "permutation" else "drawn afresh"

    @property
    def random_head(self) -> str:
        """The same as the head of a narrow column."""
        return "per-\nmuted" if self.redraw == "permutation" else "re-ran-\ndomised"

    def gap(self, unmodified: float) -> float:
        """From the unmodified network to guessing, positive where the network is better; NaN where not known."""
        return (unmodified - self.chance) if self.higher else (self.chance - unmodified)


def deciding(table: Table) -> str:
    """The metric that verdicts rest on."""
    return About.of(table).metric


def warnings(table: Table) -> list[str]:
    """What to know before anything else: of a model or data that gave something else the second time, and of checkpoints."""
    told = table.provenance.get("warnings") or ()
    return [*filter(None, [_probe_warning(table)]), *(f"{str(text).rstrip('.')}." for text in told)]


def limits(table: Table) -> list[str]:
    """What there was of the network, and what that cannot answer, a sentence each; nothing of a table that does not say."""
    tier = table.provenance.get("tier")
    if not isinstance(tier, dict):
        return []
    return [f"There was: {tier['name']}. That can say {tier['answers']}.", *map(str, tier["cannot"])]


def _probe_warning(table: Table) -> str:
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
