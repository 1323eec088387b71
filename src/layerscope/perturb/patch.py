"""What a Variant becomes: replaced values, and the callable that uses them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.partition import Part, Slice, first_names, overlap
from layerscope.perturb.swap import arranged, call
from layerscope.state import State


def take(tensor: Tensor, where: Slice) -> Tensor:
    """The values of a Slice of a tensor; the tensor itself where the Slice is all of it."""
    return tensor.index_select(where.axis, _indices(where, tensor)) if where.ranges else tensor


def put(tensor: Tensor, where: Slice, values: Tensor) -> Tensor:
    """The tensor with other values in a Slice of it, as a new tensor; differentiable in both."""
    return tensor.index_copy(where.axis, _indices(where, tensor), values) if where.ranges else values


def _indices(where: Slice, like: Tensor) -> Tensor:
    return torch.cat([torch.arange(start, stop, device=like.device) for start, stop in where.ranges])


@dataclass(frozen=True)
class Patch:
    """Values that take the place of others: Slice -> values. A name stands for the whole tensor of that name."""

    values: Mapping[Slice | str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole = {Slice(key) if isinstance(key, str) else key: values for key, values in self.values.items()}
        object.__setattr__(self, "values", whole)

    @classmethod
    def of(cls, part: Part, tensors: Mapping[str, Tensor]) -> "Patch":
        """The Patch that gives a Part its share of these whole tensors; those that are missing stay as they are."""
        return cls({where: take(tensors[where.tensor], where) for where in part.slices if where.tensor in tensors})

    @classmethod
    def merge(cls, patches: Iterable["Patch"], firsts: Mapping[str, str] | None = None) -> "Patch":
        """All of them at once; two that replace the same values are an error, also under two names of a tied tensor (`firsts`
        are the model's `first_names`)."""
        patches, names = list(patches), firsts or {}
        same = lambda where: replace(where, tensor=names.get(where.tensor, where.tensor))  # noqa: E731
        for one, other in combinations(patches, 2):
            if both := sorted({a.tensor for a in one.slices for b in other.slices if overlap(same(a), same(b))}):
                raise UseError(f"two edits of one variant change the same tensor: {', '.join(both)}")
        return cls({where: values for patch in patches for where, values in patch.slices.items()})

    @property
    def slices(self) -> Mapping[Slice, Tensor]:
        return self.values  # type: ignore[return-value]  # names have become Slices

    def without(self, names: Iterable[str]) -> "Patch":
        """The Patch without what it does to these tensors."""
        kept = set(names)
        return Patch({where: values for where, values in self.slices.items() if where.tensor not in kept})


def changed(state: State, patch: Patch, firsts: Mapping[str, str]) -> dict[str, Tensor]:
    """All tensors after the change, where `firsts` are the `first_names` of the model. A tied tensor has one value under
    all its names: that which the patch gives to the first of them that it names."""
    if surplus := {where.tensor for where in patch.slices} - state.keys():
        raise UseError(f"the patch changes tensors that the model does not have: {', '.join(sorted(surplus))}")
    values, done = dict(state), set()
    for where, new in patch.slices.items():
        first = firsts[where.tensor]
        if (aliased := Slice(first, where.axis, where.ranges)) not in done:
            values[first] = put(values[first], where, new.to(values[first].device))
            done.add(aliased)
    return {name: values[first] for name, first in firsts.items() if first in values}


def bind(model: nn.Module, state: State, patch: Patch) -> Callable[..., Any]:
    """The network `model` with the values `state`, changed by `patch`, as a function of the model's arguments.

    The model itself is not touched: it gives the code, not the values. The function is differentiable in the tensors
    of `state` and `patch`, and owns its buffers, so that a forward which counts calls changes neither. A model whose forward
    writes to its parameters writes to those given; one that recomputes activations in its backward (checkpointing) has its
    own values by then: materialize it instead.
    """
    values = changed(state, patch, first_names(model))
    inside = arranged(model, values, lambda _name, _own, value: value)
    return lambda *args, **kwargs: call(model, inside, *args, **kwargs)
