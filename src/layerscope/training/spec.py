"""What a training is asked, without torch."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope.errors import UseError
from layerscope.spec import Spec


@dataclass(frozen=True)
class TrainSpec(Spec):
    """Train a network and keep its trajectory.

    Defaults are those of zhang2022, App. A; the paper states neither the initialiser nor the learning rate nor what the
    seeds were: ours are choices (see `docs/decisions/0004-training-defaults.md`).
    """

    KIND: ClassVar[str] = "train"

    model: str = "fcn-3x256"
    """Architecture, such as fcn-3x256: three hidden layers of 256 units."""
    data: str = "digits"
    """Data set: digits (embedded), mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH, hub:NAME; the last two with
    options such as ?size=64&crop=56 (quote it in the shell)."""
    epochs: int = 100
    """Passes over the training data."""
    batch_size: int = 128
    """Samples a step; the last batch of an epoch may be smaller."""
    lr: float = 0.01
    """Learning rate at the start."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """L2 penalty."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    """Shares of the epochs after which the learning rate is multiplied by `decay`."""
    decay: float = 0.2
    """Factor of the learning rate at each milestone."""
    initialiser: str = "glorot"
    """Law of the initial values: glorot, he, pytorch."""
    seed: int = 0
    """Seed of the initial values and of the order of the data."""
    checkpoints: tuple[int, ...] | None = None
    """Epochs whose state is kept; all, if not given. The start (0) and the last are always kept."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise UseError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise UseError(f"momentum must be in [0, 1), not {self.momentum}")
        for name in ("weight_decay", "decay"):
            if not getattr(self, name) >= 0:
                raise UseError(f"{name} must not be negative, but is {getattr(self, name)}")
        if any(not 0 < share <= 1 for share in self.milestones):
            raise UseError(f"milestones are shares of the epochs in (0, 1], not {list(self.milestones)}")
        if any(not 0 <= epoch <= self.epochs for epoch in self.checkpoints or ()):
            raise UseError(f"checkpoints must be epochs from 0 to {self.epochs}, not {list(self.checkpoints or ())}")

    def learning_rate(self, epoch: int) -> float:
        """The learning rate during an epoch, counted from 0."""
        passed = sum(epoch >= max(1, round(share * self.epochs)) for share in self.milestones)
        return self.lr * self.decay**passed

    @property
    def kept(self) -> list[int]:
        """The epochs whose state is kept, in order."""
        return [epoch for epoch in range(self.epochs + 1) if self.keeps(epoch)]

    def keeps(self, epoch: int) -> bool:
        """Whether the state after this many epochs is kept."""
        return epoch in (0, self.epochs) or self.checkpoints is None or epoch in self.checkpoints
