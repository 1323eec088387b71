"""What is measured on a network's outputs. A new metric is one file here, and one entry of `METRICS`."""

from collections.abc import Callable

from layerscope.errors import UseError, unknown
from layerscope.imported import imported, is_path
from layerscope.metrics.base import Function, Metric, Observation, SampleMean, as_metric, as_metrics
from layerscope.metrics.cka import CKA, LinearCKA
from layerscope.metrics.cross_entropy import CrossEntropy
from layerscope.metrics.disagreement import Disagreement
from layerscope.metrics.error import ErrorRate, TopKError
from layerscope.metrics.regression import AbsoluteError, SquaredError
from layerscope.metrics.tokens import Perplexity, TokenCrossEntropy, TokenError, TokenMean

METRICS: dict[str, Callable[[float], Metric]] = {
    "error": lambda level: ErrorRate(level),
    "top5_error": lambda level: TopKError(5, level),
    "cross_entropy": lambda level: CrossEntropy(level),
    "token_error": lambda level: TokenError(level=level),
    "token_cross_entropy": lambda level: TokenCrossEntropy(level=level),
    "perplexity": lambda level: Perplexity(level=level),
    "squared_error": lambda level: SquaredError(level),
    "absolute_error": lambda level: AbsoluteError(level),
    "disagreement": lambda level: Disagreement(level=level),
}
"""Name -> metric with a confidence level."""


def named(name: str, level: float = 0.95) -> Metric:
    """A metric by its name, such as `error` or `top3_error`; `same_place` after a colon (`token_error:same_place`) compares
    each token's output with the target of the same place instead of the next. `package.module:NAME` is one of your own: a
    metric, or a function of (outputs, targets)."""
    base, _, option = name.partition(":")
    if base.startswith("top") and base.endswith("_error") and base[3:-6].isdigit():
        return TopKError(int(base[3:-6]), level)
    if base not in METRICS and is_path(name):
        return as_metric(imported(name, "a metric"))
    if base not in METRICS:
        raise unknown("metric", name, METRICS, "Or package.module:NAME for your own.")
    metric = METRICS[base](level)
    if option:
        if option != "same_place" or not isinstance(metric, TokenMean):
            raise UseError(f"{name!r}: only metrics of tokens have an option, same_place")
        return type(metric)(next_token=False, level=level)
    return metric


__all__ = [
    "CKA",
    "METRICS",
    "AbsoluteError",
    "CrossEntropy",
    "Disagreement",
    "ErrorRate",
    "Function",
    "LinearCKA",
    "Metric",
    "Observation",
    "Perplexity",
    "SampleMean",
    "SquaredError",
    "TokenCrossEntropy",
    "TokenError",
    "TokenMean",
    "TopKError",
    "as_metric",
    "as_metrics",
    "named",
]
