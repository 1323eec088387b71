"""Values made of the trained ones: most at random, for networks whose start nobody has."""

from collections.abc import Callable

import torch
from torch import Tensor

from layerscope import rng
from layerscope.models.laws import Singular
from layerscope.partition import Part, Slice
from layerscope.perturb.patch import Patch, put, take
from layerscope.perturb.variant import World
from layerscope.step import FINAL


def trained(part: Part, world: World) -> dict[Slice, Tensor]:
    """The trained values of a Part's parameters, by Slice."""
    own = [where for where in part.slices if where.tensor not in world.buffers]
    whole = world.trajectory.tensors(FINAL, dict.fromkeys(where.tensor for where in own))
    return {where: take(whole[where.tensor], where) for where in own}


def unchanging(part: Part, world: World) -> str:
    """Why random values made of a Part's trained ones are those again: in each of its tensors all are equal. Empty where they
    are not."""
    if any(values.numel() and bool((values != values.flatten()[0]).any()) for values in trained(part, world).values()):
        return ""
    return "in each of its tensors the trained values are all equal, so that nothing would change"


def realless(what: str, part: Part, world: World) -> str:
    """Why `what` needs real numbers and a Part has others; empty where all are real."""
    strange = {w.tensor: v.dtype for w, v in trained(part, world).items() if not v.is_floating_point()}
    return f"{what} real numbers, not {next(iter(strange.values()))} ({', '.join(strange)})" if strange else ""


def remade(
    part: Part, world: World, draw: int, purpose: str, make: Callable[[Slice, Tensor, torch.Generator], Tensor]
) -> Patch:
    """The Patch in which each Slice of a Part's parameters has what `make` makes of it, its trained values and its own
    generator. Buffers stay, but for spectral norm's vectors: they follow the weight.

    The generator depends on study seed, purpose, draw and Slice alone; a tied tensor has one, under all its names.
    """
    values: dict[Slice, Tensor] = {}
    for where, old in trained(part, world).items():
        first = world.firsts.get(where.tensor, where.tensor)
        place = str(Slice(first, where.axis, where.ranges))
        values[where] = make(where, old, rng.generator(world.seed, purpose, place, draw))
    return Patch.merge([Patch({**values}), Patch(_vectors(part, world, values))])


def _vectors(part: Part, world: World, values: dict[Slice, Tensor]) -> dict[Slice | str, Tensor]:
    """Spectral norm's vectors of the weights that are changed."""
    found: dict[Slice | str, Tensor] = {}
    for name in part.tensors:
        law = world.computed.get(name)
        if isinstance(law, Singular) and (mine := [where for where in values if where.tensor == law.weight]):
            (weight,) = world.trajectory.tensors(FINAL, [law.weight]).values()
            for where in mine:
                weight = put(weight, where, values[where])
            found[name] = law.of(weight).to(world.like[name].dtype)
    return found
