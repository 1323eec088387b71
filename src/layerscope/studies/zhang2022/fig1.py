"""zhang2022, Fig. 1: which layers of FCN 3x256 on MNIST can be put back."""

from collections.abc import Callable

import pandas as pd

from layerscope.analyses.spec import RobustnessSpec
from layerscope.partition import WHOLE
from layerscope.studies.frame import Claim, Replicate, Scale, Study
from layerscope.table import Table
from layerscope.training.spec import TrainSpec


def share_of_gap(table: Table) -> pd.Series:
    """By layer: the change of test error when it is put back to its start, as a share of chance minus unmodified error."""
    rows = _of_parts(table.where(metric="error_delta", split="test", perturbation="rewind", step=0))
    unmodified = table.where(perturbation="none", metric="error", split="test")["value"].iloc[0]
    return rows["value"] / (table.provenance["chance"] - unmodified)


def first_layer(table: Table) -> float:
    """Share of the gap that layer 1 costs."""
    return float(share_of_gap(table).iloc[0])


def worst_other_layer(table: Table) -> float:
    """Share of the gap that the most critical of the other layers costs."""
    return float(share_of_gap(table).iloc[1:].max())


def farthest_from_chance(table: Table) -> float:
    """The largest difference between chance error and a layer's re-randomised test error (mean over draws), in points."""
    rows = table.where(metric="error", split="test", perturbation="rerandomize")
    errors = _of_parts(rows.loc[rows["draw"].notna()]).groupby(level=0)["value"].mean()
    return float(100 * (errors - table.provenance["chance"]).abs().max())


def order_agreement(table: Table, metric: str) -> float:
    """Kendall's tau over layers between the distance from start to end and the change of error at the start."""
    from scipy.stats import kendalltau

    cost = share_of_gap(table)
    distances = table.where(metric=metric, perturbation="rewind", to="start")
    final = distances.loc[distances["step"] == distances["step"].max()]
    moved = _of_parts(final)["value"].reindex(cost.index)
    return float(kendalltau(moved, cost)[0])  # pyright: ignore[reportArgumentType]


def _of_parts(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.loc[rows["part"] != WHOLE].set_index("part")


def of_table(statistic: Callable[[Table], float]) -> Callable[[Replicate], float]:
    """A statistic of the only table of a seed."""
    return lambda replicate: statistic(replicate.table())


CLAIMS = (
    Claim(
        "layer1_critical",
        "The first layer is critical: put back to its start it costs more than a tenth of what there is to lose.",
        "(test error with layer 1 at its start - unmodified) / (chance - unmodified)",
        "share of gap",
        "above",
        0.1,
        of_table(first_layer),
    ),
    Claim(
        "others_ambient",
        "The other layers are ambient: put back one at a time, the worst of them costs less than a tenth.",
        "the largest over layers 2 to 4 of (test error with the layer at its start - unmodified) / (chance - unmodified)",
        "share of gap",
        "below",
        0.1,
        of_table(worst_other_layer),
    ),
    Claim(
        "rerandomised_to_chance",
        "Re-randomising any layer takes the error to chance, within 10 percentage points.",
        "the largest over layers of |re-randomised test error, mean over draws - chance|",
        "percentage points",
        "below",
        10.0,
        of_table(farthest_from_chance),
    ),
    Claim(
        "l2_orders_otherwise",
        "The normalised 2-norm distance from the start does not order the layers as robustness does.",
        "Kendall's tau over layers between the distance and the change of test error at the start",
        "Kendall's tau",
        "below",
        0.9,
        of_table(lambda table: order_agreement(table, "distance_l2")),
    ),
    Claim(
        "max_orders_otherwise",
        "The largest entry of the distance from the start does not order the layers as robustness does.",
        "Kendall's tau over layers between the distance and the change of test error at the start",
        "Kendall's tau",
        "below",
        0.9,
        of_table(lambda table: order_agreement(table, "distance_max")),
    ),
)
"""Thresholds: a tenth of the gap is the rule for verdicts, 10 points are the row's own, and tau below 0.9 means that with four
layers at least one pair is ordered otherwise on average."""

STUDY = Study(
    id="zhang2022/fig1",
    title="Robustness of FCN 3x256 on MNIST, layer by layer",
    source="Zhang, Bengio, Singer: Are All Layers Created Equal? JMLR 2022, Fig. 1",
    claims=CLAIMS,
    scales={
        "smoke": Scale(
            {"seed": TrainSpec(model="fcn-3x64", data="digits", epochs=60, checkpoints=(1, 10))},
            {"robustness": RobustnessSpec(draws=2)},
            2,
            "embedded digits and a narrow network: shows that everything runs, decides nothing",
            lean=True,
        ),
        "small": Scale(
            {"seed": TrainSpec(model="fcn-3x256", data="mnist", epochs=10)},
            {"robustness": RobustnessSpec(draws=5)},
            5,
            "the paper's network and data, 10 epochs instead of 100",
            lean=True,
        ),
        "paper": Scale(
            {"seed": TrainSpec(model="fcn-3x256", data="mnist", epochs=100)},
            {"robustness": RobustnessSpec(draws=5)},
            1,
            "the paper's own setting, one run as in its figure; five (--seeds 5) decide the claims",
            lean=True,
        ),
    },
)
