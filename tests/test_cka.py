"""Centred kernel alignment: against Gram matrices in NumPy, against the definition of HSIC, and what it must not depend on."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from layerscope.errors import UseError
from layerscope.metrics import CKA, LinearCKA, Metric
from layerscope.metrics.base import Observation
from layerscope.metrics.cka import hsic

EVERY = [LinearCKA(), CKA(), CKA("rbf"), CKA("linear", block=7), CKA("rbf", block=7, width=0.5)]
IDS = ["exact", "linear", "rbf", "linear blocks", "rbf blocks"]


def activations(n: int, *widths: int, seed: int = 0) -> list[Tensor]:
    """Sets of activations that share something."""
    random = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 3, generator=random, dtype=torch.float64)
    mixed = [common @ torch.randn(3, w, generator=random, dtype=torch.float64) for w in widths]
    return [m + torch.randn(m.shape, generator=random, dtype=torch.float64) for m in mixed]


def row(metric: Metric, x: Tensor, y: Tensor, batch: int = 1000) -> dict:
    state = metric.init()
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        state = metric.update(state, Observation(None, a, metric.keep(None, b)))
    (found,) = metric.compute(state)
    assert found["n"] == len(x)
    return found


def value(metric: Metric, x: Tensor, y: Tensor, batch: int = 1000) -> float:
    return row(metric, x, y, batch)["value"]


def gram(x: np.ndarray, kernel: str, width: float = 1.0) -> np.ndarray:
    if kernel == "linear":
        return x @ x.T
    d = np.array([[math.dist(a, b) for b in x] for a in x])
    apart = [d[i, j] for i, j in itertools.permutations(range(len(x)), 2)]
    return np.exp(-(d**2) / (2 * (width * np.sort(apart)[(len(apart) - 1) // 2]) ** 2))


def centred(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    h = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(h @ k @ h @ l))


def by_definition(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """HSIC as the mean over all four different samples of its expectation's integrand."""
    four = itertools.permutations(range(len(k)), 4)
    return float(np.mean([k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in four]))


def ratio(of, k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    return of(k, l) / math.sqrt(of(k, k) * of(l, l))


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_linear_is_that_of_centred_gram_matrices(batch):
    x, y = activations(50, 8, 5)
    expected = ratio(centred, gram(x.numpy(), "linear"), gram(y.numpy(), "linear"))
    assert 0.1 < expected < 0.95
    assert value(LinearCKA(), x, y, batch) == pytest.approx(expected, rel=1e-12)


def test_hsic_is_an_unbiased_estimate():
    """All its terms are of different samples, so that its expectation is HSIC whatever n is."""
    x, y = activations(7, 3, 4)
    k, l = gram(x.numpy(), "linear"), gram(y.numpy(), "rbf")  # noqa: E741
    assert float(hsic(torch.tensor(k), torch.tensor(l))) == pytest.approx(by_definition(k, l), rel=1e-12)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("width", [1.0, 0.4])
def test_one_block_is_the_estimate_of_all_samples(kernel, width):
    x, y = activations(9, 4, 3)
    expected = ratio(by_definition, *(gram(s.numpy(), kernel, width) for s in (x, y)))
    assert value(CKA(kernel, width=width), x, y) == pytest.approx(expected, rel=1e-10)
    assert value(CKA(kernel, 9, width), x, y, 2) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "sizes"), [(20, [6, 6, 8]), (22, [6, 6, 6, 4]), (24, [6, 6, 6, 6])])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_blocks_are_averaged_before_they_are_normalised_and_the_last_counts(n, sizes, kernel):
    """2 samples that are left join the block before, 4 are a block; each counts as many samples as it has."""
    x, y = activations(n, 4, 3)
    parts = [[gram(b.numpy(), kernel) for b in s.split(sizes)] for s in (x, y)]
    mean = lambda a, b: sum(  # noqa: E731
        m * by_definition(*both) for m, *both in zip(sizes, parts[a], parts[b], strict=True)
    )
    assert value(CKA(kernel, block=6), x, y, 5) == pytest.approx(mean(0, 1) / math.sqrt(mean(0, 0) * mean(1, 1)))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(8, 40), batch=st.integers(1, 40), seed=st.integers(0, 1000), which=st.sampled_from(EVERY))
def test_batches_rotation_scale_and_order_of_the_two_do_not_matter(n, batch, seed, which):
    x, y = activations(n, 6, 4, seed=seed)
    found = row(which, x, y)
    if found["status"] != "ok":  # an estimated variance that is negative
        return
    turned = torch.linalg.qr(activations(6, 6, seed=seed + 1)[0]).Q
    same = {
        "batches": value(which, x, y, batch),
        "rotation": value(which, x @ turned, y),
        "scale": value(which, -3 * x, 0.01 * y),
        "place": value(which, x + 100, y - 7),
        "order": value(which, y, x),
    }
    assert same == pytest.approx(dict.fromkeys(same, found["value"]), rel=1e-6, abs=1e-8)
    assert value(which, x, x) == pytest.approx(1)
    assert found["value"] <= 1 + 1e-12 or which.name != "cka_linear"


def test_independent_activations_are_at_0_only_without_bias():
    """With as many units as samples, the biased one calls them similar."""
    x, y = torch.randn(2, 200, 200, generator=torch.Generator().manual_seed(0))
    assert value(LinearCKA(), x, y) > 0.4
    assert abs(value(CKA(), x, y)) < 0.05
    assert abs(value(CKA(block=20), x, y)) < 0.05


def test_places_of_a_convolution_are_units():
    x = torch.randn(12, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    y = x.half()
    assert value(LinearCKA(), y, x) == value(LinearCKA(), y.flatten(1), x.flatten(1)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("metric", EVERY, ids=IDS)
def test_what_cannot_be_said_has_a_reason(metric):
    (x,) = activations(10, 3)
    assert isinstance(metric, Metric)
    constant = row(metric, torch.full((10, 2), 0.1), x)
    assert (constant["status"], "value" in constant) == ("not applicable", False)
    assert "do not vary" in constant["reason"]
    assert row(metric, x.clone().index_fill(0, torch.tensor([9]), math.nan), x)["status"] == "not finite"


def test_equal_samples_have_a_width_of_0():
    """Of seven samples five are equal, and the other two: more than half of the distances are 0."""
    x = torch.zeros(7, 2)
    x[5:] = 5
    y = torch.arange(7.0)[:, None]
    kind = np.array([[float((a == b).all()) for b in x] for a in x])
    expected = ratio(by_definition, kind, gram(y.numpy(), "rbf"))
    assert value(CKA("rbf"), x, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: CKA("cosine"), "kernel must be one of linear, rbf, not 'cosine'"),
        (lambda: CKA(block=3), "block must be at least 4"),
        (lambda: CKA("rbf", width=0.0), "width positive"),
        (lambda: row(CKA(), torch.ones(3, 2), torch.ones(3, 2)), "needs at least 4 samples, not 3"),
        (lambda: LinearCKA().keep(None, torch.ones(3)), r"activations \[n, units, ...\] .* but they are \[3\]"),
        (lambda: CKA().keep(None, "x"), "but they are str"),
        (
            lambda: CKA().update(CKA().init(), Observation(None, torch.ones(3, 2), torch.ones(1, 2))),
            "two activations of each sample, but has 3 of one and 1",
        ),
    ],
)
def test_wrong_use(work, message):
    with pytest.raises(UseError, match=message):
        work()
