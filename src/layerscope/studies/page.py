"""The figures and the report of a reproduction."""

from pathlib import Path

from layerscope import plots
from layerscope.plots.kinds import save_figures
from layerscope.report import make_study
from layerscope.store import Folder
from layerscope.studies.frame import Study
from layerscope.studies.session import Reproduction

MOST = 5
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
            save_figures(table, folder, f"{network}-0" if analysis == "robustness" else f"{network}-0-{analysis}")
    of_first = zip(made.runs, first.networks, strict=False)  # runs of the other seeds follow
    runs = [run for run, network in of_first if network in networks]
    return make_study(Folder(made.path), runs, made.verdicts, names, figures, study.listings(made.replicates))
