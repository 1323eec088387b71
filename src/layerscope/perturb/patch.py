"""What a Variant becomes: replaced tensors, and the callable that uses them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from layerscope.errors import UseError
from layerscope.partition import first_names
from layerscope.state import State


@dataclass(frozen=True)
class Patch:
    """Tensors that take the place of those of the same name."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def merge(cls, patches: Iterable["Patch"]) -> "Patch":
        """All of them at once; two that replace the same tensor are an error."""
        tensors: dict[str, Tensor] = {}
        for patch in patches:
            if both := sorted(tensors.keys() & patch.tensors.keys()):
                raise UseError(f"two edits of one variant change the same tensor: {', '.join(both)}")
            tensors |= patch.tensors
        return cls(tensors)


def changed(model: nn.Module, state: State, patch: Patch) -> dict[str, Tensor]:
    """All tensors of the model after the change. A tied tensor has one value under all its names: that
    which the patch gives to the first of them that it names."""
    surplus = patch.tensors.keys() - state.keys()
    if surplus:
        raise UseError(f"the patch changes tensors that the model does not have: {', '.join(sorted(surplus))}")
    firsts = first_names(model)
    moved: dict[str, Tensor] = {}
    for name, tensor in patch.tensors.items():
        moved.setdefault(firsts[name], tensor)
    values = {**state, **moved}
    return {name: values[first] for name, first in firsts.items()}


def bind(model: nn.Module, state: State, patch: Patch) -> Callable[..., Any]:
    """The network `model` with the values `state`, changed by `patch`, as a function of the model's arguments.

    The model itself is not touched: it gives the code, not the values. The function is differentiable in the tensors
    of `state` and `patch`, and owns its buffers, so that a forward which counts calls changes neither.
    """
    values = changed(model, state, patch)
    buffers = {name: values.get(name, buffer).clone() for name, buffer in model.named_buffers()}
    values |= buffers
    return lambda *args, **kwargs: functional_call(model, values, args, kwargs)
