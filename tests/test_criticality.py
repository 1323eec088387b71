"""Criticality: against closed forms of linear networks, hand-made networks, and the search against the full grid."""

import json
import math
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor, nn

import layerscope as ls
from layerscope import stats
from layerscope.analyses import noisy, written
from layerscope.analyses.noisy import Cell, last
from layerscope.engine.task import Reference
from layerscope.errors import UseError

from .networks import BothSigns
from .test_zoo import everything, same

Data = list[tuple[Tensor, Tensor]]
SMALL = {"alphas": (0.0, 0.4, 0.7, 1.0), "sigmas": (0.05, 0.1, 0.2, 0.4, 0.8)}
GRID = {"search": "grid", "draws": 10}


class Margin(nn.Module):
    """Linear, two classes: the margin of x is 2 w.x, with noise of standard deviation sigma in w that of 2 sigma |x|."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.map, self.both = nn.Linear(len(w), 1, bias=False), BothSigns()
        with torch.no_grad():
            self.map.weight.copy_(w)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.map(x))


def linear(start: float = 0.1, n: int = 320) -> tuple[nn.Module, ls.Trajectory, Data]:
    """A linear classifier of points that it has all right; its start is another direction."""
    random = torch.Generator().manual_seed(0)
    w, other, x = (torch.randn(*size, generator=random) for size in ((5,), (5,), (n, 5)))
    model, y = Margin(w), (x @ w < 0).long()
    trajectory = ls.Trajectory.of(initial={"map.weight": start * other[None]}, final=ls.state_of(model))
    return model, trajectory, [(x[i : i + 48], y[i : i + 48]) for i in range(0, n, 48)]


def exact(trajectory: ls.Trajectory, data: Data, alpha: float, sigma: float) -> float:
    """The expected error Phi(-margin / (sigma |x|)), in the mean over samples."""
    start, end = (trajectory[step]["map.weight"][0].double() for step in (ls.INIT, ls.FINAL))
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    margin = (x.double() @ ((1 - alpha) * start + alpha * end)) * (1 - 2 * y)
    return float(norm.cdf(-(margin / (sigma * x.double().norm(dim=1))).numpy()).mean())


def answers(table: ls.Table) -> list[dict]:
    return table.where(metric="criticality").to_dict("records")


def test_expected_errors_are_those_of_the_closed_form():
    model, trajectory, data = linear()
    for search in ("grid", "sequential"):
        spec = ls.CriticalitySpec(
            search=search, draws=20, alphas=(0.0, 0.4, 1.0), sigmas=(0.05, 0.2, 1.0), eps=(0.1, 0.2)
        )
        cells = ls.criticality(model, trajectory, data, spec=spec).where(metric="expected_error")
        assert len(cells) == 9 if search == "grid" else len(cells) > 3
        for cell in cells.itertuples():
            truth = exact(trajectory, data, cell.alpha, cell.sigma)
            assert cell.low <= truth <= cell.high
            if search == "grid":  # draws of one margin hardly scatter more than draws of one sign of all samples could
                assert cell.value == pytest.approx(truth, abs=0.06)
            assert cell.low <= cell.value <= cell.high


@pytest.mark.parametrize("search", ["grid", "sequential"])
def test_the_minimum_is_that_of_the_closed_form(search):
    """Within one step of the grid, for several eps at once; the value is alpha^2 D^2 / sigma^2."""
    model, trajectory, data = linear()
    spec = ls.CriticalitySpec(search=search, draws=20, eps=(0.05, 0.1, 0.3), **SMALL)
    table = ls.criticality(model, trajectory, data, spec=spec)
    distance = float((trajectory[ls.FINAL]["map.weight"] - trajectory[ls.INIT]["map.weight"]).double().norm())
    grid = [Cell(alpha, sigma) for alpha in spec.alphas for sigma in spec.sigmas]
    rows = [row for row in answers(table) if row["part"] == "map"]
    assert [row["eps"] for row in rows] == [0.05, 0.1, 0.3]
    for row in rows:
        best = min(cell.ratio for cell in grid if exact(trajectory, data, *cell) <= row["eps"])
        assert row["distance"] == pytest.approx(distance)
        assert row["value"] == pytest.approx((row["alpha"] * distance / row["sigma"]) ** 2)
        step = spec.sigmas[1] / spec.sigmas[0]
        assert best / step * 0.999 <= row["alpha"] / row["sigma"] <= best * step * 1.001
        assert row["certificate"] >= row["error"]
    assert rows[0]["value"] >= rows[1]["value"] >= rows[2]["value"]
    network = [row for row in answers(table) if row["part"] == "whole network"]
    assert [row["value"] for row in network] == [row["value"] for row in rows]


def test_a_certificate_covers_the_truth_whatever_the_seed():
    """The winner of a search is where draws were lucky: its bound holds all the same."""
    model, trajectory, data = linear(n=96)
    missed = 0
    for seed in range(12):
        spec = ls.CriticalitySpec(seed=seed, alphas=(0.0, 1.0), sigmas=(0.1, 0.2, 0.4), most=32)
        for row in answers(ls.criticality(model, trajectory, data, spec=spec)):
            if row["part"] == "map":
                missed += exact(trajectory, data, row["alpha"], row["sigma"]) > row["certificate"]
    assert missed <= 1  # at 95 %, and three times as sure as asked for is usual for such bounds


@pytest.mark.parametrize("more", [{}, GRID])
def test_a_value_lies_between_its_bounds_and_so_does_the_best_that_there_is(more):
    """Of the closed form; whatever the seed, for the bounds hold for all cells at once."""
    model, trajectory, data = linear(n=96)
    distance = float((trajectory[ls.FINAL]["map.weight"] - trajectory[ls.INIT]["map.weight"]).double().norm())
    open_ = 0
    for seed in range(6):
        spec = ls.CriticalitySpec(seed=seed, eps=(0.05, 0.3), **(SMALL | more))
        grid = [Cell(alpha, sigma) for alpha in spec.alphas for sigma in spec.sigmas]
        for row in answers(ls.criticality(model, trajectory, data, spec=spec)):
            if row["part"] == "map" and row["status"] != "infeasible":
                least = min(cell.ratio for cell in grid if exact(trajectory, data, *cell) <= row["eps"])
                high = math.inf if math.isnan(row["high"]) else row["high"] * 1.001
                assert row["low"] * 0.999 <= (least * distance) ** 2 <= high
                assert row["low"] <= row["value"]
                open_ += row["low"] < row["value"]
    assert open_ > 0


@pytest.mark.parametrize(("search", "draws"), [("sequential", 10), ("grid", 10), ("grid", 7)])
@pytest.mark.parametrize(("wrong", "n"), [(5, 100), (7, 100), (33, 330), (13, 130), (3, 30)])
def test_an_eps_that_is_the_error_of_the_trained_network_allows_it(wrong, n, search, draws):
    """At most eps means that eps itself will do, where noise is too small to change anything."""
    model, trajectory, data = linear(n=n)
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    y[:wrong] = 1 - y[:wrong]
    spec = ls.CriticalitySpec(search=search, draws=draws, alphas=(1.0,), sigmas=(1e-7, 1e-6), eps=(wrong / n,))
    (row, _) = answers(
        ls.criticality(model, trajectory, [(x[i : i + 64], y[i : i + 64]) for i in range(0, n, 64)], spec=spec)
    )
    assert (row["sigma"], row["error"]) == (1e-6, wrong / n)


def test_a_start_that_surely_does_with_less_noise_leaves_no_doubt_that_the_value_is_zero():
    """At most noise its error is near eps, which draws leave open; but any noise will do."""
    model, _, data = linear()
    away = ls.Trajectory.of(initial={"map.weight": 1.3 * model.map.weight.detach()}, final=ls.state_of(model))
    sigmas = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
    near = exact(away, data, 0.0, 0.8) + 0.002
    for seed in range(3):
        spec = ls.CriticalitySpec(seed=seed, eps=(near,), alphas=(0.0, 1.0), sigmas=sigmas)
        row = answers(ls.criticality(model, away, data, spec=spec))[0]
        assert (row["status"], row["value"], row["high"]) == ("zero", 0, 0)


def test_what_no_draws_make_sure_is_said_beforehand():
    """128 draws without an error leave an expected error of 8 % possible; and eps below the network's own error is odd."""
    model, trajectory, data = idle()
    spec = ls.CriticalitySpec(eps=(0.05, 0.1), alphas=(0.6, 1.0), sigmas=(0.01, 0.1))
    table = ls.criticality(model, trajectory, data, spec=spec)
    (said,) = table.provenance["warnings"]
    assert said.startswith(
        "at eps = 0.05 no value has an upper end: 128 draws without a wrong sample do not make sure of"
    )
    assert "most=256 would" in said
    few, many = ({row["part"]: row for row in answers(table) if row["eps"] == eps} for eps in spec.eps)
    assert math.isnan(few["idle"]["high"])
    assert many["idle"]["high"] == many["idle"]["value"]
    assert "between a low and a high, which 3 of them lack" in few["whole network"]["reason"]
    table = ls.criticality(model, trajectory, data, spec=replace(spec, most=256))
    assert table.provenance["warnings"] == []
    assert [row["high"] == row["value"] for row in answers(table) if row["part"] == "idle"] == [True, True]
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    y[: len(y) // 4] = 1 - y[: len(y) // 4]
    table = ls.criticality(model, trajectory, [(x, y)], spec=replace(spec, eps=(0.1,)))
    assert "eps = 0.1 is below the trained network's own error of 0.25" in table.provenance["warnings"][0]


def test_draws_of_samples_do_not_move_a_cell_that_changes_nothing():
    """Without noise to speak of each draw has the error of the trained network on all data, whichever samples it has."""
    model, trajectory, ((x, y),) = trained(400)
    y = torch.where(torch.arange(len(y)) < 60, 1 - y, y)  # 15 % of them cannot be right
    spec = few(alphas=(1.0,), sigmas=(1e-6, 2e-6))
    table = ls.criticality(model, trajectory, [(x, y)], eps=0.3, spec=spec)
    values = table.where(metric="expected_error")["value"]
    assert values.tolist() == pytest.approx([table.provenance["error"]] * len(values), abs=1e-12)
    assert 0.1 < table.provenance["error"] < 0.2


class Idle(nn.Module):
    """A critical linear map, after it one that nothing depends on, and one whose scale does not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.needed, self.idle, self.scale = (
            nn.Linear(2, 2, bias=False),
            nn.Linear(2, 2, bias=False),
            nn.Parameter(torch.ones(1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.needed(x) * self.scale.abs() + 0 * self.idle(x)


def idle() -> tuple[nn.Module, ls.Trajectory, Data]:
    model = Idle()
    with torch.no_grad():
        model.needed.weight.copy_(10 * torch.eye(2))
    final = ls.state_of(model)
    start = final | {"needed.weight": -final["needed.weight"], "idle.weight": final["idle.weight"] + 1}
    start |= {"scale": torch.full((1,), 50.0)}
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    return model, ls.Trajectory.of(initial=start, final=final), [(x, torch.tensor([0, 1]).repeat(20))]


@pytest.mark.parametrize("more", [{}, GRID])
def test_networks_that_can_be_worked_out(more):
    """What nothing depends on can be put back whole, under any noise; a scale too, whatever it is; the opposite map cannot."""
    model, trajectory, data = idle()
    spec = ls.CriticalitySpec(eps=(0.3,), alphas=(0.0, 0.5, 0.6, 0.8, 1.0), sigmas=(0.1, 0.3, 1.0), **more)
    rows = {row["part"]: row for row in answers(ls.criticality(model, trajectory, data, spec=spec))}
    for name in ("idle", "(root)"):
        row = rows[name]
        assert [row[key] for key in ("status", "value", "alpha", "sigma", "error")] == ["zero", 0, 0, 1, 0]
    needed = rows["needed"]
    # A margin is 10 (2 alpha - 1) + sqrt(2) sigma z, so that at alpha = 0.5 half of the samples are wrong whatever sigma.
    assert norm.cdf(-10 * (2 * 0.6 - 1) / math.sqrt(2)) < 0.08
    assert [needed[key] for key in ("alpha", "sigma", "status")] == [0.6, 1.0, "on the edge"]
    assert needed["value"] == pytest.approx(0.36 * 8 * 10**2)  # D is the norm of 20 I: 20 sqrt(2)
    network = rows["whole network"]
    assert (network["value"], network["status"]) == (needed["value"], "on the edge")
    assert "needed" in network["reason"]


def test_an_end_of_either_grid_is_an_edge():
    """Of the scale that moved by 10, where the way is cut off; see above for where the best cells lie."""
    model, trajectory, data = idle()
    for alphas, status in (((0.6, 0.8), "on the edge"), ((0.0, 0.1, 0.6), "on the edge"), ((0.0, 0.6, 0.8), "ok")):
        spec = ls.CriticalitySpec(eps=(0.3,), alphas=alphas, sigmas=(0.1, 0.3, 0.9, 1.0))
        table = ls.criticality(model, trajectory, data, spec=spec)
        (row,) = [row for row in answers(table) if row["part"] == "needed"]
        assert row["alpha"] == 0.6
        ends = "alpha = 0.6 is an end of the grid" in row["reason"]
        assert ends == (status == "on the edge")


def test_the_training_data_among_splits():
    model, trajectory, data = linear(n=96)
    spec = ls.CriticalitySpec(alphas=(0.0, 1.0), sigmas=(0.1, 0.4))
    found = ls.criticality(model, trajectory, {"train": data, "test": data[:1]}, eps=0.1, spec=spec)
    same(found, ls.criticality(model, trajectory, data, eps=0.1, spec=spec))
    with pytest.raises(UseError, match="training data"):
        ls.criticality(model, trajectory, {"test": data}, spec=spec)


def test_what_no_draws_make_sure_is_said_of_any_eps():
    """A warning of what it would take: by a sum, not by so many draws."""
    model, trajectory, data = idle()
    spec = ls.CriticalitySpec(eps=(1e-12, 0.3), alphas=(0.0, 1.0), sigmas=(0.1, 1.0))
    (said,) = [w for w in ls.criticality(model, trajectory, data, spec=spec).provenance["warnings"] if "upper end" in w]
    assert "eps = 1e-12" in said
    assert f"most={noisy.enough(spec, 1e-12)}" in said
    fewer = noisy.enough(spec, 0.001) // 2
    price = noisy.price_of(spec)
    assert stats.capital(np.zeros(fewer), 0.001).low < price <= stats.capital(np.zeros(2 * fewer), 0.001).low


def test_what_has_no_answer_is_said():
    """With labels that the trained network has wrong no cell is feasible: no number, for the network neither."""
    model, trajectory, data = idle()
    data = [(x, 1 - y) for x, y in data]
    for more in ({}, GRID):
        rows = answers(
            ls.criticality(model, trajectory, data, eps=0.05, spec=ls.CriticalitySpec(alphas=(0.6, 1.0), **more))
        )
        assert {row["part"]: row["status"] for row in rows} == dict.fromkeys(
            ("(root)", "needed", "idle", "whole network"), "infeasible"
        )
        assert all(math.isnan(row["value"]) for row in rows)
        assert "the trained network has 1, and the smallest sigma is 0.003162" in rows[0]["reason"]


def test_ties_are_errors():
    """A map put back to zero gives equal outputs: without noise all are errors, and a little noise has half of them right."""
    model, trajectory, data = linear(start=0.0)
    spec = ls.CriticalitySpec(search="grid", draws=30, alphas=(0.0,), sigmas=(1e-3, 1.0), eps=(0.9,))
    (low, high) = ls.criticality(model, trajectory, data, spec=spec).where(metric="expected_error")["value"]
    assert low == high  # the sign of the noise alone decides
    model.map.weight.data.zero_()
    still = ls.Trajectory.of(initial=ls.state_of(model), final=ls.state_of(model))
    table = ls.criticality(model, still, data, eps=0.9, spec=spec)
    assert table.provenance["error"] == 1


def test_an_error_that_falls_with_sigma_is_reported():
    """A start that has all samples wrong: at alpha = 0 noise can only help, until half of them are right."""
    model, trajectory, data = linear()
    wrong = ls.Trajectory.of(
        initial={"map.weight": -0.1 * trajectory[ls.FINAL]["map.weight"]}, final=trajectory[ls.FINAL]
    )
    spec = ls.CriticalitySpec(search="grid", draws=20, alphas=(0.0, 1.0), sigmas=(0.01, 1.0))
    table = ls.criticality(model, wrong, data, spec=spec)
    assert table.provenance["monotonicity"]["pairs"] == 2
    (fall,) = table.provenance["monotonicity"]["falls"]
    assert (fall["part"], fall["alpha"], fall["sigma"]) == ("map", 0.0, [0.01, 1.0])
    for sigma, error in zip(fall["sigma"], fall["error"], strict=True):
        assert error == pytest.approx(exact(wrong, data, 0.0, sigma), abs=0.15)
    (said,) = [text for text in table.provenance["warnings"] if "at alpha = 0 the expected error falls" in text]
    assert "bisection" not in said  # all cells were asked
    assert ls.criticality(model, trajectory, data, spec=spec).provenance["monotonicity"]["falls"] == []


def test_the_search_finds_the_fall_among_what_it_looked_at():
    """At a level at which the few draws that it takes to decide a cell are enough to be sure of a fall."""
    model, trajectory, data = linear()
    wrong = ls.Trajectory.of(
        initial={"map.weight": -0.1 * trajectory[ls.FINAL]["map.weight"]}, final=trajectory[ls.FINAL]
    )
    spec = ls.CriticalitySpec(eps=(0.5,), sigmas=(0.001, 0.01, 0.1, 1.0), most=64, level=0.5)
    table = ls.criticality(model, wrong, data, spec=spec)
    looked = table.where(metric="expected_error", alpha=0.0)["sigma"].tolist()
    assert looked == [0.001, 1.0]
    assert [fall["sigma"] for fall in table.provenance["monotonicity"]["falls"] if fall["alpha"] == 0] == [looked]


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_last_that_holds(n, good):
    good, asked = min(n, good), []
    cells = [Cell(1.0, float(k)) for k in range(n)]
    found = last(cells, lambda cell: asked.append(cell) or cell.sigma < good)
    assert found == (cells[good - 1] if good else None)
    assert len(asked) <= 2 + max(0, math.ceil(math.log2(max(n - 1, 1))))


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 11))
def test_a_guess_changes_what_is_asked_and_nothing_else(n, good, guess):
    cells, asked = [Cell(1.0, float(k)) for k in range(n)], []
    guess = min(guess, n - 1)
    found = last(cells, lambda cell: asked.append(cell) or cell.sigma < good, cells[guess])
    assert found == (cells[min(n, good) - 1] if good else None)
    assert len(asked) == len(set(asked))
    if good == guess + 1 < n:
        assert len(asked) <= 3  # the last, the guess, and the one after


def trained(n: int = 4000) -> tuple[nn.Module, ls.Trajectory, Data]:
    """A small network that was trained to tell two rings apart."""
    torch.manual_seed(0)
    angle, y = 2 * math.pi * torch.rand(n), torch.arange(n) % 2
    x = (1 + y)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(n, 2)
    model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
    start, optimiser = ls.state_of(model), torch.optim.Adam(model.parameters(), 0.01)
    for k in range(150):
        rows = torch.arange(k * 64, k * 64 + 64) % n
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model, ls.Trajectory.of(initial=start, final=ls.state_of(model)), [(x, y)]


def test_the_search_finds_what_the_grid_finds_with_an_eightieth_of_the_samples():
    model, trajectory, data = trained()
    before = everything(model)
    spec = ls.CriticalitySpec(groups=("first=0.*", "middle=2.*"))
    fast = ls.criticality(model, trajectory, data, spec=spec)
    assert same(before, everything(model))
    slow = ls.criticality(model, trajectory, data, spec=replace(spec, search="grid", draws=4))
    sigmas = spec.sigmas
    for a, b in zip(answers(fast), answers(slow), strict=True):
        if a["part"] != "whole network" and b["value"]:
            steps = abs(math.log(a["value"] / b["value"])) / (2 * math.log(sigmas[1] / sigmas[0]))
            assert steps <= 1.001, (a["part"], a["alpha"], a["sigma"], b["alpha"], b["sigma"])
        elif a["part"] != "whole network":
            assert a["value"] == 0
    assert slow.where(part="whole network")["passes"].item() == 2 * 121 * 4 * 4000
    assert 80 * fast.where(part="whole network")["passes"].item() < 2 * 121 * 10 * 4000  # of 10 draws


def test_engines_batches_and_order_of_parts_do_not_change_the_grid():
    model, trajectory, data = linear(n=96)
    spec = ls.CriticalitySpec(alphas=(0.0, 1.0), sigmas=(0.1, 1.0), **GRID)
    a = ls.criticality(model, trajectory, data, spec=spec)
    b = ls.criticality(model, trajectory, data, spec=spec, plan=ls.Plan(engine="reference"))
    whole = [tuple(torch.cat(column) for column in zip(*data, strict=True))]
    c = ls.criticality(model, trajectory, whole, spec=spec)
    assert a.frame.equals(b.frame)
    assert a.frame.equals(c.frame)
    one, two = (ls.criticality(model, trajectory, data, spec=replace(spec, search="sequential")) for _ in "ab")
    assert one.frame.equals(two.frame)


def few(**more) -> ls.CriticalitySpec:
    return ls.CriticalitySpec(**({"alphas": (0.0, 0.5, 1.0), "sigmas": (0.01, 0.1, 1.0), "most": 16} | more))


def test_each_error_is_that_of_the_variant_on_all_samples():
    """With blocks as large as the data, a cell's mean over draws is that of so many Variants, bound by hand."""
    model, trajectory, data = linear(n=48)
    ((x, y),) = data
    table = ls.criticality(model, trajectory, data, eps=0.3, spec=few(block=48))
    (part,) = ls.Partition.by_layer(model)
    world = ls.World.of(model, trajectory, {})
    cells = table.where(metric="expected_error").to_dict("records")
    assert len(cells) >= 4
    for cell in cells:
        wrong = []
        for draw in range(cell["n"]):
            patch = ls.Variant.of(part, ls.Noise(cell["sigma"], cell["alpha"]), draw).patch(world)
            margins = ls.bind(model, trajectory[ls.FINAL], patch)(x)[:, 0] * (1 - 2 * y)
            wrong.append(float((margins <= 0).double().mean()))
        assert cell["value"] == pytest.approx(np.mean(wrong), abs=1e-12)
        assert len(set(wrong)) > 1 or cell["sigma"] < 0.1


class Tied(nn.Module):
    """A weight under two names, another in slices of which three are Parts, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(self.norm(torch.relu(self.first(x))))))


class Memory(nn.Module):
    """Recurrent: PyTorch keeps lists of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.reshape(len(x), 2, 2))[0][:, -1])


class Spectral(nn.Module):
    """Spectral norm's vectors follow the weight; an embedding writes to its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.words, self.head = nn.Embedding(3, 4, max_norm=0.5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.map(x)) + self.words((x[:, 0] > 0).long()))


class Hoards(nn.Module):
    """Keeps what it made of a weight for as long as the weight is the same object."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.seen = nn.Linear(4, 3), None

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is None or self.seen[0] is not self.map.weight:
            self.seen = self.map.weight, 2 * self.map.weight.detach()
        return x @ self.seen[1].T + self.map.bias


@pytest.mark.parametrize(("kind", "works"), [(Tied, True), (Memory, True), (Spectral, False), (Hoards, False)])
def test_values_written_to_one_place_give_what_those_put_in_afresh_give(kind, works, monkeypatch):
    """Or they are put in afresh: whether so is found out of each Part."""
    torch.manual_seed(0)
    model, start = kind().eval(), ls.state_of(kind())
    x = torch.randn(200, 4)
    with torch.no_grad():
        data = [(x, model(x).argmax(1))]
    trajectory, found, good = ls.Trajectory.of(initial=start, final=ls.state_of(model)), [], []
    outputs = noisy.Written.outputs
    for wrong in (False, True):

        def given(self, *args, wrong=wrong):
            good.append(self.good)
            return [] if wrong else outputs(self, *args)

        monkeypatch.setattr(noisy.Written, "outputs", given)
        found.append(ls.criticality(model, trajectory, data, eps=0.3, spec=few()))
        if not wrong:
            assert any(good) if works else not all(good)
            good.clear()
    assert not any(good)
    assert found[0].frame.equals(found[1].frame)
    assert len(found[0].where(metric="expected_error")) > 5


class Counted(nn.Linear):
    """Says when it is computed."""

    calls: ClassVar[list[tuple[int, int]]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(tuple(self.weight.shape))
        return super().forward(x)


class Residual(nn.Module):
    """Two maps with a way around the second, and an activation that writes where it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = Counted(4, 8), Counted(8, 8), Counted(8, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.last(self.act(self.second(x) + x))


class Branching(Residual):
    """Calls other modules as the samples' outputs have it: what was kept of one forward fits no other."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        for _ in range(1 + int(self.second(x).sum() > 0)):
            x = self.act(self.second(x) + x)
        return self.last(x)


@pytest.mark.parametrize("kind", [Residual, Branching])
def test_what_comes_before_a_part_is_computed_once_and_changes_nothing(kind, monkeypatch):
    torch.manual_seed(0)
    model, start = kind().eval(), ls.state_of(kind())
    x = torch.randn(200, 4)
    with torch.no_grad():
        data = [(x, model(x).argmax(1))]
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    monkeypatch.setattr(written, "WORTH", 0.0)
    tables, computed = [], []
    for engine in ("reference", "replay"):
        Counted.calls.clear()
        tables.append(ls.criticality(model, trajectory, data, eps=0.3, spec=few(), plan=ls.Plan(engine=engine)).frame)
        computed.append(Counter(Counted.calls))
    assert tables[0].equals(tables[1])
    assert computed[1][8, 4] < 0.8 * computed[0][8, 4]  # the first map: kept where another is the Part
    assert computed[1][3, 8] > computed[0][3, 8]  # the last: all are compared twice


def test_no_memory_keeps_nothing(monkeypatch):
    monkeypatch.setattr(written, "WORTH", 0.0)
    monkeypatch.setattr(written, "_Before", None)
    model, trajectory, data = linear(n=48)
    ls.criticality(model, trajectory, data, eps=0.3, spec=few(), plan=ls.Plan(memory="0B"))


def test_blocks_are_fair_and_small_ones_begin_large_ones():
    batches = [(torch.arange(6),), (torch.arange(6, 8),)]
    wrong = [torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0])]
    blocks = noisy.blocks_of(batches, Reference([[each] for each in wrong], [], [], 0.0), 0)
    seen = torch.cat([blocks[draw, 1].samples[0] for draw in range(4000)])
    counts = torch.bincount(seen, minlength=8)
    assert ((counts - 500).abs() < 5 * (4000 / 8 * 7 / 8) ** 0.5).all()
    for draw in range(20):
        assert torch.equal(blocks[draw, 4].samples[0][:2], blocks[draw, 2].samples[0])
        assert blocks[draw, 2].own == torch.cat(wrong)[blocks[draw, 2].samples[0]].mean()


def test_what_does_not_fit_is_made_again(monkeypatch):
    monkeypatch.setattr(noisy, "KEPT", 100)
    made = []
    few = noisy.Few(lambda key: made.append(key) or torch.full((20,), key, dtype=torch.uint8))
    for key in (1, 2, 3, 4, 5, 6, 6, 1, 5):
        assert few[key].eq(key).all()
    assert made == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("more", [{}, GRID])
def test_a_stopped_analysis_goes_on(more):
    """What is done is plain values, the table is the same, and no network of a Part that is done runs again."""

    class Stops(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            if len(self) == 2:
                raise KeyboardInterrupt

    model, trajectory, data = trained(n=200)
    spec, done, runs = few(**more), Stops(), []

    def forward(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        runs.append(len(batch[0]))
        return network(batch[0])

    whole = ls.criticality(model, trajectory, data, spec=spec, forward=forward)
    all_ = len(runs)
    with pytest.raises(KeyboardInterrupt):
        ls.criticality(model, trajectory, data, spec=spec, done=done, forward=forward)
    kept, before = json.loads(json.dumps(done)), len(runs)
    again = ls.criticality(model, trajectory, data, spec=spec, done=kept, forward=forward)
    assert list(done) == ["0", "2"]
    assert list(kept) == ["0", "2", "4"]
    assert again.frame.equals(whole.frame)
    assert again.provenance == whole.provenance
    assert len(runs) - before < all_ / 2


def test_a_forward_that_raises_is_a_row():
    class Picky(Margin):
        def forward(self, x: Tensor) -> Tensor:
            if float(self.map.weight.abs().max()) > 3.5:
                raise ValueError("too large")
            return super().forward(x)

    _, trajectory, data = linear(n=48)
    picky = Picky(trajectory[ls.FINAL]["map.weight"][0])
    for more in ({}, GRID):
        rows = answers(
            ls.criticality(
                picky, trajectory, data, spec=ls.CriticalitySpec(alphas=(1.0,), sigmas=(1.0,), eps=(0.3,), **more)
            )
        )
        assert [row["status"] for row in rows] == ["failed", "failed"]
        assert "ValueError: too large" in rows[0]["reason"]


def test_what_is_asked_is_checked():
    model, trajectory, data = linear(n=48)
    with pytest.raises(UseError, match="needs the values before training"):
        ls.criticality(model, ls.Trajectory.of(final=trajectory[ls.FINAL]), data)
    for wrong in ({"eps": (0.0,)}, {"eps": ()}, {"alphas": (0.5, 0.1)}, {"sigmas": (0.0, 0.1)}, {"sigmas": (1.5,)}):
        with pytest.raises(UseError, match="from small to large"):
            ls.CriticalitySpec(**wrong)
    for wrong in ({"draws": 0}, {"block": 0}, {"most": 0}, {"level": 1.0}, {"search": "fast"}):
        with pytest.raises(UseError):
            ls.CriticalitySpec(**wrong)
    table = ls.criticality(
        model, trajectory, data, eps=(0.1, 0.2), spec=ls.CriticalitySpec(alphas=(1.0,), sigmas=(0.1,))
    )
    assert table.provenance["spec"]["eps"] == (0.1, 0.2)


def test_a_pretrained_start_that_lacks_a_layer():
    model, trajectory, data = trained(n=200)
    lacking = {name: value for name, value in trajectory[ls.INIT].items() if name[0] != "4"}
    history = ls.Trajectory.of(pretrained=lacking, final=trajectory[ls.FINAL])
    rows = {
        row["part"]: row
        for row in answers(ls.criticality(model, history, data, spec=ls.CriticalitySpec(alphas=(1.0,), most=8)))
    }
    assert rows["4"]["status"] == rows["whole network"]["status"] == "not applicable"
    assert np.isfinite(rows["0"]["value"])
