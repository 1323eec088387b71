"""The figures and the report of a reproduction."""

from pathlib import Path

from layerscope import plots
from layerscope.plots.kinds import KINDS
from layerscope.report import make_study
from layerscope.store import Folder
from layerscope.studies.frame import Study
from layerscope.studies.session import Reproduction
from layerscope.table import Table

MOST = 4
"""Networks of the first seed that are shown one by one; of more, the first."""


def show(study: Study, made: Reproduction) -> Path:
    """Draw what a reproduction found, and write its report; gives the path of the report."""
    first = made.replicates[0]
    networks = first.networks if len(first.networks) <= MOST else first.networks[:1]
    figures = study.figures(made.replicates)
    folder = made.path / "figures"
    for name, figure in figures.items():
        plots.save(figure, folder / name)
    names = list(dict.fromkeys(analysis for _, analysis in first.tables))
    for (network, analysis), table in first.tables.items():
        if network in networks:
            _draw(table, folder, f"{network}-0" if analysis == "robustness" else f"{network}-0-{analysis}")
    runs = [run for run, (network, _) in zip(made.runs, _order(made), strict=True) if network in networks]
    return make_study(Folder(made.path), runs[: len(networks)], made.verdicts, names, figures)


def _order(made: Reproduction) -> list[tuple[str, int]]:
    return [(network, seed) for seed, found in enumerate(made.replicates) for network in found.networks]


def _draw(table: Table, folder: Path, name: str) -> None:
    kind = str(table.provenance.get("spec_kind", "robustness"))
    if kind in KINDS:
        for each, figure in KINDS[kind].figures(table).items():
            plots.save(figure, folder / f"{name}-{each}")
        return
    plots.save(plots.layer_map(table), folder / f"{name}-{table.provenance.get('metric', 'error')}")
    if "to" in table.frame and "start" in set(table.frame["to"]):
        for norm in ("l2", "max"):
            plots.save(plots.distance_map(table, norm), folder / f"{name}-distance-{norm}")
