"""0-1 error."""

from typing import Any

import torch
from torch import Tensor

from layerscope.errors import UseError
from layerscope.metrics.base import SampleMean
from layerscope.metrics.classes import a_sample, check_classes


def is_error(outputs: Tensor, targets: Tensor, k: int = 1) -> Tensor:
    """True where a sample is wrong `[n]`: unless the output of its class is larger than all others but k - 1.

    Ties and NaN are errors (chatterji2020 counts ties so too), so that a dead network never looks right by class order.
    """
    smaller = outputs < outputs.gather(1, targets[:, None])  # a NaN is not smaller than anything
    return smaller.sum(1) < outputs.shape[1] - k


def margin(outputs: Tensor, targets: Tensor, k: int = 1) -> Tensor:
    """By how much the output of a sample's class is larger than the k-th largest of the others `[n, decisions]`: a sample is
    wrong where this is not above 0. One decision a sample, or one a pixel."""
    right = outputs.gather(1, targets[:, None].long())
    others = outputs.scatter(1, targets[:, None].long(), -torch.inf)
    return (right - others.topk(k, dim=1).values[:, -1:]).flatten(1)


class ErrorRate(SampleMean):
    """The share of samples that are classified wrongly: outputs `[n, classes]`, targets `[n]`.

    For outputs `[n, classes, ...]` with a target a pixel, the mean over samples of each one's share of wrong pixels.
    """

    name = "error"
    unit = "fraction"

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return 1 - 1 / outputs.shape[1]

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        check_classes(outputs, targets, self.name)
        return super().keep(targets, outputs)

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return a_sample(is_error(outputs, targets.long()))

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How far outputs are from another decision: see `margin`."""
        return margin(outputs, targets)


class TopKError(SampleMean):
    """The share of samples whose class is not among the k with the largest outputs: outputs `[n, classes]`, targets `[n]`.

    Ties and NaN count against the sample, as in `ErrorRate`, which is k = 1.
    """

    unit = "fraction"

    def __init__(self, k: int = 5, level: float = 0.95) -> None:
        super().__init__(level)
        if k < 1:
            raise UseError(f"k must be at least 1, not {k}")
        self.k, self.name = k, f"top{k}_error"

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return 1 - min(1.0, self.k / outputs.shape[1])

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        check_classes(outputs, targets, self.name)
        if self.k >= outputs.shape[1]:
            raise UseError(f"{self.name} of {outputs.shape[1]} classes is always 0; take a smaller k")
        return super().keep(targets, outputs)

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return a_sample(is_error(outputs, targets.long(), self.k))

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How far outputs are from another decision: see `margin`."""
        return margin(outputs, targets, self.k)
