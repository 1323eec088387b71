"""How far outputs are from numbers."""

from typing import Any

from torch import Tensor

from layerscope.errors import UseError
from layerscope.metrics.base import SampleMean
from layerscope.metrics.classes import a_sample, check_tensors


class _Regression(SampleMean):
    def __init__(self, level: float = 0.95, unit: str = "") -> None:
        super().__init__(level)
        self.unit = unit

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        check_tensors(outputs, targets, self.name)
        if outputs.shape != targets.shape:
            raise UseError(
                f"{self.name} needs outputs and targets of one shape, but outputs are {list(outputs.shape)} and targets "
                f"{list(targets.shape)}: they would be broadcast against each other"
            )
        return super().keep(targets, outputs)


class SquaredError(_Regression):
    """The mean over samples of the squared difference (mean over a sample's outputs): outputs and targets `[n, ...]`.

    `unit` is that of the targets, squared.
    """

    name = "squared_error"

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return a_sample((outputs.double() - targets.double()).square())


class AbsoluteError(_Regression):
    """The mean over samples of the absolute difference (mean over a sample's outputs): outputs and targets `[n, ...]`."""

    name = "absolute_error"

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return a_sample((outputs.double() - targets.double()).abs())
