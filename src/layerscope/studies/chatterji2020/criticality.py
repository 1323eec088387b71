"""chatterji2020, Fig. 5: network criticality against the error that is allowed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerscope.analyses.spec import CriticalitySpec
from layerscope.partition import WHOLE
from layerscope.studies.chatterji2020.networks import ABOUT, BASE, SEEDS, SOURCE, corrupt
from layerscope.studies.frame import Claim, Replicate, Scale, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = (0.1, 0.2, 0.3)
SPECS = {
    "smoke": CriticalitySpec(eps=EPS, most=16),
    "small": CriticalitySpec(eps=EPS, most=128),
    "paper": CriticalitySpec(eps=EPS),
}


def of_network(seed: Replicate, network: str) -> dict[float, float]:
    """Network criticality by eps, where it has one."""
    rows = seed.table("criticality", network).where(part=WHOLE, metric="criticality")
    return {eps: value for eps, value in zip(rows["eps"], rows["value"], strict=True) if not math.isnan(value)}


def smallest_ratio(seed: Replicate) -> float:
    """The smallest over eps of log(criticality with corrupted labels / with true labels); NaN if one of them is missing, or 0."""
    true, corrupted = (of_network(seed, name) for name in ("resnet", "corrupt"))
    if set(true) != set(EPS) or set(corrupted) != set(EPS) or min(*true.values(), *corrupted.values()) <= 0:
        return math.nan
    return min(math.log(corrupted[eps] / true[eps]) for eps in EPS)


def figures(replicates: Sequence[Replicate]) -> "dict[str, Figure]":
    """Network criticality against eps, a thin line a network."""
    from layerscope.plots import house

    with house.style():
        figure = house.figure(4.8, 3.4)
        axes = figure.subplots()
        for network, colour, dash in (("resnet", "#0072b2", "-"), ("corrupt", "#b34a00", (0, (5, 2)))):
            for number, seed in enumerate(replicates):
                found = of_network(seed, network)
                label = {"resnet": "true labels", "corrupt": "20 % random labels"}[network] if not number else None
                axes.plot(
                    list(found), list(found.values()), color=colour, linestyle=dash, marker="o", ms=3, lw=1, label=label
                )
        axes.set(yscale="log", xlabel="allowed training error eps", ylabel="network criticality")
        axes.set_title(f"Network criticality, {len(replicates)} seeds of each")
        axes.legend()
    return {"criticality-against-eps": figure}


FIG5 = Study(
    id="chatterji2020/fig5",
    title="Network criticality against the allowed error, true and corrupted labels",
    source=f"{SOURCE}, Fig. 5",
    claims=(
        Claim(
            "corrupt_more_critical",
            "A network trained with 20 % random labels has a larger criticality than one with true labels, at every eps.",
            f"the smallest over eps = {', '.join(f'{eps:g}' for eps in EPS)} of log(criticality with corrupted labels / "
            "with true labels), networks of the same seed",
            "nats",
            "above",
            0.0,
            smallest_ratio,
        ),
    ),
    scales={
        name: Scale(
            {"resnet": spec, "corrupt": corrupt(spec)},
            {"criticality": SPECS[name]},
            SEEDS[name],
            ABOUT[name],
            lean=True,
        )
        for name, spec in BASE.items()
    },
    figures=figures,
    note="Part (b) of the figure, four architectures, has no claim in the paper: the contest (table2) has tau at eps = 0.1.",
)

STUDIES = (FIG5,)
