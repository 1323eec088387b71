"""Measures of a whole network: against NumPy, matrices written out, all paths counted, closed forms, and how they scale."""

import itertools
import math
import re
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_softmax
from scipy.stats import norm
from torch import Tensor, nn

import layerscope as ls
from layerscope.data import Split
from layerscope.errors import UseError
from layerscope.measures.catalogue import CHEAP, DEAR, DIRECTION, LABELS, MEASURES
from layerscope.measures.flatness import between
from layerscope.measures.operator import Operator
from layerscope.measures.product import two_one

from .networks import BothSigns
from .test_criticality import Margin
from .test_zoo import everything, same

Data = list[tuple[Tensor, Tensor]]
QUICK = {"alphas": (0.0, 0.5, 1.0), "sigmas": (0.05, 0.2, 0.8), "draws": 3, "most": 8, "ascent": 3, "samples": 32}
WHOLE = "whole network"


def batches(x: Tensor, y: Tensor, size: int = 24) -> Data:
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def shaken(model: nn.Module, by: float = 0.3) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    state = ls.state_of(model).items()
    return {
        n: v + by * torch.randn(v.shape, generator=random, dtype=v.dtype)
        if v.is_floating_point() and "running" not in n
        else v
        for n, v in state
    }


def mlp(bias: bool = True, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 4, bias=bias), nn.ReLU(), nn.Linear(4, 3, bias=bias)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.double()


def problem(model: nn.Module, n: int = 60, shape: tuple[int, ...] = (5,), wrong: int = 3) -> tuple[Tensor, Tensor]:
    """Inputs, and the classes that the network has for them; some wrong."""
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = model.eval()(x).argmax(1)
    y[:wrong] = (y[:wrong] + 1) % 3
    return x, y


def asked(model, trajectory, data, which=CHEAP, **more) -> dict[str, dict]:
    """Rows of the whole network by metric, those of a split with its name."""
    spec = ls.MeasuresSpec(which=which, **{**QUICK, **more})
    table = ls.measure(model, trajectory, data if isinstance(data, dict) else {"train": data}, spec)
    rows = table.where(part=WHOLE).to_dict("records")
    return {
        (f"{r['metric']}/{r['split']}" if r["metric"] in ("error", "cross_entropy") else r["metric"]): r for r in rows
    }


def test_an_mlp_by_hand():
    model = mlp()
    start = shaken(model)
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    x, y = problem(model)
    other = problem(model, 40, wrong=10)[0] + 1
    z = y[:40]
    rows = asked(model, trajectory, {"train": batches(x, y), "test": batches(other, z)}, tolerance=1e-6)

    final = [p.detach().numpy() for n, p in model.named_parameters() if "weight" in n]
    moved = [f - s.numpy() for f, s in zip(final, (v for n, v in start.items() if "weight" in n), strict=True)]
    biases = [p.detach().numpy() for n, p in model.named_parameters() if "bias" in n]

    def outputs(given: Tensor) -> np.ndarray:
        h = given.numpy()
        for k, (w, b) in enumerate(zip(final, biases, strict=True)):
            h = h @ w.T + b
            h = np.maximum(h, 0) if k < 2 else h
        return h

    def margins(given: Tensor, right: Tensor) -> np.ndarray:
        out = outputs(given)
        own = out[np.arange(len(out)), right]
        out[np.arange(len(out)), right] = -np.inf
        return own - out.max(1)

    spectral = [np.linalg.norm(w, 2) for w in final]
    k = sum(p.numel() for p in model.parameters())
    train, test = (margins(x, y) <= 0).mean(), (margins(other, z) <= 0).mean()
    losses = -log_softmax(outputs(x), 1)[np.arange(len(x)), y]
    gamma = np.quantile(margins(x, y), 0.1)
    two_ones = [np.linalg.norm(m, axis=1).sum() for m in moved]
    bracket = sum((b / s) ** (2 / 3) for b, s in zip(two_ones, spectral, strict=True)) ** 1.5
    expected = {
        "error/train": train,
        "error/test": test,
        "generalisation_gap": test - train,
        "cross_entropy/train": losses.mean(),
        "parameters": k,
        "log_pfn": np.log([np.linalg.norm(w) for w in final]).sum(),
        "log_psn": np.log(spectral).sum(),
        "distance_squared": sum(np.linalg.norm(m) ** 2 for m in moved),
        "distance_sum": sum(np.linalg.norm(m) for m in moved),
        "sosp": k * sum(np.linalg.norm(m, 2) for m in moved),
        "log_sosp": math.log(k * sum(np.linalg.norm(m, 2) for m in moved)),
        "margin_q10": gamma,
        "margin_median": np.median(margins(x, y)),
        "margin_q10_normalised": gamma / np.prod(spectral),
        "margin_median_normalised": np.median(margins(x, y)) / np.prod(spectral),
        "log_spectral_margin": np.log(np.prod(spectral) * bracket / (gamma * math.sqrt(len(x)))),
    }
    assert 0 < train < test
    assert gamma > 0
    assert {name: rows[name]["value"] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert {row["status"] for row in rows.values()} == {"ok"}
    gap = rows["generalisation_gap"]
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["n"] == 40
    assert gap["interval"] == "population"
    assert rows["log_psn"]["low"] - 1e-12 <= expected["log_psn"] <= rows["log_psn"]["high"] + 1e-12


def written_out(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix [outputs, inputs] of a linear module, without its bias, from what it does to each unit vector."""
    with torch.no_grad():
        nothing = module(torch.zeros(1, *shape, dtype=torch.float64))
        units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
        return (module(units) - nothing).flatten(1).T.numpy()


CONVOLUTIONS = [
    (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 5)),
    (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 6, 6)),
    (nn.Conv1d(3, 2, 3, padding=2, dilation=2), (3, 7)),
    (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 3, 3)),
]


@pytest.mark.parametrize(("convolution", "shape"), CONVOLUTIONS)
def test_norms_of_convolutions_are_those_of_their_matrices(convolution, shape):
    """At the size that they have in the network, padding included; the 2-norm is that of the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(conv=convolution, relu=nn.ReLU(), flat=nn.Flatten(), head=nn.LazyLinear(3))
    ).double()
    model(torch.zeros(1, *shape, dtype=torch.float64))
    start = shaken(model)
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    spec = ls.MeasuresSpec(which=CHEAP, tolerance=1e-7)
    table = ls.measure(model, trajectory, {"train": batches(*problem(model, shape=shape, wrong=0))}, spec)
    found = {row["metric"]: row for row in table.where(part="conv").to_dict("records")}
    matrix = written_out(model.conv, shape)
    with torch.no_grad():
        model.conv.weight.copy_(model.conv.weight - start["conv.weight"])
    change = written_out(model.conv, shape)
    k = table.where(metric="parameters")["value"].item()
    assert found["log_psn"]["value"] == pytest.approx(math.log(np.linalg.norm(matrix, 2)), abs=1e-6)
    assert found["sosp"]["value"] == pytest.approx(k * np.linalg.norm(change, 2), rel=1e-6)
    weight = trajectory[ls.FINAL]["conv.weight"]
    assert found["log_pfn"]["value"] == pytest.approx(0.5 * math.log(float(weight.square().sum())))
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    operator = Operator.of(model.conv, shape[1:])
    assert two_one(operator, transposed) == pytest.approx(np.linalg.norm(change, axis=1).sum())


def test_a_circular_spectral_norm_on_request():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 3)).double()
    around = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular").double()
    around.load_state_dict(model[0].state_dict())
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    data = {"train": batches(*problem(model, shape=(1, 4, 4)))}
    spec = ls.MeasuresSpec(which=("log_psn",), operator="circular", tolerance=1e-6)
    rows = ls.measure(model, trajectory, data, spec).where(metric="log_psn")
    assert list(rows["operator"]) == ["circular", "itself", "circular"]
    exact = np.linalg.norm(written_out(around, (1, 4, 4)), 2)
    assert rows["value"].iloc[0] == pytest.approx(math.log(exact), abs=1e-5)


def paths_squared(layers: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The sum over all paths from an input or a bias to an output of their squared products, path by path."""
    total = 0.0
    widths = [layers[0][0].shape[1], *(w.shape[0] for w, _ in layers)]
    for begin in range(len(layers) + 1):  # inputs; then the bias of each layer
        if begin == 0:
            ways = itertools.product(*map(range, widths))
            total += sum(math.prod(layers[k][0][way[k + 1], way[k]] ** 2 for k in range(len(layers))) for way in ways)
        else:
            for way in itertools.product(*map(range, widths[begin:])):
                first = layers[begin - 1][1][way[0]] ** 2
                total += first * math.prod(
                    layers[k][0][way[k - begin + 1], way[k - begin]] ** 2 for k in range(begin, len(layers))
                )
    return total


def log_path(model: nn.Module, shape: tuple[int, ...] = (5,)) -> dict:
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    return asked(model, trajectory, batches(*problem(model, shape=shape)), ("log_path_norm",))["log_path_norm"]


@pytest.mark.parametrize("bias", [False, True])
def test_the_path_norm_is_the_sum_over_all_paths(bias):
    model = mlp(bias)
    maps = [module for module in model if isinstance(module, nn.Linear)]
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy() if bias else np.zeros(len(m.weight))) for m in maps]
    assert log_path(model)["value"] == pytest.approx(0.5 * math.log(paths_squared(layers)))


@pytest.mark.parametrize("affine", [True, False])
def test_the_path_norm_of_a_batch_norm_is_that_of_its_linear_map(affine):
    torch.manual_seed(0)
    norm_ = nn.BatchNorm1d(4, affine=affine)
    model = nn.Sequential(nn.Linear(5, 4), norm_, nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        norm_.running_mean.normal_()
        norm_.running_var.uniform_(0.5, 2)
        for parameter in norm_.parameters():
            parameter.normal_()
    factor = 1 / np.sqrt(norm_.running_var.numpy() + norm_.eps) * (norm_.weight.detach().numpy() if affine else 1)
    offset = -norm_.running_mean.numpy() * factor + (norm_.bias.detach().numpy() if affine else 0)
    (w, b), (v, c) = ((m.weight.detach().numpy(), m.bias.detach().numpy()) for m in (model[0], model[3]))
    assert log_path(model)["value"] == pytest.approx(
        0.5 * math.log(paths_squared([(w, b), (np.diag(factor), offset), (v, c)]))
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(2, 3, False), nn.Linear(3, 3, False), nn.Linear(3, 3, False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(h + torch.relu(self.branch(h)))


def test_paths_around_a_branch_count():
    torch.manual_seed(0)
    model = Residual().double()
    a, b, c = (m.weight.detach().numpy() for m in (model.first, model.branch, model.head))
    zero = np.zeros(3)
    both = paths_squared([(a, zero), (c, zero)]) + paths_squared([(a, zero), (b, zero), (c, zero)])
    assert log_path(model, (2,))["value"] == pytest.approx(0.5 * math.log(both))


class Squashed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.map(x))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)), r"1 \(GELU\) is no sum over paths"),
        (nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "LayerNorm.*is no weight of a linear layer"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)), "is no weight of a linear layer"),
        (Squashed(), "not affine in positive inputs"),
        (nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False)), "no running statistics"),
    ],
)
def test_where_there_is_no_sum_over_paths(model, why):
    row = log_path(model.double())
    assert row["status"] == "not applicable"
    assert math.isnan(row["value"])
    assert re.search(why, row["reason"])


@settings(max_examples=5, deadline=None)
@given(st.floats(0.3, 3.0))
def test_how_measures_scale_with_the_weights(factor):
    """A network without biases of 3 layers, all weights of start and end times a factor: outputs go with its third power."""
    one, other = mlp(bias=False), mlp(bias=False, scale=factor)
    x, y = problem(one, wrong=0)
    start = shaken(one)
    which = (*CHEAP, "flatness_gaussian")
    a = asked(one, ls.Trajectory.of(initial=start, final=ls.state_of(one)), batches(x, y), which)
    start = {name: factor * tensor for name, tensor in start.items()}
    b = asked(other, ls.Trajectory.of(initial=start, final=ls.state_of(other)), batches(x, y), which)
    ratio = {name: b[name]["value"] / a[name]["value"] for name in (*which, "error/train") if a[name]["value"]}
    plus = {name: b[name]["value"] - a[name]["value"] for name in a if name.startswith("log_")}
    log = math.log(factor)
    for name in ("log_pfn", "log_psn", "log_path_norm"):
        assert plus[name] == pytest.approx(3 * log, abs=2e-3)
    assert plus["log_sosp"] == pytest.approx(log, abs=2e-3)
    assert plus["log_spectral_margin"] == pytest.approx(0, abs=1e-2)
    powers = {"margin_q10": 3, "margin_median": 3, "distance_squared": 2, "distance_sum": 1, "sosp": 1, "parameters": 0}
    powers |= {"margin_q10_normalised": 0, "margin_median_normalised": 0}
    for name, power in powers.items():
        assert ratio[name] == pytest.approx(factor**power, rel=1e-2)
    assert ratio["flatness_gaussian"] == pytest.approx(factor, rel=0.05)


def linear(n: int = 200) -> tuple[nn.Module, ls.Trajectory, Tensor, Tensor, np.ndarray]:
    """A linear classifier of two classes, its points, and margin / |x| of each."""
    random = torch.Generator().manual_seed(0)
    w, x = torch.randn(5, generator=random), torch.randn(n, 5, generator=random)
    model, y = Margin(w), (x @ w < 0).long()
    trajectory = ls.Trajectory.of(initial={"map.weight": torch.zeros(1, 5)}, final=ls.state_of(model))
    return model, trajectory, x, y, ((x @ w).abs() / x.norm(dim=1)).double().numpy()


def test_gaussian_flatness_is_that_of_the_closed_form():
    """The expected error is the mean of Phi(-margin / (sigma |x|))."""
    model, trajectory, x, y, far = linear()
    spec = {"which": ("flatness_gaussian",), "draws": 40, "samples": 200, "rise": 0.1, "level": 0.99}
    row = asked(model, trajectory, batches(x, y, 200), **spec)["flatness_gaussian"]
    truth = brentq(lambda sigma: norm.cdf(-far / sigma).mean() - 0.1, 1e-3, 10)
    assert row["low"] <= truth <= row["high"]
    assert row["value"] == pytest.approx(truth, rel=0.25)
    assert row["error"] == pytest.approx(0.1, abs=0.01)
    assert row["error"] <= 0.1
    assert row["n"] == 40
    assert row["status"] == "ok"


def test_gaussian_flatness_at_the_ends_of_what_is_searched():
    model, trajectory, x, y, _ = linear(40)
    large = asked(model, trajectory, batches(x, y), ("flatness_gaussian",), rise=0.9)["flatness_gaussian"]
    assert (large["status"], large["value"]) == ("on the edge", 10)
    never = asked(model, trajectory, batches(x, 1 - y), ("flatness_gaussian",))["flatness_gaussian"]
    assert never["status"] == "not applicable"
    assert math.isnan(never["value"])


def test_the_worst_direction_is_that_of_the_closed_form():
    """One point: the loss log(1 + exp(-2 m)) rises most along it, m = w.x - radius |w| |x|."""
    model, trajectory, x, y, far = linear()
    at = int(np.argmax(far))
    w = trajectory[ls.FINAL]["map.weight"][0].double()
    m, reach = abs(float(w @ x[at].double())), float(w.norm() * x[at].double().norm())
    loss = lambda r: math.log1p(math.exp(-2 * (m - r * reach)))  # noqa: E731
    truth = brentq(lambda r: loss(r) - loss(0) - 0.5, 1e-4, 1)
    for ascent in (3, 10):
        data = [(x[at : at + 1], y[at : at + 1])]
        row = asked(model, trajectory, data, ("flatness_worst",), ascent=ascent)["flatness_worst"]
        assert truth * 0.999 <= row["value"] <= truth * 1.021


def test_the_worst_direction_is_worse_than_random_ones():
    """What ascent found at a radius does raise the loss; noise of that size hardly does."""
    model = mlp()
    x, y = problem(model, wrong=0)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    row = asked(model, trajectory, batches(x, y), ("flatness_worst",), samples=1000, climb=0.3)["flatness_worst"]
    own = nn.functional.cross_entropy(model(x), y).item()
    rises = []
    for seed in range(20):
        other, random = mlp(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in other.parameters():
                u = torch.randn(p.shape, generator=random, dtype=p.dtype)
                p.add_(u * row["value"] * p.norm() / u.norm())
        rises.append(nn.functional.cross_entropy(other(x), y).item() - own)
    assert max(rises) < 0.3
    assert row["value"] < 1


@given(st.floats(1e-4, 10), st.floats(1.001, 1.5))
def test_bisection_brackets_where_something_ends(end, ratio):
    low, high = between(lambda x: x <= end, 1e-3, 1.0, ratio)
    assert low <= end or (low, high) == (0.0, 1e-3)
    assert high > end or (low, high) == (1.0, math.inf)
    assert low in (0.0, 1.0) or high <= low * ratio


@pytest.mark.parametrize("search", ["grid", "sequential"])
def test_criticality_and_pac_bayes_are_those_of_the_weights(search):
    """Of a linear classifier with a start in another direction, from the closed form of its errors on the grid."""
    random = torch.Generator().manual_seed(0)
    w, other, x = (torch.randn(*size, generator=random).double() for size in ((5,), (5,), (192, 5)))
    model, y = Margin(w).double(), (x @ w < 0).long()
    trajectory = ls.Trajectory.of(initial={"map.weight": other[None]}, final=ls.state_of(model))
    grid = {"alphas": (0.0, 0.3, 0.6, 1.0), "sigmas": (0.05, 0.2, 0.8)}
    more = grid | {"draws": 40, "most": 400}
    rows = asked(model, trajectory, batches(x, y, 192), DEAR[:3], search=search, **more)

    def error(alpha: float, sigma: float) -> float:
        margin = (x @ ((1 - alpha) * other + alpha * w)) * (1 - 2 * y)
        return float(norm.cdf(-(margin / (sigma * x.norm(dim=1))).numpy()).mean())

    cells = [(a, s) for a in grid["alphas"] for s in grid["sigmas"] if error(a, s) <= 0.1]
    assert min(abs(error(a, s) - 0.1) for a in grid["alphas"] for s in grid["sigmas"]) > 0.008  # none is close
    d = float((w - other).norm())
    alpha, sigma = min(cells, key=lambda cell: cell[0] / cell[1])
    largest = max(s for a, s in cells if a == 1)
    expected = {"criticality": alpha * d / sigma, "pac_bayes": d / largest, "pac_bayes_joint": d / sigma}
    assert {name: math.sqrt(rows[name]["value"]) for name in expected} == pytest.approx(expected)
    assert rows["pac_bayes"]["status"] == "ok"  # sigma is no end of its grid, and that alpha is 1 is no edge here
    assert rows["criticality"]["value"] <= rows["pac_bayes"]["value"]


@pytest.mark.parametrize(("sigmas", "status"), [((0.001, 0.002), "on the edge"), ((0.001, 0.002, 1.0), "ok")])
def test_a_module_that_can_be_put_back_has_a_pac_bayes_all_the_same(sigmas, status):
    """Its criticality is zero, for alpha is 0; D^2 / sigma^2 is not, and says so if sigma is an end of the grid."""
    model, trajectory, x, y, _ = linear(48)
    (name, w), *_ = trajectory[ls.FINAL].items()
    trajectory = ls.Trajectory.of(initial={name: 0.2 * w}, final=trajectory[ls.FINAL])
    spec = ls.MeasuresSpec(which=("criticality", "pac_bayes_joint"), alphas=(0.0, 1.0), sigmas=sigmas)
    table = ls.measure(model, trajectory, {"train": batches(x, y)}, spec)
    (critical,), (joint,) = (table.where(metric=each, part="map").to_dict("records") for each in spec.which)
    assert (critical["value"], critical["status"]) == (0, "zero")
    assert joint["value"] == pytest.approx((0.8 * float(w.norm()) / 0.002) ** 2)
    assert joint["status"] == status


def test_an_infeasible_module_is_said_not_numbered():
    model, trajectory, x, y, _ = linear(48)
    rows = asked(model, trajectory, batches(x, 1 - y), DEAR[:3])
    for name in DEAR[:3]:
        assert rows[name]["status"] == "infeasible"
        assert math.isnan(rows[name]["value"])
        assert "map" in rows[name]["reason"]


def test_without_a_start_or_test_data():
    model = mlp()
    x, y = problem(model)
    rows = asked(model, ls.Trajectory.of(final=ls.state_of(model)), batches(x, y), tuple(MEASURES))
    needing = {"distance_squared", "distance_sum", "sosp", "log_sosp", "log_spectral_margin", *DEAR[:3]}
    lacking = {name for name, row in rows.items() if row["status"] == "not applicable"}
    assert lacking == needing | {"generalisation_gap"}
    assert all("before training" in rows[name]["reason"] for name in needing)
    assert "no test data" in rows["generalisation_gap"]["reason"]
    assert rows["log_pfn"]["value"] > 0


def test_what_margins_and_zero_weights_cannot_say():
    """Too many wrong samples: no margin to divide by. A layer of zeros: no logarithm. No movement: none either."""
    model = mlp()
    x, y = problem(model, wrong=20)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    row = asked(model, trajectory, batches(x, y))["log_spectral_margin"]
    assert row["status"] == "not applicable"
    assert "10 % quantile of training margins" in row["reason"]
    unmoved = asked(
        model, ls.Trajectory.of(initial=ls.state_of(model), final=ls.state_of(model)), batches(*problem(model))
    )
    assert unmoved["distance_sum"]["value"] == 0
    assert unmoved["sosp"]["value"] == 0
    assert {unmoved[name]["reason"] for name in ("log_sosp", "log_spectral_margin")} == {"no weight moved"}
    with torch.no_grad():
        model[2].weight.zero_()
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    rows = asked(model, trajectory, batches(*problem(model)))
    for name in ("log_pfn", "log_psn", "log_spectral_margin", "margin_q10_normalised"):
        assert rows[name]["status"] == "not applicable"
        assert "all 0" in rows[name]["reason"]


class Tied(nn.Module):
    """Two linear layers of one weight, an unused one, an embedding's worth of biases, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.b(torch.relu(self.a(x)))))


def test_modules_are_weights_of_maps_that_are_called_and_count_once():
    torch.manual_seed(0)
    model = Tied().double()
    trajectory = ls.Trajectory.of(initial=shaken_tied(model), final=ls.state_of(model))
    table = ls.measure(model, trajectory, {"train": batches(*problem(model, shape=(4,)))}, ls.MeasuresSpec(which=CHEAP))
    assert list(table.where(metric="log_pfn")["part"]) == ["a", "head", WHOLE]
    assert table.where(metric="parameters")["value"].item() == 16 + 4 + 4 + (16 + 4) + 8 + (12 + 3)
    left_out = table.provenance["left_out"]
    assert set(left_out) == {
        "a.bias",
        "b.bias",
        "unused.weight",
        "unused.bias",
        "norm.weight",
        "norm.bias",
        "head.bias",
    }
    assert "not called" in left_out["unused.weight"]
    assert "a bias" in left_out["a.bias"]
    assert "LayerNorm" in left_out["norm.bias"]


def shaken_tied(model: nn.Module) -> dict[str, Tensor]:
    state = shaken(model)
    return state | {"b.weight": state["a.weight"]}


def test_only_what_is_asked_is_there_and_the_model_is_untouched():
    model = mlp().train()
    before = everything(model)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    x, y = problem(mlp())
    rows = asked(model, trajectory, batches(x, y), tuple(MEASURES))
    assert same(before, everything(model))
    assert set(rows) == {*MEASURES, "error/train", "cross_entropy/train", "generalisation_gap"}
    few = asked(model, trajectory, batches(x, y), ("log_pfn",))
    assert set(few) == {"log_pfn", "error/train", "cross_entropy/train", "generalisation_gap"}
    assert few["log_pfn"]["value"] == rows["log_pfn"]["value"]
    assert set(DIRECTION) == set(LABELS) == set(MEASURES) == {*CHEAP, *DEAR}
    assert set(DIRECTION.values()) == {1, -1}


def test_the_same_seed_gives_the_same_and_batches_do_not_matter():
    """Of all but the sequential search, whose blocks are of one batch each."""
    model = mlp()
    x, y = problem(model)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    which = (*CHEAP, "flatness_gaussian", "flatness_worst")
    a, b, c = (asked(model, trajectory, batches(x, y, size), which) for size in (24, 24, 7))
    one, again, others = ([rows[name]["value"] for name in which] for rows in (a, b, c))
    assert one == again
    assert others == pytest.approx(one, rel=1e-9)
    other = asked(model, trajectory, batches(x, y), which, seed=1)
    assert other["flatness_gaussian"]["value"] != a["flatness_gaussian"]["value"]


@pytest.mark.parametrize(
    ("data", "spec", "why"),
    [
        ([], {}, "need training data"),
        ({"test": []}, {}, "need training data"),
        ({"train": [], "valid": []}, {}, "unknown split 'valid'"),
        (None, {"which": ("log_pnf",)}, "unknown measure 'log_pnf'"),
        (None, {"operator": "square"}, "operator"),
        (None, {"eps": 1.5}, "eps"),
        (None, {"rise": 0.0}, "rise"),
        (None, {"samples": 0}, "samples"),
    ],
)
def test_wrong_use(data, spec, why):
    model = mlp()
    with pytest.raises(UseError, match=why):
        ls.measure(model, ls.Trajectory.of(final=ls.state_of(model)), data, ls.MeasuresSpec(**spec))


def test_ties_are_errors():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), BothSigns())
    with torch.no_grad():
        model[0].weight.zero_()
    data = [(torch.randn(6, 2), torch.tensor([0, 1] * 3))]
    rows = asked(model, ls.Trajectory.of(final=ls.state_of(model)), data)
    assert rows["error/train"]["value"] == 1
    assert rows["margin_median"]["value"] == 0


def test_a_gap_of_noisy_training_labels_is_said_to_be_one():
    """Clean test error less noisy training error: a warning, and the gap against the labels before the noise beside it."""
    model = mlp()
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    x, learned = problem(model, wrong=0)
    true = learned.clone()
    true[:12] = (true[:12] + 1) % 3  # the network has learned 12 wrong labels
    test = batches(*problem(model, 40, wrong=10))
    spec = ls.MeasuresSpec(which=("log_pfn",))

    def of(train, **more):
        return ls.measure(model, trajectory, {"train": train, **more}, spec)

    table = of(Split(x, learned, true).batches(24), test=test)
    rows = table.where(part=WHOLE).set_index(["metric", "split"])["value"]
    assert (rows["error", "train"], rows["error", "recovered"]) == (0, 12 / 60)
    assert rows["generalisation_gap", ""] == pytest.approx(10 / 40)
    assert rows["generalisation_gap", "recovered"] == pytest.approx(10 / 40 - 12 / 60)
    (row,) = table.where(metric="generalisation_gap", split="recovered").to_dict("records")
    assert (row["n"], row["interval"]) == (40, "population")
    assert row["low"] < row["value"] < row["high"]
    (said,) = table.provenance["warnings"]
    assert said.startswith(
        "12 training labels were changed at random, and no test label was: the generalisation gap is the error"
    )
    assert table.provenance["changed_labels"] == 12
    for quiet in (
        of(Split(x, learned, true).batches(24)),  # there is no gap
        of(Split(x, learned, learned).batches(24), test=test),  # noise that changed nothing
        of(Split(x, learned).batches(24), test=test),
        of(batches(x, learned), test=test),
    ):
        assert quiet.provenance["warnings"] == []
        assert "recovered" not in set(quiet.where(metric="generalisation_gap")["split"])


@pytest.mark.parametrize("which", [("criticality",), ("pac_bayes",), ("pac_bayes", "pac_bayes_joint", "criticality")])
def test_what_the_searches_warn_of_is_not_lost(which):
    """At an eps below the network's own error, with few draws, and from a start where noise can only help."""
    model, trajectory, x, y, _ = linear(320)
    (name, w), *_ = trajectory[ls.FINAL].items()
    trajectory = ls.Trajectory.of(initial={name: -0.1 * w}, final=trajectory[ls.FINAL])
    data = batches(x, torch.where(torch.arange(320) < 32, 1 - y, y), 320)
    asked_for = {"eps": 0.05, "sigmas": (0.01, 1.0), "search": "grid", "draws": 20}
    table = ls.measure(model, trajectory, {"train": data}, ls.MeasuresSpec(which=which, alphas=(0.0, 1.0), **asked_for))

    def alone(alphas):
        return ls.criticality(
            model, trajectory, data, spec=ls.CriticalitySpec(**asked_for | {"alphas": alphas, "eps": (0.05,)})
        )

    found = [alone((1.0,))] if "pac_bayes" in which else []
    found += [alone((0.0, 1.0))] if "criticality" in which else []
    said = table.provenance["warnings"]
    assert len(said) == len(set(said))
    own = "PAC-Bayes: " if "criticality" not in which else ""
    first = [own + text for text in found[-1].provenance["warnings"]]
    assert said[: len(first)] == first
    assert all(text.startswith("PAC-Bayes: ") for text in said[len(first) :])
    checks = [each.provenance["monotonicity"] for each in found]
    falls = checks[-1]["falls"]
    assert bool(falls) == ("criticality" in which)  # it falls at alpha = 0
    assert table.provenance["monotonicity"] == {
        "pairs": sum(check["pairs"] for check in checks),
        "able": sum(check["able"] for check in checks),
        "fall": checks[-1]["fall"],
        "falls": falls,
    }
    assert any("below the trained network's own error" in text for text in said)


def test_a_fall_that_both_searches_saw_is_told_once():
    """The trained network has all samples wrong, so that noise helps at alpha = 1, where both look."""
    model, trajectory, x, y, _ = linear(320)
    final = {name: 0.1 * w for name, w in trajectory[ls.FINAL].items()}
    trajectory = ls.Trajectory.of(initial={"map.weight": torch.zeros(1, 5)}, final=final)
    spec = ls.MeasuresSpec(which=DEAR[:3], alphas=(1.0,), sigmas=(0.01, 1.0), search="grid", draws=20)
    table = ls.measure(model, trajectory, {"train": batches(x, 1 - y, 320)}, spec)
    assert table.provenance["monotonicity"]["pairs"] == 2
    assert len(table.provenance["monotonicity"]["falls"]) == 1
    assert sum("expected error falls" in text for text in table.provenance["warnings"]) == 1
    cheap = ls.measure(model, trajectory, {"train": batches(x, y)}, ls.MeasuresSpec(which=CHEAP))
    assert "monotonicity" not in cheap.provenance


def test_specs_of_criticality_are_asked_as_they_are_said():
    spec = ls.MeasuresSpec(eps=0.2, alphas=(0.0, 1.0), sigmas=(0.1,), search="grid", draws=3, seed=5, level=0.9)
    expected = ls.CriticalitySpec(
        eps=(0.2,), alphas=(0.0, 1.0), sigmas=(0.1,), search="grid", draws=3, seed=5, level=0.9
    )
    assert replace(spec).criticality == expected
