"""Data sets by name, as normalised tensors that are decoded once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerscope.data.digits import load_digits
from layerscope.data.idx import FOLDERS, load_idx
from layerscope.errors import UseError, unknown
from layerscope.state import content_hash

NAMES = ("digits", *FOLDERS)


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
    """A data set by name: `digits` is embedded; `mnist` and `fashion-mnist` are read from IDX files below `data_dir`
    (or the environment variable LAYERSCOPE_DATA). Normalised by mean and standard deviation of all training pixels.

    Source of the normalisation: zhang2022, App. A.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    if name == "digits":
        return _normalised(name, load_digits(), [])
    root = data_dir or os.environ.get("LAYERSCOPE_DATA")
    if not root:
        raise UseError(f"{name} is read from files: say where they are with --data-dir DIR or LAYERSCOPE_DATA")
    return _normalised(name, *load_idx(name, Path(root)))


def _normalised(name: str, raw: dict[str, tuple[Tensor, Tensor]], warnings: list[str]) -> DataSet:
    pixels = raw["train"][0].double()
    mean, std = float(pixels.mean()), float(pixels.std(correction=0))
    splits = {
        split: Split(((images.float() - mean) / std).unsqueeze(1), labels.long())
        for split, (images, labels) in raw.items()
    }
    flat = {f"{split}.{i}": tensor for split, pair in raw.items() for i, tensor in enumerate(pair)}
    classes = int(torch.cat([labels for _, labels in raw.values()]).max()) + 1
    return DataSet(name, splits["train"], splits["test"], classes, mean, std, content_hash(flat), tuple(warnings))
