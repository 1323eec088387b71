"""chatterji2020, Tables 2 to 5: which measure ranks networks as their generalisation does."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from layerscope import stats
from layerscope.analyses.spec import CompareSpec, MeasuresSpec
from layerscope.plots.grid import records
from layerscope.ranking import BEST, ENOUGH
from layerscope.studies.chatterji2020.networks import PAPER, SMOKE, SOURCE
from layerscope.studies.frame import Claim, Estimate, Replicate, Scale, Study, too_few
from layerscope.table import Table
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from layerscope.plots.weights import Listing

MEASURES = {"measures": MeasuresSpec()}
QUICK = {"measures": MeasuresSpec(most=48, samples=1000)}
"""Fewer draws, and so looser certificates, where two cores must do."""
OF_THE_PAPER = (
    "log_pfn",
    "log_psn",
    "distance_squared",
    "parameters",
    "log_sosp",
    "pac_bayes",
    "criticality",
)
"""What Tables 2 to 5 have, sums where a power or logarithm has the same order."""

MNIST = TrainSpec(
    model="fcn-1x64",
    data="mnist?n_train=1000&n_test=2000",
    epochs=150,
    batch_size=32,
    lr=0.02,
    schedule="constant",
    until="loss",
    target_loss=0.1,
    checkpoints=(),
)
MODELS = {
    **{f"fcn1-w{width}": f"fcn-1x{width}" for width in (32, 64, 128, 256)},
    **{f"fcn2-w{width}": f"fcn-{width}-{width}" for width in (64, 128, 256)},
    **{f"fcn3-w{width}": f"fcn-3x{width}" for width in (64, 128)},
    "fcn4-w64": "fcn-4x64",
    "conv-w2": "alexnet-small?width=0.125&lrn=no",
    "conv-w4": "alexnet-small?width=0.25&lrn=no",
}
"""Twelve architectures; each with true labels, and with 20 % random ones: another gap for the same network. Every network is
of a kind of its own, because the bootstrap takes networks for independent."""


def small() -> dict[str, TrainSpec]:
    """24 networks of as many kinds."""
    true = {name: replace(MNIST, model=model) for name, model in MODELS.items()}
    return true | {f"{name}-noisy": replace(spec, data=f"{spec.data}&random=0.2") for name, spec in true.items()}


def smoke() -> dict[str, TrainSpec]:
    """Four widths on digits."""
    base = replace(SMOKE, checkpoints=(), epochs=60)
    return {f"fcn-{width}": replace(base, model=f"fcn-{width}-{width}") for width in (16, 32, 64, 128)}


def paper(data: str, target: float) -> dict[str, TrainSpec]:
    """The nine architectures of Table 2, trained as in App. C."""
    nets = {f"resnet{depth}": f"resnet-v1-{depth}?norm=none" for depth in (18, 34, 50, 101)}
    nets |= {f"vgg{depth}": f"vgg-{depth}" for depth in (11, 16)}
    nets |= {
        "densenet121": "densenet-121?norm=none",
        "fcn1": "fcn-5000-1000?norm=batch",
        "fcn2": "fcn-10000-2000?norm=batch",
    }
    base = replace(PAPER, data=data, target_loss=target, checkpoints=())
    return {
        name: replace(base, model=model, **({"every": 200} if name.startswith("fcn") else {}))
        for name, model in nets.items()
    }


def widths(base: TrainSpec, model: str, shares: Sequence[float]) -> dict[str, TrainSpec]:
    """One architecture in several widths."""
    mark = "&" if "?" in model else "?"
    return {f"w{share:g}".replace(".", "_"): replace(base, model=f"{model}{mark}width={share:g}") for share in shares}


def tables_of(replicates: Sequence[Replicate]) -> dict[str, Table]:
    """The measures of each network of each seed."""
    return {
        f"{network}-{k}": seed.table("measures", network)
        for k, seed in enumerate(replicates)
        for network in seed.networks
    }


def compared(replicates: Sequence[Replicate]) -> Table:
    """The contest of the paper's measures, criticality against the best of the others."""
    return _compared(tuple(replicates))


@cache
def _compared(replicates: tuple[Replicate, ...]) -> Table:
    from layerscope.analyses.compare import compare

    hyper = {
        f"{network}-{k}": {
            "network": network.removesuffix("-noisy"),
            "labels": "20 % random" if "noisy" in network else "true",
            "seed": k,
        }
        for k, seed in enumerate(replicates)
        for network in seed.networks
    }
    spec = CompareSpec(measures=OF_THE_PAPER, against="criticality")
    return compare(tables_of(replicates), hyper, spec)


def lead(replicates: Sequence[Replicate]) -> Estimate:
    """Kendall's tau of network criticality minus the best other's, with the interval of the contest."""
    found = compared(replicates).where(metric="tau_difference", measure="criticality", measure_b=BEST)
    row = next(iter(records(found)), None)
    if row is None or row["status"] != "ok":
        return Estimate(math.nan, math.nan, math.nan, 0, "criticality and the others have no tau on the same networks")
    kinds = {network for seed in replicates for network in seed.networks}
    few = min(len(kinds), row["n"])
    reason = f"{few} networks of different kinds; at least {ENOUGH} are needed" if few < ENOUGH else ""
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return Estimate(row["value"], low, high, row["n"], reason)


def best_tau(replicates: Sequence[Replicate]) -> Estimate:
    """The largest over the paper's measures of the mean over seeds of tau with the gap over the networks of a seed; its ends are
    the largest of the ends of Student's intervals of all measures at once (Bonferroni)."""
    taus = [_taus(seed) for seed in replicates]
    found = {name: np.array([of.get(name, math.nan) for of in taus]) for name in OF_THE_PAPER}
    lacking = [name for name, values in found.items() if not np.isfinite(values).all()]
    ends = {name: stats.mean(values, 1 - 0.05 / len(found)) for name, values in found.items()}
    reason = too_few(len(taus)) or (f"{', '.join(lacking)}: no tau for at least one seed" if lacking else "")
    largest = (max(float(values.mean()) for values in found.values()), max(e.low for e in ends.values()))
    low, high = max(largest[1], -1.0), min(max(e.high for e in ends.values()), 1.0)  # Student knows no ends
    return Estimate(largest[0], low, high, len(taus), reason)


def _taus(seed: Replicate) -> dict[str, float]:
    from layerscope.analyses.compare import compare

    tables = {network: seed.table("measures", network) for network in seed.networks}
    rows = compare(tables, None, CompareSpec(measures=OF_THE_PAPER)).where(metric="tau", status="ok")
    return {row["measure"]: row["value"] for row in records(rows)}


def figures(replicates: Sequence[Replicate]) -> "dict[str, Figure]":
    from layerscope.plots.compare import figures as drawn

    return drawn(compared(replicates))


def listings(replicates: Sequence[Replicate]) -> "list[Listing]":
    """How well each measure ranks, with what there is to know of it, and all values."""
    from layerscope.plots.compare import listings as made
    from layerscope.plots.compare import remarks

    table = compared(replicates)
    ranked, *others = made(table)
    return [replace(ranked, caption=" ".join([ranked.caption, *remarks(table)])), *others]


_LEAD = Claim(
    "criticality_ranks_best",
    "Network criticality ranks networks as their generalisation error does, better than all other measures.",
    "Kendall's tau of network criticality (eps = 0.1) with the generalisation gap minus that of the best other of the paper; "
    "interval: the least of the ends of the paired bootstrap intervals against each other measure",
    "Kendall's tau",
    "above",
    0.0,
    overall=lead,
    over="networks",
)

_FAIL = Claim(
    "all_measures_fail",
    "Over widths of one architecture all measures fail: none ranks the networks as the generalisation gap does.",
    "the largest over the paper's measures of the mean over seeds of Kendall's tau with the generalisation gap over the widths; "
    "intervals over seeds hold for all measures at once",
    "Kendall's tau",
    "below",
    0.0,
    overall=best_tau,
)

SMOKES = Scale(
    smoke(), QUICK, 2, "four widths of a fully connected network on embedded digits: shows that everything runs"
)


_WEIGHTS = (
    "Modules are the weights of linear maps alone: network criticality at eps = 0.1 is another number than that of fig5, whose "
    "modules are layers with their biases, and norm layers."
)
_NOISE = (
    "At small scale half of the networks are trained with 20 % random labels. Their training error is against these labels and "
    "their test labels are clean, so that their generalisation gap is clean test error less noisy training error, and not the "
    "paper's L_D - L_S of one distribution. The networks of the paper's Table 2 have true labels; of its network with 20 % "
    "random ones (Fig. 5a) it gives an error of 35 %, and does not say on which labels."
)


def _table(number: int, title: str, claims: tuple[Claim, ...], scales: dict[str, Scale], note: str = _WEIGHTS) -> Study:
    return Study(
        id=f"chatterji2020/table{number}",
        title=title,
        source=f"{SOURCE}, Table {number}",
        claims=claims,
        scales=scales,
        figures=figures,
        listings=listings,
        note=note,
    )


TABLE2 = _table(
    2,
    "All measures over architectures, CIFAR-10",
    (_LEAD,),
    {
        "smoke": SMOKES,
        "small": Scale(
            small(),
            QUICK,
            1,
            "twelve small architectures, each with true and with 20 % random labels, on 1,000 images of MNIST",
        ),
        "paper": Scale(
            paper("cifar10", 0.19), MEASURES, 3, "the paper's nine architectures on CIFAR-10, three seeds each"
        ),
    },
    f"{_NOISE} {_WEIGHTS}",
)
TABLE3 = _table(
    3,
    "All measures over architectures, CIFAR-100",
    (_LEAD,),
    {
        "smoke": SMOKES,
        "paper": Scale(
            paper("cifar100", 0.25), MEASURES, 3, "the paper's nine architectures on CIFAR-100, three seeds each"
        ),
    },
)
TABLE4 = _table(
    4,
    "ResNet18 of four widths, CIFAR-10",
    (_FAIL,),
    {
        "smoke": SMOKES,
        "small": Scale(
            {f"w{width}": replace(MNIST, model=f"fcn-{width}-{width}") for width in (32, 64, 128, 256)},
            QUICK,
            5,
            "a fully connected network in place of ResNet18, two hidden layers of four widths, on 1,000 images of MNIST",
        ),
        "paper": Scale(
            widths(replace(PAPER, checkpoints=()), "resnet-v1-18?norm=none", (0.25, 0.5, 1.0, 2.0)),
            MEASURES,
            5,
            "ResNet18 of 1, 2, 4 and 8 times 16 channels, 4 being the ordinary one",
        ),
    },
)
TABLE5 = _table(
    5,
    "ResNet18 of four widths, CIFAR-100",
    (_FAIL,),
    {
        "smoke": SMOKES,
        "paper": Scale(
            widths(
                replace(PAPER, data="cifar100", target_loss=0.25, checkpoints=()),
                "resnet-v1-18?norm=none",
                (0.25, 0.5, 1.0, 2.0),
            ),
            MEASURES,
            5,
            "ResNet18 of 1, 2, 4 and 8 times 16 channels, 4 being the ordinary one",
        ),
    },
)

STUDIES = (TABLE2, TABLE3, TABLE4, TABLE5)
"""Small scale has no CIFAR-100: users bring their own."""
