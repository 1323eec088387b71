"""chatterji2020, Figs. 2, 6 and 7: each module, and each block, put back to its start and to the checkpoints."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from layerscope.analyses.spec import RobustnessSpec
from layerscope.partition import WHOLE
from layerscope.studies.chatterji2020.networks import ABOUT, BASE, SEEDS, SOURCE, adam, fixup, scales
from layerscope.studies.frame import Claim, Replicate, Scale, Study, training_error
from layerscope.table import Table

SCALARS = r"(?:bias\d?|scale|norm\d?)$"
"""Fixup's scalars, which are no linear maps: not modules of the paper."""

MODULES, BLOCKS = RobustnessSpec(draws=0), RobustnessSpec(draws=0, by="block")
CRITERIA = {
    "train error": ("error", "train"),
    "train loss": ("cross_entropy", "train"),
    "test error": ("error", "test"),
}


def costs(table: Table, metric: str = "error", split: str = "train") -> pd.Series:
    """By part: the change of a metric when it is put back to its start."""
    rows = table.where(metric=f"{metric}_delta", split=split, perturbation="rewind", step=0)
    found = rows.loc[rows["part"] != WHOLE].set_index("part")["value"]
    found.index = found.index.str.removesuffix(".conv")  # the stem has that name where something follows it
    return found.loc[~found.index.str.contains(SCALARS)]


def is_critical(table: Table) -> pd.Series:
    """By part: whether it costs more than a tenth of what there is to lose in training error."""
    return costs(table) > 0.1 * (table.provenance["chance"] - training_error(table))


def share_critical(table: Table) -> float:
    """Share of the parts that are critical."""
    return float(is_critical(table).mean())


def agreement(table: Table) -> float:
    """The smallest rank correlation of two of the three criteria over parts."""
    found = pd.DataFrame({name: costs(table, *how) for name, how in CRITERIA.items()}).corr(method="spearman")
    return float(found.to_numpy().min())


def same_pattern(seed: Replicate, other: str) -> float:
    """Rank correlation over the modules that both have of what they cost in this network and in that of plain SGD."""
    of = {name: costs(seed.table("modules", name)) for name in ("resnet", other)}
    return rank_correlation(of["resnet"], of[other])


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's rho over the parts that both have."""
    from scipy.stats import spearmanr

    both = a.index.intersection(b.index)
    return float(spearmanr(a[both], b[both])[0])  # pyright: ignore[reportArgumentType]


def of(analysis: str, statistic: Callable[[Table], float], network: str = "") -> Callable[[Replicate], float]:
    """A statistic of one analysis of a seed."""
    return lambda seed: statistic(seed.table(analysis, network))


def _few(part: str, analysis: str, network: str = "") -> Claim:
    return Claim(
        f"few_{part}s_critical" + (f"_{network}" if network else ""),
        f"Few {part}s are critical" + (f" ({network})." if network else "."),
        f"share of {part}s that cost more than a tenth of (chance - unmodified training error) when put back to the start",
        "share",
        "below",
        0.5,
        of(analysis, share_critical, network),
    )


def _agree(part: str, analysis: str) -> Claim:
    return Claim(
        f"criteria_agree_{part}s",
        f"Training error, training loss and test error agree on which {part}s are critical.",
        f"the smallest of the three Spearman correlations over {part}s of the changes when put back",
        "Spearman's rho",
        "above",
        0.7,
        of(analysis, agreement),
    )


FIG2 = Study(
    id="chatterji2020/fig2",
    title="Each module put back to its start and to the checkpoints",
    source=f"{SOURCE}, Fig. 2",
    claims=(_few("module", "modules"), _agree("module", "modules")),
    scales=scales({"modules": MODULES}),
)

FIG6 = Study(
    id="chatterji2020/fig6",
    title="Each block, and each module, put back to its start and to the checkpoints",
    source=f"{SOURCE}, Fig. 6",
    claims=(
        _few("block", "blocks"),
        _agree("block", "blocks"),
        _few("module", "modules"),
        _agree("module", "modules"),
    ),
    scales=scales({"modules": MODULES, "blocks": BLOCKS}),
)

FIG7 = Study(
    id="chatterji2020/fig7",
    title="The pattern with Fixup initialisation, and with Adam",
    source=f"{SOURCE}, Fig. 7",
    claims=(
        *(_few("module", "modules", network) for network in ("fixup", "adam")),
        *(
            Claim(
                f"same_pattern_{network}",
                f"The pattern of critical modules stays the same ({network}).",
                f"Spearman correlation over modules of what they cost in training error, of {network} and of plain SGD with the "
                "same seed",
                "Spearman's rho",
                "above",
                0.0,
                partial(same_pattern, other=network),
            )
            for network in ("fixup", "adam")
        ),
    ),
    scales={
        name: Scale(
            {"resnet": spec, "fixup": fixup(spec), "adam": adam(spec)},
            {"modules": MODULES},
            SEEDS[name],
            ABOUT[name],
            lean=True,
        )
        for name, spec in BASE.items()
    },
)

STUDIES = (FIG2, FIG6, FIG7)
"""Thresholds, ours: few is fewer than half; criteria agree with a rank correlation above 0.7; a pattern stays if the rank
correlation is surely above 0."""
