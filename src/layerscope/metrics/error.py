"""0-1 error."""

import numpy as np
import torch
from torch import Tensor

from layerscope.metrics.base import SampleMean
from layerscope.stats import Interval, paired_proportions, proportion


def is_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """True where a sample is wrong `[n]`: unless the output of its class is larger than every other.

    Ties and NaN are errors (chatterji2020 counts ties so too), so that a dead network never looks right by class order.
    """
    own = outputs.gather(1, targets[:, None])
    others = outputs.scatter(1, targets[:, None], -torch.inf)
    return ~(own > others.amax(1, keepdim=True)).squeeze(1)


class ErrorRate(SampleMean):
    """The share of samples that are classified wrongly: outputs `[n, classes]`, targets `[n]`.

    Intervals: Wilson's for the error, Bonett and Price's for the paired difference.
    """

    name = "error"
    unit = "fraction"

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return is_error(outputs, targets)

    def interval(self, values: np.ndarray) -> Interval:
        return proportion(int(values.sum()), len(values), self.level)

    def paired_interval(self, values: np.ndarray, reference: np.ndarray) -> Interval:
        change = values - reference
        return paired_proportions(int((change > 0).sum()), int((change < 0).sum()), len(values), self.level)
