"""What the report says, read from a run's files: plain values for the template."""

import re
from dataclasses import dataclass
from typing import Any

from layerscope.plots.grid import Grid, distance_grid, has, has_distances, layer_grid
from layerscope.plots.series import Panel, layer_panel, training_panels
from layerscope.report import asked
from layerscope.report.charts import Chart, chart
from layerscope.report.findings import Findings, PartResult, found, parts
from layerscope.report.gaps import Gap, gaps, training_notes
from layerscope.report.heatmap import Picture, picture
from layerscope.report.values import Values, training_values, values_of
from layerscope.run import Run
from layerscope.table import Table


@dataclass(frozen=True)
class MapFigure:
    """A map, its numbers, and what they rest on."""

    id: str
    about: str
    picture: Picture
    values: Values


@dataclass(frozen=True)
class Analysis:
    """All that the report shows of one analysis."""

    name: str
    key: str
    asked: list[str]
    findings: Findings
    parts: list[PartResult]
    maps: dict[str, MapFigure]
    curves: dict[str, Chart]
    gaps: list[Gap]
    spec: dict[str, Any]


def content(run: Run) -> dict[str, Any]:
    """The template's variables."""
    analyses = [_analysis(run, name, i) for i, name in enumerate(_robustness(run))]
    spec, provenance = run.spec, run.provenance
    training = run.training() if run.trained else None
    return {
        "name": run.name,
        "spec": spec,
        "asked": asked.training(spec, provenance),
        "trained": run.trained,
        "analyses": analyses,
        "panels": [_training_chart(panel, training) for panel in training_panels(training)]
        if training is not None
        else [],
        "training_values": training_values(training) if training is not None else None,
        "training_notes": training_notes(training) if training is not None else [],
        "other": [name for name in run.analyses() if name not in _robustness(run)],
        "stages": {stage: asked.flat(facts) for stage, facts in provenance.items()},
        "warnings": asked.warnings(provenance),
    }


def _robustness(run: Run) -> list[str]:
    return [name for name in run.analyses() if run.folder.read_json(f"analyses/{name}.json")["kind"] == "robustness"]


def _analysis(run: Run, name: str, index: int) -> Analysis:
    key = re.sub(r"[^A-Za-z0-9_-]", "-", name) + (str(index) if index else "")
    table, spec = run.analysis(name), run.folder.read_json(f"analyses/{name}.json")
    return Analysis(
        name=name,
        key=key,
        asked=asked.analysis(spec, table),
        findings=found(table, spec),
        parts=parts(table),
        maps={
            what: _map(f"{key}-map-{what}", grid, asked.rests_on(table, grid)) for what, grid in _grids(table).items()
        },
        curves=_curves(table, key),
        gaps=gaps(table),
        spec=spec,
    )


def _grids(table: Table) -> dict[str, Grid]:
    errors = {split: layer_grid(table, "error", split) for split in ("test", "train") if has(table, "error", split)}
    norms = [norm for norm in ("l2", "max") if has_distances(table, norm)]
    return errors | {norm: distance_grid(table, norm) for norm in norms}


def _panels(table: Table) -> dict[str, tuple[Panel, Grid]]:
    """The lines of test error and distances, each with the map of the same numbers."""
    metrics = {"test": "error", "l2": "distance_l2", "max": "distance_max"}
    grids = {what: grid for what, grid in _grids(table).items() if what in metrics}
    panels = {what: (layer_panel(table, metrics[what]), grid) for what, grid in grids.items()}
    return {what: pair for what, pair in panels.items() if any(line.epochs for line in pair[0].lines)}


def _curves(table: Table, key: str) -> dict[str, Chart]:
    return {
        what: chart(f"{key}-curves-{what}", panel, _axis(what), asked.rests_on(table, grid, curves=True))
        for what, (panel, grid) in _panels(table).items()
    }


def _axis(key: str) -> str:
    return "epoch whose values the layer is put back to" if key == "test" else "epoch"


def _map(identity: str, grid: Grid, about: str) -> MapFigure:
    return MapFigure(identity, about, picture(grid), values_of(f"{identity}-values", grid))


def _training_chart(panel: Panel, training: Table) -> Chart:
    return chart(f"training-{panel.metric}", panel, "epoch", asked.training_counts(training))
