"""What an analysis is asked, without torch."""

from dataclasses import dataclass
from typing import ClassVar

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
