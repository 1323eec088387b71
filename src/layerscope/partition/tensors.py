"""The tensors of a network: which there are, which of them are one and the same, and which no Part can have."""

from itertools import chain
from typing import TYPE_CHECKING, Any

from layerscope.errors import UseError
from layerscope.partition.part import WHOLE, Part, Slice

if TYPE_CHECKING:
    from torch import Tensor, nn

EXTRA = "extra state of a module: neither a parameter nor a buffer"
HIDDEN = "a parameter that the state dict does not list: no checkpoint has it"
PASSING = "a non-persistent buffer: no checkpoint has it"
PLAIN = "a plain tensor attribute: neither a parameter nor a buffer, so no checkpoint has it"


def whole(model: "nn.Module") -> Part:
    """The Part of all tensors: with it, the whole network is put to a checkpoint."""
    return Part(WHOLE, tuple(Slice(name) for name in kept(model)), ("",))


def first_names(model: "nn.Module") -> dict[str, str]:
    """Name in the state dict -> the first name of the same tensor: another one for tied weights and modules used twice."""
    return {name: names[0] for name, names in same(model).items()}


def every_tensor(model: "nn.Module") -> list[str]:
    """The names of all tensors: those of the state dict, then those that it does not list.

    The latter are non-persistent buffers and plain tensor attributes of modules. A tied tensor has several names. A
    state dict may also list extra state that is no tensor; it is named too.
    """
    return list(dict.fromkeys([*model.state_dict(), *tensors(model)]))


def tensors(model: "nn.Module") -> dict[str, "Tensor"]:
    """Name -> tensor, for the names of `every_tensor` that are tensors."""
    from torch import Tensor

    listed = {name: value for name, value in _listed(model).items() if isinstance(value, Tensor)}
    return listed | _buffers(model) | _parameters(model) | _plain(model)


def kept(model: "nn.Module") -> dict[str, "Tensor"]:
    """Name -> tensor, for the parameters and buffers that the state dict lists: what Parts are made of.

    Errors: UseError if one has no shape yet.
    """
    from torch.nn.parameter import is_lazy

    owned = _parameters(model) | _buffers(model)
    found = {name: owned[name] for name in _listed(model) if name in owned}
    for name, tensor in found.items():
        if is_lazy(tensor):
            raise UseError(f"{name} has no shape yet: the model must see one batch first, to be divided into Parts")
    return found


def unkept(model: "nn.Module") -> dict[str, str]:
    """Name -> why no Part can have it, for all other tensors."""
    listed, parameters, buffers = _listed(model), _parameters(model), _buffers(model)
    reasons = dict.fromkeys(_plain(model), PLAIN)
    reasons |= {name: PASSING for name in buffers if name not in listed}
    reasons |= {name: HIDDEN for name in parameters if name not in listed}
    return reasons | {name: EXTRA for name in listed if name not in parameters and name not in buffers}


def same(model: "nn.Module") -> dict[str, tuple[str, ...]]:
    """Name of a kept tensor -> all the names that the same tensor has, its own included."""
    found = kept(model)
    groups: dict[int, list[str]] = {}
    for name, tensor in found.items():
        groups.setdefault(id(tensor), []).append(name)
    return {name: tuple(groups[id(tensor)]) for name, tensor in found.items()}


def join(path: str, name: str) -> str:
    """The dotted name of what the module at `path` owns."""
    return f"{path}.{name}" if path else name


def _listed(model: "nn.Module") -> dict[str, Any]:
    return model.state_dict(keep_vars=True)


def _parameters(model: "nn.Module") -> dict[str, "Tensor"]:
    return dict(model.named_parameters(remove_duplicate=False))


def _buffers(model: "nn.Module") -> dict[str, "Tensor"]:
    return dict(model.named_buffers(remove_duplicate=False))


def _plain(model: "nn.Module") -> dict[str, "Tensor"]:
    """Tensor attributes that no module has registered."""
    from torch import Tensor

    registered = {id(tensor) for tensor in chain(model.parameters(), model.buffers())}
    return {
        join(path, name): value
        for path, module in model.named_modules(remove_duplicate=False)
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and id(value) not in registered
    }
