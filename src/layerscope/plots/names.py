"""What metrics are called, and the units people read them in. Plain values."""

import re

DELTA = "_delta"
"""The ending of a metric that is the change from the unmodified network."""
WORSENING = "_worsening"
"""The ending of a metric that is by how much worse it is at `alpha` than at `alpha_b`, nearer the trained values."""
SHARE = "fraction"
"""The unit of metrics that are shown in per cent."""
_DISTANCES = {
    "distance_l2": "Distance (2-norm / √parameters)",
    "distance_max": "Distance (largest entry)",
    "norm_rms": "Norm (root mean square)",
}


def noun(metric: str) -> str:
    """A metric within a sentence: `top5_error` is a top-5 error; a user's own name loses its underscores."""
    spelt = re.sub(r"^top(\d+)_", r"top-\1 ", metric.removesuffix(DELTA)).replace("cross_entropy", "cross-entropy")
    return spelt.replace("_", " ").strip() or metric


def title(metric: str) -> str:
    """A metric as the heading of a picture."""
    if metric.endswith(DELTA):
        return f"Change of {noun(metric)}"
    return _DISTANCES.get(metric) or noun(metric)[:1].upper() + noun(metric)[1:]


def shown_unit(metric: str, unit: str) -> tuple[float, str]:
    """The factor to what people read, and its unit: fractions become per cent, changes of them percentage points."""
    if unit != SHARE:
        return 1.0, unit
    return 100.0, "percentage points" if metric.endswith(DELTA) else f"% {noun(metric)}"


def is_exponential(metric: str) -> bool:
    """Whether a metric is the exponential of what is measured, so that its ratios count."""
    return metric == "perplexity"


def counted(metric: str) -> str:
    """What the n of a metric counts: sequences where a sample has many tokens, as these are not independent."""
    return "sequence" if metric.removesuffix(DELTA) == "perplexity" or metric.startswith("token_") else "sample"
