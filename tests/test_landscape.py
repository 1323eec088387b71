"""Landscapes: against closed forms of a linear classifier, loops that write values in place, and intervals by hand."""

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm, ttest_1samp
from torch import Tensor, nn

import layerscope as ls
from layerscope import metrics
from layerscope.errors import UseError
from layerscope.perturb import Edit, Variant
from layerscope.plots import landscape as plots

from .networks import signs
from .test_compare import inside
from .test_criticality import Data, Margin, exact, linear
from .test_zoo import everything, same

ALPHAS = (0.0, 0.3, 0.7, 1.0)


class Small(nn.Module):
    """Two linear maps and a batch norm between them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.norm, self.last = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
            self.norm.running_mean.copy_(torch.randn(6))  # pyright: ignore[reportOptionalMemberAccess]
            self.norm.running_var.copy_(torch.rand(6) + 0.5)  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def small(n: int = 90) -> tuple[nn.Module, ls.Trajectory, dict[str, Data]]:
    """A network whose labels are its own decisions but for a few: error rises on the way to another network."""
    start, model = Small(1).eval(), Small(2).eval()
    random = torch.Generator().manual_seed(0)
    data: dict[str, Data] = {}
    for split in ("train", "test"):
        x = torch.randn(n, 3, generator=random)
        y = model(x).argmax(1).detach()
        y[::7] = torch.randint(3, y[::7].shape, generator=random)
        data[split] = [(x[i : i + 32], y[i : i + 32]) for i in range(0, n, 32)]
    return model, ls.Trajectory.of(initial=ls.state_of(start), final=ls.state_of(model)), data


def outcomes(model: nn.Module, trajectory: ls.Trajectory, data: Data, names: list[str], alpha: float) -> dict[str, Any]:
    """Of each sample, with these tensors written in place: whether it is wrong, and its loss."""
    start, end = trajectory[ls.INIT], trajectory[ls.FINAL]
    values = dict(end)
    for name in names:
        values[name] = ((1 - alpha) * start[name].double() + alpha * end[name].double()).float()
    other = Small(0).eval()
    other.load_state_dict(values)
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    with torch.no_grad():
        logits = other(x)
        losses = nn.functional.cross_entropy(logits.double(), y, reduction="none")
    return {"error": (logits.argmax(1) != y).numpy(), "cross_entropy": losses.numpy()}


def tensors(model: nn.Module, part: str) -> list[str]:
    """The parameters of a layer, or all of them; buffers are none."""
    return [name for name, _ in model.named_parameters() if part == "whole network" or name.startswith(f"{part}.")]


PARTS = ("first", "norm", "last", "whole network")


def test_curves_are_those_of_values_written_in_place():
    model, trajectory, data = small()
    table = ls.landscape(model, trajectory, data, ls.LandscapeSpec(alphas=ALPHAS))
    assert tuple(table.parts()) == PARTS
    for part in PARTS:
        for split, batches in data.items():
            for alpha in ALPHAS:
                truth = outcomes(model, trajectory, batches, tensors(model, part), alpha)
                at = table.where(part=part, split=split, alpha=alpha, perturbation="interpolate")
                for metric, values in truth.items():
                    (row,) = at[at["metric"] == metric].to_dict("records")
                    assert row["value"] == pytest.approx(values.mean(), rel=1e-5)
                    assert (row["n"], row["interval"], row["status"]) == (90, "population", "ok")


def test_the_ends_of_the_way_are_the_trained_network_and_the_rewound_one_exactly():
    """At 1 the unmodified network, at 0 the Part put back; all at once as several edits, which a variant can have too."""
    model, trajectory, data = small()
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0))
    table = ls.landscape(model, trajectory, data, spec)
    parts = {part.name: (part,) for part in ls.Partition.by_layer(model)}
    parts |= {"whole network": tuple(part for (part,) in parts.values())}
    rewound = {
        name: Variant(tuple(Edit(part, ls.Rewind(ls.INIT)) for part in some), buffers="keep")
        for name, some in parts.items()
    }
    for split, batches in data.items():
        put_back = ls.evaluate(model, trajectory, list(rewound.values()), batches)
        for name, variant in rewound.items():
            for metric in ("error", "cross_entropy", "error_delta"):
                (start, end) = table.where(part=name, split=split, metric=metric)["value"]
                assert start == put_back.where(variant=variant.id, metric=metric)["value"].item()
                assert end == table.where(perturbation="none", split=split, metric=metric)["value"].item()


def test_changes_along_the_way_are_paired_and_simultaneous():
    """Bonett and Price's interval and Student's, by hand, at 1 - 5 % / (2 splits x 2 metrics x 4 Parts x 6 pairs)."""
    model, trajectory, data = small()
    table = ls.landscape(model, trajectory, data, ls.LandscapeSpec(alphas=ALPHAS))
    level = 1 - 0.05 / (2 * 2 * 4 * 6)
    assert table.provenance["simultaneous"] == {"answers": 96, "level": 0.95}
    z, seen = norm.ppf((1 + level) / 2), 0
    for part in PARTS:
        for split, batches in data.items():
            truth = {a: outcomes(model, trajectory, batches, tensors(model, part), a) for a in ALPHAS}
            for a, b in combinations(ALPHAS, 2):
                at = table.where(part=part, split=split, alpha=a, alpha_b=b)
                (error,) = at[at["metric"] == "error_worsening"].to_dict("records")
                more = int((truth[a]["error"] & ~truth[b]["error"]).sum())
                fewer = int((truth[b]["error"] & ~truth[a]["error"]).sum())
                p, q = (more + 1) / 92, (fewer + 1) / 92
                half = z * math.sqrt((p + q - (p - q) ** 2) / 92)
                assert [error[name] for name in ("value", "low", "high")] == pytest.approx(
                    [(more - fewer) / 90, p - q - half, p - q + half]
                )
                (loss,) = at[at["metric"] == "cross_entropy_worsening"].to_dict("records")
                change = truth[a]["cross_entropy"] - truth[b]["cross_entropy"]
                ends = ttest_1samp(change, 0).confidence_interval(level)
                assert (loss["value"], loss["low"], loss["high"]) == pytest.approx((change.mean(), *ends), rel=1e-3)
                assert (loss["interval"], loss["level"], loss["n"]) == ("population", 0.95, 90)
                seen += len(at)
    assert seen == 96 == len(table.frame[table.frame["metric"].str.endswith("_worsening")])


def test_expected_errors_under_noise_are_those_of_the_closed_form():
    model, trajectory, data = linear(n=60)
    spec = ls.LandscapeSpec(
        alphas=(0.0, 0.5, 1.0), sigmas=(0.3, 1.0), draws=60, metrics=("error",), level=0.999, parts=("map",)
    )
    table = ls.landscape(model, trajectory, {"train": data}, spec)
    means = table.where(metric="error", perturbation="noise")
    means = means[means["draw"].isna()]
    assert len(means) == 6
    for row in means.itertuples():
        assert row.low <= exact(trajectory, data, row.alpha, row.sigma) <= row.high
        assert (row.n, row.interval) == (60, "draws")
        each = table.where(metric="error", perturbation="noise", alpha=row.alpha, sigma=row.sigma)["value"].iloc[:60]
        ends = ttest_1samp(each, 0).confidence_interval(0.999)
        assert row.value == pytest.approx(each.mean())
        if not row.reason:
            assert (row.low, row.high) == pytest.approx(tuple(ends))
        else:  # a little wider, where too many draws are the same
            assert ends.low - 0.001 < row.low < ends.low < ends.high < row.high < ends.high + 0.001
            assert (
                row.reason
                == "12 of 60 draws give the same value: the interval is as wide as what the samples of 49 leave open"
            )
    assert sum(means["reason"] == "") == 5


def one_sided(trajectory: ls.Trajectory, data: Data, alpha: float, sigma: float, side: int) -> float:
    """The expected error where the noise has an inner product of this sign with the start: of two joint normal variables
    (what the noise adds to a margin, and the inner product) the share of one quadrant, twice."""
    start, end = (trajectory[step]["map.weight"][0].double().numpy() for step in (ls.INIT, ls.FINAL))
    found = []
    for x, y in data:
        for point, label in zip(x.double().numpy(), y.numpy(), strict=True):
            toward = point * (1 - 2 * int(label))
            margin = toward @ ((1 - alpha) * start + alpha * end)
            a, b = toward / np.linalg.norm(toward), side * start / np.linalg.norm(start)
            law = multivariate_normal(mean=[0, 0], cov=[[1, -a @ b], [-a @ b, 1]])  # of (a u, -b u)
            found.append(2 * law.cdf([-margin / (sigma * np.linalg.norm(toward)), 0]))
    return float(np.mean(found))


def test_each_side_of_the_valley_has_the_errors_of_its_half_of_the_noise():
    model, trajectory, data = linear(start=3.0, n=40)
    spec = ls.LandscapeSpec(
        alphas=(0.0, 1.0), sigmas=(1.0,), draws=80, valley=True, metrics=("error",), level=0.999, parts=("map",)
    )
    table = ls.landscape(model, trajectory, data, spec)
    means = table.where(metric="error", perturbation="noise")
    means = means[means["draw"].isna()]
    assert len(means) == 4
    truths = {
        (row.alpha, row.side): one_sided(trajectory, data, row.alpha, row.sigma, row.side) for row in means.itertuples()
    }
    for row in means.itertuples():
        assert row.low <= truths[row.alpha, row.side] <= row.high
    assert abs(truths[1.0, 1] - truths[1.0, -1]) > 0.02  # so that a wrong side would be seen
    lows, highs = (means.set_index(["alpha", "side"])[end] for end in ("low", "high"))
    assert not lows[1.0, 1] <= truths[1.0, -1] <= highs[1.0, 1]
    both = [np.mean([truths[alpha, 1], truths[alpha, -1]]) for alpha in (0.0, 1.0)]
    assert both == pytest.approx([exact(trajectory, data, alpha, 1.0) for alpha in (0.0, 1.0)], abs=1e-4)


def test_a_draw_serves_both_sides():
    """The two are opposite, on the sides that they say, and the draw itself is one of them."""
    model, trajectory, _ = small()
    start, final = trajectory[ls.INIT], trajectory[ls.FINAL]
    parts = [*ls.Partition.by_layer(model), ls.Part("two", ("first.weight", "last.weight"))]
    sides = set()
    for part in parts:
        for draw in range(4):
            made = {
                side: ls.materialize(
                    model, trajectory, Variant.of(part, ls.Noise(0.5, 0.25, side), draw, buffers="keep")
                ).state_dict()
                for side in (-1, 0, 1)
            }
            own = [name for name in part.tensors if "running" not in name and "tracked" not in name]
            centre = {name: 0.25 * final[name] + 0.75 * start[name] for name in own}
            for side in (-1, 1):
                inner = sum(float(((made[side][name] - centre[name]) * start[name]).sum()) for name in own)
                assert np.sign(inner) == side
            for name in own:
                assert torch.allclose(made[1][name] + made[-1][name], 2 * centre[name], atol=1e-5)
            (equal,) = [side for side in (-1, 1) if all(torch.equal(made[0][n], made[side][n]) for n in own)]
            sides.add(equal)
            variant = Variant.of(part, ls.Noise(0.5, 0.25, 1), draw)
            assert Variant.from_dict(variant.to_dict()) == variant
    assert sides == {-1, 1}


def test_changes_under_noise_are_paired_by_draws():
    model, trajectory, data = small()
    spec = ls.LandscapeSpec(alphas=(0.0, 0.5, 1.0), sigmas=(0.2, 0.4), draws=6, parts=("last", "whole network"))
    table = ls.landscape(model, trajectory, data["test"], spec)
    level = 1 - 0.05 / (1 * 2 * 2 * 3 * 3)
    rows = table.where(perturbation="noise", metric="cross_entropy")
    draws = rows[rows["draw"].notna()].set_index(["part", "sigma", "alpha", "draw"])["value"]
    found = table.where(perturbation="noise", metric="cross_entropy_worsening")
    assert len(found) == 2 * 2 * 3
    for row in found.itertuples():
        change = draws[row.part, row.sigma, row.alpha] - draws[row.part, row.sigma, row.alpha_b]
        ends = ttest_1samp(change, 0).confidence_interval(level)
        assert (row.value, row.low, row.high) == pytest.approx((change.mean(), *ends))
        assert (row.n, row.interval) == (6, "draws")
    errors = table.where(perturbation="noise", metric="error_worsening")
    assert errors["low"].between(-1, 1).all()
    assert errors["high"].between(-1, 1).all()


def hardly_moved(seed: int, n: int = 200) -> tuple[nn.Module, ls.Trajectory, Data]:
    """A linear classifier that has all points right, and a start in almost the same direction."""
    random = torch.Generator().manual_seed(seed)
    w, x = torch.randn(5, generator=random), torch.randn(n, 5, generator=random)
    start = 0.98 * w + 0.03 * torch.randn(5, generator=random)
    model = Margin(w)
    trajectory = ls.Trajectory.of(initial={"map.weight": start[None]}, final=ls.state_of(model))
    return model, trajectory, [(x, (x @ w < 0).long())]


BY_CHANCE = (7, 16, 18, 40, 44, 54, 63, 65, 89, 92, 106, 118)
"""Of the first 130 seeds those where by Student's t over two draws errors surely fall, though the expected ones rise."""


@pytest.mark.parametrize(("draws", "seeds"), [(2, BY_CHANCE), (3, range(5)), (12, range(2))])
def test_errors_that_agree_by_chance_are_no_sure_fall(draws, seeds):
    """Where the change from place to place is a sample or two, draws agree, and t over draws has hardly any width: over two
    it misses the closed form in four of five tables, over three in two, where one in twenty may be missed."""
    alphas, sigmas = (0.0, 0.5, 1.0), (0.1, 0.3)
    for seed in seeds:
        model, trajectory, data = hardly_moved(seed)
        truth = {(a, s): exact(trajectory, data, a, s) for a in alphas for s in sigmas}
        if seed in BY_CHANCE:
            assert all(truth[a, s] > truth[b, s] for s in sigmas for a, b in combinations(alphas, 2))
        spec = ls.LandscapeSpec(
            alphas=alphas, sigmas=sigmas, draws=draws, metrics=("error",), parts=("map",), seed=seed
        )
        table = ls.landscape(model, trajectory, data, spec)
        assert plots.falls(table, noise=True).rows == [] or seed not in BY_CHANCE
        for row in table.where(perturbation="noise", metric="error_worsening").itertuples():
            assert row.low <= truth[row.alpha, row.sigma] - truth[row.alpha_b, row.sigma] <= row.high


def test_draws_that_agree_have_the_interval_of_their_samples():
    """Bonett and Price's by hand, of the average of draws, at the level of all pairs; the mean at a place as its change."""
    model, trajectory, data = hardly_moved(7)
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.001,), draws=3, metrics=("error",), parts=("map",))
    table = ls.landscape(model, trajectory, data, spec)
    (row,) = table.where(perturbation="noise", metric="error_worsening").to_dict("records")
    reason = "all 3 draws give the same value: the interval is what the samples of one leave open"
    assert (row["n"], row["interval"], row["level"], row["reason"]) == (3, "draws", 0.95, reason)
    more = round(200 * row["value"])
    assert more > 0  # all of them on the way to the start: the trained network has none wrong
    p, q = (more + 1) / 202, 1 / 202
    half = norm.ppf(1 - 0.05 / 2 / 2) * math.sqrt((p + q - (p - q) ** 2) / 202)
    assert (row["low"], row["high"]) == pytest.approx((p - q - half, p - q + half))
    means = table.where(perturbation="noise", alpha=1.0)
    means = means[means["draw"].isna() & (means["metric"] != "error_worsening")]
    half = norm.ppf(0.975) * math.sqrt(2 / 202 / 202)
    assert list(means["value"]) == [0, 0]
    assert list(means["low"]) == pytest.approx([-half, -half])
    assert list(means["high"]) == pytest.approx([half, half])
    assert set(means["reason"]) == {reason}
    widths = [plots.widths(table, limit=limit)[-1] for limit in (half - 1e-9, half + 1e-9)]
    assert [(width.alpha, width.sigma, width.sure) for width in widths] == [(1.0, 0.001, 0.0), (1.0, 0.001, 0.001)]


def test_draws_that_agree_and_cannot_be_paired_have_no_interval():
    model, trajectory, data = hardly_moved(7)
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.001, 1.0), draws=3, metrics=("disagreement",), parts=("map",))
    table = ls.landscape(model, trajectory, data, spec)
    none, some = table.where(perturbation="noise", metric="disagreement_worsening").to_dict("records")
    assert (none["sigma"], none["status"], none["interval"]) == (0.001, "ok", "")
    assert none["reason"] == "all 3 draws give the same value, which does not say how far others lie from it"
    assert math.isnan(none["low"])
    assert some["low"] < some["value"] < some["high"]
    found = plots.falls(table, "disagreement", noise=True)
    assert (found.pairs, found.without) == (1, 1)


def test_one_draw_has_no_interval_over_draws():
    model, trajectory, data = small()
    table = ls.landscape(model, trajectory, data["test"], ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.1,), draws=1))
    found = table.where(perturbation="noise", metric="error_worsening")
    assert found["low"].isna().all()
    assert set(found["reason"]) == {"one draw has no interval over draws"}


def test_both_engines_give_the_same_rows():
    model, trajectory, data = small()
    spec = ls.LandscapeSpec(alphas=(0.0, 0.5), sigmas=(0.2,), draws=2, valley=True)
    fast, slow = (
        ls.landscape(model, trajectory, data, spec, plan=ls.Plan(engine=engine)).frame.drop(columns="engine")
        for engine in ("replay", "reference")
    )
    assert fast.equals(slow)


def test_nothing_of_the_users_is_touched():
    model, trajectory, data = small()
    model.train()
    before = everything(model)
    ls.landscape(model, trajectory, data, ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.1,), draws=2, valley=True))
    assert same(before, everything(model))


def test_without_a_start_there_is_no_way_and_it_is_said():
    """At the trained values noise can be added all the same; its sides are those of the start, so there are none."""
    model, trajectory, data = small()
    end = ls.Trajectory.of(final=trajectory[ls.FINAL])
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.1,), draws=2, parts=("last",))
    frame = ls.landscape(model, end, data["test"], spec).frame
    refused = frame[frame["status"] == "not applicable"]
    assert set(refused["reason"]) == {
        "the way begins at the start, which is missing: give initial= (--checkpoints init=FILE)"
    }
    assert set(refused["perturbation"]) == {"interpolate", "noise"}
    measured = frame[(frame["status"] == "ok") & (frame["perturbation"] != "none")]
    assert set(measured["alpha"]) == {1.0}
    for nowhere in (ls.LandscapeSpec(alphas=(0.0, 1.0)), replace(spec, valley=True)):
        with pytest.raises(
            UseError, match=r"landscape has no place to look at: the way begins at the start, .*init=FILE"
        ):
            ls.landscape(model, end, data["test"], nowhere)


def test_a_start_of_zeros_has_no_sides():
    model, trajectory, data = linear(start=0.0, n=32)
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), sigmas=(0.1,), draws=2, valley=True)
    table = ls.landscape(model, trajectory, data, spec)
    rows = table.where(perturbation="noise", part="map")
    assert set(rows["status"]) == {"not applicable"}
    assert set(rows["reason"]) == {"its start is zero, so that noise has no side"}
    assert set(table.where(perturbation="interpolate", part="map", metric="error")["status"]) == {"ok"}


class Fragile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if float(self.scale) < 0.4:
            raise ArithmeticError("too small")
        return self.scale * x


def test_a_place_whose_forward_raises_is_a_row_with_the_reason():
    model = Fragile()
    trajectory = ls.Trajectory.of(initial={"scale": torch.zeros(1)}, final={"scale": torch.ones(1)})
    data = [(torch.eye(2), torch.tensor([0, 1]))]
    table = ls.landscape(model, trajectory, data, ls.LandscapeSpec(alphas=(0.0, 0.5, 1.0), metrics=("error",)))
    at = table.where(part="(root)", metric="error").set_index("alpha")["status"]
    assert at.to_dict() == {0.0: "failed", 0.5: "ok", 1.0: "ok"}
    pairs = table.where(part="(root)", metric="error_worsening")
    assert dict(zip(zip(pairs["alpha"], pairs["alpha_b"], strict=True), pairs["status"], strict=True)) == {
        (0.0, 0.5): "failed",
        (0.0, 1.0): "failed",
        (0.5, 1.0): "ok",
    }
    assert set(pairs[pairs["status"] == "failed"]["reason"]) == {"ArithmeticError: too small"}


def test_a_network_that_can_be_worked_out():
    """a goes from -1 to 1 and turns all decisions round at 0; b from 2 to 1, which changes none; both: as a."""
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    spec = ls.LandscapeSpec(alphas=(0.0, 0.25, 0.5, 0.75, 1.0), metrics=("error",))
    table = ls.landscape(model, trajectory, data, spec)
    errors = {part: list(table.where(part=part, metric="error")["value"]) for part in table.parts()}
    turned = [0.8, 0.8, 1.0, 0.2, 0.2]  # at a = 0 all are ties: errors
    assert errors == {"a": turned, "b": [0.2] * 5, "whole network": turned}
    change = table.where(part="a", metric="error_worsening", alpha=0.25, alpha_b=0.5)["value"].item()
    assert change == pytest.approx(-0.2)


def better_or(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).double()


def test_worse_is_worse_whichever_way_a_metric_is_better(monkeypatch):
    model, trajectory, data = small()
    right = lambda level: ls.Function("accuracy", better_or, "fraction", "higher", level)  # noqa: E731
    monkeypatch.setitem(metrics.METRICS, "accuracy", right)
    spec = ls.LandscapeSpec(alphas=ALPHAS, metrics=("accuracy", "error", "disagreement"))
    table = ls.landscape(model, trajectory, data["test"], spec)
    good, bad = (table.where(metric=f"{name}_worsening") for name in ("accuracy", "error"))
    assert np.array(good["value"]) == pytest.approx(np.array(bad["value"]))
    assert (good["low"] <= good["value"]).all()
    assert (good["value"] <= good["high"]).all()
    assert table.provenance["better"] == "higher"
    no_mean = table.where(metric="disagreement_worsening")
    assert set(no_mean["status"]) == {"not applicable"}
    assert set(no_mean["reason"]) == {"disagreement is no mean over samples, so that two places cannot be paired"}


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.next = nn.Embedding(5, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.next(self.words(x))


def test_tokens_are_paired_by_sequences():
    torch.manual_seed(0)
    model, start = Tokens().eval(), Tokens().eval()
    x = torch.randint(5, (20, 6))
    trajectory = ls.Trajectory.of(initial=ls.state_of(start), final=ls.state_of(model))
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), metrics=("token_cross_entropy",), parts=("next",))
    table = ls.landscape(model, trajectory, [(x, x)], spec)
    start_value, end = table.where(part="next", metric="token_cross_entropy")["value"]
    (row,) = table.where(metric="token_cross_entropy_worsening").to_dict("records")
    assert row["value"] == pytest.approx(start_value - end)
    other = table.where(part="next", metric="token_cross_entropy_delta", alpha=0.0).to_dict("records")[0]
    assert (row["low"], row["high"]) == pytest.approx((other["low"], other["high"]))  # one answer: no price
    assert row["n"] == 20


def test_parts_are_chosen_by_name_or_pattern():
    model, trajectory, data = small()
    spec = {"alphas": (0.0, 1.0), "metrics": ("error",)}
    for patterns, found in {("first", "l*"): ["first", "last"], ("whole*",): ["whole network"]}.items():
        table = ls.landscape(model, trajectory, data["test"], ls.LandscapeSpec(parts=patterns, **spec))
        assert table.parts() == found
    with pytest.raises(UseError, match="unknown Part 'lats'; did you mean last"):
        ls.landscape(model, trajectory, data["test"], ls.LandscapeSpec(parts=("lats",), **spec))
    with pytest.raises(UseError, match="empty mapping"):
        ls.landscape(model, trajectory, {})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"alphas": ()}, "alphas must be one or more numbers from 0 to 1"),
        ({"alphas": (0.5, 0.2)}, "from small to large"),
        ({"sigmas": (0.0, 0.1)}, "sigmas must be one or more numbers above 0"),
        ({"valley": True}, "a valley is as wide as the noise"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"metrics": ()}, "metrics must name at least one"),
        ({"level": 1.0}, "level must be between 0 and 1"),
    ],
)
def test_what_makes_no_landscape_is_refused(wrong, why):
    with pytest.raises(UseError, match=why):
        ls.LandscapeSpec(**wrong)


def test_a_side_is_one_of_two():
    with pytest.raises(UseError, match="side is 1 or -1"):
        ls.Noise(0.1, 1.0, 2)


def test_the_picture_says_what_each_split_rests_on():
    model, trajectory, data = small(90)
    spec = ls.LandscapeSpec(alphas=(0.0, 1.0), parts=("first",))
    fewer = {"train": data["train"][:1], "test": data["test"]}
    for given, said in ((fewer, "n = 32 on train data and 90 on test data."), (data, "n = 90.")):
        figure = plots.path_curves(ls.landscape(model, trajectory, given, spec))
        assert figure.get_suptitle().split("\nOrange")[0].endswith(said)


@pytest.mark.parametrize("splits", [("test",), ("train", "test")])
def test_pictures_are_within_their_edges(splits):
    model, trajectory, data = small(40)
    spec = ls.LandscapeSpec(alphas=(0.0, 0.5, 1.0), parts=("first",), sigmas=(0.1,), draws=2, valley=True)
    table = ls.landscape(model, trajectory, {split: data[split] for split in splits}, spec)
    named = ls.Table(table.frame, {**table.provenance, "data": {"name": "mnist?n_train=1000&n_test=2000"}})
    assert all(map(inside, plots.figures(named).values()))
