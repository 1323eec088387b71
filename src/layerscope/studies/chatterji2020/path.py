"""chatterji2020, Figs. 1, 4 and 10: what lies between the start and the trained values, and beside that way."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from layerscope import stats
from layerscope.analyses.spec import LandscapeSpec
from layerscope.partition import WHOLE
from layerscope.plots.grid import records
from layerscope.plots.landscape import Width, falls, widths
from layerscope.spec import Spec
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.frame import Claim, Estimate, Replicate, Scale, Study, too_few, training_error
from layerscope.table import Table

VALLEYS = {
    "smoke": ("stage0", "stage2.block1.conv2"),
    "small": ("stage0", "stage3.block2.conv2"),
    "paper": ("stage0", "stage4.block2.conv2"),
}
"""The parts whose valleys are drawn: the first module, and the last of the last block."""

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fall(replicates: Sequence[Replicate], analysis: str, metric: str) -> Estimate:
    """The largest fall toward the start over all curves and pairs of places, in the mean over seeds: as measured; `low` from what
    is sure of it in each seed, `high` from the most that the bands of each leave open, both with intervals over seeds."""
    found = [falls(seed.table(analysis), metric) for seed in replicates]
    if any(each.lowest is None or each.without for each in found):
        return Estimate(math.nan, math.nan, math.nan, len(found), "some pairs of places could not be compared")
    sure = np.array([max((-row["high"] for row in each.rows), default=0.0) for each in found])
    left = np.array([-each.lowest["low"] for each in found if each.lowest is not None])
    seen = np.array([_seen(seed.table(analysis), metric) for seed in replicates])
    ends = max(0.0, stats.mean(sure).low), stats.mean(left).high
    return Estimate(float(seen.mean()), *ends, len(found), too_few(len(found)))


def _seen(table: Table, metric: str) -> float:
    rows = records(table.where(metric=f"{metric}_worsening", status="ok"))
    return max(0.0, *(-row["value"] for row in rows))


def narrowest(seed: Replicate) -> float:
    """Of the part that bears more noise at its narrowest place: that place's width as a share of the width at the trained
    values, in training error; NaN where it bears all noise of the grid at the trained values, or none."""
    table = seed.table("valley")
    of_part: dict[str, dict[float, Width]] = {}
    for width in widths(table, "error", training_error(table) + 0.1, "train"):
        of_part.setdefault(width.part, {})[width.alpha] = width
    valleys = [(min(_borne(w) for w in of.values()), of[1.0]) for of in of_part.values()]
    least, trained = max(valleys, key=lambda valley: valley[0])
    return math.nan if trained.largest or not _borne(trained) else least / _borne(trained)


def _borne(width: Width) -> float:
    return 0.0 if math.isnan(width.sigma) else width.sigma


def _valley(parts: tuple[str, ...]) -> LandscapeSpec:
    return LandscapeSpec(parts=parts, alphas=ALPHAS, sigmas=(0.05, 0.1, 0.2, 0.4, 0.8), valley=True, draws=2)


def _for_each(name: str, asked: Callable[[tuple[str, ...]], Spec]) -> dict[str, Scale]:
    """The scales of a study of those parts."""
    return scales({}, **{scale: {name: asked(parts)} for scale, parts in VALLEYS.items()})


def _noisy(parts: tuple[str, ...]) -> LandscapeSpec:
    """Two modules, and all at once; enough draws for bands that a fall of a few points would leave."""
    return LandscapeSpec(parts=(*parts, WHOLE), alphas=(0.0, 0.5, 1.0), sigmas=(0.05,), draws=12)


def _monotone(metric: str, noun: str, margin: float, analysis: str, unit: str) -> Claim:
    return Claim(
        f"no_fall_{metric}",
        f"The {noun} does not significantly decrease from the trained values toward the start.",
        f"the largest decrease of {noun} toward the start, over all curves (modules, all at once; training and test data) "
        "and all pairs of places, mean over seeds; the interval is from what bands that hold for all of them at once make sure "
        "to what they leave open, with Student's interval over seeds",
        unit,
        "below",
        margin,
        overall=lambda replicates: fall(replicates, analysis, metric),
    )


_CURVES = (
    _monotone("error", "error", 0.05, "path", "fraction"),
    _monotone("cross_entropy", "cross-entropy", 0.1, "path", "nats"),
)

FIG1 = Study(
    id="chatterji2020/fig1",
    title="Loss valleys of a critical and a non-critical module",
    source=f"{SOURCE}, Fig. 1",
    claims=(
        Claim(
            "wide_all_the_way",
            "The valley of a non-critical module is wide all the way from the trained values to the start.",
            "of the valley that is wider at its narrowest place: the smallest width along the way / the width at the trained "
            "values (width: the largest sigma of the grid up to which the mean training error is at most 10 points above the "
            "unmodified network's)",
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
        _monotone("error", "error", 0.05, "noisy", "fraction"),
        _monotone("cross_entropy", "cross-entropy", 0.1, "noisy", "nats"),
    ),
    scales=_for_each("noisy", _noisy),
)

STUDIES = (FIG1, FIG4, FIG10)
"""Thresholds, ours: wide is at least half as wide as at the trained values (sigmas double, so that 0.4 lies between a half and
a quarter); a fall of less than 5 points of error, or 0.1 nats, is none."""
