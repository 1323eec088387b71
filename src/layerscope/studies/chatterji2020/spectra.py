"""chatterji2020, Figs. 3 and 8: do spectra, or the norm of what training added, tell critical modules apart?"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from layerscope.analyses.spec import SpectraSpec
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.chatterji2020.rewinding import MODULES, costs, rank_correlation
from layerscope.studies.frame import Claim, Replicate, Study

ANALYSES = {"modules": MODULES, "spectra": SpectraSpec()}


def association(seed: Replicate, numbers: pd.Series) -> float:
    """How strongly a number of each module goes with what it costs when put back: absolute rank correlation."""
    return abs(rank_correlation(numbers, costs(seed.table("modules"))))


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
        f"|Spearman correlation| over modules between {what} and the change of training error when the module is put back to its "
        "start",
        "Spearman's rho, absolute",
        "below",
        0.5,
        lambda seed: association(seed, numbers(seed)),
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
"""The paper judges by eye. Ours: what has an absolute rank correlation surely below 0.5 tells nothing apart. By luck alone it is
0.18 in the mean for 21 modules."""
