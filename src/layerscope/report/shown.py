"""Analyses that are shown as sentences, tables and pictures, as their kind makes them."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from layerscope.plots import embedded, layer_map, words
from layerscope.plots.about import About, warnings
from layerscope.plots.kinds import KINDS
from layerscope.plots.weights import Listing
from layerscope.report import findings
from layerscope.report.gaps import Gap, lacking, missing
from layerscope.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PIXELS = 96
"""Of a page, in an inch of a figure."""
SMALLEST = 0.85
"""A picture that is wider than the page is made smaller, but not below this share: its letters must stay readable. What is then
still wider can be moved sideways."""


@dataclass(frozen=True)
class Image:
    """A picture in the page, of so many pixels, and how to read it, where that is said."""

    name: str
    source: str
    reading: str
    width: int

    @property
    def least(self) -> int:
        """The width below which it does not get."""
        return round(SMALLEST * self.width)


@dataclass(frozen=True)
class Shown:
    """All that the report shows of one analysis."""

    name: str
    key: str
    title: str
    question: str
    sentences: list[str]
    listings: list[Listing]
    pictures: list[Image]
    gaps: list[Gap]
    warnings: list[str]
    spec: dict[str, Any]
    made_from: str | None
    """Digest of the checkpoints, where the table says which these were."""


def shown(run: Run, names: Collection[str] | None = None) -> list[Shown]:
    """The analyses of a run (those of some names) that have no page of their own kind in the report."""
    found = [(name, str(run.analysis_spec(name)["kind"])) for name in run.analyses() if names is None or name in names]
    return [_shown(run, name, kind) for name, kind in found if kind in KINDS]


def of_another(run: Run, names: Collection[str]) -> list[Shown]:
    """The analyses of a run beside the one that a report is about: maps are pictures there."""
    maps = [name for name in run.analyses() if name in names and run.analysis_spec(name)["kind"] == "robustness"]
    found = [_map(run, name) for name in maps] + shown(run, names)
    return [_of(run, each) for each in found]


def key_of(name: str) -> str:
    """A name as part of the identity of an element."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def pictures(figures: "dict[str, Figure]", reading: Callable[[str], str] = lambda _: "") -> list[Image]:
    """Each figure embedded."""
    return [
        Image(
            name.replace("-", " ").replace("_", " "),
            embedded(figure),
            reading(name),
            round(PIXELS * figure.get_figwidth()),
        )
        for name, figure in figures.items()
    ]


def _shown(run: Run, name: str, kind: str) -> Shown:
    table, how = run.analysis(name), KINDS[kind]
    title = how.title if name == kind else f"{how.title}: {name}"
    return Shown(
        name=name,
        key=key_of(name),
        title=title,
        question=how.question,
        sentences=how.sentences(table),
        listings=how.listings(table),
        pictures=pictures(how.figures(table), how.reading),
        gaps=missing(table),
        warnings=warnings(table),
        spec=run.analysis_spec(name),
        made_from=table.provenance.get("checkpoints_digest"),
    )


def _map(run: Run, name: str) -> Shown:
    table, spec = run.analysis(name), run.analysis_spec(name)
    part = About.of(table).part
    return Shown(
        name=name,
        key=key_of(name),
        title=f"Map of {words.plural(2, part).removeprefix('2 ')}: {name}",
        question=f"What happens to the network when one {part} is put back or drawn afresh?",
        sentences=list(findings.found(table, spec).sentences),
        listings=[],
        pictures=pictures({"map": layer_map(table)}),
        gaps=lacking(table),
        warnings=warnings(table),
        spec=spec,
        made_from=table.provenance.get("checkpoints_digest"),
    )


def _of(run: Run, found: Shown) -> Shown:
    return replace(found, key=f"{run.name}-{found.key}", title=f"{found.title} ({run.name})")
