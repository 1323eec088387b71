"""What is shown of each kind of analysis: its question, and where its sentences, tables and figures are made."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.plots import maps
from layerscope.plots.files import save
from layerscope.plots.weights import Listing
from layerscope.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """A kind of analysis, as people read it. `module` has `sentences(table)`, `listings(table)` and `figures(table)`, and with
    `READING` for each figure, or what its name begins with, how to read it."""

    title: str
    question: str
    module: str

    def sentences(self, table: Table) -> list[str]:
        """What was found, in plain words."""
        return self._found("sentences")(table)

    def listings(self, table: Table) -> list[Listing]:
        """The numbers as tables of text."""
        return self._found("listings")(table)

    def figures(self, table: Table) -> "dict[str, Figure]":
        """Pictures by name."""
        return self._found("figures")(table)

    def reading(self, figure: str) -> str:
        """How to read a picture."""
        said: dict[str, str] = self._found("READING")
        return said[max((name for name in said if figure.startswith(name)), key=len)]

    def _found(self, name: str) -> Any:
        return getattr(importlib.import_module(f"layerscope.plots.{self.module}"), name)


def figures(table: Table) -> "dict[str, Figure]":
    """The pictures of the table of any analysis, by name: as `figures/` of a run has them, and the report."""
    kind = KINDS.get(_kind_of(table))
    return kind.figures(table) if kind else maps.figures(table)


def save_figures(table: Table, folder: Path, name: str) -> None:
    """Write the pictures of an analysis, each as NAME-PICTURE.png and .svg; of maps too."""
    for each, figure in figures(table).items():
        save(figure, folder / f"{name}-{each}")


def _kind_of(table: Table) -> str:
    """The kind of the spec that a table answers; empty where it does not say."""
    spec = table.provenance.get("spec")
    return str(table.provenance.get("spec_kind") or (spec.get("kind") if isinstance(spec, dict) else ""))


KINDS = {
    "criticality": Kind(
        "Module criticality",
        "How far can each module go toward its start, and how much noise does it then bear?",
        "criticality",
    ),
    "landscape": Kind(
        "Landscapes",
        "What happens to error and loss between the start and the trained values, and beside that way?",
        "landscape",
    ),
    "spectra": Kind("Spectra", "How does each layer stretch its inputs, and how did training change that?", "spectra"),
    "similarity": Kind(
        "Similarity of activations",
        "Does the network compute the same as before, layer by layer, when a part is put back?",
        "similarity",
    ),
    "cka": Kind("Similarity of two networks", "How similar are the layers of two networks, each to each?", "cka"),
    "measures": Kind(
        "Measures of generalisation",
        "What do measures of the whole network say about how well it generalises?",
        "measures",
    ),
    "bounds": Kind("Bounds", "What is proven about the error on new data?", "bounds"),
    "compare": Kind(
        "The contest of measures", "Which measure ranks networks as their generalisation gap does?", "compare"
    ),
}
"""KIND of a spec -> what is shown. The maps of robustness, and values alone, have pages of their own in the report."""
