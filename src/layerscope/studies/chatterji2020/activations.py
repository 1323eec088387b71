"""chatterji2020, Fig. 9: does a network with a module put back still compute the same?"""

import math

import numpy as np
import pandas as pd

from layerscope.analyses.spec import SimilaritySpec
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.chatterji2020.rewinding import MODULES, costs, is_critical
from layerscope.studies.frame import Claim, Replicate, Study

ANALYSES = {"modules": MODULES, "similarity": SimilaritySpec(n=512, steps=())}


def similarities(seed: Replicate) -> pd.DataFrame:
    """CKA by module that was put back to its start, and by layer in the order of the forward."""
    table = seed.table("similarity")
    rows = table.where(step=0, status="ok")
    layers = [layer for layer in table.provenance["layers"] if layer in set(rows["layer"])]
    return rows.pivot_table(index="part", columns="layer", values="value").reindex(columns=layers)


def of_ambient(seed: Replicate) -> float:
    """Of modules that cost less than a tenth of what there is to lose: mean CKA of the last layer's outputs."""
    critical = is_critical(seed.table("modules"))
    ambient = [part for part, is_one in critical.items() if not is_one]
    found = similarities(seed).reindex(ambient)
    return float(found.iloc[:, -1].mean(skipna=False)) if len(found) else math.nan


def steepest(seed: Replicate) -> float:
    """Of the most critical module: the largest fall of CKA from one layer to the next (or at the module), as a share of the
    whole fall from 1 to the least."""
    row = similarities(seed).loc[costs(seed.table("modules")).idxmax()].dropna()
    least = np.minimum.accumulate([1.0, *row])  # what has recovered and falls again has not fallen further
    whole = 1.0 - float(least[-1])
    return float(-np.diff(least).min()) / whole if whole > 0 else math.nan


FIG9 = Study(
    id="chatterji2020/fig9",
    title="Similarity of activations of the trained network and the one with a module put back",
    source=f"{SOURCE}, Fig. 9",
    claims=(
        Claim(
            "ambient_similar",
            "With a non-critical module put back to its start, activations stay similar.",
            "mean over modules that cost less than a tenth of (chance - unmodified training error): CKA (linear, debiased) of "
            "the last layer's outputs with those of the trained network, on 512 test images",
            "CKA",
            "above",
            0.9,
            of_ambient,
        ),
        Claim(
            "critical_gradual",
            "With a critical module put back, similarity degrades gradually over the layers, not abruptly.",
            "of the most critical module: the largest further fall of CKA from one layer to the next / the whole fall",
            "share",
            "below",
            0.5,
            steepest,
        ),
    ),
    scales=scales(ANALYSES),
)

STUDIES = (FIG9,)
"""The paper judges by eye; thresholds are ours."""
