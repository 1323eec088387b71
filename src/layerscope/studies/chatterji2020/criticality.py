"""chatterji2020, Fig. 5: network criticality against the error that is allowed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from layerscope.analyses.spec import CriticalitySpec, MeasuresSpec
from layerscope.partition import WHOLE
from layerscope.plots import words
from layerscope.plots.weights import Listing
from layerscope.ranking import Resamples
from layerscope.studies.chatterji2020 import contest
from layerscope.studies.chatterji2020.networks import ABOUT, BASE, SEEDS, SOURCE, corrupt
from layerscope.studies.frame import Claim, Replicate, Scale, Study
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CORRUPT = "corrupt"
"""The network of part (a) with random labels: not one of the architectures of part (b)."""
EPS = (0.1, 0.2, 0.3)
"""Of our small networks, whose training errors are near 5 %."""
EPS_OF_THE_PAPER = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15)
"""The ticks of the paper's axis, from its first to its last."""
SPECS = {
    "smoke": CriticalitySpec(eps=EPS, most=16),
    "small": CriticalitySpec(eps=EPS, most=128),
    "paper": CriticalitySpec(eps=EPS_OF_THE_PAPER),
}
GAP = MeasuresSpec(which=())
"""Errors and the generalisation gap, no measures."""
OTHERS = {
    "smoke": (contest.smoke(), ("fcn-16", "fcn-64", "fcn-128")),
    "small": (contest.small(), ("conv-w4", "fcn1-w256", "fcn3-w128")),
    "paper": (contest.paper("cifar10", 0.19), ("resnet34", "vgg16", "fcn1")),
}
"""The architectures of part (b) beside the residual network: three of the contest's."""
WHY = {
    "smoke": "eps = 0.1 to 0.3, as at small scale",
    "small": "eps = 0.1 to 0.3, for training errors of such networks are near 5 %, below which nothing is feasible: the paper's "
    "0.025 to 0.15 is for larger networks",
    "paper": "eps = 0.025 to 0.15, as in the figure; a network whose training error is above an eps seldom has a criticality "
    "there, and then nothing is decided",
}


def networks(scale: str) -> dict[str, TrainSpec]:
    """Those of part (a), true and corrupted labels, and those of part (b)."""
    base, (specs, others) = BASE[scale], OTHERS[scale]
    return {"resnet": base, CORRUPT: corrupt(base), **{name: specs[name] for name in others}}


def of_network(seed: Replicate, network: str) -> dict[float, float]:
    """Network criticality by eps; NaN where it has none."""
    rows = seed.table("criticality", network).where(part=WHOLE, metric="criticality")
    return dict(zip(rows["eps"], rows["value"], strict=True))


def smallest_ratio(seed: Replicate) -> float:
    """The smallest over eps of log(criticality with corrupted labels / with true labels); NaN if one of them is missing, or 0."""
    true, corrupted = (of_network(seed, name) for name in ("resnet", CORRUPT))
    if true.keys() != corrupted.keys() or not all(value > 0 for value in (*true.values(), *corrupted.values())):
        return math.nan
    return min(math.log(corrupted[eps] / true[eps]) for eps in true)


class Ranked(NamedTuple):
    """Kendall's tau of `n` architectures' criticality at an eps with their generalisation gap, and its interval."""

    eps: float
    tau: float
    low: float
    high: float
    n: int


class Architectures:
    """The networks with true labels: medians over seeds of their generalisation gap `[n]`, and of their criticality by eps."""

    def __init__(self, replicates: Sequence[Replicate]) -> None:
        self.names = [name for name in replicates[0].networks if name != CORRUPT]
        of = {name: [of_network(seed, name) for seed in replicates] for name in self.names}
        self.eps = list(of[self.names[0]][0])
        self.values = {
            eps: np.array([np.median([c[eps] for c in of[name]]) for name in self.names]) for eps in self.eps
        }
        self.gaps = np.array([np.median([_gap(seed, name) for seed in replicates]) for name in self.names])

    def ranked(self) -> list[Ranked]:
        """How well criticality ranks them, at each eps."""
        resamples, found = Resamples(len(self.names)), []
        for eps, values in self.values.items():
            known = int((~np.isnan(values) & ~np.isnan(self.gaps)).sum())
            taus = resamples.taus(values, self.gaps)
            found.append(Ranked(eps, float(taus[0]), *resamples.interval(taus, known), known))
        return found


def _gap(seed: Replicate, network: str) -> float:
    (value,) = seed.table("gap", network).where(metric="generalisation_gap", split="")["value"]
    return float(value)


def figures(replicates: Sequence[Replicate]) -> "dict[str, Figure]":
    """Network criticality against eps: with true and corrupted labels, and of four architectures, with tau."""
    from layerscope.plots import house

    with house.style():
        return {"criticality-against-eps": _labels(replicates), "architectures-against-eps": _four(replicates)}


def _labels(replicates: Sequence[Replicate]) -> "Figure":
    """Part (a), a thin line a network."""
    from layerscope.plots import house

    figure = house.figure(4.8, 3.4)
    axes = figure.subplots()
    for network, colour, dash in (("resnet", "#0072b2", "-"), (CORRUPT, "#b34a00", (0, (5, 2)))):
        for number, seed in enumerate(replicates):
            found = of_network(seed, network)
            label = {"resnet": "true labels", CORRUPT: "20 % random labels"}[network] if not number else None
            axes.plot(
                list(found), list(found.values()), color=colour, linestyle=dash, marker="o", ms=3, lw=1, label=label
            )
    _named(axes, f"Network criticality, {_seeds(replicates)} of each", list(of_network(replicates[0], "resnet")))
    axes.legend()
    return figure


def _four(replicates: Sequence[Replicate]) -> "Figure":
    """Part (b): a line an architecture, and below how well they are ranked."""
    from layerscope.plots import house, scales

    found = Architectures(replicates)
    figure = house.figure(5.2, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, name in enumerate(found.names):
        values = [found.values[eps][number] for eps in found.eps]
        look = {"color": f"#{scales.LINES[number]}", "marker": scales.MARKERS[number], "ms": 4, "lw": 1.2}
        upper.plot(found.eps, values, label=f"{name} (gap {_points(found.gaps[number])} points)", **look)
    _named(upper, "Four architectures, true labels", found.eps)
    upper.set_xlabel("")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)
    for each in found.ranked():
        lower.plot([each.eps, each.eps], [each.low, each.high], color="#444444", lw=1.4)
        lower.plot([each.eps], [each.tau], "o", color="#444444", ms=5)
    lower.axhline(0, color="#555555", lw=0.8)
    lower.set(ylim=(-1.08, 1.08), ylabel="Kendall's tau\nwith the gap", xlabel="allowed training error eps")
    house.footnote(
        figure,
        f"Medians over {_seeds(replicates)}. {_UNDECIDED} Bars are 95 % intervals over architectures, where there are any.",
    )
    return figure


_UNDECIDED = "Four networks decide nothing about a ranking, whatever tau is."


def _named(axes: "Axes", title: str, eps: Sequence[float]) -> None:
    """Titles and scales; where a criticality is 0 the logarithmic scale has a piece that reaches it."""
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    if (drawn == 0).any():
        axes.set_yscale("symlog", linthresh=min(drawn[drawn > 0], default=1.0), linscale=0.4)
    else:
        axes.set_yscale("log")
    axes.set(xlabel="allowed training error eps", ylabel="network criticality", xticks=eps)
    axes.set_title(title, loc="left")


def listings(replicates: Sequence[Replicate]) -> list[Listing]:
    """The numbers of part (b)."""
    found = Architectures(replicates)
    rows = [
        [name, _points(gap), *(_number(found.values[eps][at], ".3g") for eps in found.eps)]
        for at, (name, gap) in enumerate(zip(found.names, found.gaps, strict=True))
    ]
    rows.append(["Kendall's tau with the gap", "", *map(_tau, found.ranked())])
    caption = (
        f"Part (b): network criticality of four architectures by allowed training error eps, and their generalisation gap in "
        f"percentage points; medians over {_seeds(replicates)}. The last row is Kendall's tau of the two, with its 95 % "
        f"interval over architectures (none: too few for one). {_UNDECIDED} The paper makes no claim about them."
    )
    return [Listing(caption, ["network", "gap", *(f"eps = {eps:g}" for eps in found.eps)], rows)]


def _seeds(replicates: Sequence[Replicate]) -> str:
    return words.plural(len(replicates), "seed")


def _points(share: float) -> str:
    return _number(round(100 * share, 2) + 0.0, ".2f")


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _tau(ranked: Ranked) -> str:
    """A tau with its interval, and of how many where some have no criticality."""
    ends = f"{ranked.low:.2f} to {ranked.high:.2f}" if math.isfinite(ranked.low) else "none"
    return f"{_number(ranked.tau, '.2f')} (interval: {ends}; n = {ranked.n})"


FIG5 = Study(
    id="chatterji2020/fig5",
    title="Network criticality against the allowed error: true and corrupted labels, and four architectures",
    source=f"{SOURCE}, Fig. 5",
    claims=(
        Claim(
            "corrupt_more_critical",
            "A network trained with 20 % random labels has a larger criticality than one with true labels, at every eps.",
            "the smallest over eps (at paper scale "
            f"{', '.join(f'{eps:g}' for eps in EPS_OF_THE_PAPER)}; else {', '.join(f'{eps:g}' for eps in EPS)}) of "
            "log(criticality with corrupted labels / with true labels), networks of the same seed",
            "nats",
            "above",
            0.0,
            smallest_ratio,
            networks=("resnet", CORRUPT),
        ),
    ),
    scales={
        name: Scale(
            networks(name),
            {"criticality": SPECS[name], "gap": GAP},
            SEEDS[name],
            f"{ABOUT[name]}, and for part (b) three other architectures; {WHY[name]}",
            lean=True,
        )
        for name in BASE
    },
    figures=figures,
    listings=listings,
    note="Part (b) of the figure, four architectures, has no claim in the paper: Kendall's tau with the generalisation gap is "
    f"reported at each eps. {_UNDECIDED} Modules here are layers with their biases, and norm layers are modules too: network "
    "criticality at eps = 0.1 is another number than that of tables 2 to 5, which measure weights of linear maps alone.",
)

STUDIES = (FIG5,)
