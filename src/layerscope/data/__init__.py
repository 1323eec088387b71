"""Data sets by name, as normalised tensors that are decoded once."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerscope.data import cifar, digits, hub, idx, imagefolder
from layerscope.data.raw import Raw
from layerscope.errors import UseError, unknown
from layerscope.state import content_hash

Reader = Callable[[str, Path | None], Raw]
"""Reads a set: its name (or, of a form, what stands after the colon) and the data folder, if one is known."""

SETS: dict[str, Reader] = {
    "digits": digits.read,
    "mnist": idx.read,
    "fashion-mnist": idx.read,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
}
FORMS: dict[str, Reader] = {"imagefolder": imagefolder.read, "hub": hub.read}
"""Readers of sets that are named by more than a word: `imagefolder:PATH`, `hub:NAME`, both with options after a `?`."""

NAMES = tuple(SETS)


@dataclass(frozen=True)
class Split:
    """One split of a data set: inputs `[n, channels, height, width]` (float32, normalised) and targets `[n]` (int64)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int = 512) -> "Batches":
        """The split in order, in batches; can be gone through any number of times.

        The default of 512 keeps a small network's activations in the processor's cache.
        """
        return Batches(self, size)


@dataclass(frozen=True)
class Batches:
    """`(inputs, targets)` batches of a split, in order; the last may be smaller."""

    split: Split
    size: int

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = zip(self.split.inputs.split(self.size), self.split.targets.split(self.size), strict=True)
        return iter(pairs)


@dataclass(frozen=True)
class DataSet:
    """A data set. `mean` and `std` are those of all training pixels, before normalisation, in grey levels;
    `fingerprint` changes with any pixel or label."""

    name: str
    train: Split
    test: Split
    classes: int
    mean: float
    std: float
    fingerprint: str
    warnings: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def nbytes(self) -> int:
        """Memory that inputs and targets of both splits take, in bytes."""
        return sum(tensor.nbytes for split in (self.train, self.test) for tensor in (split.inputs, split.targets))

    def describe(self) -> dict[str, object]:
        """What the provenance says of it."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "warnings": list(self.warnings),
        }


def load(name: str, data_dir: str | Path | None = None) -> DataSet:
    """A data set by name, normalised by mean and standard deviation of all training pixels and channels.

    `digits` is embedded. `mnist`, `fashion-mnist`, `cifar10` and `cifar100` are read from their published files below
    `data_dir` (or the environment variable LAYERSCOPE_DATA). `imagefolder:PATH?size=256&crop=224` reads pictures from
    folders, PATH/train/CLASS/ and PATH/val/CLASS/; `hub:NAME` a set of the Hugging Face hub.

    Source of the normalisation: zhang2022, App. A.
    """
    reader, argument = _reader(name)
    root = data_dir or os.environ.get("LAYERSCOPE_DATA")
    return _normalised(name, reader(argument, Path(root) if root else None))


def _reader(name: str) -> tuple[Reader, str]:
    """Who reads a set of this name, and what of the name it is given."""
    if name in SETS:
        return SETS[name], name
    form, colon, argument = name.partition(":")
    if form in FORMS:
        return FORMS[form], argument
    if colon:
        raise unknown("form of data set", form, FORMS)
    raise unknown("data set", name, SETS, form="Or imagefolder:PATH, hub:NAME.")


def _normalised(name: str, raw: Raw) -> DataSet:
    raw.check(name)
    mean, std = _moments(raw.train[0])
    if not std:
        raise UseError(f"{name}: all training pixels have the same grey level; there is nothing to learn from them")
    flat = {f"{split}.{i}": tensor for split, pair in raw.splits.items() for i, tensor in enumerate(pair)}
    train, test = (
        Split((images if images.ndim == 4 else images.unsqueeze(1)).float().sub_(mean).div_(std), labels.long())
        for images, labels in raw.splits.values()
    )
    return DataSet(name, train, test, raw.classes, mean, std, content_hash(flat), raw.warnings)


def _moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all grey levels, from how often each of the 256 occurs: exact in whole numbers."""
    counts = torch.bincount(images.flatten(), minlength=256).tolist()
    n = sum(counts)
    total = sum(level * count for level, count in enumerate(counts))
    squares = sum(level**2 * count for level, count in enumerate(counts))
    return total / n, math.sqrt(n * squares - total**2) / n
