"""Curves of a population: the right means, the right intervals, and nothing averaged or left out in silence."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from layerscope import plots
from layerscope.errors import UseError
from layerscope.plots.population import curves_of
from layerscope.table import Table

KINDS = {"hidden": "Int64", "noise": "float64", "seed": "Int64", "optimizer": "string"}


def population(status: dict[str, str] | None = None, **grid: list) -> Table:
    """A summary with random errors and losses."""
    draw, rows = np.random.default_rng(0), []
    for place in itertools.product(*grid.values()):
        at: dict[str, Any] = dict(zip(grid, place, strict=True))
        run = ",".join(f"{k}={v}" for k, v in at.items())
        about = {"run": run, **at, "split": "test", "n": 100, "status": (status or {}).get(run, "ok")}
        rows.append({**about, "metric": "error", "unit": "fraction", "value": draw.uniform(0, 1)})
        rows.append({**about, "metric": "cross_entropy", "unit": "nats", "value": draw.uniform(0, 3)})
    return Table.of(rows, {"grid": [[name, KINDS[name]] for name in grid], "data": {"name": "digits"}})


GRID = {"hidden": [64, 8, 16], "noise": [0.0, 0.2], "seed": [0, 1, 2, 3]}


def test_lines_are_means_over_seeds_with_their_t_intervals():
    table = population(**GRID)
    found = curves_of(table, "hidden", "error", "test")
    assert [curve.name for curve in found.lines] == ["noise = 0", "noise = 0.2"]
    assert found.unit == "% error"
    for curve, noise in zip(found.lines, GRID["noise"], strict=True):
        assert curve.places == (8, 16, 64)
        for place, mean in zip(curve.places, curve.means, strict=True):
            values = 100 * np.array(table.where(hidden=place, noise=noise, metric="error")["value"])
            interval = ttest_1samp(values, 0).confidence_interval(0.95)
            assert (mean.value, mean.low, mean.high) == pytest.approx((values.mean(), *interval), rel=1e-9)
            assert mean.n == 4


def test_the_picture_says_what_it_shows():
    figure = plots.sweep_curves(population(**GRID))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Error on test data", "Cross-entropy on test data"]
    assert "24 networks on digits; mean over seeds, bands: 95 % t interval" in figure.get_suptitle()
    assert "n = 4 runs a point." in figure.get_suptitle()
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "hidden (logarithmic scale)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "16", "64"]
    assert list(axes.lines[0].get_xdata()) == [8, 16, 64]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] <= 105
    assert len(axes.collections) == 2
    assert {line.get_marker() for line in axes.lines} == {"o", "s"}
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["noise = 0", "noise = 0.2"]


def test_numbers_from_zero_are_on_a_linear_axis_and_one_line_needs_no_legend():
    figure = plots.sweep_curves(population(noise=[0.0, 0.1, 0.4], seed=[0]), metric="error")
    assert len(figure.axes) == 1
    assert figure.axes[0].get_xscale() == "linear"
    assert figure.axes[0].get_legend() is None
    assert "one run each" in figure.get_suptitle()


def test_networks_that_diverged_are_left_out_and_counted():
    table = population({"hidden=8,seed=0": "diverged"}, hidden=[8, 16], seed=[0, 1])
    found = curves_of(table, "hidden", "error", "test")
    assert [mean.n for mean in found.lines[0].means] == [1, 2]
    shown = plots.sweep_curves(table).get_suptitle()
    assert "n = 1 to 2 runs a point." in shown
    assert "1 network diverged and is left out." in shown


def test_nothing_but_seeds_is_averaged_over():
    table = population(hidden=[8, 16], noise=[0.0, 0.2], optimizer=["sgd", "adam"], seed=[0, 1])
    with pytest.raises(UseError, match="optimizer varies too, and only seeds are averaged over: name it in lines"):
        plots.sweep_curves(table, "hidden", lines="noise")
    found = curves_of(table, "noise", "error", "test", ["hidden", "optimizer"])
    assert [curve.name for curve in found.lines] == [
        f"hidden = {h}, optimizer = {o}" for h in (8, 16) for o in ("sgd", "adam")
    ]


def test_wrong_questions_are_told():
    table = population(hidden=[8, 16], optimizer=["sgd", "adam"])
    with pytest.raises(UseError, match="optimizer is no number that varies in this sweep; those are: hidden"):
        plots.sweep_curves(table, "optimizer")
    with pytest.raises(UseError, match="unknown metric on test data 'eror'; did you mean error"):
        plots.sweep_curves(table, "hidden", "eror")
    with pytest.raises(UseError, match="unknown column of this table 'width'"):
        plots.sweep_curves(table, "width")
    with pytest.raises(UseError, match="varies no number but its seeds"):
        plots.sweep_curves(population(optimizer=["sgd", "adam"], seed=[0, 1]))
    with pytest.raises(UseError, match="no table of a sweep"):
        plots.sweep_curves(Table(table.frame))
    twice = Table.of([*table.frame.to_dict("records")] * 2, table.provenance)
    with pytest.raises(UseError, match="several rows of one network"):
        plots.sweep_curves(twice, "hidden")


def test_of_too_many_lines_the_worst_are_drawn():
    table = population(hidden=[8, 16], noise=[k / 100 for k in range(30)])
    found = curves_of(table, "hidden", "error", "test")
    assert (len(found.lines), found.others) == (24, 6)
    worst = table.where(metric="error").groupby("noise")["value"].max().nlargest(24)
    assert {curve.name for curve in found.lines} == {f"noise = {noise:g}" for noise in worst.index}
    assert "Lines: the 24 of 30" in plots.sweep_curves(table).get_suptitle()
