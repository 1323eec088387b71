"""What an analysis is asked, without torch."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope.errors import UseError, unknown
from layerscope.query import seconds_of
from layerscope.spec import BuffersRule, Spec

REDRAW = ("law", "permutation", "moments")
"""Where random values come from."""


@dataclass(frozen=True)
class Plan:
    """How an analysis is computed. It decides how long it takes and what it takes, not the numbers: see docs/decisions/0011."""

    engine: str = "replay"
    """replay shares work between variants; reference does not. Both give the same numbers."""
    memory: str = "2GiB"
    """What replay may use beside model and data."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1, ... [default: where the model lies]"""
    precision: str = "fp32"
    """Of products: fp32, or shorter: tf32 (NVIDIA GPUs) or bf16, for errors only; close calls are then computed again in fp32,
    so that no decision changes."""


@dataclass(frozen=True)
class RobustnessSpec(Spec):
    """Which layers matter: rewind each to each checkpoint, re-randomise each in some draws."""

    KIND: ClassVar[str] = "robustness"
    CODE: ClassVar[int] = 2

    draws: int = 5
    """Fresh random draws of each layer."""
    steps: tuple[int, ...] | None = None
    """Epochs (iterations, where checkpoints are counted so) to rewind to; all checkpoints there are, if not given. The first
    and the last are always among them."""
    redraw: str = "law"
    """What layers are re-randomised with: their initial law; or, where nobody knows it, their trained values: in random order
    (permutation), or draws from laws with their moments (moments)."""
    train: bool = True
    """Measure on the training data too, not on the test data alone."""
    seed: int = 0
    """Seed of the random draws."""
    level: float = 0.95
    """Confidence level of all intervals."""
    ambient: float = 0.1
    """A layer is ambient below, critical above this share of the gap between chance and the unmodified network."""
    destroyed: float = 0.5
    """A layer destroys the network above this share."""
    by: str = "layer"
    """What is changed together: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to change together as one, each NAME=PART|PART|..., patterns allowed."""
    buffers: BuffersRule = "recalibrate"
    """Running statistics, where there is batch norm: computed again from training data for each changed network, kept as
    they are, or put back with their layer."""
    calibrate: int = 5000
    """Training samples from which statistics are computed again."""
    metrics: tuple[str, ...] = ("error", "cross_entropy")
    """What is measured; the first decides the verdicts."""
    within: float | None = None
    """Use only as many samples, in random order, as it takes to know each change of error to within this (0.01: one point); the
    intervals then hold for all changes at once, for these data."""
    decide: bool = False
    """Use only as many samples, in random order, as it takes to say of each change whether it is ambient, critical or
    destroys; surely so for all changes at once, for these data."""
    budget: str | None = None
    """Evaluate changes for at most so long (90s, 10m, 1h): the best answer that fits, on samples in random order, more of them
    where intervals are widest; the intervals hold for all changes at once, for these data. Not counted: reading the data
    and measuring the unmodified network."""

    def __post_init__(self) -> None:
        if self.draws < 0:
            raise UseError(f"draws must not be negative, but is {self.draws}")
        if self.redraw not in REDRAW:
            raise unknown("way to re-randomise", self.redraw, REDRAW)
        if any(step < 0 for step in self.steps or ()):
            raise UseError(f"steps are epochs from 0, not {list(self.steps or ())}")
        if not 0 < self.level < 1:
            raise UseError(f"level must be between 0 and 1, not {self.level}")
        if self.within is not None and (self.decide or not 0 < self.within < 1):
            raise UseError("within is a half width between 0 and 1, such as 0.01; and give either within or decide")
        if self.decide and not self.ambient < self.destroyed:
            raise UseError(f"to decide, ambient ({self.ambient}) must be below destroyed ({self.destroyed})")
        if self.budget is not None:
            seconds_of("budget", self.budget)
        if not self.metrics:
            raise UseError("metrics must name at least one, such as error")
        if self.calibrate < 1:
            raise UseError(f"calibrate must be at least 1, but is {self.calibrate}")
        if not 0 < self.ambient <= self.destroyed:
            raise UseError(f"ambient ({self.ambient}) must be above 0 and at most destroyed ({self.destroyed})")


@dataclass(frozen=True)
class WeightsSpec(Spec):
    """What values alone say, without data: distances, norms, spectra."""

    KIND: ClassVar[str] = "weights"

    by: str = "layer"
    """What is taken together: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to take together as one, each NAME=PART|PART|..., patterns allowed."""


SEARCH = ("sequential", "grid")
"""How the minimum of a criticality is found."""


@dataclass(frozen=True)
class CriticalitySpec(Spec):
    """How critical each module is: how far it can go toward its start, and how much noise it then bears."""

    KIND: ClassVar[str] = "criticality"

    eps: tuple[float, ...] = (0.1,)
    """Expected errors that are allowed, each with answers of its own."""
    by: str = "layer"
    """What is one module: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to take as one module, each NAME=PART|PART|..., patterns allowed."""
    alphas: tuple[float, ...] = tuple(k / 10 for k in range(11))
    """Places on the way from the start (0) to the trained values (1)."""
    sigmas: tuple[float, ...] = tuple(round(10 ** (k / 4 - 2.5), 6) for k in range(11))
    """Standard deviations of the noise, above 0 and up to 1."""
    search: str = "sequential"
    """sequential asks few cells, each with a few samples, and takes it that the error grows with sigma; grid asks all cells,
    each on all samples."""
    draws: int = 10
    """Of grid: draws of the noise in each cell, each on all samples."""
    block: int = 16
    """Of sequential: samples that share a draw of the noise."""
    most: int = 256
    """Of sequential: draws after which a cell is decided by its estimate, if it is not sure before."""
    seed: int = 0
    """Seed of the noise, and of the choice of samples."""
    level: float = 0.95
    """Confidence level of the certificates of one module, for all its cells at once."""

    def __post_init__(self) -> None:
        ranges = {
            "eps": ("above 0 and below 1", lambda x: 0 < x < 1),
            "alphas": ("from 0 to 1", lambda x: 0 <= x <= 1),
            "sigmas": ("above 0 and up to 1", lambda x: 0 < x <= 1),
        }
        for name, (where, inside) in ranges.items():
            given = list(getattr(self, name))
            if not given or not all(map(inside, given)) or given != sorted(set(given)):
                raise UseError(f"{name} must be one or more numbers {where}, from small to large, not {given}")
        for name in ("draws", "block", "most"):
            if getattr(self, name) < 1:
                raise UseError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.search not in SEARCH:
            raise unknown("search", self.search, SEARCH)
        if not 0 < self.level < 1:
            raise UseError(f"level must be between 0 and 1, not {self.level}")


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A model of anyone's, with its states and data."""

    KIND: ClassVar[str] = "model"

    model: str = ""
    """package.module:NAME (a module or a function that makes one), torchvision:NAME, timm:NAME or hf:PATH."""
    data: str = ""
    """package.module:NAME (a loader, a list of batches, a mapping of split to them, or a function that makes one), or the
    name of a built-in data set. Without any, nothing is changed and measured: distances, norms and spectra only."""
    checkpoints: tuple[str, ...] = ()
    """Folders, files or quoted globs of checkpoints named after their steps (safetensors, .pt, .pth, .bin, Lightning's .ckpt,
    Hugging Face's folders), and STEP=FILE with STEP init, pretrained, final, epoch-12 or step-500; one alone is the trained
    network. pretrained=FILE is what a fine-tuning started from: it may lack tensors, or have them in other shapes. Without
    any, the values that the model comes with are the trained ones."""
    forward: str = ""
    """package.module:NAME of a function (model, batch) -> outputs, where a batch is not understood without it."""
    targets: str = ""
    """package.module:NAME of a function (batch) -> targets."""
