"""A model's code with other values in the places of its tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call

from layerscope.state import State

R = TypeVar("R")


def places(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Every place of a tensor in a model, once: its name, what is there, and whether it is a buffer.

    Modules that are registered under several names count once, by the first; a tensor that several modules share is in
    several places. `functional_call` needs to be told of each place once: told twice, it does not put the model's own
    tensors back.
    """
    for path, module in model.named_modules():
        for registry, buffers in ((module._parameters, False), (module._buffers, True)):
            for name, tensor in registry.items():
                if tensor is not None:
                    yield (f"{path}.{name}" if path else name), tensor, buffers


def parameters(model: nn.Module) -> frozenset[str]:
    """The names of the places of parameters."""
    return frozenset(name for name, _, is_buffer in places(model) if not is_buffer)


def arranged(model: nn.Module, values: State, parameter: Callable[[str, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Place -> the value to put there; a shared tensor is one object in all its places, as in the model.

    Buffers are copies, also those that no state has, so that a forward may write to them. `parameter(name, own, value)` says
    what stands for a parameter; one that the state does not have keeps its own value.
    """
    made: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, own, is_buffer in places(model):
        if is_buffer:
            found[name] = made.get(id(own), values.get(name, own).clone())
        elif name in values:
            found[name] = made[id(own)] if id(own) in made else parameter(name, own, values[name])
        else:
            continue
        made[id(own)] = found[name]
    return found


def call(model: nn.Module, inside: State, *args: Any, **kwargs: Any) -> Any:
    """What the model gives with other tensors in its places. It has its own again afterwards."""
    return functional_call(model, dict(inside), args, kwargs, tie_weights=False)


class _Inside(nn.Module):
    """Lets work be done inside `functional_call`, so that values are put in their places once, not for every batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], R]) -> R:
        return work(self.model)


def within(model: nn.Module, inside: State, work: Callable[[nn.Module], R]) -> R:
    """What `work` gives for the model while it has other tensors in its places."""
    return call(_Inside(model), {f"model.{name}": tensor for name, tensor in inside.items()}, work)


@contextmanager
def put_in(model: nn.Module, values: State) -> Iterator[None]:
    """The model with other tensors in some of its places, by the names that `places` gives; its own again afterwards."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for place, value in values.items():
            path, _, name = place.rpartition(".")
            module = model.get_submodule(path)
            held: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
            before.append((held, name, held[name]))
            held[name] = value
        yield
    finally:
        for held, name, value in reversed(before):
            held[name] = value
