"""chatterji2020, theorems 3.2 and B.2, corollary 3.3, and the conjecture that the last rests on."""

import math

from layerscope.analyses.spec import BoundsSpec
from layerscope.plots.grid import records
from layerscope.studies.chatterji2020.networks import SOURCE, scales
from layerscope.studies.frame import Claim, Replicate, Study

EPS = (0.1, 0.2)


def conjecture(seed: Replicate) -> float:
    """The smallest over eps of the mean error of the noisy network on held-out data minus the error of the trained one."""
    rows = seed.table("bounds").where(metric="conjecture", status="ok")
    return min((row["value"] for row in records(rows)), default=math.nan)


BOUNDS = Study(
    id="chatterji2020/bounds",
    title="Bounds as numbers, and the conjecture L_D(trained) <= E L_D(noisy)",
    source=f"{SOURCE}, Theorem 3.2, Corollary 3.3 and Theorem B.2",
    claims=(
        Claim(
            "conjecture",
            "On new data the trained network errs no more than the network on the way to the start with noise, in the mean.",
            f"the smallest over eps = {', '.join(f'{eps:g}' for eps in EPS)} of the expected test error of the noisy network "
            "(all modules at once, at the joint criticality of eps) minus that of the trained one",
            "fraction",
            "above",
            0.0,
            conjecture,
        ),
    ),
    scales=scales(
        {"bounds": BoundsSpec(eps=EPS)},
        small={"bounds": BoundsSpec(eps=EPS, rounds=1, alphas=(0.0, 0.5, 0.9, 1.0))},
        smoke={"bounds": BoundsSpec(eps=EPS, most=32, draws=200)},
    ),
)

STUDIES = (BOUNDS,)
