"""What is said and drawn of landscapes: falls and widths worked out by hand, and pictures that show every number once."""

import math
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

import layerscope as ls
from layerscope import stats
from layerscope.plots import landscape as plots
from layerscope.table import Table

from .networks import signs

ALPHAS = (0.0, 0.5, 1.0)
WHOLE = "whole network"
Error = Callable[[str, float, float, int], float]
"""The error of a Part at a place under noise, on a side (0: none)."""


def table(
    error: Error,
    parts: tuple[str, ...] = ("a", "b", WHOLE),
    sigmas: tuple[float, ...] = (),
    valley: bool = False,
    spread: tuple[float, ...] = (-0.01, 0.0, 0.01),
    half: float = 0.02,
    splits: tuple[str, ...] = ("train", "test"),
) -> Table:
    """The rows of a landscape with these errors; draws differ from their mean by `spread`, differences are known to +- `half`."""
    rows: list[dict[str, Any]] = []
    for split in splits:
        about = {"split": split, "unit": "fraction", "n": 1000, "status": "ok", "level": 0.95}
        rows.append(about | {"perturbation": "none", "metric": "error", "value": error("a", 1.0, 0.0, 0)})
        for part in parts:
            for alpha in ALPHAS:
                place = about | {"part": part, "alpha": alpha, "metric": "error"}
                value = error(part, alpha, 0.0, 0)
                ends = {"low": value - half, "high": value + half}
                rows.append(place | {"perturbation": "interpolate", "value": value, **ends})
                for sigma in sigmas:
                    for side in (-1, 1) if valley else (0,):
                        noise = {"perturbation": "noise", "sigma": sigma, **({"side": side} if side else {})}
                        value = error(part, alpha, sigma, side)
                        rows += [place | noise | {"draw": k, "value": value + by} for k, by in enumerate(spread)]
                        low, high = stats.mean(value + np.array(spread))
                        rows.append(place | noise | {"value": value + float(np.mean(spread)), "low": low, "high": high})
            for a, b in combinations(ALPHAS, 2):
                change = error(part, a, 0.0, 0) - error(part, b, 0.0, 0)
                pair = {"part": part, "alpha": a, "alpha_b": b, "metric": "error_worsening", "value": change}
                rows.append(about | pair | {"perturbation": "interpolate", "low": change - half, "high": change + half})
    simultaneous = {"answers": 3 * len(parts) * len(splits), "level": 0.95}
    facts = {"metric": "error", "better": "lower", "by": "layer", "simultaneous": simultaneous}
    return Table.of(rows, facts)


def rising(part: str, alpha: float, sigma: float, side: int) -> float:
    """a hardly depends on its place; b and all at once do; noise adds its size."""
    return 0.01 + {"a": 0.02, "b": 0.6, WHOLE: 0.8}[part] * (1 - alpha) + 0.2 * sigma * (1 + 0.5 * side)


def dipping(part: str, alpha: float, sigma: float, side: int) -> float:
    """b is better half-way than trained."""
    return 0.05 if part == "b" and alpha == 0.5 else 0.1 + (1 - alpha) / 4


def test_falls_are_the_pairs_that_surely_get_better_toward_the_start():
    found = plots.falls(table(dipping))
    assert [(row["part"], row["alpha"], row["alpha_b"], row["split"]) for row in found.rows] == [
        ("b", 0.5, 1.0, "train"),
        ("b", 0.5, 1.0, "test"),
    ]
    assert found.curves == ["b on train data", "b on test data"]
    assert found.lowest is not None
    assert found.lowest["low"] == pytest.approx(-0.05 - 0.02)
    assert (found.pairs, found.without) == (2 * 3 * 3, 0)
    assert len(plots.falls(table(dipping), split="test").rows) == 1
    wide = plots.falls(table(dipping, half=0.06))
    assert (wide.rows, wide.lowest and wide.lowest["part"]) == ([], "b")
    assert plots.falls(table(rising)).rows == []
    assert plots.falls(table(rising), noise=True).pairs == 0


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.5)), min_size=1, max_size=20))
def test_falls_agree_with_their_intervals(changes):
    rows = [
        {"metric": "error_worsening", "perturbation": "interpolate", "part": "a", "split": "test", "status": "ok"}
        | {"alpha": 0.0, "alpha_b": (k + 1) / 20, "value": value, "low": value - half, "high": value + half}
        for k, (value, half) in enumerate(changes)
    ]
    found = plots.falls(Table.of(rows, {"metric": "error"}))
    assert len(found.rows) == sum(value + half < 0 for value, half in changes)
    assert found.lowest is not None
    assert found.lowest["low"] == min(value - half for value, half in changes)


def test_widths_are_the_largest_sigma_up_to_which_the_mean_stays_at_the_limit():
    sigmas = (0.1, 0.2, 0.4)
    widths = {(w.part, w.alpha): w for w in plots.widths(table(rising, sigmas=sigmas), limit=0.061)}
    # a: 0.01 + 0.02 (1 - alpha) + 0.2 sigma <= 0.061; upper ends are t(2 degrees) x 0.01 / sqrt(3) above: 0.0248
    above = student.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    for alpha in ALPHAS:
        room = 0.051 - 0.02 * (1 - alpha)
        (width, sure) = (max([0.0, *(sigma for sigma in sigmas if 0.2 * sigma + by <= room)]) for by in (0.0, above))
        assert widths["a", alpha][2:] == (width, sure, False)
    assert [widths["a", alpha].sigma for alpha in ALPHAS] == [0.1, 0.2, 0.2]
    assert math.isnan(widths["b", 0.0].sigma)
    assert math.isnan(widths["b", 0.0].sure)
    assert widths["b", 1.0].sigma == 0.2
    every = plots.widths(table(rising, sigmas=sigmas), limit=0.99)
    assert all(width.sigma == width.sure == 0.4 and width.largest for width in every)


def test_both_sides_of_a_valley_count_half():
    """1.5 and 0.5 times the noise: together as without sides, draw by draw."""
    one, both = (table(rising, sigmas=(0.1, 0.2, 0.4), valley=valley) for valley in (False, True))
    for limit in (0.025, 0.055, 0.065, 0.31):
        alone, together = (plots.widths(each, limit=limit) for each in (one, both))
        assert [w.part for w in alone] == [w.part for w in together]
        np.testing.assert_array_equal([w[1:] for w in alone], [w[1:] for w in together])


def test_a_width_ends_at_the_first_sigma_that_is_too_much_or_has_no_number():
    def odd(part: str, alpha: float, sigma: float, side: int) -> float:
        return 0.5 if sigma == 0.2 else 0.01

    assert {w.sigma for w in plots.widths(table(odd, sigmas=(0.1, 0.2, 0.4)))} == {0.1}
    good = table(lambda *_: 0.01, sigmas=(0.1, 0.2))
    frame = good.frame.copy()
    frame.loc[(frame["sigma"] == 0.2) & (frame["draw"].isin([1]) | frame["draw"].isna()), "status"] = "failed"
    assert {w.sigma for w in plots.widths(Table(frame, good.provenance))} == {0.1}


def test_sentences_say_what_was_found():
    said = " ".join(plots.sentences(table(rising, sigmas=(0.1, 0.4))))
    assert "2 layers, each alone, and all layers at once, had values on the straight way from the start (0)" in said
    assert "1,000 test samples, and on train data" in said
    assert "b matters most (61.00 % error), a least (3.00 % error), all at once give 81.00 % error" in said
    assert "the trained network has 1.00 % error on test data" in said
    assert "Of 18 pairs of places without noise, in none error surely falls toward the start" in said
    assert "the most that they leave open is 1.00 percentage points (a on train data, from 0.5 to 0)" in said
    assert "a: 0.1 (at 0)" in said or "a: 0.4 or more (at 0)" in said
    assert "b: none, not even without noise (at 0)" in said
    falls = " ".join(plots.sentences(table(dipping)))
    assert "error surely falls toward the start in 2, on 2 curves: b on train data and b on test data" in falls
    assert "most surely b on train data from 1 to 0.5, by 5.00 percentage points (3.00 to 7.00;" in falls


def test_listings_have_a_row_a_part():
    path, test, wide = plots.listings(table(rising, sigmas=(0.1, 0.4), valley=True))
    assert path.heads == ["layer", "start (0)", "0.5", "trained (1)", "sure falls", "falls by at most"]
    assert path.rows[1] == ["b", "61.00", "31.00", "1.00", "0", "0.00"]
    assert [row[0] for row in test.rows] == ["a", "b", "all at once"]
    assert "Error in % of test data" in test.caption
    assert wide.rows[1] == ["b", "-", "-", "0.4 or more"]


def texts(axes: Any) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_curves_are_coloured_by_what_they_are_at_the_start_and_named_once():
    names = tuple(f"layer{k}" for k in range(12))

    def ordered(part: str, alpha: float, sigma: float, side: int) -> float:
        return 0.01 + (0.9 if part == WHOLE else 0.05 * int(part[5:])) * (1 - alpha)

    # the unmodified row asks for "a"
    def error(part: str, alpha: float, sigma: float, side: int) -> float:
        return 0.01 if part == "a" else ordered(part, alpha, sigma, side)

    figure = plots.path_curves(table(error, (*names, WHOLE)))
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["Error on train data", "Error on test data"]
    for axes in panels:
        assert texts(axes) == {"layer11", "layer10", "layer9", "layer2", "layer1", "layer0", "all at once"}
        ways = [line for line in axes.lines if len(line.get_xdata()) == len(ALPHAS)]
        assert len(ways) == 13
        assert sum(line.get_color() == plots.OTHERS for line in ways) == 6
        ends = {round(float(line.get_ydata()[0]), 6) for line in ways}
        assert ends == {round(100 * ordered(part, 0.0, 0.0, 0), 6) for part in (*names, WHOLE)}
        assert len(axes.collections) == 3
    assert "grey: the other 6" in figure.get_suptitle()


def test_valleys_show_every_cell_and_share_their_colours():
    from matplotlib.collections import QuadMesh

    sigmas = (0.1, 0.4)
    figure = plots.valley(table(rising, sigmas=sigmas, valley=True), "error", "train")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b", "all at once"]
    limits = set()
    for axes, part in zip(panels, ("a", "b", WHOLE), strict=True):
        (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
        found = np.asarray(mesh.get_array())
        truth = [
            [rising(part, alpha, abs(y), int(np.sign(y))) for alpha in ALPHAS] for y in (-0.4, -0.1, 0.0, 0.1, 0.4)
        ]
        assert found == pytest.approx(100 * np.array(truth))
        limits.add((mesh.norm.vmin, mesh.norm.vmax))
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["−0.4", "−0.1", "0", "0.1", "0.4"]
    assert len(limits) == 1


@given(st.lists(st.floats(0, 1), max_size=10))
def test_names_are_moved_apart(places):
    places = sorted(places)
    moved = plots.apart(places, 0.075)
    assert all(b - a >= 0.075 - 1e-9 for a, b in pairwise(moved))
    assert all(place <= 0.99 + 1e-9 for place in moved)


@pytest.mark.parametrize("valley", [False, True])
def test_a_real_landscape_is_said_and_drawn(valley, tmp_path):
    """From the network to the pictures, through a file: what cannot be measured is said, and no picture is needed for it."""
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    spec = ls.LandscapeSpec(alphas=ALPHAS, sigmas=(0.1, 1.0), draws=2, valley=valley)
    ls.landscape(model, trajectory, {"train": data, "test": data}, spec).save(tmp_path / "table.parquet")
    found = Table.open(tmp_path / "table.parquet")
    figures = plots.figures(found)
    valleys = {f"valley_{metric}_{split}" for metric in ("error", "cross_entropy") for split in ("train", "test")}
    assert set(figures) == {"path"} | (valleys if valley else {"path_sigma_0.1", "path_sigma_1"})
    for figure in figures.values():
        figure.canvas.draw()
    assert len(plots.listings(found)) == 3
    assert all(sentence.endswith(".") for sentence in plots.sentences(found))

    end = ls.Trajectory.of(final=ls.state_of(model))
    lost = ls.landscape(model, end, data, ls.LandscapeSpec(alphas=(0.5, 1.0), sigmas=(0.1,), draws=2))
    assert "path" not in plots.figures(lost)
    assert plots.listings(lost) == []
    said = plots.sentences(lost)
    assert said[0] == "No layer could be put on the way from its start to its trained values."
    assert "a, b and all at once: the way begins at the start, which is missing" in said[1]


def test_one_place_and_numbers_that_are_missing_can_be_drawn():
    torch.manual_seed(0)
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial | {"a.factor": torch.tensor(3e38)}, final=ls.state_of(model))
    single = ls.landscape(
        model,
        ls.Trajectory.of(initial=initial, final=ls.state_of(model)),
        data,
        ls.LandscapeSpec(alphas=(0.0,), sigmas=(0.1,), valley=True),
    )
    for figure in plots.figures(single).values():
        figure.canvas.draw()
    assert "cannot be said: no two places could be compared" in " ".join(plots.sentences(single))
    overflow = ls.landscape(
        model, trajectory, data, ls.LandscapeSpec(alphas=ALPHAS, sigmas=(0.1,), draws=2, valley=True)
    )
    assert "not finite" in set(overflow.frame["status"])
    for figure in plots.figures(overflow).values():
        figure.canvas.draw()
    assert plots.sentences(overflow)
