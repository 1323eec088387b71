"""What every reader gives: inputs and labels as they are in the files, before any choice and normalisation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from layerscope.data.split import Source
from layerscope.errors import UseError

Inputs = Tensor | Source
Pair = tuple[Inputs, Tensor]
"""Inputs and their labels `[n]` (integers). Inputs are uint8 grey levels, `[n, height, width]` or
`[n, channels, height, width]`; or, of a set that is `Ready`, float32 `[n, ...]` or a `Source`."""

MAX_BYTES = 8 * 2**30
"""How large the inputs of a set may be as float32. Grey levels beside them take a quarter of that."""


@dataclass(frozen=True)
class Ready:
    """What is known of inputs that go to a network as they are: by which mean and standard deviation they were normalised,
    a fingerprint of both splits as they were read, and what the provenance says of them besides."""

    mean: float
    std: float
    fingerprint: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A data set as it was read; labels are 0 to `classes` - 1. `warnings` say what is unusual about the files.

    Without `ready`, inputs are grey levels that are still to be normalised.
    """

    train: Pair
    test: Pair
    classes: int
    warnings: tuple[str, ...] = ()
    ready: Ready | None = None

    @property
    def splits(self) -> dict[str, Pair]:
        """Split name -> inputs and labels."""
        return {"train": self.train, "test": self.test}

    @property
    def labels(self) -> dict[str, Tensor]:
        """Split name -> labels."""
        return {split: labels for split, (_, labels) in self.splits.items()}

    def check(self, name: str) -> None:
        """Refuse what no network could be trained on: splits that do not fit each other, labels out of range."""
        for split, (inputs, labels) in self.splits.items():
            if not self._fit(inputs, labels):
                raise UseError(
                    f"{name} {split}: images {list(_shape(inputs))} and labels {list(labels.shape)} do not belong together"
                )
            if not len(labels):
                raise UseError(f"{name} {split} is empty")
            wrong = ((labels < 0) | (labels >= self.classes)).nonzero()
            if len(wrong):
                raise UseError(
                    f"{name} {split}: the label of image {int(wrong[0])} is not one of 0 to {self.classes - 1}"
                )
        shapes = [list(_shape(inputs)[1:]) for inputs, _ in self.splits.values()]
        if shapes[0] != shapes[1]:
            raise UseError(f"{name}: training images are {shapes[0]}, test images {shapes[1]}; they must be alike")

    def _fit(self, inputs: Inputs, labels: Tensor) -> bool:
        grey = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.ndim in (3, 4)
        return (grey or self.ready is not None) and labels.shape == _shape(inputs)[:1]


def _shape(inputs: Inputs) -> tuple[int, ...]:
    return tuple(inputs.shape) if isinstance(inputs, Tensor) else (len(inputs), *inputs.shape)


def moments(counts: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of grey levels, from how often each of the 256 occurs (`[256]`, int64): whole numbers,
    and so exact up to one rounding."""
    numbers = counts.tolist()
    n = sum(numbers)
    total = sum(level * count for level, count in enumerate(numbers))
    squares = sum(level**2 * count for level, count in enumerate(numbers))
    return total / n, math.sqrt(n * squares - total**2) / n


def data_folder(name: str, root: Path | None) -> Path:
    """The data folder, for a set that cannot do without one."""
    if root is None:
        raise UseError(f"{name} is read from files: say where they are with --data-dir DIR or LAYERSCOPE_DATA")
    return root


def check_memory(name: str, samples: int, values: int, what: str, instead: str) -> None:
    """Refuse a set of `samples` with `values` numbers each whose float32 inputs would be larger than `MAX_BYTES`."""
    size = 4 * samples * values
    if size > MAX_BYTES:
        raise UseError(
            f"{name}: {samples:,} {what} of {values:,} values would take {size:,} bytes as float32; the limit is "
            f"{MAX_BYTES:,}. {instead}"
        )


def unpublished(name: str, folder: Path, files: list[str]) -> list[str]:
    """The warning about files that differ from those that were published; none if there are none."""
    return [f"in {folder} these are not the published files of {name}: {', '.join(files)}"] if files else []
