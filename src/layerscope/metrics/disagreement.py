"""How often a changed network decides otherwise than the unmodified one, right or wrong."""

from typing import Any

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.metrics.base import Base, Observation, Row
from layerscope.metrics.classes import a_sample
from layerscope.stats import mean, proportion


class Disagreement(Base):
    """The share of samples whose largest output is of another class than the unmodified network's; agreement is 1 minus it.

    Needs no targets. Its change (`disagreement_delta`) is itself: the unmodified network never disagrees. Outputs
    `[n, classes]`, or with more axes, of which `axis` has the classes: then a sample's share of places. A NaN disagrees with
    everything. Intervals: Wilson's, of kind population.
    """

    name = "disagreement"
    unit = "fraction"

    def __init__(self, axis: int | None = None, level: float = 0.95) -> None:
        super().__init__(level)
        self.axis = axis

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return 1 - 1 / outputs.shape[self._axis(outputs)]

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        return self._decisions(outputs).cpu()

    def init(self) -> list[Tensor]:
        return []

    def update(self, state: list[Tensor], seen: Observation) -> list[Tensor]:
        decisions = self._decisions(seen.outputs).cpu()
        state.append(a_sample((decisions != seen.reference) | (decisions < 0)))
        return state

    def compute(self, state: list[Tensor]) -> list[Row]:
        values = torch.cat(state).numpy()
        n, value = len(values), float(values.mean())
        share = values.dtype == bool
        interval = proportion(int(values.sum()), n, self.level) if share else mean(values, self.level)
        row = self._row(self.name, value, n, interval)
        return [row, {**row, "metric": f"{self.name}_delta"}]

    def _axis(self, outputs: Any) -> int:
        if not isinstance(outputs, Tensor) or outputs.ndim < 2 or (outputs.ndim > 2 and self.axis is None):
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UseError(
                f"{self.name} needs outputs [n, classes], but they are {shape}; for more axes say which has the classes, "
                "as in Disagreement(axis=-1) for [n, tokens, vocabulary]"
            )
        return 1 if self.axis is None else self.axis

    def _decisions(self, outputs: Any) -> Tensor:
        """The class with the largest output, the first of equal ones; -1 where one is not a number."""
        axis = self._axis(outputs)
        largest, decisions = outputs.max(axis)
        return decisions.masked_fill(largest.isnan(), -1)
