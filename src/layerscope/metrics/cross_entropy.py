"""Cross-entropy."""

import numpy as np
from torch import Tensor
from torch.nn import functional

from layerscope import stats
from layerscope.metrics.base import SampleMean


class CrossEntropy(SampleMean):
    """The mean of -log p(target), in nats: outputs are logits `[n, classes]`, targets `[n]`. Intervals: Student's t."""

    name = "cross_entropy"
    unit = "nats"

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    def interval(self, values: np.ndarray) -> stats.Interval:
        return stats.mean(values, self.level)

    def paired_interval(self, values: np.ndarray, reference: np.ndarray) -> stats.Interval:
        return stats.mean(values - reference, self.level)
