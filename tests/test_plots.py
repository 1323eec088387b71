"""Pictures say what the table says: on small tables made by hand, without training."""

import io
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from layerscope import plots
from layerscope.errors import UseError
from layerscope.plots import names, scales, words
from layerscope.plots.about import About
from layerscope.plots.grid import RANDOM, WHOLE, Grid, changed, distance_grid, general, layer_grid
from layerscope.plots.kinds import KINDS
from layerscope.plots.series import layer_panel
from layerscope.plots.terminal import shown_columns
from layerscope.table import Table

Row = dict[str, Any]
HOSTILE = "<script>alert('$x$')</script>&\"=1"
ABOUT = {
    "chance": 0.9,
    "left_out": {},
    "data": {"name": "digits", "n_train": 500, "n_test": 200, "classes": 10},
}


def measured(value: float, n: int = 200, unit: str = "fraction", interval: str = "population") -> Row:
    ends = {"low": value - 0.01, "high": value + 0.01, "interval": interval, "level": 0.95}
    return {"value": value, "n": n, "unit": unit, "status": "ok", **ends}


def failed(status: str = "not finite", reason: str = "outputs overflow") -> Row:
    return {"status": status, "reason": reason}


def error_at(part: int, step: int, steps: list[int]) -> float:
    """Parts matter less the later they come and the later the epoch; some digits to tell cells apart."""
    left = 1 - steps.index(step) / (len(steps) - 1)
    return round(0.02 + 0.8 * left**2 / (1 + part) + 0.001 * part * (left > 0), 4)


def rewinds(name: str, part: int, steps: list[int], split: str) -> list[Row]:
    rows = []
    for step in steps:
        value = error_at(part, step, steps)
        place = {"part": name, "perturbation": "rewind", "split": split, "step": step}
        verdict = "" if name == WHOLE or split != "test" else "critical" if value > 0.11 else "ambient"
        rows += [
            {**place, "metric": "error", **measured(value)},
            {**place, "metric": "error_delta", **measured(value - 0.02), "verdict": verdict},
            {**place, "metric": "cross_entropy", **measured(3 * value, unit="nats")},
        ]
    return rows


def rerandomised(name: str, draws: int, split: str) -> list[Row]:
    rows: list[Row] = []
    place = {"part": name, "perturbation": "rerandomize", "split": split}
    for metric, base in (("error", 0.8), ("error_delta", 0.78), ("cross_entropy", 4.0)):
        values = [base + 0.01 * draw for draw in range(draws)]
        unit = "nats" if metric == "cross_entropy" else "fraction"
        rows += [{**place, "metric": metric, "draw": i, **measured(v, unit=unit)} for i, v in enumerate(values)]
        mean = measured(sum(values) / draws, draws, unit, "draws")
        rows.append({**place, "metric": metric, **mean, "verdict": "destroyed" if metric == "error_delta" else ""})
    return rows


def distances(name: str, part: int, steps: list[int], draws: int) -> list[Row]:
    def pair(size: float, **place: Any) -> list[Row]:
        common = {"part": name, "unit": "parameter units", "n": 1000 * (part + 1), "status": "ok", **place}
        return [{**common, "metric": f"distance_{norm}", "value": size * k} for norm, k in (("l2", 1), ("max", 9))]

    rows: list[Row] = []
    for i, step in enumerate(steps):
        rows += pair(0.01 * i * (part + 1), perturbation="rewind", step=step, to="start")
        rows += pair(0.01 * (len(steps) - 1 - i), perturbation="rewind", step=step, to="substituted")
    for draw in range(draws):
        rows += pair(0.5 + draw, perturbation="rerandomize", draw=draw, to="substituted")
    return rows


def made_table(
    parts: list[str] | int = 3,
    steps: list[int] | int = 4,
    draws: int = 2,
    splits: tuple[str, ...] = ("test", "train"),
    about: dict[str, Any] | None = None,
) -> Table:
    """A table of the shape of `robustness`, with numbers that are easy to recompute."""
    names = parts if isinstance(parts, list) else [f"layer{i + 1}" for i in range(parts)]
    epochs = steps if isinstance(steps, list) else list(range(steps))
    unmodified = {"part": "", "perturbation": "none"}
    rows = [{**unmodified, "metric": "error", "split": split, **measured(0.02)} for split in splits]
    for i, name in enumerate([*names, WHOLE]):
        for split in splits:
            rows += rewinds(name, i, epochs, split)
            rows += rerandomised(name, draws, split) if draws and name != WHOLE else []
        rows += distances(name, i, epochs, draws) if name != WHOLE else []
    return Table.of([{"run": "made", **row} for row in rows], ABOUT if about is None else about)


def with_row(table: Table, change: Row, **where: Any) -> Table:
    """The table with some rows changed."""
    frame = table.frame.copy()
    chosen = frame.index.isin(table.where(**where).index)
    for name, value in change.items():
        frame.loc[chosen, name] = value
    return Table(frame, table.provenance, table.variants)


LANGUAGE = {
    "metric": "token_cross_entropy",
    "unit": "nats/token",
    "chance": math.log(50257),
    "model": "hf:models/gpt2",
    "data": {"name": "mylab.data:stories", "fingerprint": "0123"},
    "by": "layer",
    "buffers": "rewind",
    "probe": {"batches": 2, "identical": True, "max_difference": 0.0, "note": "", "unused": []},
    "left_out": {},
}
"""What the provenance of a language model's analysis says; `unit` is that of the metric."""


def transformer(layers: int) -> list[str]:
    """The names of the Parts of a language model: 6 a layer and 3 more."""
    names = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    blocks = [f"transformer.h.{i}.{name}" for i in range(layers) for name in names]
    return ["transformer.wte = lm_head", "transformer.wpe", *blocks, "transformer.ln_f"]


def harm(part: int, parts: int) -> float:
    """How much of the way to chance (1) a Part's change takes the network: the later, the less; every seventh is worse."""
    return round(1.3 * (1 - part / parts) ** 4 + (0.2 if part % 7 == 3 else 0.001 * (part % 5)), 4)


def foreign_table(
    parts: list[str] | int = 6,
    steps: tuple[int, ...] = (),
    draws: int = 3,
    splits: tuple[str, ...] = ("test",),
    unmodified: float = 3.2,
    **about: Any,
) -> Table:
    """A table of the shape of `robustness` on somebody's model: no start, unless there are steps from 0."""
    facts = LANGUAGE | about
    metric, unit, chance = facts["metric"], facts.pop("unit"), facts["chance"]
    names = parts if isinstance(parts, list) else [f"transformer.h.{i}.mlp" for i in range(parts)]
    gap = (2 * unmodified if chance is None else chance) - unmodified
    decided = chance is not None

    def pair(name: str, value: float, n: int = 64, kind: str = "population", **place: Any) -> list[Row]:
        width, change = 0.02 * min(abs(gap), unmodified), value - unmodified
        verdict = "ambient" if change / gap + 0.02 < 0.1 else "destroyed" if change / gap > 0.52 else "critical"
        ends = {"n": n, "unit": unit, "status": "ok", "interval": kind, "level": 0.95}
        common = {"part": name, **place, **ends}
        judged = bool(name) and name != WHOLE and place["split"] == "test"
        said = {"verdict": verdict if decided else "undecided"} if judged else {}
        return [
            {**common, "metric": metric, "value": value, "low": value - width, "high": value + width},
            {**common, "metric": f"{metric}_delta", "value": change, "low": change - width, "high": change + width, **said},
            {**common, "metric": "disagreement", "unit": "fraction", "value": min(1.0, abs(change / gap)), "low": 0.0},
        ]  # fmt: skip

    rows = [row for split in splits for row in pair("", unmodified, perturbation="none", split=split)]
    for i, name in enumerate([*names, WHOLE]):
        for split in splits:
            for at, step in enumerate(steps):
                left = 1 - at / max(1, len(steps) - 1)
                value = unmodified + gap * (1.0 if name == WHOLE else harm(i, len(names))) * left**2
                rows += pair(name, value, perturbation="rewind", split=split, step=step)
            for draw in range(draws if name != WHOLE else 0):
                value = unmodified + gap * (harm(i, len(names)) + 0.002 * (draw - (draws - 1) / 2))
                rows += pair(name, value, perturbation="rerandomize", split=split, draw=draw)
            if draws and name != WHOLE:
                value = unmodified + gap * harm(i, len(names))
                rows += pair(name, value, draws, "draws", perturbation="rerandomize", split=split)
        rows += distances(name, i, list(steps), draws) if name != WHOLE else []
    rows = [row for row in rows if (steps and steps[0] == 0) or row.get("to") != "start"]
    return Table.of([{"run": "made", **row} for row in rows], facts)


def failed_part(table: Table, name: str, reason: str = "RuntimeError: no") -> Table:
    """The table with a Part whose forwards all raised: one row a variant and metric, without numbers or changes."""
    frame = table.frame
    mine = frame["part"].eq(name) & frame["split"].ne("")
    frame = frame.loc[~(mine & frame["metric"].str.endswith("_delta"))].copy()
    mine = frame["part"].eq(name) & frame["split"].ne("")
    for column, value in (("value", math.nan), ("low", math.nan), ("high", math.nan), ("unit", ""), ("n", None)):
        frame.loc[mine, column] = value
    frame.loc[mine, ["status", "reason"]] = ["failed", reason]
    return Table(frame, table.provenance, table.variants)


def drawn_colours(figure: Any) -> list[str]:
    """The colours of the squares of a map, in the order they were drawn."""
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in figure.axes[0].collections[0].get_facecolors()]


def texts(figure: Any) -> list[str]:
    axes = figure.axes[0]
    labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label]
    return [label.get_text() for label in labels] + [axes.get_title(loc="left"), figure.get_supxlabel()]


def test_importing_plots_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'matplotlib', 'pandas', 'jinja2'}"
    code = f"import layerscope.plots, layerscope.report, sys; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_pictures_never_load_torch_or_pyplot() -> None:
    code = (
        "import sys; from layerscope.table import Table; from layerscope import plots\n"
        "row = dict(part='a', perturbation='rewind', metric='error', unit='fraction', split='test')\n"
        "t = Table.of([{**row, 'value': .5, 'n': 2, 'status': 'ok', 'step': s} for s in (0, 1)])\n"
        "plots.layer_map(t); plots.layer_curves(t)\n"
        "print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_plots_of_every_analysis_are_there_without_being_imported() -> None:
    code = (
        "import sys, layerscope as ls\n"
        "for kind in ls.plots.kinds.KINDS.values():\n"
        "    assert getattr(ls.plots, kind.module).__name__ == f'layerscope.plots.{kind.module}'\n"
        "assert ls.plots.landscape.sentences and set(ls.plots.__all__) <= set(dir(ls.plots))\n"
        "assert all(getattr(ls.plots, name) is not None for name in ls.plots.__all__)\n"
        "print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert {kind.module for kind in KINDS.values()} <= set(plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        plots.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_figures_of_maps_and_of_values_alone() -> None:
    table = made_table()
    assert set(plots.figures(table)) == {"error", "distance-l2", "distance-max"}
    alone = Table(table.frame[table.frame["metric"].str.startswith("distance")], {"spec": {"kind": "weights"}})
    assert set(plots.figures(alone)) == {"distance-l2", "distance-max"}
    with pytest.raises(
        UseError, match=r"this table has no error on test data of changed layers; it has error \(test\)"
    ):
        plots.figures(Table(table.frame[table.frame["perturbation"] == "none"]))


def test_grid_has_the_numbers_of_the_table() -> None:
    grid = layer_grid(made_table())
    assert grid.rows == ("layer1", "layer2", "layer3", WHOLE)
    assert grid.columns == (RANDOM, 0, 1, 2, 3)
    assert grid.unit == "% error"
    cell = grid.at("layer2", 1)
    assert cell.value == pytest.approx(100 * error_at(1, 1, [0, 1, 2, 3]))
    assert (cell.low, cell.high) == pytest.approx((cell.value - 1, cell.value + 1))
    assert (cell.n, cell.interval, cell.level) == (200, "population", 0.95)


def test_random_column_is_the_mean_over_draws() -> None:
    cell = layer_grid(made_table(draws=3)).at("layer1", RANDOM)
    assert cell.value == pytest.approx(81.0)
    assert (cell.n, cell.interval) == (3, "draws")


def test_mean_over_draws_is_computed_where_the_table_has_draws_alone() -> None:
    cell = distance_grid(made_table(draws=2), to="substituted").at("layer1", RANDOM)
    assert cell.value == pytest.approx(1.0)
    assert cell.n == 2
    # Student's t with one degree of freedom: 1 +- 12.706 x std / sqrt(2), where std = sqrt(0.5)
    assert cell.high == pytest.approx(1 + 12.7062 * 0.5, rel=1e-4)


def test_one_draw_has_no_interval() -> None:
    cell = distance_grid(made_table(draws=1), to="substituted").at("layer1", RANDOM)
    assert cell.value == 0.5
    assert not cell.has_interval


def test_verdicts_are_those_of_the_changes() -> None:
    grid = changed(made_table())
    assert grid is not None
    assert grid.at("layer1", 0).verdict == "critical"
    assert grid.at("layer1", 3).verdict == "ambient"
    assert grid.at("layer1", RANDOM).verdict == "destroyed"


def test_missing_cells_say_why() -> None:
    table = with_row(made_table(), {"value": math.nan, **failed()}, part="layer1", step=0, metric="error")
    grid = layer_grid(table)
    assert grid.at("layer1", 0).missing == "not finite: outputs overflow"
    assert grid.at(WHOLE, RANDOM).missing == "not measured (single layers only)"
    assert grid.reasons()["not finite: outputs overflow"] == ["layer1, epoch 0"]


def test_a_part_without_a_law_is_said_to_be_inapplicable() -> None:
    table = made_table(draws=0)
    row = {
        "part": "layer1",
        "perturbation": "rerandomize",
        "metric": "error",
        **failed("not applicable", "no law"),
    }
    joined = Table.of([*table.frame.to_dict("records"), row], ABOUT)
    for metric in ("error", "cross_entropy"):
        assert layer_grid(joined, metric).at("layer1", RANDOM).missing == "not applicable: no law"


def test_a_table_without_the_metric_says_what_it_has() -> None:
    with pytest.raises(UseError, match=r"no accuracy on test data .* it has cross_entropy \(test\)"):
        layer_grid(made_table(splits=("test",)), "accuracy")
    with pytest.raises(UseError, match="norm is l2 or max"):
        distance_grid(made_table(), "l3")


def test_two_runs_in_one_map_are_refused() -> None:
    rows = made_table().frame.to_dict("records")
    with pytest.raises(UseError, match="2 rows for layer1 at epoch 0"):
        layer_grid(Table.of([*rows, *rows], ABOUT))


def test_map_draws_each_cell_in_the_colour_of_its_number() -> None:
    table = made_table()
    grid, figure = layer_grid(table), plots.layer_map(table)
    full = [cell for cell in grid.flat() if not cell.missing]
    colours = drawn_colours(figure)
    assert len(colours) == len(full) == 4 * 5 - 1
    for cell, colour in zip(full, colours, strict=True):
        wanted = [int(grid.shade(cell)[i : i + 2], 16) for i in (1, 3, 5)]
        found = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) <= 3  # matplotlib has 256 colours


def test_map_prints_numbers_in_few_columns_and_says_what_it_shows() -> None:
    table = made_table()
    shown = texts(plots.layer_map(table))
    for cell in layer_grid(table).flat():
        if not cell.missing:
            assert words.short(cell.value, "% error") in shown
    assert "Error with one layer changed\ndigits test data, n = 200, 2 draws re-randomised" in shown
    assert {"layer1", WHOLE, "re-ran-\ndomised", "0\nstart", "3\nfinal"} <= set(shown)
    assert any(text.startswith(f"Hatched: {WHOLE}, re-randomised: not measured") for text in shown)


def test_hatched_cells_are_drawn() -> None:
    table = with_row(made_table(), {"value": math.nan, **failed()}, part="layer1", step=0, metric="error")
    squares = plots.layer_map(table).axes[0].collections
    assert squares[1].get_hatch() == "////"
    assert len(squares[1].get_paths()) == 2  # layer1 at epoch 0, and the whole network re-randomised


@pytest.mark.parametrize("to", ["start", "substituted"])
@pytest.mark.parametrize("norm", ["l2", "max"])
def test_distance_maps(norm: Any, to: Any) -> None:
    table = made_table()
    shown = texts(plots.distance_map(table, norm, to))
    assert ("re-ran-\ndomised" in shown) == (to == "substituted")
    value = distance_grid(table, norm, to).at("layer3", 1).value
    assert value == pytest.approx((0.03 if to == "start" else 0.02) * (9 if norm == "max" else 1))
    assert words.short(value, "parameter units") in shown


def overlapping(labels: list[Any], renderer: Any) -> list[str]:
    boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
    return [f"{a} {b}" for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


@pytest.mark.parametrize(("parts", "steps"), [(1, 3), (3, 17), (5, 101), (60, 2)])
def test_tick_labels_do_not_overlap_and_stay_inside(parts: int, steps: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = [f"stages.{i}.blocks.{i}.conv1" for i in range(parts)]
    figure = plots.layer_map(made_table(names, steps, splits=("test",)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, renderer = figure.axes[0], canvas.get_renderer()
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert not overlapping(labels, renderer)
        for label in labels:
            box = label.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1


def test_ticks_have_both_ends_and_round_epochs() -> None:
    assert scales.tick_indices(101, 14) == [*range(0, 101, 10)]
    assert scales.tick_indices(3, 14) == [0, 1, 2]
    assert scales.tick_indices(41, 14) == [*range(0, 41, 5)]
    assert scales.tick_indices(99, 14)[-2:] == [90, 98]
    assert scales.early_ticks(100) == [0, 1, 2, 5, 10, 20, 50, 100]
    assert scales.nice_ticks(0, 0.077) == [0, 0.02, 0.04, 0.06]


def test_colours_get_darker_and_numbers_on_them_can_be_read() -> None:
    def luminance(colour: str) -> float:
        return scales._luminance(colour)

    for stops in (scales.ERROR, scales.DISTANCE):
        colours = [scales.colour(i / 50, stops) for i in range(51)]
        lights = [luminance(colour) for colour in colours]
        assert lights == sorted(lights, reverse=True)
        for colour, light in zip(colours, lights, strict=True):
            over, under = max(light, luminance(scales.ink(colour))), min(light, luminance(scales.ink(colour)))
            assert (over + 0.05) / (under + 0.05) >= 4.5


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_have_one_line_a_part_with_its_own_marker_and_band() -> None:
    table = made_table()
    axes = plots.layer_curves(table).axes[0]
    lines = axes.lines[:3]
    assert legend(axes) == ["layer1", "layer2", "layer3", "unmodified"]
    wanted = [100 * error_at(1, step, [0, 1, 2, 3]) for step in range(4)]
    assert list(lines[1].get_ydata()) == pytest.approx(wanted)
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in lines}) == 3
    assert len(axes.collections) == 3  # the bands
    assert axes.get_ylabel() == "% error\n(square-root scale)"


def test_curves_of_distances_have_no_bands() -> None:
    axes = plots.layer_curves(made_table(), "distance_max").axes[0]
    assert not axes.collections
    assert "parameter units" in axes.get_ylabel()


def test_a_failed_epoch_is_left_out_of_its_curve() -> None:
    table = with_row(made_table(), {"value": math.nan, **failed()}, part="layer1", step=1, metric="error")
    assert layer_panel(table).lines[0].epochs == (0, 2, 3)


def made_training(epochs: int = 5) -> Table:
    rows: list[Row] = []
    for step in range(epochs + 1):
        for metric, unit, top in (("cross_entropy", "nats", 2.3), ("error", "fraction", 0.9)):
            place = {"metric": metric, "unit": unit, "step": step, "status": "ok"}
            rows.append({**place, "split": "test", "value": top / (step + 1), "n": 200})
            note = "mean over the epoch, while the weights moved"
            if step:
                rows.append({**place, "split": "train", "value": top / (step + 2), "n": 500, "reason": note})
    return Table.of(rows, {"data": {"name": "digits"}})


def test_training_curves_show_both_splits_in_their_units() -> None:
    figure = plots.training_curves(made_training())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Cross-entropy", "Error"]
    error = figure.axes[1]
    assert legend(error) == ["test", "train"]
    assert list(error.lines[0].get_ydata())[:2] == pytest.approx([90, 45])
    assert min(error.lines[1].get_xdata()) == 1


def test_names_are_never_taken_for_formulas_or_markup(tmp_path: Path) -> None:
    table = made_table([HOSTILE, "$\\frac{", "_hidden"])
    for figure in (plots.layer_map(table), plots.layer_curves(table)):
        _, svg = plots.save(figure, tmp_path / "hostile")
        text = svg.read_text()
        assert "<script" not in text
        assert "_hidden" in text
        assert "$\\frac{" in text.replace("\\$", "$")


def test_saved_files_are_small_and_the_same_each_time(tmp_path: Path) -> None:
    table = made_table(4, 101)
    first = [path.read_bytes() for path in plots.save(plots.layer_map(table), tmp_path / "a.b")]
    second = [path.read_bytes() for path in plots.save(plots.layer_map(table), tmp_path / "c")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b.png", "a.b.svg", "c.png", "c.svg"]
    assert first == second
    assert all(len(content) < 300_000 for content in first)
    assert b"<text" in first[1]
    assert b"dc:date" not in first[1]


def test_large_maps_stay_small(tmp_path: Path) -> None:
    for path in plots.save(plots.layer_map(made_table(60, 101, splits=("test",))), tmp_path / "large"):
        assert path.stat().st_size < 300_000


def test_settings_of_the_user_are_neither_used_nor_changed(tmp_path: Path) -> None:
    import matplotlib

    before = plots.save(plots.layer_map(made_table()), tmp_path / "before")[1].read_bytes()
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        settings = dict(matplotlib.rcParams)
        after = plots.save(plots.layer_map(made_table()), tmp_path / "after")[1].read_bytes()
        assert dict(matplotlib.rcParams) == settings
    assert before == after


def terminal(table: Table, width: int, **options: Any) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, **options).print(plots.terminal_map(table))
    return out.getvalue()


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_terminal_map_fits_and_reads_without_colour(width: int) -> None:
    shown = terminal(made_table(4, 101), width, color_system=None)
    lines = shown.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in shown
    row = next(line for line in lines if line.strip().startswith("layer1")).split()
    assert row[1] == "80.5"
    assert row[2] == "82.0"
    assert "critical" in shown
    assert "destroyed" in shown
    assert "Unmodified: 2.00 % error (95 % interval 1.00 to 3.00)." in " ".join(shown.split())
    assert "\x1b" not in shown


def test_terminal_map_says_the_same_with_colour() -> None:
    import re

    plain = terminal(made_table(), 90, color_system=None)
    coloured = terminal(made_table(), 90, color_system="truecolor", force_terminal=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert coloured != plain


def test_terminal_map_takes_names_as_text() -> None:
    shown = terminal(made_table(["[bold]x[/bold]", "a"]), 100, color_system=None)
    assert "[bold]x[/bold]" in shown


def test_terminal_map_explains_what_is_missing() -> None:
    table = with_row(made_table(), {"value": math.nan, **failed()}, part="layer1", step=0, metric="error")
    assert "-: layer1, epoch 0: not finite: outputs overflow." in terminal(table, 100, color_system=None)


def test_shown_epochs_have_both_ends_and_more_early_ones() -> None:
    grid = layer_grid(made_table(2, 101))
    assert shown_columns(grid, 6) == [RANDOM, 0, 1, 3, 18, 100]
    assert shown_columns(layer_grid(made_table(2, 3)), 9) == [RANDOM, 0, 1, 2]


def test_numbers_as_people_read_them() -> None:
    assert words.number(-0.001, "% error") == "0.00"
    assert words.number(0.012345, "nats") == "0.0123"
    assert words.number(12345.6, "nats") == "12346"
    assert words.short(100.0, "% error") == "100"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed([str(i) for i in range(9)], 4) == "0, 1, 2 and 6 more"
    assert words.shortened("stages.10.blocks.2.convolution.weight", 20) == "stages…lution.weight"


def test_a_large_map_is_drawn_in_seconds() -> None:
    table = made_table(10, 101, splits=("test",))
    began = time.perf_counter()
    grid: Grid = layer_grid(table)
    assert len(list(grid.flat())) == 11 * 102
    assert time.perf_counter() - began < 1


PERPLEXITY = {"metric": "perplexity", "unit": "", "unmodified": 23.4, "chance": 50257.0}
BLEU = {"metric": "bleu_score", "unit": "", "unmodified": 34.0, "chance": 1.0, "better": "higher"}
UNKNOWN = {
    "metric": "squared_error",
    "unit": "K²",
    "unmodified": 0.4,
    "chance": None,
    "chance_reason": "the value of guessing is not known for squared_error; give chance=",
}


@pytest.mark.parametrize(
    ("metric", "unit", "title", "shown"),
    [
        ("error", "fraction", "Error", (100.0, "% error")),
        ("error_delta", "fraction", "Change of error", (100.0, "percentage points")),
        ("top5_error", "fraction", "Top-5 error", (100.0, "% top-5 error")),
        ("token_cross_entropy", "nats/token", "Token cross-entropy", (1.0, "nats/token")),
        ("token_cross_entropy_delta", "nats/token", "Change of token cross-entropy", (1.0, "nats/token")),
        ("perplexity", "", "Perplexity", (1.0, "")),
        ("disagreement", "fraction", "Disagreement", (100.0, "% disagreement")),
        ("BLEU_score", "points", "BLEU score", (1.0, "points")),
        ("_", "", "_", (1.0, "")),
    ],
)
def test_metrics_have_names_and_units(metric: str, unit: str, title: str, shown: tuple[float, str]) -> None:
    assert names.title(metric) == title
    assert names.shown_unit(metric, unit) == shown


def test_what_is_counted() -> None:
    metrics = ("error", "token_error", "perplexity", "perplexity_delta", "my_tokens")
    assert [names.counted(metric) for metric in metrics] == ["sample", "sequence", "sequence", "sequence", "sample"]


def test_the_deciding_metric_is_what_the_provenance_says() -> None:
    old, new = made_table(), foreign_table(3, **PERPLEXITY)
    assert (layer_grid(old).metric, layer_grid(new).metric) == ("error", "perplexity")
    assert layer_grid(new, "disagreement").unit == "% disagreement"
    assert About.of(Table.of([])) == About()
    assert About.of(Table.of([], {"chance": None, "metric": None, "by": None})) == About()
    assert (About.of(new).step, About.of(new).part) == ("checkpoint", "layer")
    assert About.of(Table.of([], {"by": "head"})).part == "part"


def test_every_scale_runs_from_light_to_dark_and_back() -> None:
    made = [
        scales.of_shares([2, 90], 90),
        scales.of_shares([30, 80], 90),
        scales.of_shares([93, 20], 10, higher=True),
        scales.of_amounts([3.2, 5, 20], 10.8),
        scales.of_amounts([23, 1e5], 50257, exponential=True),
        scales.of_amounts([34, -9], 1, higher=True),
        scales.of_amounts([-3, 5], math.nan),
        scales.from_zero([0, 3], "linear"),
        scales.from_zero([-1, 3], "root"),
        scales.of_amounts([], math.nan),
        scales.of_amounts([2.0, 2.0], math.inf),
    ]
    for scale in made:
        assert scale.high > scale.low
        places = [scale.low + (scale.high - scale.low) * i / 20 for i in range(21)]
        ups = [scale.up(value) for value in places]
        assert ups == sorted(ups)
        assert (ups[0], ups[-1]) == pytest.approx((0, 1))
        assert [scale.value(up) for up in ups] == pytest.approx(places, abs=1e-9)
        assert scale.shade(scale.high) == (0 if scale.flipped else 1)
        for ticks in (scale.ticks(), scale.ticks(end=True)):
            assert ticks == sorted(set(ticks))
            assert 1 <= len(ticks) <= 9


def test_scales_are_anchored_at_the_unmodified_network_and_chance() -> None:
    def ends(scale: scales.Scale) -> tuple[float, float, str, bool]:
        return scale.low, scale.high, scale.kind, scale.clipped

    assert ends(scales.of_shares([2, 95], 90)) == (0, 95, "root", False)  # zero is near
    assert ends(scales.of_shares([30, 80], 90)) == (30, 90, "root", False)
    assert ends(scales.of_shares([92, 20], 10, True)) == (10, 100, "root", False)
    assert ends(scales.of_amounts([3.2, 3.3], 10.8)) == (3.2, 10.8, "root", False)
    assert ends(scales.of_amounts([3.2, 25], 10.8)) == (3.2, 10.8, "root", True)
    assert ends(scales.of_amounts([3.2, 25], 2.0)) == (3.2, 25, "root", False)  # no better than chance
    assert ends(scales.of_amounts([3.2, 3.3])) == (3.2, 3.3, "root", False)
    assert ends(scales.of_amounts([23.4, 65000], 50257, exponential=True)) == (23.4, 50257, "log", True)
    assert ends(scales.of_amounts([1e-4, 0.6, 19], 3.9)) == (0, 3.9, "root", True)  # chance tells what is much
    assert ends(scales.of_amounts([0.4, math.inf, math.nan, 30])) == (0.4, 30, "log", False)
    assert ends(scales.of_amounts([0.0, 0.4, 30])) == (0.4, 30, "log", False)
    assert ends(scales.of_amounts([3, 4, 5, 1e30])) == (3, 45000, "log", True)
    assert ends(scales.of_amounts([34, -9], 1, True)) == (1, 34, "root", True)


def test_ticks_of_wide_and_anchored_scales() -> None:
    assert scales.of_amounts([23.4, 65000], 50257, exponential=True).ticks(end=True) == [23.4, 100, 1000, 10000, 50300]
    assert scales.of_amounts([1, 100]).ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert scales.of_amounts([3.2, 4], 10.8).ticks(end=True) == [3.2, 4, 6, 8, 10]
    assert scales.Scale(1e-9, 1e9, "log").ticks() == [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6, 1e9]


def test_perplexities_have_a_logarithmic_scale_that_is_said() -> None:
    table = foreign_table(transformer(2), **PERPLEXITY)
    grid, figure = layer_grid(table), plots.layer_map(table)
    assert grid.scale.kind == "log"
    assert words.about_scale(grid) == "(logarithmic scale; darkest: 50257 or more)"
    assert figure.axes[1].get_ylabel() == "perplexity\n(logarithmic scale; darkest: 50257 or more)"
    shades = [
        grid.scale.shade(grid.at(name, RANDOM).value) for name in ("transformer.h.1.ln_2", "transformer.wte = lm_head")
    ]
    assert 0.2 < shades[0] < 0.5
    assert shades[1] == 1
    assert "%" not in "".join(texts(figure))


def test_infinite_and_missing_numbers_do_not_move_the_scale() -> None:
    table = foreign_table(4)
    for value in (math.inf, math.nan):
        broken = with_row(table, {"value": value}, part="transformer.h.0.mlp", metric="token_cross_entropy")
        grid = layer_grid(broken)
        assert grid.at("transformer.h.0.mlp", RANDOM).missing == "no value"
        assert (grid.scale.low, grid.scale.high) == pytest.approx((3.2, math.log(50257)))


def test_light_is_good_where_more_is_better() -> None:
    table = foreign_table(transformer(1), steps=(0, 1, 2), **BLEU)
    grid, figure = layer_grid(table), plots.layer_map(table)
    assert grid.shade(grid.at(WHOLE, 2)) == "#ffffd9"
    assert grid.scale.shade(grid.at(WHOLE, 0).value) == 1
    assert "darkest: 1.00 or less" in figure.axes[1].get_ylabel()
    bar = figure.axes[1]
    assert bar.get_ylim()[0] < bar.get_ylim()[1]
    deltas = changed(table)
    assert deltas is not None
    assert deltas.scale.flipped
    assert deltas.at("transformer.wpe", 0).value < 0


def test_disagreement_starts_at_none() -> None:
    grid = layer_grid(foreign_table(4), "disagreement")
    assert grid.scale.low == 0
    assert not grid.higher
    assert grid.at("transformer.h.3.mlp", RANDOM).value == pytest.approx(100 * harm(3, 4))


def test_a_model_without_a_start_has_one_column() -> None:
    table = foreign_table(transformer(1))
    assert layer_grid(table).columns == (RANDOM,)
    shown = texts(plots.layer_map(table))
    assert "re-ran-\ndomised" in shown
    assert (
        "Token cross-entropy with one layer changed\nmylab.data:stories test data, n = 64, 3 draws re-randomised"
        in [text.replace("draws\n", "draws ") for text in shown]
    )
    assert not [text for text in shown if "put back" in text or "start" in text]
    said = terminal(table, 90, color_system=None)
    assert "start" not in said
    assert "n = 64 sequences" in said
    assert "Unmodified: 3.20 nats/token (95 % interval" in said


def test_two_steps() -> None:
    table = foreign_table(transformer(1), steps=(0, 1))
    assert layer_grid(table).columns == (RANDOM, 0, 1)
    assert "checkpoint whose values the layer is put back to" in texts(plots.layer_map(table))
    assert layer_panel(table).lines[0].epochs == (0, 1)


def test_without_chance_there_are_no_verdicts_and_it_is_said() -> None:
    table = foreign_table(4, steps=(0, 3, 9), **UNKNOWN)
    assert math.isnan(layer_grid(table).chance)
    said = terminal(table, 120, color_system=None)
    assert said.count("No verdicts: the value of guessing is not known for squared_error; give chance=.") == 1
    assert "undecided" not in said
    assert "verdict:" not in said
    assert layer_grid(table).scale.low == pytest.approx(0.4)


def test_a_check_that_failed_is_warned_of() -> None:
    note = "the network draws random numbers in evaluation mode"
    probe = {"batches": 2, "identical": False, "max_difference": 0.0123, "note": note}
    said = " ".join(terminal(foreign_table(3, probe=probe), 100, color_system=None).split())
    assert f"Warning: Before the analysis, a check failed, and the user asked to go on: {note}." in said
    assert "up to 0.0123" in said
    for fine in ({"identical": False, "max_difference": 1e-7, "note": ""}, None, "odd"):
        assert "Warning" not in terminal(foreign_table(3, probe=fine), 100, color_system=None)


def test_a_part_whose_forward_failed_is_hatched_with_its_reason() -> None:
    table = failed_part(foreign_table(4, steps=(0, 1)), "transformer.h.1.mlp", "RuntimeError: shape '[2]' is invalid")
    grid = layer_grid(table)
    assert grid.unit == "nats/token"
    assert grid.at("transformer.h.1.mlp", 0).missing == "failed: RuntimeError: shape '[2]' is invalid"
    assert len(plots.layer_map(table).axes[0].collections[1].get_paths()) == 3 + 1
    assert "failed: RuntimeError" in terminal(table, 100, color_system=None)


def test_reasons_that_differ_in_names_alone_are_told_once() -> None:
    reason = "no initial law is known for {0}.weight, {0}.bias; give one in laws="
    names = [f"h.{i}.mlp" for i in range(5)]
    absent = [
        {
            "part": name,
            "perturbation": "rerandomize",
            "metric": "error",
            **failed("not applicable", reason.format(name)),
        }
        for name in names
    ]
    table = Table.of([*made_table(names, draws=0).frame.to_dict("records"), *absent], ABOUT)
    reasons = layer_grid(table).reasons()
    told = "not applicable: no initial law is known for its own tensors; give one in laws="
    assert len(reasons[told]) == 5
    assert general("wte.weight is odd", "wte = head") == "its own tensors is odd"
    assert general("awte.weight is odd", "wte") == "awte.weight is odd"


def test_labels_are_short_and_never_two_alike() -> None:
    long = [f"model.language_model.layers.{i}.self_attn.q_proj_with_lora" for i in range(30)]
    shown = words.labels([*long, "wte"], 24)
    assert len(set(shown.values())) == 31
    assert max(len(label) for label in shown.values()) < 36
    assert shown["wte"] == "wte"
    alike = [f"{'x' * 90}{i}{'y' * 90}" for i in range(3)]
    assert max(len(label) for label in words.labels(alike, 24, 40).values()) == 40
    assert words.natural(["h.10", "h.2", "h.1.b10", "h.1.b9"]) == ["h.1.b9", "h.1.b10", "h.2", "h.10"]


@pytest.mark.parametrize("width", [50, 80, 140])
def test_long_names_fit_a_terminal(width: int) -> None:
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(12)]
    said = terminal(foreign_table(names, steps=tuple(range(30))), width, color_system=None)
    assert max(len(line) for line in said.splitlines()) <= width
    rows = [line.split()[0] for line in said.splitlines() if "q_proj" in line and not line.startswith("model")]
    assert len(set(rows)) == 12
    few = terminal(foreign_table(names, steps=(0, 1)), 140, color_system=None)
    assert "model.layers.11.self_attn.q_proj" in few


def test_hundreds_of_parts_are_drawn(tmp_path: Path) -> None:
    table = foreign_table([*transformer(48), *(f"h.{i}.attn.head{i % 12}" for i in range(10))], steps=(0, 1, 4))
    assert len(layer_grid(table).parts) > 300
    figure = plots.layer_map(table)
    for path in plots.save(figure, tmp_path / "many"):
        assert path.stat().st_size < 1_000_000
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == len(labels) > 300
    assert max(map(len, labels)) <= 36


def test_of_many_lines_the_worst_are_drawn_and_that_is_said() -> None:
    table = foreign_table(
        60, steps=(0, 1, 4), better="higher", metric="bleu_score", unit="", unmodified=34.0, chance=1.0
    )
    panel = layer_panel(table)
    assert (len(panel.lines), panel.others) == (24, 36)
    worst = sorted(sorted(range(60), key=lambda part: -harm(part, 60))[:24])
    assert [line.name for line in panel.lines] == [f"transformer.h.{i}.mlp" for i in worst]
    shown = plots.layer_curves(table).axes[0].get_title(loc="left")
    assert shown.endswith("Lines: the 24 of 60 layers that are the worst somewhere.")
    assert "moved furthest" in plots.layer_curves(table, "distance_l2").axes[0].get_title(loc="left")


def test_curves_of_perplexity_are_logarithmic() -> None:
    axes = plots.layer_curves(foreign_table(5, steps=(0, 1, 4), **PERPLEXITY)).axes[0]
    assert axes.get_ylabel() == "Perplexity\n(logarithmic scale)"
    assert axes.get_ylim()[0] > 0


def test_small_numbers_fit_their_cells() -> None:
    shown = [words.short(v, "") for v in (3.2, 10.82, 99.97, 50257, 123456, 3.2e12, 0.0123, 1.2e-4, -3.2, 0)]
    assert shown == ["3.20", "10.8", "100", "50257", "1.2e5", "3e12", "0.012", "1.2e-4", "-3.20", "0"]
    assert [words.number(v, "") for v in (9.4, 10, 123.4, 50257, 3.2e12, 0.2)] == [
        *("9.40", "10.0", "123", "50257", "3.2e+12", "0.2")
    ]
