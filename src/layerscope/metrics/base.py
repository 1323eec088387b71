"""What is measured in one pass over the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from layerscope.stats import Interval

S = TypeVar("S")
Row = dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """One batch, as a metric sees it: targets, the variant's outputs, and the unmodified network's outputs."""

    targets: Any
    outputs: Any
    reference: Any


@runtime_checkable
class Metric(Protocol[S]):
    """`init` a state, `update` it with each batch, `compute` rows (metric, unit, value, n, low, high, interval, level)."""

    def init(self) -> S: ...

    def update(self, state: S, seen: Observation) -> S: ...

    def compute(self, state: S) -> list[Row]: ...


PerSample = Callable[[Tensor, Tensor], Tensor]
"""(outputs `[n, classes]`, targets `[n]`) -> one number a sample `[n]`."""


class SampleMean:
    """The mean over samples of a number per sample, and its paired difference to the unmodified network.

    Two rows: NAME, and NAME_delta (variant minus unmodified, on the same samples). Intervals are of kind `population`:
    the samples are seen as draws from the distribution the data came from.
    """

    name: str
    unit: str

    def __init__(self, level: float = 0.95) -> None:
        self.level = level

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """One number a sample."""
        raise NotImplementedError

    def interval(self, values: np.ndarray) -> Interval:
        """The interval of the mean of values."""
        raise NotImplementedError

    def paired_interval(self, values: np.ndarray, reference: np.ndarray) -> Interval:
        """The interval of the mean of the differences."""
        raise NotImplementedError

    def init(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def update(self, state: list[tuple[Tensor, Tensor]], seen: Observation) -> list[tuple[Tensor, Tensor]]:
        pair = [self.per_sample(outputs, seen.targets).cpu() for outputs in (seen.outputs, seen.reference)]
        return [*state, (pair[0], pair[1])]

    def compute(self, state: list[tuple[Tensor, Tensor]]) -> list[Row]:
        values, reference = (torch.cat(column).double().numpy() for column in zip(*state, strict=True))
        return [
            self._row(self.name, float(values.mean()), len(values), self.interval(values)),
            self._row(
                f"{self.name}_delta",
                float((values - reference).mean()),
                len(values),
                self.paired_interval(values, reference),
            ),
        ]

    def _row(self, metric: str, value: float, n: int, interval: Interval) -> Row:
        row: Row = {"metric": metric, "unit": self.unit, "value": value, "n": n}
        if np.isfinite(value):
            return row | {
                "low": interval.low,
                "high": interval.high,
                "interval": "population",
                "level": self.level,
            }
        return row | {"status": "not finite", "reason": "the network's outputs overflow or are not numbers"}
