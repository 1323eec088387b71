"""Every figure and table of the four papers: what it shows, and whether it can be reproduced yet."""

from dataclasses import dataclass

from layerscope.errors import UseError, unknown
from layerscope.studies.chatterji2020 import STUDIES as CHATTERJI2020
from layerscope.studies.frame import Study
from layerscope.studies.zhang2022 import STUDIES as ZHANG2022

AVAILABLE: dict[str, Study] = {study.id: study for study in (*ZHANG2022, *CHATTERJI2020)}

ROWS: dict[str, dict[str, str]] = {
    "zhang2022": {
        "fig1": "FCN 3x256 on MNIST: layers put back and re-randomised, distances",
        "fig2": "re-initialisation robustness against width, MNIST and CIFAR-10",
        "fig3": "VGG 11 to 19 on CIFAR-10",
        "fig4": "ResNet 18 to 152 on CIFAR-10, by block",
        "fig5": "ResNet 18 to 152 on ImageNet, by block",
        "fig6": "joint robustness of groups of layers",
        "fig8": "joint robustness, FCN 5x256 on MNIST",
        "fig9": "joint robustness of ResNets: all but the first block of each stage",
        "fig10": "joint robustness of ResNets: other groups",
        "fig11": "VGG16 with and without weight decay and batch norm",
        "fig12": "ResNet50 on CIFAR-10 with and without weight decay and batch norm",
        "fig13": "ResNet50 on ImageNet with and without weight decay and batch norm",
        "fig14": "distances beside robustness, VGG16 on CIFAR-10",
        "fig15": "distances beside robustness, ResNet50 on CIFAR-10",
        "fig16": "distances beside robustness, ResNet50 on ImageNet",
        "fig17": "the curves of VGG16 on CIFAR-10",
        "fig18": "the curves of ResNet50 on CIFAR-10 and ImageNet",
        "table1": "blocks frozen or removed, and the rest trained",
        "table2": "stochastic classifier against adversarial attacks",
        "table3": "test errors with weight decay and batch norm",
        "sec4": "parameter-count bound with re-initialised layers",
    },
    "wang2022": {
        "fig1": "contribution of each layer to training loss over width and label noise",
        "fig2": "utilization of each layer over the grid",
        "fig3": "generalisation gap and resilience over the grid",
        "fig4": "utilization against generalisation and resilience",
        "fig5": "contribution to test loss and to resilience",
        "rollback": "re-initialising the last layers after training",
        "emc": "utilization of the final layer as effective model complexity",
    },
    "chatterji2020": {
        "fig1": "loss valleys of a critical and a non-critical module",
        "fig2": "rewinding each module to every checkpoint",
        "fig3": "spectra over training",
        "fig4": "error and loss along the path to the start",
        "fig5": "network criticality against eps",
        "fig6": "rewinding each block to every checkpoint",
        "fig7": "Fixup initialisation and Adam",
        "fig8": "operator norm of the difference",
        "fig9": "CKA between trained and rewound network",
        "fig10": "error and loss along the path, all modules and with noise",
        "table2": "all measures, nine architectures, CIFAR-10",
        "table3": "all measures, nine architectures, CIFAR-100",
        "table4": "ResNet18 of four widths, CIFAR-10",
        "table5": "ResNet18 of four widths, CIFAR-100",
        "bounds": "theorems 3.2 and B.2, corollary 3.3 as numbers",
    },
    "casper2019": {
        "fig1": "accuracy and parameters against size",
        "fig2": "ablation curves by size",
        "fig3": "ResNet18 and Inception-v3 on ImageNet: area, compressibility, similarity",
        "fig4": "AlexNet and ResNet56, true and random labels",
        "fig5": "initialisations, normal",
        "figA1": "number of parameters against size",
        "figB2": "distributions of absolute correlations",
        "figC3": "training time after convergence",
        "figC4": "initialisations, uniform",
        "figC5": "initial variance of an MLP, 10,000 dimensions",
        "figC6": "initial variance of an MLP, 10 dimensions",
        **{f"figC{k}": "layer by layer" for k in (7, 8, 9, 10)},
        "figC11": "regularisers",
        "figC12": "optimisers, MLPs on synthetic data",
        "figC13": "learning rate and batch size, ResNet18 on ImageNet",
        "figC14": "learning rate and batch size, CIFAR-10",
        "hypothesis": "at least one slope on size is positive",
        "constructions": "duplicated, balanced, silent and blocked units",
    },
}
"""Paper -> row -> what it shows."""


@dataclass(frozen=True)
class Row:
    """One line of `reproduce --list`."""

    id: str
    what: str
    scales: tuple[str, ...]

    @property
    def state(self) -> str:
        return "ready" if self.scales else "not yet"


def rows() -> list[Row]:
    """All figures and tables, in the order of the papers."""
    ids = {f"{paper}/{row}": what for paper, found in ROWS.items() for row, what in found.items()}
    return [Row(id, what, tuple(AVAILABLE[id].scales) if id in AVAILABLE else ()) for id, what in ids.items()]


def find(id: str) -> Study:
    """The study of an id such as zhang2022/fig1."""
    known = {row.id for row in rows()}
    if id not in known:
        raise unknown("study", id, known)
    if id not in AVAILABLE:
        raise UseError(f"{id} cannot be reproduced yet; ready: {', '.join(AVAILABLE)}")
    return AVAILABLE[id]
