"""What every reader gives: pixels and labels as they are in the files, before any normalisation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerscope.errors import UseError

Pair = tuple[Tensor, Tensor]
"""Images (uint8 grey levels, `[n, height, width]` or `[n, channels, height, width]`) and their labels `[n]` (integers)."""

MAX_BYTES = 8 * 2**30
"""How large the inputs of a set of pictures may be as float32. Beside them their grey levels take a quarter of that."""


@dataclass(frozen=True)
class Raw:
    """A data set as it was read; labels are 0 to `classes` - 1. `warnings` say what is unusual about the files."""

    train: Pair
    test: Pair
    classes: int
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Pair]:
        """Split name -> images and labels."""
        return {"train": self.train, "test": self.test}

    def check(self, name: str) -> None:
        """Refuse what no network could be trained on: splits that do not fit each other, labels out of range."""
        for split, (images, labels) in self.splits.items():
            if images.dtype != torch.uint8 or images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
                raise UseError(
                    f"{name} {split}: images {list(images.shape)} and labels {list(labels.shape)} do not belong together"
                )
            if not len(labels):
                raise UseError(f"{name} {split} is empty")
            wrong = ((labels < 0) | (labels >= self.classes)).nonzero()
            if len(wrong):
                raise UseError(
                    f"{name} {split}: the label of image {int(wrong[0])} is not one of 0 to {self.classes - 1}"
                )
        shapes = [list(images.shape[1:]) for images, _ in self.splits.values()]
        if shapes[0] != shapes[1]:
            raise UseError(f"{name}: training images are {shapes[0]}, test images {shapes[1]}; they must be alike")


def data_folder(name: str, root: Path | None) -> Path:
    """The data folder, for a set that cannot do without one."""
    if root is None:
        raise UseError(f"{name} is read from files: say where they are with --data-dir DIR or LAYERSCOPE_DATA")
    return root


def check_memory(name: str, images: int, values: int) -> None:
    """Refuse a set of `images` with `values` numbers each whose float32 inputs would be larger than `MAX_BYTES`."""
    size = 4 * images * values
    if size > MAX_BYTES:
        raise UseError(
            f"{name}: {images:,} images of {values:,} values would take {size:,} bytes as float32; the limit is "
            f"{MAX_BYTES:,}. Use fewer pictures or a smaller crop (?size=64&crop=56)"
        )


def unpublished(name: str, folder: Path, files: list[str]) -> list[str]:
    """The warning about files that differ from those that were published; none if there are none."""
    return [f"in {folder} these are not the published files of {name}: {', '.join(files)}"] if files else []
