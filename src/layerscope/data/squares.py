"""Pictures as the inputs of a split: squares of grey levels, kept in memory or decoded as they are needed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerscope.data.feed import in_order, threads
from layerscope.data.pictures import Crop, decoded, heard, in_mode, pixels
from layerscope.data.raw import moments
from layerscope.data.split import Device, Source
from layerscope.errors import UseError
from layerscope.store import read_file

AHEAD = 2
"""Batches that are decoded beyond the one in use."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Files:
    """Pictures in files, and how each is cut: to the crop, or, of training pictures, to the `whole` square around it.

    `digests` `[n, 32]` are the SHA-256 of the files when they were first read; a file that was changed since is refused.
    """

    paths: Sequence[str]
    crop: Crop
    whole: bool
    digests: Tensor | None = None

    @property
    def side(self) -> int:
        """Height and width of what comes out."""
        return self.crop.size if self.whole else self.crop.crop

    @property
    def nbytes(self) -> int:
        """What all squares would take in memory."""
        return len(self) * 3 * self.side**2

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Tensor) -> "Files":
        """These files only, in this order."""
        digests = None if self.digests is None else self.digests[indices]
        return replace(self, paths=[self.paths[i] for i in indices.tolist()], digests=digests)

    def room(self, n: int, pinned: bool = False) -> Tensor:
        """Space for `n` squares, uint8 `[n, 3, side, side]`."""
        return torch.empty((n, 3, self.side, self.side), dtype=torch.uint8, pin_memory=pinned)

    def read(self, index: int, into: Tensor) -> tuple[bytes, Image.Image]:
        """One square, written into a tensor `[3, side, side]`; the SHA-256 of the file, and the square as a picture.

        Raises `UseError` with the path of a file that is damaged or was changed."""
        path = self.paths[index]
        content = read_file(path)
        digest = hashlib.sha256(content).digest()
        if self.digests is not None and digest != self.digests[index].numpy().tobytes():
            raise UseError(f"{path} was changed while it was in use; load the data again")
        picture = in_mode("RGB", decoded(content, path))
        square = self.crop.square(picture, path) if self.whole else self.crop(picture, path)
        into.numpy()[:] = pixels(square)
        return digest, square

    def counted(self, index: int, into: Tensor) -> tuple[bytes, np.ndarray]:
        """As `read`; but how often each grey level is in the crop, `[256]`, in place of the picture."""
        digest, square = self.read(index, into)
        levels = (self.crop.inner(square) if self.whole else square).histogram()
        return digest, np.array(levels).reshape(3, 256).sum(0)

    def ordered(self, order: Tensor, size: int, pinned: bool = False) -> Iterator[Tensor]:
        """Batches of squares in this order, decoded by threads ahead of time."""
        chunks = order.cpu().split(size)
        batches: list[Tensor] = []

        def tasks() -> Iterator[tuple[int, Tensor]]:
            for chunk in chunks:
                batches.append(self.room(len(chunk), pinned))
                yield from zip(chunk.tolist(), batches[-1], strict=True)

        done = in_order(lambda task: self.read(*task), tasks(), AHEAD * size)
        for chunk in chunks:
            for _ in range(len(chunk)):
                next(done)
            yield batches.pop(0)


@dataclass(frozen=True)
class Pictures(Source):
    """Inputs `[n, 3, crop, crop]` of squares in memory, uint8 `[n, 3, side, side]`, or of files."""

    squares: Tensor | Files
    crop: Crop
    mean: float
    std: float
    device: torch.device = CPU

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, self.crop.crop, self.crop.crop)

    @property
    def nbytes(self) -> int:
        return self.squares.nbytes if isinstance(self.squares, Tensor) else 0

    def __len__(self) -> int:
        return len(self.squares)

    def batches(self, size: int) -> Iterator[Tensor]:
        squares = self.squares
        found = squares.split(size) if isinstance(squares, Tensor) else self._decoded(torch.arange(len(squares)), size)
        return (self._normalised(batch, crop=True) for batch in found)

    def ordered(self, order: Tensor, size: int) -> Iterator[Tensor]:
        return (self._normalised(batch, crop=False) for batch in self._decoded(order, size))

    def cropped(self, inputs: Tensor) -> Tensor:
        """The middle of squares; of test pictures all, since they were cut to it."""
        start = self.crop.margin if inputs.shape[-1] > self.crop.crop else 0
        return inputs[..., start : start + self.crop.crop, start : start + self.crop.crop]

    def select(self, indices: Tensor) -> "Pictures":
        if isinstance(self.squares, Tensor):
            return replace(self, squares=self.squares[indices.to(self.device)])
        return replace(self, squares=self.squares.select(indices))

    def to(self, device: Device) -> "Pictures":
        squares = self.squares.to(device) if isinstance(self.squares, Tensor) else self.squares
        return replace(self, squares=squares, device=torch.device(device))

    def _decoded(self, order: Tensor, size: int) -> Iterator[Tensor]:
        if isinstance(self.squares, Tensor):
            return (self.squares[indices] for indices in order.to(self.device).split(size))
        return self.squares.ordered(order, size, pinned=self.device.type == "cuda")

    def _normalised(self, squares: Tensor, crop: bool) -> Tensor:
        """First to the device, whole and as grey levels: that is a quarter of the floats, and in one piece of pinned memory."""
        there = squares.to(self.device, non_blocking=True)
        return (self.cropped(there) if crop else there).float().sub_(self.mean).div_(self.std)


@dataclass(frozen=True)
class Look:
    """What one pass over all files of a split tells. `squares` are kept if that was asked for, else the files stand for them."""

    squares: Tensor | Files
    digests: Tensor
    counts: Tensor
    said: list[str]

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of all grey levels within the crops."""
        return moments(self.counts)


def look(files: Files, keep: bool) -> Look:
    """Decode every picture once, by threads: `digests` `[n, 32]` of the files, `counts` `[256]` of the grey levels within
    the crops, and what the decoder warned of. Raises `UseError` with the path of the first damaged file."""
    kept = files.room(len(files)) if keep else None
    digests = torch.empty((len(files), 32), dtype=torch.uint8)
    counts = np.zeros(256, np.int64)
    read = lambda i: files.counted(i, files.room(1)[0] if kept is None else kept[i])  # noqa: E731
    with heard() as said:
        for i, (digest, levels) in enumerate(in_order(read, range(len(files)), 16 * threads())):
            digests[i] = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
            counts += levels
    warned = [f"{path}: {said[path]}" for path in files.paths if path in said]
    return Look(replace(files, digests=digests) if kept is None else kept, digests, torch.from_numpy(counts), warned)
