"""What is measured a token, with sequences as the independent units."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from layerscope import stats
from layerscope.errors import UseError
from layerscope.metrics.base import Base, Observation, Row
from layerscope.metrics.classes import check_labels, check_tensors, wide
from layerscope.metrics.error import is_error

Sums = tuple[Tensor, Tensor]
"""Of each sequence of a batch: the sum over its tokens, and how many tokens count."""


class TokenMean(Base):
    """The mean over all tokens of a number per token, and its paired difference to the unmodified network.

    Outputs are logits `[n, tokens, vocabulary]`, targets token numbers `[n, tokens]`; a target of `ignore` does not count.
    With `next_token` the output at a place is compared with the target of the next place (a causal language model, where
    targets are the inputs); without, with the target of the same place (masked tokens, tags, targets shifted already).

    `n` is the number of sequences: tokens of one sequence are not independent, and intervals (Student's t, delta method for
    a ratio of means) take the sequence as the unit. Coverage of the 95 % intervals, measured on sequences of very different
    length and difficulty: 95 % for 200 sequences, 93 to 95 % for 60, 91 to 94 % for 30.
    """

    IGNORE: ClassVar[int] = -100

    def __init__(self, next_token: bool = True, ignore: int = IGNORE, level: float = 0.95) -> None:
        super().__init__(level)
        self.next_token, self.ignore = next_token, ignore
        if not next_token:
            self.name = f"{self.name}_same_place"

    def per_token(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """One number (or truth value) a token: outputs `[tokens, vocabulary]`, targets `[tokens]`, none to be ignored."""
        raise NotImplementedError

    def transformed(self, mean: float) -> tuple[float, float]:
        """What is reported of the mean over tokens, and its derivative."""
        return mean, 1.0

    def keep(self, targets: Any, outputs: Any) -> Sums:
        check_tensors(outputs, targets, self.name)
        if outputs.ndim != 3 or targets.shape != outputs.shape[:2] or targets.is_floating_point():
            raise UseError(
                f"{self.name} needs outputs [n, tokens, vocabulary] and token numbers [n, tokens] as targets, but outputs "
                f"are {list(outputs.shape)} and targets {list(targets.shape)} of {targets.dtype}"
            )
        check_labels(targets.masked_fill(targets == self.ignore, 0), outputs.shape[2], self.name)
        return self._sums(outputs, targets)

    def init(self) -> list[tuple[Sums, Sums]]:
        return []

    def update(self, state: list[tuple[Sums, Sums]], seen: Observation) -> list[tuple[Sums, Sums]]:
        state.append((self._sums(seen.outputs, seen.targets), seen.reference))
        return state

    def compute(self, state: list[tuple[Sums, Sums]]) -> list[Row]:
        mine, unmodified = zip(*state, strict=True)
        sums, counts = _columns(mine)
        reference, _ = _columns(unmodified)
        if not counts.sum():
            raise UseError(f"{self.name}: no token counts: all targets are {self.ignore}, or sequences have one token")
        value, influence = self._estimate(sums, counts)
        before, influence_before = self._estimate(reference, counts)
        n = int((counts > 0).sum())
        change = value - before
        return [
            self._row(self.name, value, n, stats.around(value, influence, self.level)),
            self._row(f"{self.name}_delta", change, n, stats.around(change, influence - influence_before, self.level)),
        ]

    def _estimate(self, sums: np.ndarray, counts: np.ndarray) -> tuple[float, np.ndarray]:
        """The reported value, and each sequence's influence on it."""
        some = counts > 0
        sums, counts = sums[some], counts[some]
        mean = float(sums.sum() / counts.sum())
        value, slope = self.transformed(mean)
        with np.errstate(invalid="ignore", over="ignore"):
            return value, slope * (sums - mean * counts) / counts.mean()

    def _sums(self, outputs: Tensor, targets: Tensor) -> Sums:
        if self.next_token:
            outputs, targets = outputs[:, :-1], targets[:, 1:]
        counts = targets != self.ignore
        values = torch.zeros(targets.shape, dtype=torch.float64, device=outputs.device)
        values[counts] = self.per_token(outputs[counts], targets[counts].long()).double()
        return values.sum(1).cpu(), counts.sum(1).double().cpu()


def _columns(state: Iterable[Sums]) -> Iterator[np.ndarray]:
    return (torch.cat(column).numpy() for column in zip(*state, strict=True))


class TokenCrossEntropy(TokenMean):
    """The mean of -log p(token), in nats per token. See `TokenMean` for shapes, `next_token` and intervals."""

    name = "token_cross_entropy"
    unit = "nats/token"

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return math.log(outputs.shape[2])

    def per_token(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(wide(outputs), targets, reduction="none")


class Perplexity(TokenCrossEntropy):
    """The exponential of `TokenCrossEntropy`: of as many equally likely tokens the next one would be as hard to guess."""

    name = "perplexity"
    unit = ""

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return float(outputs.shape[2])

    def transformed(self, mean: float) -> tuple[float, float]:
        value = math.exp(mean) if mean < 700 else math.inf
        return value, value


class TokenError(TokenMean):
    """The share of tokens that are guessed wrongly. See `TokenMean` for shapes, `next_token` and intervals."""

    name = "token_error"
    unit = "fraction"

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return 1 - 1 / outputs.shape[2]

    def per_token(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return is_error(outputs, targets)
