"""What an analysis is asked, without torch."""

from dataclasses import dataclass
from typing import ClassVar

from layerscope.errors import UseError
from layerscope.spec import Spec


@dataclass(frozen=True)
class RobustnessSpec(Spec):
    """Which layers matter: rewind each to each checkpoint, re-randomise each in some draws."""

    KIND: ClassVar[str] = "robustness"

    draws: int = 5
    """Fresh random draws of each layer."""
    steps: tuple[int, ...] | None = None
    """Epochs to rewind to; all checkpoints there are, if not given. The first and the last are always among them."""
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

    def __post_init__(self) -> None:
        if self.draws < 0:
            raise UseError(f"draws must not be negative, but is {self.draws}")
        if any(step < 0 for step in self.steps or ()):
            raise UseError(f"steps are epochs from 0, not {list(self.steps or ())}")
        if not 0 < self.level < 1:
            raise UseError(f"level must be between 0 and 1, not {self.level}")
        if not 0 < self.ambient <= self.destroyed:
            raise UseError(f"ambient ({self.ambient}) must be above 0 and at most destroyed ({self.destroyed})")
