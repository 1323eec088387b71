"""What is changed together: Slices of tensors, and the Parts made of them. Names and index ranges only, no tensors."""

from collections.abc import Iterable
from dataclasses import dataclass

from layerscope.errors import UseError

WHOLE = "whole network"
"""The name of the Part of all tensors."""
ROOT = "(root)"
"""The name of the Part of parameters that the model owns itself, outside any submodule."""


@dataclass(frozen=True)
class Slice:
    """Some of a tensor: of its indices along `axis`, those in `ranges` ((start, stop), ...); all of it where there are none.

    Errors: UseError if the ranges are empty, overlap or are not in order.
    """

    tensor: str
    axis: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        stops = (0, *(stop for _, stop in self.ranges))
        in_order = all(before <= start < stop for before, (start, stop) in zip(stops, self.ranges, strict=False))
        if self.axis < 0 or not in_order:
            raise UseError(
                f"the ranges {self.ranges} along axis {self.axis} of {self.tensor} are not right: an axis is counted "
                "from 0, and ranges are (start, stop) with 0 <= start < stop, in order and without overlap"
            )

    def __str__(self) -> str:
        """As people read it: `attn.in_proj_weight[0:4+8:12]`, `attn.out_proj.weight[:, 0:4]`."""
        inside = ":, " * self.axis + "+".join(f"{start}:{stop}" for start, stop in self.ranges)
        return f"{self.tensor}[{inside}]" if self.ranges else self.tensor


@dataclass(frozen=True)
class Part:
    """A named set of tensor slices that is changed together, and the modules that own them.

    A tensor is named as in `state_dict()`, a tied one under all its names. A string stands for all of a tensor.
    """

    name: str
    slices: tuple[Slice, ...]
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        slices = tuple(Slice(each) if isinstance(each, str) else each for each in self.slices)
        object.__setattr__(self, "slices", slices)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that are in the Part, wholly or partly; each once, in order."""
        return tuple(dict.fromkeys(each.tensor for each in self.slices))


def overlap(a: Slice, b: Slice) -> bool:
    """Whether two Slices have a scalar in common. Along different axes of a tensor they always have."""
    if a.tensor != b.tensor:
        return False
    if not a.ranges or not b.ranges or a.axis != b.axis:
        return True
    return any(start < other_stop and other < stop for start, stop in a.ranges for other, other_stop in b.ranges)


def merged(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """The same scalars in as few Slices as possible: one for each tensor and axis, neighbouring ranges as one.

    Slices must not overlap.
    """
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for each in slices:
        ranges.setdefault((each.tensor, each.axis), []).extend(each.ranges)
    return tuple(Slice(tensor, axis, _neighbours_as_one(found)) for (tensor, axis), found in ranges.items())


def _neighbours_as_one(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return tuple(joined)
