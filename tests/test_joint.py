"""The joint search: against the full grid of a network of two modules, whose expected errors numpy computes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layerscope as ls
from layerscope.analyses.joint import Joint, hull
from layerscope.analyses.noisy import Cell

from .networks import BothSigns
from .test_bounds import trained
from .test_zoo import everything, same

Data = list[tuple[Tensor, Tensor]]
ALPHAS, SIGMAS = (0.0, 0.25, 0.5, 0.75, 1.0), (0.05, 0.1, 0.2, 0.4, 0.8)


def two_layers(n: int = 200) -> tuple[nn.Module, ls.Trajectory, Data]:
    """A linear network of two layers that has all right, from a start where the first layer matters more."""
    random = torch.Generator().manual_seed(1)
    first, x = torch.randn(3, 5, generator=random), torch.randn(n, 5, generator=random)
    last = torch.tensor([[1.5, -1.0, 0.5]])
    model = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Linear(3, 1, bias=False), BothSigns())
    with torch.no_grad():
        model[0].weight.copy_(first)
        model[1].weight.copy_(last)
    start = {"0.weight": 0.3 * torch.randn(3, 5, generator=random), "1.weight": 0.5 * last}
    y = (x @ first.T @ last.T < 0).long()[:, 0]
    return model, ls.Trajectory.of(initial=start, final=ls.state_of(model)), [(x[:128], y[:128]), (x[128:], y[128:])]


def truth(trajectory: ls.Trajectory, data: Data, draws: int = 600) -> dict[tuple[float, ...], float]:
    """(alpha, sigma, alpha, sigma) of both layers -> expected error, by numpy's draws, the same for all."""
    random = np.random.default_rng(0)
    x, y = (torch.cat(column).double().numpy() for column in zip(*data, strict=True))
    start, end = ({k: v.double().numpy() for k, v in trajectory[step].items()} for step in (ls.INIT, ls.FINAL))
    u, v = random.normal(size=(draws, 3, 5)), random.normal(size=(draws, 3))
    at = lambda name, a: (1 - a) * start[name] + a * end[name]  # noqa: E731
    found = {}
    for a, s in itertools.product(ALPHAS, SIGMAS):
        hidden = np.einsum("nj,dij->dni", x, at("0.weight", a) + s * u)
        for b, t in itertools.product(ALPHAS, SIGMAS):
            z = np.einsum("dni,di->dn", hidden, at("1.weight", b)[0] + t * v)
            found[a, s, b, t] = float((z * (1 - 2 * y) <= 0).mean())
    return found


def distances(trajectory: ls.Trajectory) -> list[float]:
    return [float((trajectory[ls.FINAL][n] - trajectory[ls.INIT][n]).double().norm()) for n in ("0.weight", "1.weight")]


def value(where: tuple[float, ...], d: list[float], objective: str) -> float:
    terms = [(where[i] * d[i // 2] / where[i + 1]) ** 2 for i in (0, 2)]
    return sum(terms) if objective == "ratio" else sum(k * np.log1p(t / k) for k, t in zip((15, 3), terms, strict=True))


@pytest.mark.parametrize("objective", ["ratio", "log"])
def test_the_search_finds_about_the_best_of_the_full_grid(objective):
    """Of all 625 points: what it finds is feasible, not better than the best, and at most a step of the grid worse."""
    model, trajectory, data = two_layers()
    before, every, d = everything(model), truth(trajectory, data), distances(trajectory)
    spec = ls.BoundsSpec(eps=(0.2,), alphas=ALPHAS, sigmas=SIGMAS, objective=objective, most=128, draws=200)
    table = ls.bounds(model, trajectory, data, spec)
    assert same(before, everything(model))
    for eps in spec.eps:
        metric = "joint_criticality" if objective == "ratio" else "joint_log_criticality"
        one, two, whole = (row for row in table.where(metric=metric, eps=eps).to_dict("records"))
        where = one["alpha"], one["sigma"], two["alpha"], two["sigma"]
        assert whole["status"] == "ok"
        assert every[where] <= eps
        assert whole["error"] == pytest.approx(every[where], abs=0.05)
        assert whole["value"] == pytest.approx(value(where, d, objective))
        assert [one["distance"], two["distance"]] == pytest.approx(d)
        best = min(value(other, d, objective) for other, error in every.items() if error <= eps)
        sure = min(value(other, d, objective) for other, error in every.items() if error <= 0.6 * eps)
        assert best * 0.999 <= whole["value"] <= sure * 1.5


def test_a_certificate_covers_the_truth_whatever_the_seed():
    """The search takes what was lucky in its own draws; fresh ones bound what it found."""
    model, trajectory, data = two_layers(96)
    every, missed = truth(trajectory, data), 0
    for seed in range(8):
        spec = ls.BoundsSpec(eps=(0.2,), alphas=(0.0, 1.0), sigmas=(0.1, 0.4), seed=seed, most=32, draws=40, level=0.8)
        rows = ls.bounds(model, trajectory, data, spec).where(metric="joint_criticality").to_dict("records")
        if rows[-1]["status"] != "infeasible":
            where = tuple(row[name] for row in rows[:2] for name in ("alpha", "sigma"))
            missed += every[where] > rows[-1]["certificate"] + 0.005
    assert missed <= 2  # at 90 % each, and such bounds hold more often than asked for


def test_what_is_said_rests_on_draws_that_nothing_was_chosen_by(monkeypatch):
    """The search has draws below `most`; the certificate those after, each once; the test data later ones still."""
    asked, error, wrong = [], Joint._error, Joint.wrong

    def watched(self, point, draw):
        asked.append((len(point), draw))
        return error(self, point, draw)

    def tested(self, point, draw, block):
        asked.append((len(point), draw))
        return wrong(self, point, draw, block)

    monkeypatch.setattr(Joint, "_error", watched)
    monkeypatch.setattr(Joint, "wrong", tested)
    model, trajectory, data = two_layers(96)
    spec = ls.BoundsSpec(eps=(0.2,), alphas=(0.5, 1.0), sigmas=(0.1, 0.4), block=8, most=32, draws=40)
    table = ls.bounds(model, trajectory, {"train": data, "test": data}, spec)
    assert table.where(metric="joint_criticality")["status"].iloc[-1] in ("ok", "unsure")
    noisy = [draw for modules, draw in asked if modules]
    certified = noisy.index(32)
    assert certified > 0
    assert max(noisy[:certified]) < 32
    assert noisy[certified : certified + 40] == list(range(32, 72))
    assert noisy[certified + 40 :] == list(range(72, 72 + 96 // 8))


def test_a_price_list_is_the_lower_hull():
    """Of cells by error and term: gains fall from one to the next, and no cell lies below the lines between them."""
    random = np.random.default_rng(0)
    cells = [Cell(float(k), 1.0) for k in range(30)]
    errors = {cell: float(e) for cell, e in zip(cells, random.random(30), strict=True)}
    terms = {cell: float(t) for cell, t in zip(cells, random.random(30), strict=True)}
    found = hull(errors, terms)
    gains = [gain for _, gain in found]
    assert gains[0] == np.inf
    assert gains == sorted(gains, reverse=True)
    x, y = ([of[cell] for cell, _ in found] for of in (errors, terms))
    assert x[0] == min(errors.values())
    assert y[-1] == min(terms.values())
    for cell in cells:
        if errors[cell] <= x[-1]:
            assert terms[cell] >= np.interp(errors[cell], x, y) - 1e-12


def test_the_answer_hardly_depends_on_the_seed():
    """Moves of one module at a time end where none gains alone, each time elsewhere (1,750, 6,923 and 375); trades do not."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
    model, trajectory, data = trained(model=nn.Sequential(*layers))
    spec = ls.BoundsSpec(alphas=ALPHAS, sigmas=(0.03, 0.06, 0.1, 0.18, 0.3), objective="ratio", most=128, draws=8)
    tables = (ls.bounds(model, trajectory, data["train"], replace(spec, seed=seed)) for seed in range(3))
    found = [table.where(metric="joint_criticality", part="whole network")["value"].item() for table in tables]
    assert max(found) <= 1.5 * min(found)


def test_nothing_is_found_where_nothing_is():
    model, trajectory, data = two_layers(96)
    wrong = [(x, 1 - y) for x, y in data]
    spec = ls.BoundsSpec(alphas=(0.5, 1.0), sigmas=(0.1, 0.4), most=32, draws=8)
    table = ls.bounds(model, trajectory, wrong, spec)
    for metric in ("joint_criticality", "joint_log_criticality", "theorem_3.2", "pac_bayes_kl", "corollary_3.3"):
        (row,) = table.where(metric=metric).to_dict("records")
        assert row["status"] == "infeasible"
        assert "surely at most 0.1: the trained network has 1" in row["reason"]
    assert np.isfinite(table.where(metric="parameter_count")["value"].item())


def test_batches_do_not_change_what_a_point_is_worth():
    """Draws are addressed: the same call twice gives the same table, in whatever order the Parts come."""
    model, trajectory, data = two_layers(96)
    spec = ls.BoundsSpec(eps=(0.2,), alphas=(0.5, 1.0), sigmas=(0.1, 0.4), most=32, draws=32)
    one, two = (ls.bounds(model, trajectory, data, spec) for _ in "ab")
    assert one.frame.equals(two.frame)
