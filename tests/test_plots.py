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
from layerscope.plots import scales, words
from layerscope.plots.grid import RANDOM, WHOLE, Grid, changed, distance_grid, layer_grid
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
