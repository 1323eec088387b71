"""chatterji2020, Figs. 3 and 8: do spectra, or the norm of what training added, tell critical modules apart?"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from layerscope import stats
from layerscope.analyses.spec import SpectraSpec
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.chatterji2020.rewinding import MODULES, is_critical
from layerscope.studies.frame import Claim, Estimate, Replicate, Study, too_few

ANALYSES = {"modules": MODULES, "spectra": SpectraSpec()}


def separation(seed: Replicate, numbers: pd.Series) -> float:
    """The probability that a number is larger for a critical module than for another (area under the ROC curve, ties half);
    NaN where no module is critical, or every one."""
    critical = is_critical(seed.table("modules"))
    both = numbers.index.intersection(critical.index)
    ones = {part for part, is_one in critical.items() if is_one}
    high = np.array([numbers[part] for part in both if part in ones])
    low = np.array([numbers[part] for part in both if part not in ones])
    if not len(high) or not len(low):
        return math.nan
    return float(np.mean((high[:, None] > low[None]) + 0.5 * (high[:, None] == low[None])))


def off_half(values: Sequence[float]) -> Estimate:
    """How far the mean of areas over seeds is from 1/2, where nothing is told apart; the ends from Student's interval."""
    areas = np.array(values)
    found = stats.mean(areas)
    inside = found.low <= 0.5 <= found.high
    ends = sorted((abs(found.low - 0.5), abs(found.high - 0.5)))
    reason = (
        too_few(len(areas))
        if np.isfinite(areas).all()
        else "no module is critical, or every one is, in at least one run"
    )
    return Estimate(float(abs(areas.mean() - 0.5)), 0.0 if inside else ends[0], ends[1], len(areas), reason)


def growth(seed: Replicate, metric: str) -> pd.Series:
    """By module: the logarithm of how much a number of its spectrum grew in training."""
    rows = seed.table("spectra").where(metric=metric, status="ok")
    rows = rows.loc[rows["to"] != "start"] if "to" in rows else rows
    by = rows.pivot_table(index="part", columns="step", values="value")
    return pd.Series(np.log(by[by.columns[-1]] / by[by.columns[0]]), by.index)


def moved(seed: Replicate) -> pd.Series:
    """By module: operator norm of the difference from the start to the trained values."""
    rows = seed.table("spectra").where(metric="operator_largest", to="start", status="ok")
    return rows.loc[rows["step"] == rows["step"].max()].set_index("part")["value"]


def _claim(id: str, text: str, what: str, numbers: Callable[[Replicate], pd.Series]) -> Claim:
    return Claim(
        id,
        text,
        f"|mean over seeds of the area under the ROC curve - 1/2| of {what} for critical modules (those that cost more than a "
        "tenth of chance - unmodified training error when put back) against the others",
        "area, off 1/2",
        "below",
        0.25,
        overall=lambda replicates: off_half([separation(seed, numbers(seed)) for seed in replicates]),
    )


FIG3 = Study(
    id="chatterji2020/fig3",
    title="Spectra of modules over training",
    source=f"{SOURCE}, Fig. 3",
    claims=(
        _claim(
            "largest_value",
            "How the largest singular value changed in training does not tell critical modules apart.",
            "log (largest singular value, trained / start)",
            lambda seed: growth(seed, "operator_largest"),
        ),
        _claim(
            "effective_number",
            "How the effective number of singular values changed in training does not tell critical modules apart.",
            "log (effective number of singular values, trained / start)",
            lambda seed: growth(seed, "operator_effective"),
        ),
    ),
    scales=scales(ANALYSES),
)

FIG8 = Study(
    id="chatterji2020/fig8",
    title="Operator norm of the difference to the start",
    source=f"{SOURCE}, Fig. 8",
    claims=(
        _claim(
            "norm_of_difference",
            "The operator norm of the difference to the start does not tell critical modules apart.",
            "the operator norm of the difference",
            moved,
        ),
    ),
    scales=scales(ANALYSES),
)

STUDIES = (FIG3, FIG8)
"""The paper judges by eye. Ours: a number whose area is surely between 1/4 and 3/4 tells nothing apart."""
