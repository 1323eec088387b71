"""The whole experiment on networks with a known answer."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp
from torch import nn

import layerscope as ls
from layerscope.analyses.draws import over_draws
from layerscope.analyses.verdicts import verdict
from layerscope.measures.distance import distances
from layerscope.stats import Interval, paired_proportions

from .networks import signs


@pytest.fixture(scope="module")
def table() -> ls.Table:
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    many = [(x.repeat(100, 1), y.repeat(100)) for x, y in data]
    return ls.robustness(model, trajectory, {"test": many, "train": data}, ls.RobustnessSpec(draws=2))


def one(table: ls.Table, **where: object) -> dict:
    rows = table.where(**where)
    assert len(rows) == 1, rows
    return rows.iloc[0].to_dict()


def test_verdicts_by_hand(table):
    put_back = {"metric": "error_delta", "split": "test", "perturbation": "rewind", "step": 0}
    assert one(table, part="a", **put_back)["verdict"] == "destroyed"
    assert one(table, part="b", **put_back)["verdict"] == "ambient"
    assert one(table, part="a", **put_back)["n"] == 500
    assert one(table, part="a", **(put_back | {"step": 1}))["verdict"] == "ambient"


def test_small_samples_stay_undecided():
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    table = ls.robustness(model, trajectory, data, ls.RobustnessSpec(draws=2))
    assert one(table, part="b", metric="error_delta", step=0)["verdict"] == "undecided"


def test_whole_network_and_unmodified(table):
    at_start = one(table, part="whole network", metric="error", split="train", step=0)
    assert (at_start["value"], at_start["n"]) == (4 / 5, 5)
    assert one(table, perturbation="none", metric="error", split="test")["value"] == 1 / 5


def test_what_could_not_be_done_is_said():
    model, _, data = signs()
    trajectory = ls.Trajectory.of(final=ls.state_of(model))  # without a start nobody can say how it was drawn
    table = ls.robustness(model, trajectory, data, ls.RobustnessSpec(draws=2))
    row = one(table, part="a", perturbation="rerandomize")
    assert row["status"] == "not applicable"
    assert "no initial law is known for a.factor" in row["reason"]


def test_distances_by_hand(table):
    row = one(table, part="a", metric="distance_l2", to="start", step=1)
    assert (row["value"], row["n"]) == (2.0, 1)  # the factor moved by 2; the offset is a buffer and does not count
    assert one(table, part="a", metric="distance_max", to="substituted", step=0)["value"] == 2.0
    assert one(table, part="b", metric="distance_max", to="start", step=0)["value"] == 0.0


def test_distances_against_numpy():
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)} for _ in range(2))
    as_tensors = [{k: torch.tensor(v) for k, v in s.items()} for s in (a, b)]
    flat = np.concatenate([(a[k] - b[k]).ravel() for k in a])
    l2, largest = distances(*as_tensors)
    assert l2["value"] == pytest.approx(np.linalg.norm(flat) / np.sqrt(flat.size), rel=1e-12)
    assert largest["value"] == np.abs(flat).max()


def test_draws_are_independent_and_their_mean_has_an_interval():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    initial = ls.state_of(model)
    x, y = torch.randn(300, 4), torch.randint(3, (300,))
    trajectory = ls.Trajectory.of(initial=initial, final={k: 2 * v for k, v in initial.items()})
    table = ls.robustness(model, trajectory, [(x, y)], ls.RobustnessSpec(draws=4))
    rows = table.where(part="2", perturbation="rerandomize", metric="error")
    draws, mean = rows[rows["draw"].notna()], rows[rows["draw"].isna()].iloc[0]
    assert draws["value"].nunique() > 1
    assert mean["value"] == pytest.approx(draws["value"].mean())
    half = (
        3.182446305 * draws["value"].std() / 2
    )  # Student's t quantile at 0.975 for 3 degrees of freedom, from a table
    assert mean["high"] - mean["low"] == pytest.approx(2 * half, rel=1e-6)
    assert (mean["interval"], mean["n"]) == ("draws", 4)
    again = ls.robustness(model, trajectory, [(x, y)], ls.RobustnessSpec(draws=2))
    assert list(again.where(part="2", perturbation="rerandomize", metric="error")["value"][:2]) == list(
        draws["value"][:2]
    )


def drawn(changes: list[float], low: float = math.nan, high: float = math.nan) -> list[dict[str, Any]]:
    """Rows of draws: of an error, and of its change from 0.1, which 100 samples tell to within `low` and `high`."""
    place = {"part": "a", "split": "test", "perturbation": "rerandomize", "status": "ok", "n": 100, "level": 0.95}
    return [
        place | {"metric": metric, "draw": draw, "value": value, "low": value - below, "high": value + above}
        for draw, change in enumerate(changes)
        for metric, value, below, above in (("error", 0.1 + change, 1.0, 1.0), ("error_delta", change, low, high))
    ]


def test_draws_that_agree_are_known_no_better_than_by_the_samples_of_one():
    """Three draws that change nothing do not say that none would: of an error as of its change, which samples tell more of."""
    error, change = over_draws(drawn([0.2] * 3, 0.03, 0.04), 0.95)
    for row, value in ((error, 0.3), (change, 0.2)):
        assert (row["value"], row["low"], row["high"]) == pytest.approx((value, value - 0.03, value + 0.04))
        assert (row["n"], row["interval"], row["status"], row["level"]) == (3, "draws", "ok", 0.95)
        assert row["reason"] == "all 3 draws give the same value: the interval is what the samples of one leave open"
    error, change = over_draws(drawn([0.2, 0.2, 0.2001], 0.03, 0.04), 0.95)
    assert (change["low"], change["high"]) == pytest.approx(
        (change["value"] - 0.03 / math.sqrt(2), change["value"] + 0.04 / math.sqrt(2)), abs=1e-4
    )
    assert change["reason"].startswith("2 of 3 draws give the same value")
    error, change = over_draws(drawn([0.2, 0.2, 0.3], 0.03, 0.04), 0.95)
    assert (change["low"], change["high"]) == pytest.approx(ttest_1samp([0.2, 0.2, 0.3], 0).confidence_interval())
    assert "reason" not in change
    error, change = over_draws(drawn([0.2] * 3), 0.95)
    for row in (error, change):
        assert "low" not in row
        assert row["reason"] == "all 3 draws give the same value, which does not say how far others lie from it"


def test_draws_that_agree_and_are_known_exactly_are_not_sure_for_that():
    """Bounds of certified answers hold for these data, and have no width once all are used: by hand, 20 of 100 went wrong."""
    _, exact = over_draws(drawn([0.2] * 3, 0.0, 0.0), 0.95, bounded=True)
    ends = paired_proportions(20, 0, 100)
    assert (exact["low"], exact["high"]) == pytest.approx(ends)
    error, change = over_draws(drawn([-0.2] * 3, 0.01, 0.02), 0.95, bounded=True)
    low, high = paired_proportions(0, 20, 100)
    assert (change["low"], change["high"]) == pytest.approx((low - 0.01, high + 0.02))
    assert error["value"] == pytest.approx(-0.1)


def test_a_layer_whose_draws_agree_is_judged_by_the_samples():
    """What follows is dead, so that no draw changes anything: on few samples that decides nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    start = ls.state_of(model)
    with torch.no_grad():
        for tensor in (model[2].weight, model[2].bias):
            tensor.zero_()
        model[2].bias[0] = 1.0
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    for n, expected in ((10, "undecided"), (2000, "ambient")):
        data = [(torch.randn(n, 4), torch.zeros(n, dtype=torch.long))]
        table = ls.robustness(model, trajectory, data, ls.RobustnessSpec(draws=3))
        rows = table.where(part="0", perturbation="rerandomize", metric="error_delta")
        mean = rows[rows["draw"].isna()].iloc[0]
        assert (mean["value"], mean["n"], mean["verdict"]) == (0, 3, expected)
        assert (mean["low"], mean["high"]) == pytest.approx(paired_proportions(0, 0, n))


def test_no_start_is_no_crash():
    model, initial, data = signs()
    middle = {name: 2 * value for name, value in initial.items()}
    trajectory = ls.Trajectory.of(epoch_5=middle, final=ls.state_of(model))
    table = ls.robustness(model, trajectory, data, ls.RobustnessSpec(draws=1))
    assert set(table.frame["step"].dropna()) == {5, 6}
    assert "start" not in set(table.frame["to"])


@pytest.mark.parametrize(
    ("low", "high", "gap", "expected"),
    [
        (0.0, 0.08, 0.9, "ambient"),
        (0.0, 0.10, 0.9, "undecided"),
        (0.10, 0.20, 0.9, "critical"),
        (0.46, 0.50, 0.9, "destroyed"),
        (-0.1, 0.0, 0.0, "undecided"),
        (0.5, 0.6, -0.1, "undecided"),
        (math.nan, math.nan, 0.9, "undecided"),
    ],
)
def test_the_rule(low, high, gap, expected):
    assert verdict(Interval(low, high), gap) == expected


def test_the_order_of_the_splits_does_not_decide_the_verdicts(table):
    """The gap is that of the test data, whichever split comes first."""
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    many = [(x.repeat(100, 1), y.repeat(100)) for x, y in data]
    wrong = [(x, 1 - y) for x, y in data]  # the training error is 4/5: seen from there, there is no gap
    spec = ls.RobustnessSpec(draws=2)
    first = ls.robustness(model, trajectory, {"train": wrong, "test": many}, spec)
    put_back = {"metric": "error_delta", "split": "test", "perturbation": "rewind", "step": 0}
    assert one(first, part="a", **put_back)["verdict"] == "destroyed"
    assert set(ls.robustness(model, trajectory, {"train": many}, spec).frame["verdict"]) == {""}


def test_a_constant_law_has_one_draw_with_the_interval_of_the_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    final = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=ls.state_of(model), final=final)
    data = [(torch.randn(200, 4), torch.randint(3, (200,)))]
    table = ls.robustness(model, trajectory, data, ls.RobustnessSpec(draws=4))
    rows = table.where(part="1", perturbation="rerandomize", metric="error_delta")
    assert rows["draw"].isna().tolist() == [False, True]
    mean = rows.loc[rows["draw"].isna()].iloc[0]
    assert (mean["n"], mean["interval"]) == (200, "population")
    assert "all draws are the same" in mean["reason"]
    assert mean["verdict"] != ""
    back = one(table, part="1", perturbation="rewind", metric="error_delta", step=0)
    assert (mean["value"], mean["low"], mean["high"]) == (back["value"], back["low"], back["high"])
    assert table.where(part="0", perturbation="rerandomize", metric="error_delta")["draw"].count() == 4
