"""Bounds as numbers: against scipy's roots, torch's and numerical divergences, the full grid of priors, and each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from layerscope.measures import bounds
from layerscope.measures.bounds import Module

fractions = st.floats(0, 1)
modules = st.builds(
    Module,
    k=st.integers(1, 10**7),
    distance=st.floats(-3, 4).map(lambda x: 10**x),
    alpha=st.one_of(st.just(0.0), st.just(1.0), fractions),
    sigma=st.floats(-4, 0).map(lambda x: 10**x),
)
several = st.lists(modules, min_size=1, max_size=12)
samples = st.integers(2, 10**6)
risks = st.floats(1e-6, 0.5)


def exact_kl(one: Module, j: int, m: int) -> float:
    """Eq. 4 of the paper, term by term."""
    s = math.exp((4 * m - j) / one.k + 1)
    moved = (one.alpha * one.distance) ** 2
    return (one.k * one.sigma**2 / s + moved / s - one.k + one.k * math.log(s / one.sigma**2)) / 2


@settings(max_examples=4000, deadline=None)
@given(fractions, several, samples, risks)
def test_theorem_3_2_is_above_what_it_is_made_of(error, found, m, delta):
    """The simple form is never below the exact divergence at the best prior of the grid, and kl's inverse never above that."""
    simple = bounds.theorem_3_2(error, found, m, delta)
    nats = sum(bounds.prior_nats(one, bounds.best_prior(one, m), m) for one in found)
    exact = error + math.sqrt((nats + math.log(m / delta)) / (2 * (m - 1)))
    assert simple >= min(1.0, exact) * (1 - 1e-9)
    assert bounds.pac_bayes_kl(error, found, m, delta) <= min(1.0, exact) * (1 + 1e-9)
    for one in found:
        j, v = bounds.prior_index(one, m), one.variance
        if v > math.exp(min(700, 4 * m / one.k)):
            assert simple > 1
        else:
            assert math.log(v) - 1e-9 <= bounds.prior_log_variance(j, one.k, m) <= math.log(v) + 1 / one.k + 1e-9


@given(st.integers(1, 300), st.floats(0.01, 30), fractions, st.floats(0.02, 1), st.integers(2, 200))
def test_the_best_prior_is_that_of_the_full_grid(k, distance, alpha, sigma, m):
    one = Module(k, distance, alpha, sigma)
    every = [
        exact_kl(one, j, m) + math.log(math.pi**2 * j * j / 6)
        for j in range(1, 4 * m + 12 * k + 2)
        if (4 * m - j) / k < 600
    ]
    found = bounds.prior_nats(one, bounds.best_prior(one, m), m)
    assert found <= min(every) + 1e-7 * max(1, abs(min(every)))
    j = bounds.best_prior(one, m)
    if (4 * m - j) / k < 600:
        assert found == pytest.approx(exact_kl(one, j, m) + math.log(math.pi**2 * j * j / 6), rel=1e-9, abs=1e-7)


@given(fractions, st.floats(1e-9, 50))
def test_the_inverse_of_kl_is_scipys_root(q, c):
    found = bounds.kl_inverse(q, c)
    assert q <= found <= min(1.0, q + math.sqrt(c / 2) + 1e-15)
    divergence = lambda p: (q * math.log(q / p) if q else 0) + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0)  # noqa: E731
    if q < 1:
        top = 1 - 1e-15
        root = brentq(lambda p: divergence(p) - c, max(q, 1e-300), top, xtol=1e-14) if divergence(top) > c else 1.0
        assert found == pytest.approx(root, abs=1e-9)
        assert found == 1 or bounds.kl(q, found) >= c - 1e-9  # rounded up
    else:
        assert found == 1


def test_kl_by_hand():
    assert bounds.kl(0.5, 0.25) == pytest.approx(math.log(2) + 0.5 * math.log(1 / 3))
    assert bounds.kl_inverse(0, 1.5) == pytest.approx(1 - math.exp(-1.5))
    assert bounds.kl(0.5, 0) == bounds.kl(0.5, 1) == math.inf
    assert bounds.kl(0, 0) == bounds.kl(1, 1) == 0


@given(st.integers(1, 20), st.floats(0.1, 3), fractions, st.floats(0.1, 1), st.floats(-2, 2))
def test_the_divergence_is_torchs(k, distance, alpha, sigma, log_variance):
    one = Module(k, distance, alpha, sigma)
    away = torch.zeros(k, dtype=torch.float64)
    away[0] = alpha * distance
    q = torch.distributions.Normal(away, torch.full((k,), sigma, dtype=torch.float64))
    p = torch.distributions.Normal(torch.zeros(k, dtype=torch.float64), math.exp(log_variance / 2))
    truth = float(torch.distributions.kl_divergence(q, p).sum())
    assert bounds.gaussian_kl(one, log_variance) == pytest.approx(truth, rel=1e-7, abs=1e-9)


def test_the_divergence_is_an_integral():
    one, q, p = Module(1, 0.7, 0.5, 0.3), norm(0.35, 0.3), norm(0, 0.8)
    truth, _ = quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -3, 4)
    assert bounds.gaussian_kl(one, 2 * math.log(0.8)) == pytest.approx(truth, rel=1e-7)


def test_theorem_3_2_by_hand():
    """Two modules, worked out on paper: v = 0.01 + 4/100 = 0.05 and 1; J = floor(4000 + 100 + 100 log 20) = 4399 and 4010."""
    one, two = Module(100, 2.0, 1.0, 0.1), Module(10, 5.0, 0.0, 1.0)
    assert (bounds.prior_index(one, 1000), bounds.prior_index(two, 1000)) == (4399, 4010)
    assert (one.ratio, two.ratio, two.nats) == (pytest.approx(400), 0, 0)
    assert one.nats == pytest.approx(100 * math.log(5))
    nats = 25 * math.log(5) + 0.5 + 0.5 * math.log(1000 / 0.05)
    nats += math.log(math.pi * 4399 / math.sqrt(6)) + math.log(math.pi * 4010 / math.sqrt(6))
    assert bounds.theorem_3_2(0.1, [one, two], 1000, 0.05) == pytest.approx(0.1 + math.sqrt(nats / 999))
    more = (
        100 - 25 * math.log(5) + 0.5 * math.log(1000 / 0.05)
    )  # mu' / 4 for the logarithms, and the whole of log(m / delta)
    found = bounds.corollary_3_3(0.1, [one, two], 1000, 0.05)
    assert found == pytest.approx(0.1 + math.sqrt((nats + more) / 999))
    more = 25 * math.log(5) + 0.5 + 1  # half instead of a quarter, and 1
    assert bounds.theorem_b_2(0.2, [one, two], 1000, 0.05) == pytest.approx(0.2 + math.sqrt((nats + more) / 999))


@given(fractions, several, samples, risks)
def test_forms_that_are_tighter_are(error, found, m, delta):
    for one in found:
        assert one.nats <= one.ratio * (1 + 1e-9)
    log = bounds.corollary_3_3(error, found, m, delta, "log")
    assert (
        bounds.theorem_3_2(error, found, m, delta) <= log <= bounds.corollary_3_3(error, found, m, delta) * (1 + 1e-9)
    )


def test_the_noise_of_theorem_b_2_keeps_outputs_within_an_eighth_of_the_margin():
    """On a random bias-free ReLU network, with inputs as long as they may be: in half of the draws at least."""
    random = torch.Generator().manual_seed(0)
    sizes = [(12, 20), (20, 20), (20, 3)]
    weights = [torch.randn(b, a, generator=random, dtype=torch.float64) / a**0.5 for a, b in sizes]
    norms = [float(torch.linalg.matrix_norm(w, 2)) for w in weights]
    x = torch.randn(200, 12, generator=random, dtype=torch.float64)
    x = 2 * x / x.norm(dim=1, keepdim=True)
    gamma = 0.5
    sigmas = [
        bounds.sigma_b_2(gamma, 2.0, 3, 1, 1, max(size), math.prod(norms) / own)
        for size, own in zip(sizes, norms, strict=True)
    ]
    assert sigmas[0] == pytest.approx(
        gamma / (32 * math.e * 3 * 2 * math.sqrt(20 * math.log(12)) * norms[1] * norms[2])
    )

    def outputs(weights: list[torch.Tensor]) -> torch.Tensor:
        y = x
        for w in weights[:-1]:
            y = (y @ w.mT).relu()
        return y @ weights[-1].mT

    still, near = outputs(weights), 0
    for _ in range(50):
        noisy = [
            w + s * torch.randn(w.shape, generator=random, dtype=torch.float64)
            for w, s in zip(weights, sigmas, strict=True)
        ]
        near += float((outputs(noisy) - still).abs().max()) <= gamma / 8
    assert near >= 25
    assert bounds.sigma_b_2(10**9, 2.0, 3, 1, 1, 20, 1.0) == 1


def test_counting_parameters():
    assert bounds.parameter_count(0.1, 0, 100, math.exp(-2)) == pytest.approx(0.1 + 0.1)
    assert bounds.parameter_count(0.0, 32 * 10, 1000, 0.05) == pytest.approx(
        math.sqrt((320 * math.log(2) + math.log(20)) / 2000)
    )


def test_the_limit_from_draws_holds_and_is_about_that_of_langford_and_caruana():
    """kl's inverse of log(1 / delta) / n is theirs for coins; ours also knows how little these draws scatter."""
    random, missed = np.random.default_rng(0), 0
    for _ in range(300):
        missed += bounds.sampled(random.binomial(16, 0.1, 60) / 16, 0.1) < 0.1
    assert missed <= 45
    errors = random.binomial(16, 0.1, 400) / 16
    coins = bounds.kl_inverse(float(errors.mean()), math.log(1 / 0.05) / 400)
    assert errors.mean() < bounds.sampled(errors, 0.05) < coins
