"""chatterji2020, theorems 3.2 and B.2, corollary 3.3, and the conjecture that the last rests on."""

import math
from dataclasses import replace

from layerscope.analyses.spec import BoundsSpec
from layerscope.plots.grid import records
from layerscope.studies.chatterji2020.networks import ABOUT, BASE, SEEDS, SOURCE
from layerscope.studies.frame import Claim, Replicate, Scale, Study

EPS = (0.1, 0.2)
PLAIN = {name: replace(base, model="fcn-2x64?bias=no") for name, base in BASE.items()} | {
    "paper": replace(BASE["paper"], model="fcn-3x256?bias=no", lr=0.01, augment="none", weight_decay=0.0)
}
"""One linear map after another, without biases: what Theorem B.2 is about. At paper scale it learns images as they are, in 36
epochs."""
SPECS = {
    "smoke": BoundsSpec(eps=EPS, most=32, draws=200),
    "small": BoundsSpec(eps=EPS, rounds=1, alphas=(0.0, 0.5, 0.9, 1.0)),
    "paper": BoundsSpec(eps=EPS),
}


def conjecture(seed: Replicate) -> float:
    """The smallest over eps of the mean error of the noisy network on held-out data minus the error of the trained one."""
    rows = seed.table("bounds", "resnet").where(metric="conjecture", status="ok")
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
            networks=("resnet",),
        ),
    ),
    scales={
        name: Scale(
            {"resnet": base, "plain": PLAIN[name]},
            {"bounds": SPECS[name]},
            SEEDS[name],
            f"{ABOUT[name]}; and a fully connected one without biases, for Theorem B.2",
            lean=True,
        )
        for name, base in BASE.items()
    },
    note="Theorem B.2 is about sequential networks without biases, which the residual one is not: it is a number of the second "
    "network (plain). The claim is about the first.",
)

STUDIES = (BOUNDS,)
