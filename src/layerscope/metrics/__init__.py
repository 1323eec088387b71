"""What is measured on a network's outputs. A new metric is one file here."""

from layerscope.metrics.base import Metric, Observation, SampleMean
from layerscope.metrics.cross_entropy import CrossEntropy
from layerscope.metrics.error import ErrorRate

__all__ = ["CrossEntropy", "ErrorRate", "Metric", "Observation", "SampleMean"]
