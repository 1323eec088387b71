"""Whether Parts fit a network: nothing is named that it does not have, and nothing that it has is left without a word."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.partition.part import Part, Slice
from layerscope.partition.tensors import every_tensor, kept, same, tensors, unkept

if TYPE_CHECKING:
    from torch import nn

Shapes = Mapping[str, Sequence[int]]


def check(model: "nn.Module", parts: Sequence[Part], left_out: Mapping[str, str]) -> None:
    """See `Partition.check`."""
    faults = [*_foreign(model, parts, left_out)] or [*_unaccounted(model, parts, left_out), *_torn(model, parts)]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise UseError(f"the Partition does not fit the model: {'; '.join(faults[:5])}{more}")


def size(each: Slice, shape: Sequence[int]) -> int:
    """How many scalars a Slice of a tensor of this shape has."""
    if not each.ranges:
        return prod(shape)
    return prod(shape) // shape[each.axis] * sum(stop - start for start, stop in each.ranges)


def sizes(parts: Sequence[Part], shapes: Shapes) -> dict[str, int]:
    """Name of a tensor that is in Parts -> how many of its scalars are."""
    found: dict[str, int] = {}
    for each in (each for part in parts for each in part.slices):
        found[each.tensor] = found.get(each.tensor, 0) + size(each, shapes[each.tensor])
    return found


def _foreign(model: "nn.Module", parts: Sequence[Part], left_out: Mapping[str, str]) -> Iterator[str]:
    """What is named and cannot be in a Part."""
    shapes = {name: tensor.shape for name, tensor in kept(model).items()}
    reasons = unkept(model)
    modules = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for part in parts:
        for each in part.slices:
            shape = shapes.get(each.tensor)
            if shape is None:
                yield f"Part {part.name!r} names {each.tensor}: {reasons.get(each.tensor, 'the model has no such tensor')}"
            elif each.ranges and (each.axis >= len(shape) or each.ranges[-1][1] > shape[each.axis]):
                yield f"Part {part.name!r} names {each}, but the tensor has the shape {list(shape)}"
        yield from (
            f"Part {part.name!r} names the module {path}: the model has none" for path in {*part.modules} - modules
        )
    every = {*shapes, *reasons}
    yield from (f"left_out names {name}: the model has no such tensor" for name in left_out if name not in every)


def _unaccounted(model: "nn.Module", parts: Sequence[Part], left_out: Mapping[str, str]) -> Iterator[str]:
    """What is in no Part nor left out, or both."""
    found = tensors(model)
    placed = sizes(parts, {name: tensor.shape for name, tensor in found.items()})
    for name in every_tensor(model):
        total = found[name].numel() if name in found else 0
        whole = placed.get(name) == total
        if whole and name in left_out:
            yield f"{name} is in a Part and in left_out: it can be in one only"
        elif not whole and name not in left_out:
            much = f"{total - placed[name]} of {total} scalars of {name} are" if name in placed else f"{name} is"
            yield f"{much} in no Part: put it in a Part or in left_out"


def _torn(model: "nn.Module", parts: Sequence[Part]) -> Iterator[str]:
    """Tied tensors that are not changed together."""
    places: dict[str, set[tuple[object, ...]]] = {}
    for part in parts:
        for each in part.slices:
            places.setdefault(each.tensor, set()).add((part.name, each.axis, each.ranges))
    for name, names in same(model).items():
        if places.get(name) != places.get(names[0]):
            yield f"{names[0]} and {name} are the same tensor: they must be in the same Part"
