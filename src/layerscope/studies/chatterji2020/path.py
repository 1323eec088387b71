"""chatterji2020, Figs. 1, 4 and 10: what lies between the start and the trained values, and beside that way."""

import math
from collections.abc import Callable

from layerscope.analyses.spec import LandscapeSpec
from layerscope.partition import WHOLE
from layerscope.plots.landscape import falls, widths
from layerscope.spec import Spec
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.chatterji2020.rewinding import of
from layerscope.studies.frame import Claim, Replicate, Scale, Study
from layerscope.table import Table

VALLEYS = {
    "smoke": ("stage0", "stage2.block1.conv2"),
    "small": ("stage0", "stage3.block2.conv2"),
    "paper": ("stage0", "stage4.block2.conv2"),
}
"""The parts whose valleys are drawn: the first module, and the last of the last block."""

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def largest_fall(table: Table, metric: str) -> float:
    """The most that a curve surely falls toward the start, over all curves and pairs of places; 0 if none surely falls."""
    return max((-row["high"] for row in falls(table, metric).rows), default=0.0)


def narrowest(seed: Replicate) -> float:
    """Of the part that bears more noise at its narrowest place: that place's width as a share of the width at the trained
    values, in training error."""
    table = seed.table("valley")
    still = table.where(perturbation="none", metric="error", split="train")["value"].iloc[0]
    of_part: dict[str, dict[float, float]] = {}
    for width in widths(table, "error", still + 0.1, "train"):
        of_part.setdefault(width.part, {})[width.alpha] = 0.0 if math.isnan(width.sigma) else width.sigma
    shares = [min(w.values()) / w[1.0] for w in of_part.values() if w[1.0]]
    return max(shares, default=math.nan)


def _valley(parts: tuple[str, ...]) -> LandscapeSpec:
    return LandscapeSpec(parts=parts, alphas=ALPHAS, sigmas=(0.025, 0.05, 0.1, 0.2, 0.4), valley=True, draws=2)


def _for_each(name: str, asked: Callable[[tuple[str, ...]], Spec]) -> dict[str, Scale]:
    """The scales of a study of those parts."""
    return scales({}, **{scale: {name: asked(parts)} for scale, parts in VALLEYS.items()})


def _noisy(parts: tuple[str, ...]) -> LandscapeSpec:
    """Two modules, and all at once; enough draws for bands that a fall of a few points would leave."""
    return LandscapeSpec(parts=(*parts, WHOLE), alphas=(0.0, 0.5, 1.0), sigmas=(0.05,), draws=12)


def _monotone(metric: str, noun: str, threshold: float, analysis: str, unit: str) -> Claim:
    return Claim(
        f"no_fall_{metric}",
        f"The {noun} does not significantly decrease from the trained values toward the start.",
        f"the largest sure decrease of {noun} toward the start, over all curves (each module, all at once; training and test "
        "data) and all pairs of places, in bands that hold for all of them at once",
        unit,
        "below",
        threshold,
        of(analysis, lambda table: largest_fall(table, metric)),
    )


_CURVES = (
    _monotone("error", "error", 0.01, "path", "fraction"),
    _monotone("cross_entropy", "cross-entropy", 0.05, "path", "nats"),
)

FIG1 = Study(
    id="chatterji2020/fig1",
    title="Loss valleys of a critical and a non-critical module",
    source=f"{SOURCE}, Fig. 1",
    claims=(
        Claim(
            "wide_all_the_way",
            "The valley of a non-critical module is wide all the way from the trained values to the start.",
            "of the wider of the two valleys: the smallest width along the way / the width at the trained values (width: the "
            "largest sigma of the grid up to which the mean training error is at most 10 points above the unmodified network's)",
            "ratio",
            "above",
            0.4,
            narrowest,
        ),
    ),
    scales=_for_each("valley", _valley),
)

FIG4 = Study(
    id="chatterji2020/fig4",
    title="Error and loss on the way to the start: single modules, and all at once",
    source=f"{SOURCE}, Fig. 4",
    claims=_CURVES,
    scales=scales({"path": LandscapeSpec(alphas=ALPHAS)}),
)

FIG10 = Study(
    id="chatterji2020/fig10",
    title="Error and loss on the way to the start, with noise",
    source=f"{SOURCE}, Fig. 10",
    claims=(
        _monotone("error", "error", 0.01, "noisy", "fraction"),
        _monotone("cross_entropy", "cross-entropy", 0.05, "noisy", "nats"),
    ),
    scales=_for_each("noisy", _noisy),
)

STUDIES = (FIG1, FIG4, FIG10)
"""Thresholds, ours: wide is at least half as wide as at the trained values (sigmas double, so that 0.4 lies between a half and
a quarter); no fall is less than one point of error, or 0.05
nats, that is sure."""
