"""Label noise: a share of the training labels shuffled or replaced."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope import rng
from layerscope.errors import UseError

KINDS = ("shuffled", "random")


@dataclass(frozen=True)
class Noise:
    """`ratio` is the share of samples whose labels are drawn anew; some of them come out as they were.

    `shuffled`: these labels are permuted among themselves (wang2022, Sec. 4.1), so that each class keeps its count.
    `random`: each is replaced by a class drawn uniformly, the true one included (chatterji2020, casper2019).
    """

    kind: str
    ratio: float

    @classmethod
    def of(cls, form: str, options: Mapping[str, str]) -> "Noise | None":
        """From the options of a data set's name; None if they ask for none."""
        asked = [kind for kind in KINDS if kind in options]
        if len(asked) > 1:
            raise UseError(f"{form}: give shuffled= or random=, not both")
        return cls(asked[0], _ratio(form, asked[0], options[asked[0]])) if asked else None

    def on(self, labels: Tensor, classes: int, seed: int) -> Tensor:
        """The labels `[n]` with noise. The samples chosen at a ratio are among those chosen at a larger one (same seed)."""
        where = touched(len(labels), self.ratio, seed)
        noisy = labels.clone()
        if self.kind == "shuffled":
            mixed = torch.randperm(len(where), generator=rng.generator(seed, "noise", "shuffled"))
            noisy[where] = labels[where[mixed]]
        else:  # drawn for every sample, so that a larger ratio keeps what a smaller one drew
            drawn = torch.randint(classes, (len(labels),), generator=rng.generator(seed, "noise", "random"))
            noisy[where] = drawn.to(labels.dtype)[where]
        return noisy

    def describe(self, true: Tensor, noisy: Tensor) -> dict[str, object]:
        """What the provenance says of it: how many labels were chosen, and how many really differ now."""
        chosen = _count(len(true), self.ratio)
        return {"kind": self.kind, "ratio": self.ratio, "chosen": chosen, "differ": int((true != noisy).sum())}


def touched(n: int, ratio: float, seed: int) -> Tensor:
    """Which of `n` samples get a label drawn anew: the first of an order that does not depend on the ratio."""
    return torch.randperm(n, generator=rng.generator(seed, "noise", "which"))[: _count(n, ratio)]


def _count(n: int, ratio: float) -> int:
    return round(ratio * n)


def _ratio(form: str, key: str, value: str) -> float:
    try:
        ratio = float(value) if set(value) <= set("0123456789.e-") else -1.0
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise UseError(f"{form}: option {key} must be a share from 0 to 1, not {value!r}")
    return abs(ratio)  # -0.0 is 0
