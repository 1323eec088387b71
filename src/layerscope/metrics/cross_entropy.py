"""Cross-entropy."""

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from layerscope.metrics.base import SampleMean
from layerscope.metrics.classes import a_sample, check_classes, wide


class CrossEntropy(SampleMean):
    """The mean of -log p(target), in nats: outputs are logits `[n, classes]`, targets `[n]`. Intervals: Student's t.

    For outputs `[n, classes, ...]` with a target a pixel, the mean over samples of each one's mean over pixels.
    """

    name = "cross_entropy"
    unit = "nats"

    def chance(self, targets: Any, outputs: Tensor) -> float:
        return math.log(outputs.shape[1])

    def keep(self, targets: Any, outputs: Any) -> Tensor:
        check_classes(outputs, targets, self.name)
        return super().keep(targets, outputs)

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return a_sample(functional.cross_entropy(wide(outputs), targets.long(), reduction="none"))
