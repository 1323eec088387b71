"""What a training is asked, without torch."""

import math
from dataclasses import dataclass
from typing import ClassVar

from layerscope.errors import UseError, unknown
from layerscope.spec import Spec

CHOICES = {
    "optimizer": ("sgd", "adam", "rmsprop"),
    "schedule": ("step", "exponential", "cosine", "constant"),
    "augment": ("none", "flip", "pad-crop", "pad-crop-flip", "imagenet"),
    "until": ("epochs", "loss", "validation", "convergence"),
    "precision": ("float32", "bfloat16"),
}
"""Field -> what it may be."""

BELONG = {
    "smoothing": ("optimizer", ("adam", "rmsprop")),
    "milestones": ("schedule", ("step",)),
    "every": ("schedule", ("step",)),
    "decay": ("schedule", ("step", "exponential")),
    "patience": ("until", ("validation", "convergence")),
    "tolerance": ("until", ("convergence",)),
}
"""Field -> the field, and its values, that it belongs to: with others it would mean nothing, and is refused."""


@dataclass(frozen=True)
class TrainSpec(Spec):
    """Train a network and keep its trajectory.

    Defaults are those of zhang2022, App. A; the paper states neither the initialiser nor the learning rate nor what the
    seeds were: ours are choices (see `docs/decisions/0004-training-defaults.md`).
    """

    KIND: ClassVar[str] = "train"

    model: str = "fcn-3x256"
    """Architecture, such as fcn-3x256 or 'resnet-v2-18?norm=none&width=0.5'; `layerscope models` lists all."""
    data: str = "digits"
    """Data set: digits (embedded), mnist, fashion-mnist, cifar10, cifar100, teacher:D, imagefolder:PATH, hub:NAME; with options
    such as 'mnist?shuffled=0.2&n_train=4000' (quote it in the shell)."""
    epochs: int = 100
    """Passes over the training data; the most, if training may end before (see until)."""
    batch_size: int = 128
    """Samples a step; the last batch of an epoch may be smaller."""
    lr: float = 0.01
    """Learning rate at the start."""
    optimizer: str = "sgd"
    """sgd, adam or rmsprop."""
    momentum: float = 0.9
    """Momentum of SGD and RMSProp; the decay of Adam's mean gradient (beta1)."""
    smoothing: float | None = None
    """Decay of the mean squared gradient of RMSProp (0.99, if not given) and Adam (beta2, 0.999)."""
    weight_decay: float = 0.0
    """L2 penalty, on all parameters."""
    schedule: str = "step"
    """Learning rate over the epochs: step (times decay at the milestones), exponential (times decay after every epoch), cosine
    (half a cosine, to 0 after the last epoch), constant."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    """For step: shares of the epochs after which the learning rate is multiplied by `decay`."""
    every: int | None = None
    """For step, instead of milestones: the learning rate is multiplied by `decay` after each so many epochs."""
    decay: float = 0.2
    """Factor of the learning rate."""
    augment: str = "none"
    """Random change of the training images: flip (left-right), pad-crop (by up to 4 pixels, black around), pad-crop-flip,
    imagenet (a crop of 8 to 100 % of the area, resized, and flip)."""
    precision: str = "float32"
    """Precision of the products in training: float32 or bfloat16 (parameters, and all that is measured, stay float32)."""
    until: str = "epochs"
    """When training ends: epochs, loss (training cross-entropy below target_loss), validation (the network is that of the
    lowest validation error; no better one for patience epochs), convergence (training cross-entropy stays the same)."""
    target_loss: float | None = None
    """For until=loss: training cross-entropy (mean over the epoch, in nats) below which training ends."""
    patience: int = 10
    """For until=validation and convergence: epochs without a better value after which training ends."""
    tolerance: float = 0.01
    """For until=convergence: share by which the training cross-entropy must fall to count as better."""
    freeze: tuple[str, ...] = ()
    """Parts that keep their initial values, parameters and buffers, each a name or a pattern such as stage*.block2."""
    freeze_by: str = "layer"
    """How the Parts of freeze are named: layer, module, block or stage; see `layerscope parts`."""
    initialiser: str = "glorot"
    """Law of the initial values: pytorch; glorot, he, lecun or lecun-printed, each also with -normal or -uniform;
    'normal?std=0.1', 'truncated-normal?std=0.1'; fixup (residual networks)."""
    seed: int = 0
    """Seed of the initial values, of the order of the data, of augmentation and dropout."""
    checkpoints: tuple[int, ...] | None = None
    """Epochs whose state is kept; all, if not given. The start (0) and the last are always kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices()
        self._check_numbers()
        self._check_together()

    def _check_choices(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise unknown(field, getattr(self, field), choices)

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "lr", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise UseError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("momentum", "smoothing", "tolerance"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise UseError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("weight_decay", "decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UseError(f"{name} must not be negative, but is {getattr(self, name)}")
        if any(not 0 < share <= 1 for share in self.milestones):
            raise UseError(f"milestones are shares of the epochs in (0, 1], not {list(self.milestones)}")
        if any(not 0 <= epoch <= self.epochs for epoch in self.checkpoints or ()):
            raise UseError(f"checkpoints must be epochs from 0 to {self.epochs}, not {list(self.checkpoints or ())}")

    def _check_together(self) -> None:
        for name, (choice, values) in BELONG.items():
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default and getattr(self, choice) not in values:
                raise UseError(
                    f"{name} belongs to {choice}={' or '.join(values)}; with {getattr(self, choice)} it means nothing"
                )
        if self.every is not None and self.milestones != type(self).__dataclass_fields__["milestones"].default:
            raise UseError("every and milestones both say when the learning rate falls; give one of them")
        if self.freeze_by != "layer" and not self.freeze:
            raise UseError("freeze_by says how the Parts of freeze are named; say which, with freeze")
        if (self.until == "loss") != (self.target_loss is not None):
            raise UseError("until=loss and target_loss belong together: say both, such as until=loss, target_loss=0.19")
        if self.target_loss is not None and self.target_loss <= 0:
            raise UseError(f"target_loss must be above 0, not {self.target_loss}: a cross-entropy never falls below 0")
        if self.every is not None and self.every < 1:
            raise UseError(f"every is a number of epochs, from 1, not {self.every}")

    def learning_rate(self, epoch: int) -> float:
        """The learning rate during an epoch, counted from 0."""
        return (
            self.lr
            * {
                "step": lambda: self.decay ** self._milestones_before(epoch),
                "exponential": lambda: self.decay**epoch,
                "cosine": lambda: (1 + math.cos(math.pi * epoch / self.epochs)) / 2,
                "constant": lambda: 1.0,
            }[self.schedule]()
        )

    def _milestones_before(self, epoch: int) -> int:
        if self.every is not None:
            return epoch // self.every
        return sum(epoch >= max(1, round(share * self.epochs)) for share in self.milestones)

    def kept(self, last: int | None = None) -> list[int]:
        """The epochs whose state is kept, in order, of a training that ended after epoch `last` (or took all epochs)."""
        last = self.epochs if last is None else last
        return [epoch for epoch in range(last + 1) if epoch == last or self.keeps(epoch)]

    def keeps(self, epoch: int) -> bool:
        """Whether the state after this many epochs is kept wherever training ends."""
        return epoch in (0, self.epochs) or self.checkpoints is None or epoch in self.checkpoints
