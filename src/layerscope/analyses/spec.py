"""What an analysis is asked, without torch."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from layerscope.errors import UseError, unknown
from layerscope.measures.catalogue import MEASURES
from layerscope.query import seconds_of
from layerscope.spec import BuffersRule, Spec
from layerscope.step import Step

REDRAW = ("law", "permutation", "moments")
"""Where random values come from."""


@runtime_checkable
class Divided(Protocol):
    """A spec that says what is taken together."""

    @property
    def by(self) -> str: ...

    @property
    def groups(self) -> tuple[str, ...]: ...

    @property
    def join(self) -> tuple[str, ...]: ...


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
    CODE: ClassVar[int] = 3

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
        super().__post_init__()
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


@dataclass(frozen=True)
class LandscapeSpec(Spec):
    """What lies around the way from start to trained: error and loss along it, alone or all layers at once, with or without
    noise."""

    KIND: ClassVar[str] = "landscape"
    CODE: ClassVar[int] = 2

    parts: tuple[str, ...] = ()
    """Layers to look at, patterns with * and ? allowed; `whole network` is all of them at once [default: all of these]"""
    by: str = "layer"
    """What is changed together: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to change together as one, each NAME=PART|PART|..., patterns allowed."""
    alphas: tuple[float, ...] = tuple(k / 10 for k in range(11))
    """Places on the way from the start (0) to the trained values (1)."""
    sigmas: tuple[float, ...] = ()
    """Standard deviations of noise, above 0, each of which is added at every place; none, if not given."""
    valley: bool = False
    """Tell the two sides of the way apart, by the sign of the inner product of noise and start: each draw is measured on both."""
    draws: int = 5
    """Draws of the noise, the same at all places and standard deviations."""
    train: bool = True
    """Measure on the training data too, not on the test data alone."""
    metrics: tuple[str, ...] = ("error", "cross_entropy")
    """What is measured."""
    seed: int = 0
    """Seed of the noise."""
    level: float = 0.95
    """Confidence level of intervals; those of changes along the way hold for all of them at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges = {
            "alphas": ("from 0 to 1", 1, lambda x: 0 <= x <= 1),
            "sigmas": ("above 0", 1 if self.valley else 0, lambda x: 0 < x < math.inf),
        }
        for name, (where, fewest, inside) in ranges.items():
            given = list(getattr(self, name))
            if len(given) < fewest or not all(map(inside, given)) or given != sorted(set(given)):
                why = " (a valley is as wide as the noise)" if name == "sigmas" and not given else ""
                raise UseError(f"{name} must be one or more numbers {where}, from small to large, not {given}{why}")
        if self.draws < 1:
            raise UseError(f"draws must be at least 1, not {self.draws}")
        if not self.metrics:
            raise UseError("metrics must name at least one, such as error")
        if not 0 < self.level < 1:
            raise UseError(f"level must be between 0 and 1, not {self.level}")


OPERATORS = ("itself", "circular")
"""Which linear map a spectral norm of a convolution is of."""
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
    """Of sequential: samples that share a draw of the noise; twice as many where errors are near eps. They are of one batch: from
    smaller batches there are no more than these have, and estimates vary more."""
    most: int = 128
    """Of sequential: draws after which a cell is decided by its estimate, if it is not sure before."""
    seed: int = 0
    """Seed of the noise, and of the choice of samples."""
    level: float = 0.95
    """Confidence level of the certificates of one module, for all its cells at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
class SpectraSpec(Spec):
    """How each layer stretches space as training goes on: its singular values as a linear map."""

    KIND: ClassVar[str] = "spectra"

    layers: tuple[str, ...] = ()
    """Layers to look at, by name or pattern with * and ?; all linear layers and convolutions, if not given."""
    steps: tuple[int, ...] | None = None
    """Epochs (iterations, where checkpoints are counted so) to look at; all checkpoints there are, if not given. The first and
    the last are always among them."""
    values: int = 64
    """Singular values that are kept of each layer and checkpoint, evenly from the largest to the smallest; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(step < 0 for step in self.steps or ()):
            raise UseError(f"steps are epochs from 0, not {list(self.steps or ())}")
        if self.values < 0 or self.values == 1:
            raise UseError(f"values must be 0, or at least 2 (the largest and the smallest), not {self.values}")


KERNELS = ("linear", "rbf")
"""How alike two samples are, for a network's activations."""


@dataclass(frozen=True)
class SimilaritySpec(Spec):
    """How similar the activations of the trained network are to those with a layer rewound."""

    KIND: ClassVar[str] = "similarity"

    by: str = "layer"
    """What is rewound together: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to rewind together as one, each NAME=PART|PART|..., patterns allowed."""
    steps: tuple[int, ...] | None = None
    """Epochs (iterations, where checkpoints are counted so) to rewind to; all checkpoints there are, if not given. The first
    and the last are always among them."""
    at: tuple[str, ...] = ()
    """Modules whose outputs are compared, by name or pattern with * and ?; all that own parameters, if not given."""
    n: int = 512
    """Samples that activations are compared on, drawn at random; all, if there are fewer."""
    kernel: str = "linear"
    """linear, or rbf, whose width is the median distance between two samples."""
    debiased: bool = True
    """Estimate without the bias that makes wide layers look alike, in blocks of samples; otherwise of all samples at once."""
    block: int = 128
    """Of debiased: samples that are compared with each other."""
    seed: int = 0
    """Seed of the choice of samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(step < 0 for step in self.steps or ()):
            raise UseError(f"steps are epochs from 0, not {list(self.steps or ())}")
        _check_kernel(self)


@dataclass(frozen=True)
class CkaSpec(Spec):
    """How similar the layers of two networks are, each of one to each of the other, on the data of the first."""

    KIND: ClassVar[str] = "cka"

    layers: tuple[str, ...] = ()
    """Modules of the first network whose outputs are compared, by name or pattern with * and ?; all that own parameters, if
    not given."""
    layers_with: tuple[str, ...] = ()
    """The same of the other network."""
    step: str | None = None
    """Whose values the first network has: init, epoch-N or step-N; the trained ones, if not given."""
    step_with: str | None = None
    """The same of the other network."""
    n: int = SimilaritySpec.n
    """Samples that activations are compared on, drawn at random; all, if there are fewer."""
    kernel: str = SimilaritySpec.kernel
    """linear, or rbf, whose width is the median distance between two samples."""
    debiased: bool = SimilaritySpec.debiased
    """Estimate without the bias that makes wide layers look alike, in blocks of samples; otherwise of all samples at once."""
    block: int = SimilaritySpec.block
    """Of debiased: samples that are compared with each other."""
    seed: int = 0
    """Seed of the choice of samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step", "step_with"):
            try:
                Step.parse(getattr(self, name) or "final")
            except ValueError as problem:
                raise UseError(f"{name}: {problem}") from None
        _check_kernel(self)


def _check_kernel(spec: SimilaritySpec | CkaSpec) -> None:
    """What all comparisons of activations refuse."""
    if spec.kernel not in KERNELS:
        raise unknown("kernel", spec.kernel, KERNELS)
    for name in ("n", "block"):
        if getattr(spec, name) < 4:
            raise UseError(f"{name} must be at least 4 samples, not {getattr(spec, name)}")


@dataclass(frozen=True)
class MeasuresSpec(Spec):
    """What is said to predict how well a network generalises: norms, distances, margins, flatness, criticality."""

    KIND: ClassVar[str] = "measures"

    which: tuple[str, ...] = tuple(MEASURES)
    """Measures, by name; all, if not given. Errors and the generalisation gap are always there."""
    operator: str = "itself"
    """Spectral norms of convolutions as they are (itself), or with inputs that go round in circles (circular)."""
    tolerance: float = 1e-3
    """Of spectral norms: how far the upper bound may be above the lower one, as a share."""
    eps: float = 0.1
    """Of PAC-Bayes and criticality: the expected training error that is allowed."""
    alphas: tuple[float, ...] = CriticalitySpec.alphas
    """Of criticality: places on the way from the start (0) to the trained values (1)."""
    sigmas: tuple[float, ...] = CriticalitySpec.sigmas
    """Of PAC-Bayes and criticality: standard deviations of the noise, above 0 and up to 1."""
    search: str = CriticalitySpec.search
    """Of PAC-Bayes and criticality: sequential asks few cells, each with a few samples, and takes it that the error grows with
    sigma; grid asks all cells, each on all samples."""
    draws: int = 10
    """Draws of the noise: of Gaussian flatness, and of search=grid in each cell."""
    block: int = CriticalitySpec.block
    """Of sequential: samples that share a draw of the noise."""
    most: int = CriticalitySpec.most
    """Of sequential: draws after which a cell is decided by its estimate, if it is not sure before."""
    samples: int = 2000
    """Training samples that flatness is measured on, drawn at random; all, if there are fewer."""
    rise: float = 0.1
    """Of Gaussian flatness: by how much the expected training error may be above that of the trained network."""
    climb: float = 0.5
    """Of the worst direction: by how many nats the training cross-entropy must rise."""
    ascent: int = 10
    """Of the worst direction: steps of gradient ascent."""
    seed: int = 0
    """Seed of all noise, of the choice of samples, and of the vectors that spectral norms are computed from."""
    level: float = 0.95
    """Confidence level of intervals, and of the certificates of one module."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.which:
            if name not in MEASURES:
                raise unknown("measure", name, MEASURES)
        if self.operator not in OPERATORS:
            raise unknown("operator", self.operator, OPERATORS)
        for name in ("tolerance", "rise", "climb"):
            if not 0 < getattr(self, name) < math.inf:
                raise UseError(f"{name} must be a number above 0, not {getattr(self, name)}")
        for name in ("samples", "ascent"):
            if getattr(self, name) < 1:
                raise UseError(f"{name} must be at least 1, not {getattr(self, name)}")
        self.criticality  # noqa: B018 (it refuses what it has in common)

    @property
    def criticality(self) -> CriticalitySpec:
        """What is asked about each module."""
        common = ("alphas", "sigmas", "search", "draws", "block", "most", "seed", "level")
        return CriticalitySpec(eps=(self.eps,), **{name: getattr(self, name) for name in common})


@dataclass(frozen=True)
class CompareSpec(Spec):
    """Which measure ranks networks as their generalisation error does."""

    KIND: ClassVar[str] = "compare"

    target: str = "generalisation_gap"
    """What measures should rank as: generalisation_gap (test error less training error) or error (on test data)."""
    measures: tuple[str, ...] = ()
    """The measures to compare; all that the networks have, if not given."""
    against: str = ""
    """The measure whose lead over each of the others is asked; each pair, and the lead of that which ranks best, if not given."""
    level: float = 0.95
    """Confidence level of each interval."""
    resamples: int = 2000
    """Times that the networks are drawn again, with replacement."""
    seed: int = 0
    """Seed of these draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measures and self.against and self.against not in self.measures:
            raise unknown("measure to compare the others with", self.against, self.measures)
        if len(set(self.measures) | {self.target}) <= len(self.measures):
            raise UseError(f"measures must differ from each other and from the target ({self.target}): {self.measures}")
        if not 0 < self.level < 1:
            raise UseError(f"level must be between 0 and 1, not {self.level}")
        if self.resamples < 100:
            raise UseError(f"resamples must be at least 100, not {self.resamples}")


OBJECTIVES = ("log", "ratio")
"""What a joint search makes small."""


@dataclass(frozen=True)
class BoundsSpec(Spec):
    """What can be said for sure of the error on new data: PAC-Bayes bounds from how far all modules can go back at once."""

    KIND: ClassVar[str] = "bounds"
    CODE: ClassVar[int] = 2

    eps: tuple[float, ...] = (0.1,)
    """Expected training errors that are allowed with all modules changed at once, each with answers of its own."""
    by: str = "layer"
    """What is one module: layer, module, block, stage, projection (query, key, value) or head."""
    groups: tuple[str, ...] = ()
    """Instead: groups of tensors, each NAME=PATTERN with * and ?, several patterns separated by |."""
    join: tuple[str, ...] = ()
    """Parts to take as one module, each NAME=PART|PART|..., patterns allowed."""
    alphas: tuple[float, ...] = CriticalitySpec.alphas
    """Places on the way from the start (0) to the trained values (1)."""
    sigmas: tuple[float, ...] = CriticalitySpec.sigmas
    """Standard deviations of the noise, above 0 and up to 1."""
    objective: str = "log"
    """What is made small: log, the sum of k log(1 + alpha^2 D^2 / (k sigma^2)), which bounds rest on; or ratio, that of
    alpha^2 D^2 / sigma^2, the joint criticality."""
    rounds: int = 3
    """Times that modules trade error among them, at most."""
    block: int = CriticalitySpec.block
    """Samples that share a draw of the noise."""
    most: int = CriticalitySpec.most
    """Draws after which a move that is not surely allowed is not taken. With fewer the noise must stay farther below eps."""
    draws: int = 1000
    """Fresh draws that the expected training error is bounded from, in the end."""
    gamma: float = 1.0
    """Of theorem B.2: the margin, which must be chosen before there are data."""
    radius: float | None = None
    """Of theorem B.2: no input, seen or not, has a larger 2-norm. If not given, it is taken from the data, and this is said."""
    independent: bool = False
    """A pretrained start has seen none of these data; otherwise nothing can be said for sure."""
    seed: int = 0
    """Seed of the noise, and of the choice of samples."""
    level: float = 0.95
    """Probability with which each bound holds; half of the risk is that of the training data, half that of the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alone(self.eps)  # it refuses what it has in common
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        for name in ("rounds", "draws"):
            if getattr(self, name) < 1:
                raise UseError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("gamma", "radius"):
            if (given := getattr(self, name)) is not None and not 0 < given < math.inf:
                raise UseError(f"{name} must be a number above 0, not {given}")

    def alone(self, eps: tuple[float, ...]) -> CriticalitySpec:
        """What is asked about each module alone, where the search begins."""
        common = ("alphas", "sigmas", "block", "most", "seed", "level")
        return CriticalitySpec(eps=eps, **{name: getattr(self, name) for name in common})


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A model of anyone's, with its states and data."""

    KIND: ClassVar[str] = "model"

    model: str = ""
    """package.module:NAME (a module or a function that makes one), torchvision:NAME, timm:NAME or hf:PATH."""
    data: str = ""
    """package.module:NAME (a loader, a list of batches, a mapping of split to them, or a function that makes one), or the
    name of a built-in data set. Only `analyze` does without: it then looks at values alone, their distances, norms and
    spectra."""
    checkpoints: tuple[str, ...] = ()
    """Folders, files or quoted globs of checkpoints named after their steps (safetensors, .pt, .pth, .bin, Lightning's .ckpt,
    Hugging Face's folders), and STEP=FILE with STEP init, pretrained, final, epoch-12 or step-500; one alone is the trained
    network. pretrained=FILE is what a fine-tuning started from: it may lack tensors, or have them in other shapes. Without
    any, the values that the model comes with are the trained ones."""
    forward: str = ""
    """package.module:NAME of a function (model, batch) -> outputs, where a batch is not understood without it."""
    targets: str = ""
    """package.module:NAME of a function (batch) -> targets."""
