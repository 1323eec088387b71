"""Bounds of networks: worked out again from their pieces, the conditions of the theorems, the conjecture, and what is said."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import FontProperties
from torch import Tensor, nn

import layerscope as ls
from layerscope.analyses import written
from layerscope.analyses.bounds import _bound
from layerscope.analyses.joint import Joint
from layerscope.errors import UseError
from layerscope.measures.operator import Operator, dense
from layerscope.plots import bounds as shown
from layerscope.plots import house

from .networks import BothSigns
from .test_compare import inside
from .test_zoo import everything, same

Data = list[tuple[Tensor, Tensor]]
QUICK = ls.BoundsSpec(eps=(0.2,), alphas=(0.5, 1.0), sigmas=(0.02, 0.1), most=32, draws=40, rounds=1)


def sample(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + 0.3 * x[:, 1] < 0).long()


def trained(n: int = 3000, model: nn.Module | None = None, seed: int = 0) -> tuple[nn.Module, ls.Trajectory, dict]:
    """A small network that was trained to tell two halves of a space apart, and other samples of the same."""
    torch.manual_seed(seed)
    x, y = sample(n, seed)
    model = model or nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    start, optimiser = ls.state_of(model), torch.optim.Adam(model.parameters(), 0.02)
    model.train()
    for k in range(60):
        rows = torch.arange(k * 50, k * 50 + 50) % n
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    model.eval()
    data = {"train": [(x[:1000], y[:1000]), (x[1000:], y[1000:])], "test": [sample(480, seed + 100)]}
    return model, ls.Trajectory.of(initial=start, final=ls.state_of(model)), data


def one(table: ls.Table, metric: str, **more) -> dict:
    (row,) = table.where(metric=metric, **more).to_dict("records")
    return row


@pytest.fixture(scope="module")
def found() -> ls.Table:
    model, trajectory, data = trained()
    before = everything(model)
    table = ls.bounds(model, trajectory, data, QUICK)
    assert same(before, everything(model))
    return table


def test_bounds_follow_from_their_pieces(found):
    """Worked out again from alphas, sigmas, distances and the certificate, with the formula written out."""
    parts = [
        row for row in found.where(metric="joint_criticality").to_dict("records") if row["part"] != "whole network"
    ]
    whole = one(found, "joint_criticality", part="whole network")
    assert [row["part"] for row in parts] == ["0", "2"]
    assert [row["n"] for row in parts] == [30, 14]
    m, delta, limit = 3000, 0.025, whole["certificate"]
    logs, ratios, prior = 0.0, 0.0, 0.0
    for row in parts:
        k, moved, square = row["n"], (row["alpha"] * row["distance"]) ** 2, row["sigma"] ** 2
        logs += k * math.log(1 + moved / (k * square))
        ratios += moved / square
        prior += math.log(math.pi * math.floor(4 * m + k + k * math.log(k / (k * square + moved))) / math.sqrt(6))
    assert whole["value"] == pytest.approx(ratios)
    assert one(found, "joint_log_criticality", part="whole network")["value"] == pytest.approx(logs)
    common = 2 / 4 + prior
    theorem = limit + math.sqrt((logs / 4 + common + math.log(m / delta) / 2) / (m - 1))
    assert one(found, "theorem_3.2")["value"] == pytest.approx(theorem)
    assert one(found, "theorem_3.2")["complexity"] == pytest.approx(logs)
    allowed = max(0.2, limit)
    for metric, sum_ in (("corollary_3.3", ratios), ("corollary_3.3_log", logs)):
        value = allowed + math.sqrt((sum_ / 4 + common + math.log(m / delta)) / (m - 1))
        assert one(found, metric)["value"] == pytest.approx(value)
        assert "only if noise on the way back does not improve" in one(found, metric)["reason"]
    assert limit < one(found, "pac_bayes_kl")["value"] < theorem
    counted, bits = one(found, "parameter_count"), 32 * 44
    assert counted["complexity"] == pytest.approx(bits * math.log(2))
    root = math.sqrt((bits * math.log(2) + math.log(20)) / (2 * m))
    assert counted["value"] == pytest.approx(found.provenance["error"] + root)
    for metric in ("theorem_3.2", "pac_bayes_kl", "corollary_3.3", "parameter_count"):
        assert (one(found, metric)["n"], one(found, metric)["level"]) == (3000, 0.95)
        assert one(found, metric)["status"] == "ok"


def test_bounds_are_above_the_errors_on_new_data():
    for seed in range(2):
        model, trajectory, data = trained(seed=seed)
        table = ls.bounds(model, trajectory, data | {"test": [sample(790, 50 + seed)]}, replace(QUICK, seed=seed))
        noisy, itself = one(table, "expected_error")["value"], one(table, "error", split="test")["value"]
        assert noisy <= one(table, "pac_bayes_kl")["value"] <= one(table, "theorem_3.2")["value"]
        assert itself <= one(table, "corollary_3.3_log")["value"] <= one(table, "corollary_3.3")["value"]
        assert itself <= one(table, "parameter_count")["value"]
        assert one(table, "conjecture")["value"] == pytest.approx(noisy - itself)  # of the same 790 samples, each once


def test_what_is_written_and_kept_changes_nothing(monkeypatch):
    """Values put in afresh, values written to one place, and what comes before a module kept: the same search."""
    monkeypatch.setattr(written, "WORTH", 0.0)
    layers = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)
    model, trajectory, data = trained(model=nn.Sequential(*layers))
    tables, kept = [], []
    for engine, good in (("replay", True), ("reference", True), ("reference", False)):
        plan = ls.Plan(engine=engine)
        if not good:
            monkeypatch.setattr(written.Written, "compare", lambda *_: None)
        keep = written.Written.keep

        def counted(self, at, keep=keep, engine=engine):
            kept.append((engine, at))
            keep(self, at)

        with monkeypatch.context() as patched:
            patched.setattr(written.Written, "keep", counted)
            tables.append(ls.bounds(model, trajectory, data, QUICK, plan=plan).frame)
    assert ("replay", 2) in kept
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_what_got_no_noise_must_not_have_been_trained():
    model, trajectory, data = trained()
    without = ls.bounds(model, trajectory, data["train"], replace(QUICK, groups=("a=0.weight|2.*",)))
    for metric in ("theorem_3.2", "pac_bayes_kl", "corollary_3.3", "corollary_3.3_log"):
        row = one(without, metric)
        assert row["status"] == "not applicable"
        assert row["reason"].endswith("and this is not: 0.bias")
        assert math.isnan(row["value"])
    assert one(without, "joint_criticality", part="whole network")["value"] > 0
    frozen = ls.Trajectory.of(
        initial=trajectory[ls.INIT] | {"0.bias": trajectory[ls.FINAL]["0.bias"]}, final=trajectory[ls.FINAL]
    )
    table = ls.bounds(model, frozen, data["train"], replace(QUICK, groups=("a=0.weight|2.*",)))
    assert one(table, "theorem_3.2")["status"] == "ok"
    whole = replace(QUICK, groups=("a=0.weight|2.*", "b=0.bias"))  # a Part that did not move is none of the modules
    same_ = ls.bounds(model, frozen, data["train"], whole)
    unknown_, known = one(same_, "theorem_3.2"), one(table, "theorem_3.2")
    assert unknown_["value"] > known["value"]  # which of 2 Parts are modules was not known beforehand: 2 log 2 nats
    assert "1.386 nats for not knowing beforehand which of the 2 Parts training moves" in unknown_["reason"]
    extra = (unknown_["value"] - unknown_["certificate"]) ** 2 - (known["value"] - known["certificate"]) ** 2
    assert extra == pytest.approx(math.log(2) / (unknown_["n"] - 1))
    assert any("with 1.386 nats for not knowing beforehand" in s for s in shown.sentences(same_))
    assert "did not move it" in one(same_, "joint_criticality", part="b")["reason"]


def test_running_statistics_are_learned_from_the_data():
    model, trajectory, data = trained(
        model=nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    )
    table = ls.bounds(model, trajectory, data["train"], QUICK)
    row = one(table, "theorem_3.2")
    assert row["status"] == "not applicable"
    assert "1.running_mean, 1.running_var, 1.num_batches_tracked" in row["reason"]
    assert "BatchNorm1d" in one(table, "theorem_b.2")["reason"]


def test_a_pretrained_start_may_have_seen_the_data():
    model, trajectory, data = trained()
    history = ls.Trajectory.of(pretrained=trajectory[ls.INIT], final=trajectory[ls.FINAL])
    table = ls.bounds(model, history, data["train"], QUICK)
    assert one(table, "theorem_3.2")["status"] == one(table, "theorem_b.2")["status"] == "not applicable"
    assert "independent=True" in one(table, "theorem_3.2")["reason"]
    table = ls.bounds(model, history, data["train"], replace(QUICK, independent=True))
    assert one(table, "theorem_3.2")["status"] == "ok"


class Picture(nn.Sequential):
    """No longer exactly a sequence: it could do anything."""


def images(stride: int = 1) -> tuple[nn.Module, ls.Trajectory, Data]:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 3, 3, padding=1, stride=stride, bias=False),
        nn.ReLU(),
        nn.Conv2d(3, 2, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
    ]
    side = -(-6 // stride) - 2
    model = nn.Sequential(nn.Sequential(*layers), nn.Linear(2 * side * side, 2, bias=False))
    start = ls.state_of(model)
    final = {name: value + 0.1 * torch.randn_like(value) for name, value in start.items()}
    x = torch.randn(40, 1, 6, 6)
    return model, ls.Trajectory.of(initial=start, final=final), [(x, torch.arange(40) % 2)]


@pytest.mark.parametrize("stride", [1, 2])
def test_theorem_b_2_of_a_convolutional_network(stride):
    """Worked out again with the dense matrices of all layers; all alpha are 1."""
    model, trajectory, data = images(stride)
    spec = replace(QUICK, radius=20.0, gamma=0.01, draws=4, most=4)
    table = ls.bounds(model, trajectory, data, spec)
    row, about = one(table, "theorem_b.2"), table.provenance["theorem_b.2"]
    model.load_state_dict(trajectory[ls.FINAL])
    shapes = {"0.0": (6, 6), "0.2": (6 // stride, 6 // stride), "1": ()}
    norms = {
        path: float(torch.linalg.matrix_norm(dense(Operator.of(model.get_submodule(path), size)), 2))
        for path, size in shapes.items()
    }
    total, m, nats, prior = math.prod(norms.values()), 40, 0.0, 0.0
    for path, (q, c) in {"0.0": (3, 3), "0.2": (3, 3), "1": (1, model[1].in_features)}.items():
        sigma = min(1, 0.01 / (32 * math.e * 3 * 20 * q * math.sqrt(c * math.log(4 * 3 * 8**2)) * total / norms[path]))
        assert about["layers"][path]["sigma"] == pytest.approx(sigma, rel=5e-3)
        moved = trajectory[ls.FINAL][f"{path}.weight"] - trajectory[ls.INIT][f"{path}.weight"]
        k, square = moved.numel(), float(moved.double().square().sum())
        nats += k * math.log(1 + square / (k * sigma**2))
        prior += math.log(math.pi * math.floor(4 * m + k + k * math.log(k / (k * sigma**2 + square))) / math.sqrt(6))
    (x, y) = data[0]
    outputs = model(x).detach()
    margins = (outputs[:, 0] - outputs[:, 1]) * (1 - 2 * y)
    share = float((margins <= 0.01).double().mean())
    assert row["error"] == pytest.approx(share)
    value = share + math.sqrt((nats / 2 + 3 / 2 + 1 + math.log(m / 0.05) / 2 + prior) / (m - 1))
    assert row["value"] == pytest.approx(value, rel=1e-3)
    assert (row["status"], row["reason"]) == ("vacuous", "")
    assumed = one(ls.bounds(model, trajectory, data, replace(spec, radius=None)), "theorem_b.2")["reason"]
    longest = float(x.flatten(1).norm(dim=1).max())
    assert float(assumed.split("longer than ")[1].split(",")[0]) == pytest.approx(longest, rel=1e-5)


def test_theorem_b_2_says_what_it_is_not_about():
    model, trajectory, data = images()
    quick = replace(QUICK, draws=2, most=2)
    said = lambda model, trajectory, data, spec=quick: one(ls.bounds(model, trajectory, data, spec), "theorem_b.2")  # noqa: E731
    assert "above radius=1" in said(model, trajectory, data, replace(quick, radius=1.0))["reason"]
    assert "(root) is a Picture" in said(Picture(*model), trajectory, data)["reason"].replace("the network", "(root)")
    assert "0 has one" in said(*_with(trained()))["reason"]
    wide = [(torch.randn(8, 1, 6, 8), torch.arange(8) % 2)]
    flat = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(48, 2, bias=False))
    start = ls.state_of(flat)
    history = ls.Trajectory.of(initial=start, final={name: value + 0.1 for name, value in start.items()})
    assert "square images, and 0 gets [6, 8]" in said(flat, history, wide)["reason"]
    grouped = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2, bias=False), nn.Flatten(), nn.Linear(32, 2, bias=False))
    start = ls.state_of(grouped)
    history = ls.Trajectory.of(initial=start, final={name: value + 0.1 for name, value in start.items()})
    assert "no groups" in said(grouped, history, [(torch.randn(8, 2, 6, 6), torch.arange(8) % 2)])["reason"]


def test_theorem_b_2_needs_the_start_of_all_layers():
    """A fine-tuned network whose head is new: all other rows say so too, and none is lost."""
    model, trajectory, data = images()
    start = {name: value for name, value in trajectory[ls.INIT].items() if not name.startswith("1.")}
    history = ls.Trajectory.of(pretrained=start, final=trajectory[ls.FINAL])
    table = ls.bounds(model, history, data, replace(QUICK, draws=2, most=2, independent=True))
    for metric in ("theorem_b.2", "theorem_3.2"):
        row = one(table, metric)
        assert row["status"] in ("not applicable", "infeasible")
        assert math.isnan(row["value"])
    assert one(table, "theorem_b.2")["reason"].endswith("1.weight has no start")


def _with(made: tuple) -> tuple:
    model, trajectory, data = made
    return model, trajectory, data["train"]


class Still(nn.Module):
    """Two classes by the sign of one weight times the input: noise of that weight is all that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.both = nn.Parameter(torch.tensor([1.0])), BothSigns()

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.weight * x)


def test_the_conjecture_is_tested_on_test_data():
    """All right: an error of Phi(-1 / sigma) under noise, and it holds; all labels wrong: noise can only help."""
    model, x = Still(), torch.ones(640, 1)
    trajectory = ls.Trajectory.of(initial={"weight": torch.zeros(1)}, final={"weight": torch.ones(1)})
    spec = ls.BoundsSpec(eps=(0.3,), alphas=(1.0,), sigmas=(1.0,), block=2, draws=50)
    right, wrong = torch.zeros(640).long(), torch.ones(640).long()
    expected = 0.158655
    table = ls.bounds(model, trajectory, {"train": [(x, right)], "test": [(x, right)]}, spec)
    row = one(table, "conjecture")
    assert row["value"] == one(table, "expected_error")["value"]
    assert 0 < row["low"] <= expected <= row["high"]
    assert (row["split"], row["n"], row["interval"]) == ("test", 640, "population")
    assert "so that the conjecture holds at this point" in " ".join(shown.sentences(table))
    table = ls.bounds(model, trajectory, {"train": [(x, right)], "test": [(x, wrong)]}, spec)
    row = one(table, "conjecture")
    assert row["low"] <= -expected <= row["high"] < 0
    assert one(table, "error", split="test")["value"] == 1
    assert "the conjecture does not hold at this point" in " ".join(shown.sentences(table))


def test_test_data_that_cannot_be_put_together(monkeypatch):
    """Batches of unequal shape are asked one by one; what samples cannot be taken out of is said, and all the rest is there."""
    model, trajectory, data = trained()
    (x, y) = data["test"][0]
    uneven = [(x[:50], y[:50]), (x[50:97, None], y[50:97])]
    forward = lambda network, batch: network(batch[0].flatten(1))  # noqa: E731
    table = ls.bounds(model, trajectory, {"train": data["train"], "test": uneven}, QUICK, forward=forward)
    assert one(table, "conjecture")["n"] == 97
    shared = {"x": x, "scale": torch.ones(()), "labels": y}
    forward = lambda network, batch: network(batch["x"] * batch.get("scale", 1.0))  # noqa: E731
    train = [{"x": a, "labels": b} for a, b in data["train"]]
    table = ls.bounds(model, trajectory, {"train": train, "test": [shared]}, QUICK, forward=forward)
    for metric in ("conjecture", "expected_error"):
        assert one(table, metric)["status"] == "not applicable"
        assert one(table, metric)["reason"].startswith("samples cannot be taken out of the test batches")
    assert one(table, "theorem_3.2")["status"] == "ok"
    assert any(s.startswith("The conjecture was not tested: samples cannot") for s in shown.sentences(table))
    assert shown.figures(table)
    monkeypatch.setattr(Joint, "best", lambda *_: pytest.fail("it was searched"))
    with pytest.raises(UseError, match="training batches that samples can be taken out of"):
        ls.bounds(model, trajectory, [shared], QUICK, forward=forward)


def test_a_forward_that_raises_is_a_row():
    class Picky(Still):
        def forward(self, x: Tensor) -> Tensor:
            if float(self.weight.detach()) not in (0.0, 1.0):
                raise ValueError("too odd")
            return super().forward(x)

    trajectory = ls.Trajectory.of(initial={"weight": torch.zeros(1)}, final={"weight": torch.ones(1)})
    table = ls.bounds(Picky(), trajectory, [(torch.ones(8, 1), torch.zeros(8).long())], QUICK)
    for metric in ("joint_criticality", "theorem_3.2", "corollary_3.3"):
        assert one(table, metric)["status"] == "failed"
        assert "ValueError: too odd" in one(table, metric)["reason"]
    assert shown.sentences(table)


def test_what_is_asked_is_checked():
    model, trajectory, data = trained(n=200)
    with pytest.raises(UseError, match="the values before training"):
        ls.bounds(model, ls.Trajectory.of(final=trajectory[ls.FINAL]), data, QUICK)
    with pytest.raises(UseError, match="need the training data"):
        ls.bounds(model, trajectory, {"test": data["test"]}, QUICK)
    with pytest.raises(UseError, match="at least 2 training samples"):
        ls.bounds(model, trajectory, [sample(1)], QUICK)
    wrong = ({"eps": (0.0,)}, {"sigmas": (2.0,)}, {"objective": "lgo"}, {"rounds": 0}, {"draws": 0}, {"gamma": 0.0})
    for fields in (*wrong, {"radius": -1.0}, {"level": 1.0}):
        with pytest.raises(UseError, match=next(iter(fields))):
            ls.BoundsSpec(**fields)


def test_what_is_said_of_bounds(found, tmp_path):
    found.save(tmp_path / "table.parquet")
    table = ls.Table.open(tmp_path / "table.parquet")
    said = shown.sentences(table)
    assert said == shown.sentences(found)
    tight = 100 * one(found, "pac_bayes_kl")["value"]
    assert any("With probability 95 %" in s and f"at most {tight:.2f} % (PAC-Bayes-kl)" in s for s in said)
    assert any(s.startswith("If the conjecture holds") for s in said)
    assert any("an upper bound of the smallest there is, found by a search" in s for s in said)
    reason = one(found, "joint_criticality", part="whole network")["reason"]
    assert reason == "the least that a search found: an upper bound of the smallest there is"
    assert any(s.startswith("Theorem B.2 cannot be applied: it is about layers without biases") for s in said)
    everything_, point = shown.listings(table)
    assert [row[0] for row in everything_.rows].count("Theorem 3.2") == 1
    assert [row[0] for row in point.rows] == ["0", "2", "whole network"]
    assert all(len(row) == len(listing.heads) for listing in (everything_, point) for row in listing.rows)
    figure = shown.figures(table)["bounds"]
    dots = [
        line.get_xdata()[0]
        for line in figure.axes[0].lines
        if line.get_marker() in ("o", "D", "s") and len(line.get_xdata())
    ]
    values = [100 * v for v in found.frame["value"][found.frame["metric"].isin(shown.BOUNDS)] if np.isfinite(v)]
    assert dots == pytest.approx(values)


def test_a_vacuous_bound_is_called_so():
    model, trajectory, data = trained(n=60)
    table = ls.bounds(model, trajectory, data["train"], QUICK)
    row = one(table, "parameter_count")
    assert row["status"] == "vacuous"
    assert row["value"] > 1
    assert any("It is vacuous: an error is never above 100 %" in s for s in shown.sentences(table))
    assert "(vacuous)" in shown.listings(table)[0].rows[-1][-1]
    assert shown.figures(table)["bounds"].axes[0].get_xscale() in ("linear", "log")


@pytest.mark.parametrize("name", ["digits", "mnist?n_train=1000&n_test=2000", "_".join("abcdefgh" * 20)])
def test_the_figure_names_its_data_within_its_edges(found, name):
    table = ls.Table(found.frame, {**found.provenance, "data": {"name": name}})
    figure = shown.figures(table)["bounds"]
    assert inside(figure)
    title = figure.get_suptitle()
    assert f"3,000 training samples of {name}".replace(" ", "") in title.replace("\n", "").replace(" ", "")


def test_the_legend_says_what_errors_rest_on(found):
    (legend,) = shown.figures(found)["bounds"].legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert any(label.startswith("trained network, test data (n = 480): ") for label in labels)
    assert any(label.startswith("under noise, test data (eps = 20 %, n = 480): ") for label in labels)


@settings(max_examples=40)
@given(
    st.text("abc WM$%_\n", max_size=120), st.floats(0.5, 6.0), st.floats(6.0, 12.0), st.sampled_from(["bold", "normal"])
)
def test_a_text_is_fitted_to_a_width(text, width, size, weight):
    """No line is wider, nothing is lost, and no line could have taken the word after it."""
    from matplotlib.textpath import TextPath

    def inches(line: str) -> float:
        safe = line.replace("$", r"\$")
        return TextPath((0, 0), safe, prop=FontProperties(size=size, weight=weight)).get_extents().width / 72

    with house.style():
        lines = house.fitted(text, width, size, weight)
        assert "".join("".join(lines).split()) == "".join(text.split())
        for line in lines:
            assert not line.strip() or inches(line) < width + 0.05
        for paragraph in text.split("\n"):
            words = paragraph.split()
            if words and inches(" ".join(words)) < width - 0.05:
                assert " ".join(words) in lines


@pytest.mark.parametrize(("value", "status"), [(0.99, "ok"), (0.9999, "ok"), (0.99998, "vacuous"), (1.2, "vacuous")])
def test_a_bound_that_reads_as_all_is_vacuous(value, status):
    assert _bound("theorem_3.2", value=value)["status"] == status
