"""What is measured in one pass over the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.stats import Interval, mean, paired_proportions, proportion

S = TypeVar("S")
Row = dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """One batch, as a metric sees it: targets, the variant's outputs, and what the metric kept of the unmodified network's
    outputs on this batch."""

    targets: Any
    outputs: Any
    reference: Any


@runtime_checkable
class Metric(Protocol[S]):
    """`init` a state, `update` it with each batch, `compute` rows (metric, unit, value, n, low, high, interval, level).

    `keep` is called once a batch with the unmodified network's outputs, and gives what the metric wants to know of them
    later: keep it small, for it is held for all batches.
    """

    name: str

    def keep(self, targets: Any, outputs: Any) -> Any: ...

    def init(self) -> S: ...

    def update(self, state: S, seen: Observation) -> S: ...

    def compute(self, state: S) -> list[Row]: ...


class Base:
    """What the metrics here have in common: a name, a unit, whether lower is better, and the level of their intervals."""

    name: str
    unit: str
    better: ClassVar[str] = "lower"

    def __init__(self, level: float = 0.95) -> None:
        self.level = level

    def chance(self, targets: Any, outputs: Any) -> float | None:
        """The value of guessing, from one batch; None where nobody can say."""
        return None

    def _row(self, metric: str, value: float, n: int, interval: Interval) -> Row:
        row: Row = {"metric": metric, "unit": self.unit, "value": value, "n": n}
        if np.isfinite(value):
            return row | {"low": interval.low, "high": interval.high, "interval": "population", "level": self.level}
        return row | {"status": "not finite", "reason": "the network's outputs overflow or are not numbers"}


class SampleMean(Base):
    """The mean over samples of a number per sample, and its paired difference to the unmodified network.

    Two rows: NAME, and NAME_delta (variant minus unmodified, on the same samples). Intervals are of kind `population`:
    the samples are seen as draws from the distribution the data came from. Where `per_sample` gives truth values they are
    Wilson's, and Bonett and Price's for the difference; for numbers, Student's t.
    """

    def per_sample(self, outputs: Any, targets: Any) -> Tensor:
        """One number (or truth value) a sample `[n]`; n is the length of the outputs' first axis."""
        raise NotImplementedError

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        return self._values(outputs, targets)

    def init(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def update(self, state: list[tuple[Tensor, Tensor]], seen: Observation) -> list[tuple[Tensor, Tensor]]:
        state.append((self._values(seen.outputs, seen.targets), seen.reference))
        return state

    def compute(self, state: list[tuple[Tensor, Tensor]]) -> list[Row]:
        values, reference = (torch.cat(column).numpy() for column in zip(*state, strict=True))
        n = len(values)
        if values.dtype == bool:
            worse, better = int((values & ~reference).sum()), int((reference & ~values).sum())
            intervals = proportion(int(values.sum()), n, self.level), paired_proportions(worse, better, n, self.level)
            centres = float(values.mean()), (worse - better) / n
        else:
            values, change = values.astype(float), values.astype(float) - reference
            intervals = mean(values, self.level), mean(change, self.level)
            centres = float(values.mean()), float(change.mean())
        return [
            self._row(self.name, centres[0], n, intervals[0]),
            self._row(f"{self.name}_delta", centres[1], n, intervals[1]),
        ]

    def _values(self, outputs: Any, targets: Any) -> Tensor:
        values = self.per_sample(outputs, targets)
        sizes = [value.shape[0] for value in (targets, outputs) if isinstance(value, Tensor) and value.ndim]
        right = isinstance(values, Tensor) and values.ndim == 1 and len(values) in (sizes or [len(values)])
        if not right or values.is_complex():
            got = f"shape {list(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            shape = f"[{sizes[0]}]" if sizes else "[n]"
            raise UseError(
                f"metric {self.name!r} must give one number a sample, a tensor of shape {shape}, but gave {got}"
            )
        return values.detach().cpu() if values.dtype == torch.bool else values.detach().double().cpu()


class Function(SampleMean):
    """A metric of your own: a function of (outputs, targets) that gives one number a sample."""

    def __init__(
        self,
        name: str,
        per_sample: Callable[[Any, Any], Tensor],
        unit: str = "",
        better: str = "lower",
        level: float = 0.95,
    ) -> None:
        super().__init__(level)
        if better not in ("lower", "higher"):
            raise UseError(f"better must be lower or higher, not {better!r}")
        self.name, self.unit, self.better = name, unit, better  # type: ignore[misc]
        self._function = per_sample

    def per_sample(self, outputs: Any, targets: Any) -> Any:
        return self._function(outputs, targets)


def as_metric(given: Any) -> Metric[Any]:
    """A metric, or a plain function of (outputs, targets) under its own name."""
    if isinstance(given, type):
        raise UseError(f"{given.__name__} is a class; write {given.__name__}()")
    if isinstance(given, Metric):
        return given
    if callable(given):
        return Function(getattr(given, "__name__", type(given).__name__), given)  # type: ignore[arg-type]
    raise UseError(f"{given!r} is neither a metric nor a function of (outputs, targets)")


def as_metrics(given: Sequence[Any]) -> list[Metric[Any]]:
    """Metrics of different names; at least one."""
    metrics = [as_metric(metric) for metric in given]
    if not metrics:
        raise UseError("metrics must be at least one")
    names = [metric.name for metric in metrics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UseError(f"two metrics are called {twice[0]!r}; give one another name: ls.Function(name, function)")
    return metrics
