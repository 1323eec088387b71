"""Bounds on the error on new data: those of chatterji2020, and one that counts parameters. Plain numbers in, plain numbers out.

All hold with probability 1 - delta over the m training samples, if these are independent. Errors are fractions; a bound above
1 says nothing (it is vacuous), and is a number all the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from layerscope.stats import bounded_mean

Holds = Callable[[float], bool]


@dataclass(frozen=True)
class Module:
    """A module of `k` parameters under noise: at `alpha` of its way of length `distance` from the start, with independent
    N(0, sigma^2) added to each, 0 < sigma <= 1."""

    k: int
    distance: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """Its share of the criticality: alpha^2 D^2 / sigma^2."""
        return (self.alpha * self.distance / self.sigma) ** 2

    @property
    def nats(self) -> float:
        """The tighter k log(1 + alpha^2 D^2 / (k sigma^2)), which is at most `ratio`."""
        return self.k * math.log1p(self.ratio / self.k)

    @property
    def variance(self) -> float:
        """Mean square distance of a parameter from the start: that of the best normal prior around it."""
        return self.sigma**2 + (self.alpha * self.distance) ** 2 / self.k


OBJECTIVES: dict[str, Callable[[Module], float]] = {"log": lambda one: one.nats, "ratio": lambda one: one.ratio}
"""What a joint search makes small: a module's term, by the name of the sum."""


def kl(q: float, p: float) -> float:
    """The divergence of a coin that shows q from one that shows p, in nats; infinite where p rules out what q has."""
    if (p == 0 and q > 0) or (p == 1 and q < 1):
        return math.inf
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)


def kl_inverse(q: float, c: float) -> float:
    """The largest error p with kl(q, p) <= c, rounded up; at most q + sqrt(c / 2)."""
    return _edge(lambda p: kl(q, p) <= c, q, 1.0)[1]


def sampled(errors: np.ndarray, delta: float) -> float:
    """What an expected error is at most, but for a probability delta over the independent draws that had these errors in [0, 1].

    The idea of Langford and Caruana (2002), (Not) bounding the true error; the limit is that of `stats.bounded_mean`.
    """
    return bounded_mean(errors, 1 - 2 * delta).high


def prior_index(one: Module, m: int) -> int:
    """J of the formula: the number of a prior in the grid whose variance is at least `one.variance`, and less than e^(1/k) as
    large. 1 where the grid has none so wide: then Theorem 3.2 exceeds 1."""
    return max(1, math.floor(4 * m + one.k - one.k * math.log(one.variance)))


def prior_log_variance(j: int, k: int, m: int) -> float:
    """The logarithm of the variance of prior number j = 1, 2, ... of a module of k parameters: (4 m - j) / k + 1. The grid is
    fixed before there are data, and number j has the share 6 / (pi^2 j^2) of the risk."""
    return (4 * m - j) / k + 1


def gaussian_kl(one: Module, log_variance: float) -> float:
    """Nats from a normal prior of this variance around the start to the module's N(start + alpha (trained - start), sigma^2), in
    all k parameters."""
    log_ratio = math.log(one.variance) - log_variance
    return one.k * (math.expm1(log_ratio) - log_ratio + math.log(one.variance / one.sigma**2)) / 2


def best_prior(one: Module, m: int) -> int:
    """The number of the prior that makes divergence and price of the number smallest together.

    As a function of a real j, their sum falls just where h(j) = j (1 - e^((j - top) / k)) > 4, and h rises to a peak, then falls.
    """
    top = 4 * m + one.k - one.k * math.log(one.variance)
    if top <= 1:
        return 1
    share = lambda j: math.exp((j - top) / one.k)  # noqa: E731
    peak = _edge(lambda j: share(j) * (1 + j / one.k) <= 1, 0.0, top)[0]
    last = _edge(lambda j: j * (1 - share(j)) > 4, peak, top)[0]
    return min((1, max(1, math.floor(last)), math.ceil(last) or 1), key=lambda j: prior_nats(one, j, m))


def prior_nats(one: Module, j: int, m: int) -> float:
    """What a module costs with prior number j: divergence, and log(pi^2 j^2 / 6) for the choice of the number."""
    return gaussian_kl(one, prior_log_variance(j, one.k, m)) + 2 * _choice(j)


def theorem_3_2(error: float, modules: Sequence[Module], m: int, delta: float, choice: float = 0.0) -> float:
    """The expected error on new data of the network under noise, whose expected error on the training data is at most `error`.

    error + sqrt((sum of nats / 4 + d / 4 + log(m / delta) / 2 + sum of log(pi J / sqrt 6)) / (m - 1)). If which Parts are modules
    was not fixed before there were data, delta is shared by all such sets: `choice` is the log of their number.

    Source: chatterji2020, Theorem 3.2. Differs from the paper: Eq. 3 as printed lacks a factor k, and is no upper bound; this is
    what its proof gives.
    """
    return error + _root(sum(one.nats for one in modules) / 4 + (math.log(m / delta) + choice) / 2, modules, m)


def pac_bayes_kl(error: float, modules: Sequence[Module], m: int, delta: float, choice: float = 0.0) -> float:
    """The same, tighter: from Theorem A.1 with the best prior of the grid, the divergence itself, and kl's inverse.

    Source: chatterji2020, Theorem A.1 and the priors of its App. A; Langford and Caruana (2002).
    """
    nats = sum(prior_nats(one, best_prior(one, m), m) for one in modules)
    return kl_inverse(min(error, 1.0), (nats + math.log(m / delta) + choice) / (m - 1))


def corollary_3_3(
    eps: float, modules: Sequence[Module], m: int, delta: float, objective: str = "ratio", choice: float = 0.0
) -> float:
    """The error on new data of the trained network itself, if the conjecture holds that noise on the way back does not improve
    it: with the joint criticality of `modules`, or (`log`) the tighter sum. Their expected training error is at most eps.

    eps + sqrt((sum / 4 + log(m / delta) + O~(1)) / (m - 1)); the O~(1) is that of Theorem 3.2: d / 4 + sum of log(pi J / sqrt 6).

    Source: chatterji2020, Corollary 3.3.
    """
    return eps + _root(sum(map(OBJECTIVES[objective], modules)) / 4 + math.log(m / delta) + choice, modules, m)


def sigma_b_2(gamma: float, radius: float, d: int, side: int, kernel: int, channels: int, others: float) -> float:
    """The noise that a layer of Theorem B.2 bears: min{1, gamma / (32 e d B q sqrt(c log(4 d N^2)) x norms of all other layers)},
    for margin gamma, inputs of norm at most B (`radius`), d layers, images of side N, kernels of side q, and c `channels`: the
    larger number of inputs and outputs (the printed number of outputs is not enough)."""
    noise = kernel * math.sqrt(channels * math.log(4 * d * side**2)) * others
    return min(1.0, gamma / (32 * math.e * d * radius * noise)) if radius * noise else 1.0


def theorem_b_2(error: float, layers: Sequence[Module], m: int, delta: float) -> float:
    """The error on new data of a trained network itself, whose margin on the training data is gamma or less for a share `error`,
    and whose layers have the noise of `sigma_b_2`.

    error + sqrt((sum of nats / 2 + d / 2 + 1 + log(m / delta) / 2 + sum of log(pi J / sqrt 6)) / (m - 1)).

    Source: chatterji2020, Theorem B.2, for a sequential ReLU network without biases.
    """
    d = len(layers)
    return error + _root(sum(one.nats for one in layers) / 2 + d / 4 + 1 + math.log(m / delta) / 2, layers, m)


def parameter_count(error: float, bits: int, m: int, delta: float) -> float:
    """The error on new data of any network that so many `bits` describe, by counting them: a union of Hoeffding's bounds over
    2^bits networks. error + sqrt((bits log 2 + log(1 / delta)) / (2 m)).

    Source: zhang2022, Sec. 4 (counting); Shalev-Shwartz and Ben-David (2014), Understanding Machine Learning, Remark 4.1 (numbers
    as bits) and Sec. 4.2 (Hoeffding and union).
    """
    return error + math.sqrt((bits * math.log(2) + math.log(1 / delta)) / (2 * m))


def _root(nats: float, modules: Sequence[Module], m: int) -> float:
    """The square root that all forms share, with what the choice of priors costs."""
    choice = sum(1 / 4 + _choice(prior_index(one, m)) for one in modules)
    return math.sqrt((nats + choice) / (m - 1))


def _choice(j: int) -> float:
    """log(pi j / sqrt 6): half of what number j costs."""
    return math.log(math.pi * j / math.sqrt(6))


def _edge(holds: Holds, low: float, high: float) -> tuple[float, float]:
    """Where something ends to hold that holds at `low` and no further than there, between two neighbouring numbers."""
    if holds(high):
        return high, high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
