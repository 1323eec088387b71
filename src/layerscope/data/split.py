"""A split of a data set: inputs, from wherever they come, and labels."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerscope.errors import UseError

Device = torch.device | str


class Source(ABC):
    """Where the inputs of a split come from: float32, normalised, on one device."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as a network gets it, after the centre crop."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that the inputs take for as long as the source exists, in bytes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, size: int) -> Iterator[Tensor]:
        """All inputs in order, `[size, *shape]`; the last batch may be smaller."""

    @abstractmethod
    def ordered(self, order: Tensor, size: int) -> Iterator[Tensor]:
        """The inputs of these indices in this order, before the centre crop."""

    @abstractmethod
    def select(self, indices: Tensor) -> "Source":
        """The inputs of these indices only."""

    @abstractmethod
    def to(self, device: Device) -> "Source":
        """The same inputs on a device."""

    def cropped(self, inputs: Tensor) -> Tensor:
        """The centre crop of what `ordered` gives: all of it, where inputs are not cropped."""
        return inputs


@dataclass(frozen=True)
class Held(Source):
    """Inputs that are one tensor in memory, `[n, *shape]`."""

    inputs: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int) -> Iterator[Tensor]:
        return iter(self.inputs.split(size))

    def ordered(self, order: Tensor, size: int) -> Iterator[Tensor]:
        return (self.inputs[indices] for indices in order.to(self.inputs.device).split(size))

    def select(self, indices: Tensor) -> "Held":
        return Held(self.inputs[indices.to(self.inputs.device)])

    def to(self, device: Device) -> "Held":
        return Held(self.inputs.to(device))


@dataclass(frozen=True)
class Split:
    """One split of a data set: inputs, and targets `[n]` (int64).

    `source` is the normalised inputs as one float32 tensor `[n, *shape]`, or a `Source` that makes them as they are needed.
    `true` has the labels `[n]` before label noise; None where there is none.
    """

    source: Tensor | Source
    targets: Tensor
    true: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """All inputs at once, `[n, *shape]`, as `batches` gives them. Pictures that are not in memory are all decoded."""
        return torch.cat(list(self._source.batches(512))) if self.held is None else self.held

    @property
    def held(self) -> Tensor | None:
        """All inputs, `[n, *shape]`, where they are in memory as one tensor."""
        return self._source.inputs if isinstance(self._source, Held) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as a network gets it."""
        return self._source.shape

    @property
    def nbytes(self) -> int:
        """Memory that inputs and labels take, in bytes."""
        return self._source.nbytes + self.targets.nbytes + (0 if self.true is None else self.true.nbytes)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int = 512) -> "Batches":
        """The split in order, in batches; can be gone through any number of times.

        The default of 512 keeps a small network's activations in the processor's cache.
        """
        return Batches(self, size)

    def ordered(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`(inputs, targets)` batches of the samples `order` (`[any]`, int64) in that order, before the centre crop:
        for training, which crops as it likes. `cropped` gives what `batches` would."""
        targets = self.targets[order.to(self.targets.device)]
        return zip(self._source.ordered(order, size), targets.split(size), strict=True)

    def cropped(self, inputs: Tensor) -> Tensor:
        """The centre crop of inputs that `ordered` gave; ordinary sets are not cropped, and it is the inputs themselves."""
        return self._source.cropped(inputs)

    def select(self, indices: Tensor) -> "Split":
        """A split of these samples only (`[any]`, int64), in this order."""
        chosen = indices.to(self.targets.device)
        return Split(
            self._source.select(indices), self.targets[chosen], None if self.true is None else self.true[chosen]
        )

    def to(self, device: Device) -> "Split":
        """The same split on a device; pictures that are decoded as they are needed are moved there batch by batch."""
        true = None if self.true is None else self.true.to(device)
        return Split(self._source.to(device), self.targets.to(device), true)

    def recovered(self) -> "Split":
        """The same inputs with the labels they had before noise: what resilience is measured on (wang2022, Sec. 3)."""
        return replace(self, targets=self._before(), true=None)

    def corrupted(self) -> "Split":
        """Only the samples whose label noise changed, with the labels they had before."""
        wrong = (self.targets != self._before()).nonzero().flatten()
        if not len(wrong):
            raise UseError("label noise changed no label of this split: there are no corrupted samples")
        return self.recovered().select(wrong)

    def _before(self) -> Tensor:
        if self.true is None:
            raise UseError(
                "this split has no label noise, so there are no other, true labels; "
                "name training data with ?shuffled=0.2 or ?random=0.2"
            )
        return self.true

    @property
    def _source(self) -> Source:
        return Held(self.source) if isinstance(self.source, Tensor) else self.source


@dataclass(frozen=True)
class Batches:
    """`(inputs, targets)` batches of a split, in order; the last may be smaller."""

    split: Split
    size: int

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.split._source.batches(self.size), self.split.targets.split(self.size), strict=True)
