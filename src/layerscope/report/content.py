"""What the report says, read from a run's files: plain values for the template."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.plots.about import About, deciding, limits, warnings
from layerscope.plots.grid import Grid, distance_grid, has, has_distances, layer_grid, norm_grid
from layerscope.plots.names import counted, noun
from layerscope.plots.series import Panel, layer_panel, training_panels
from layerscope.plots.weights import Listing, listings
from layerscope.report import asked, captions, foreign
from layerscope.report.charts import Chart, chart
from layerscope.report.findings import Findings, found
from layerscope.report.foreign import LawGroup
from layerscope.report.gaps import Gap, gaps, lacking, training_notes
from layerscope.report.heatmap import Picture, picture
from layerscope.report.shown import key_of, shown
from layerscope.report.values import Values, training_values, values_of
from layerscope.report.verdicts import Verdicts, verdicts
from layerscope.run import Run
from layerscope.table import Table


@dataclass(frozen=True)
class MapFigure:
    """A map, its numbers, and what they rest on."""

    id: str
    heading: str
    label: str
    about: str
    caption: str
    picture: Picture
    values: Values


@dataclass(frozen=True)
class LineFigure:
    """A picture of lines."""

    heading: str
    caption: str
    chart: Chart


@dataclass(frozen=True)
class Weights:
    """All that the report shows of an analysis without data."""

    name: str
    key: str
    about: About
    asked: list[str]
    listings: list[Listing]
    maps: list[MapFigure]
    limits: list[str]
    gaps: list[Gap]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Analysis:
    """All that the report shows of one analysis."""

    name: str
    key: str
    about: About
    asked: list[str]
    laws: list[LawGroup]
    findings: Findings
    verdicts: Verdicts | None
    maps: list[MapFigure]
    curves: list[LineFigure]
    limits: list[str]
    gaps: list[Gap]
    others: list[str]
    spec: dict[str, Any]

    @property
    def has_steps(self) -> bool:
        """Whether Parts were put back to any step."""
        return any(len(figure.values.places) > 1 for figure in self.maps)

    @property
    def has_distances(self) -> bool:
        return any(not figure.values.split for figure in self.maps)

    @property
    def has_start(self) -> bool:
        """Whether any Part was put back to its start."""
        kinds = [key for key, _ in self.verdicts.kinds] if self.verdicts else []
        rows = self.verdicts.rows if self.verdicts and "start" in kinds else []
        return any(row.changes[0].why != "not measured" for row in rows)


def content(run: Run, names: Collection[str] | None = None) -> dict[str, Any]:
    """The template's variables; with `names`, of these analyses alone."""
    chosen = run.analyses() if names is None else [name for name in run.analyses() if name in names]
    kinds = {name: run.analysis_spec(name)["kind"] for name in chosen}
    tables = {name: run.analysis(name) for name in chosen if kinds[name] == "robustness"}
    alone = {name: run.analysis(name) for name in chosen if kinds[name] == "weights"}
    others = shown(run, chosen)
    made_from = {name: table.provenance.get("checkpoints_digest") for name, table in tables.items()}
    made_from |= {each.name: each.made_from for each in others}
    analyses = [_analysis(run, name, table, i) for i, (name, table) in enumerate(tables.items())]
    spec, provenance = run.spec, run.provenance
    training = run.training() if run.trained else None
    lab = spec.get("kind", "train") == "train" and not any(a.about.foreign for a in analyses)
    return {
        "name": run.name,
        "spec": spec,
        "lab": lab,
        "part": analyses[0].about.part if analyses else "layer",
        "counted": counted(analyses[0].about.metric) if analyses else "sample",
        "asked": asked.training(spec, provenance) if lab else [],
        "trained": run.trained,
        "analyses": analyses,
        "weights": [_weights(run, name, table) for name, table in alone.items()],
        "panels": [_training_figure(panel, training) for panel in training_panels(training)]
        if training is not None
        else [],
        "training_values": training_values(training) if training is not None else None,
        "training_notes": training_notes(training) if training is not None else [],
        "training_step": About.of(training).step if training is not None else "",
        "shown": others,
        "other": [name for name in run.analyses() if name not in (*tables, *alone, *(each.name for each in others))],
        "stages": {stage: asked.flat(facts) for stage, facts in provenance.items()},
        "warnings": asked.warnings(provenance),
        "alarms": [
            *_outdated(run, made_from),
            *dict.fromkeys(text for table in (*tables.values(), *alone.values()) for text in warnings(table)),
            *dict.fromkeys(text for each in others for text in each.warnings),
        ],
    }


def _outdated(run: Run, made_from: Mapping[str, str | None]) -> list[str]:
    """The analyses of a recording that went on since: their network is not the one that is there now."""
    now = run.checkpoints.digest()
    return [
        f"The analysis {name} was made before the recording went on: its checkpoints are not those that are there now. Analyse "
        f"these with: layerscope analyze {run.name} --name ANOTHER."
        for name, digest in made_from.items()
        if digest not in (None, now)
    ]


def _weights(run: Run, name: str, table: Table) -> Weights:
    key = key_of(name)
    grids = {"norm": norm_grid(table)}
    grids |= {norm: distance_grid(table, norm) for norm in ("l2", "max") if has_distances(table, norm)}
    asked = [text for text in foreign.sentences(run.spec, table) if text]
    return Weights(
        name=name,
        key=key,
        about=About.of(table),
        asked=[*asked, foreign.division(table), "No data were named, so that no network was evaluated."],
        listings=listings(table),
        maps=[_map(table, f"{key}-map-{what}", grid, False) for what, grid in grids.items()],
        limits=limits(table),
        gaps=lacking(table),
        spec=run.analysis_spec(name),
    )


def _analysis(run: Run, name: str, table: Table, index: int) -> Analysis:
    key = key_of(name) + (str(index) if index else "")
    spec, about = run.folder.read_json(f"analyses/{name}.json"), About.of(table)
    return Analysis(
        name=name,
        key=key,
        about=about,
        asked=[*(foreign.sentences(run.spec, table) if about.foreign else []), *asked.analysis(spec, table)],
        laws=foreign.laws(table) if about.foreign else [],
        findings=found(table, spec),
        verdicts=verdicts(table),
        maps=_maps(table, key),
        curves=_curves(table, key),
        limits=limits(table),
        gaps=gaps(table),
        others=_others(table) if about.foreign else [],
        spec=spec,
    )


def _maps(table: Table, key: str) -> list[MapFigure]:
    """The deciding metric on test and training data, and the distances from the start; those that there are."""
    grids = {split: layer_grid(table, split=split) for split in ("test", "train") if has(table, split=split)}
    norms = [norm for norm in ("l2", "max") if has_distances(table, norm)]
    grids |= {norm: distance_grid(table, norm) for norm in norms}
    return [_map(table, f"{key}-map-{what}", grid, what == "train" and "test" in grids) for what, grid in grids.items()]


def _map(table: Table, identity: str, grid: Grid, again: bool) -> MapFigure:
    return MapFigure(
        id=identity,
        heading=captions.heading(grid),
        label=captions.label(grid),
        about=asked.rests_on(table, grid),
        caption=captions.caption(grid, again),
        picture=picture(grid),
        values=values_of(f"{identity}-values", grid),
    )


def _curves(table: Table, key: str) -> list[LineFigure]:
    """Test numbers and distances over at least three steps: two are told by the map as well."""
    grids = {"test": layer_grid(table)} if has(table) else {}
    grids |= {norm: distance_grid(table, norm) for norm in ("l2", "max") if has_distances(table, norm)}
    drawn = {what: grid for what, grid in grids.items() if len(grid.steps) > 2}
    panels = {what: (layer_panel(table, grid.metric), grid) for what, grid in drawn.items()}
    return [
        LineFigure(
            captions.curve_heading(panel),
            captions.curve_caption(panel),
            chart(f"{key}-curves-{what}", panel, captions.axis(grid), asked.rests_on(table, grid, curves=True)),
        )
        for what, (panel, grid) in panels.items()
        if any(line.epochs for line in panel.lines)
    ]


def _training_figure(panel: Panel, training: Table) -> Chart:
    return chart(f"training-{panel.metric}", panel, panel.about.step, asked.training_counts(training, panel.metric))


def _others(table: Table) -> list[str]:
    """What else was measured on changed networks, in words."""
    mine = deciding(table)
    metrics = table.frame.loc[table.frame["split"].ne(""), "metric"].unique()
    return [noun(metric) for metric in metrics if not metric.endswith("_delta") and metric != mine]
