"""Which module a tensor belongs to."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.partition.part import ROOT
from layerscope.partition.tensors import join, kept

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, order=True)
class Owner:
    """A module, or one layer of a recurrent module; sorted as the model's modules are."""

    place: int
    layer: int
    path: str

    @property
    def name(self) -> str:
        """What people call it; a recurrent module's layers are counted from 0."""
        return (self.path or ROOT) if self.layer < 0 else join(self.path, f"l{self.layer}")


def owners(model: "nn.Module") -> dict[str, Owner]:
    """Name of a tensor -> its owner, for all that Parts are made of.

    What is below a parametrisation belongs to the module that has it, a stack of recurrent layers is several owners.
    """
    hosts = hosts_of(model)
    places = {path: place for place, path in enumerate(hosts)}
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {}
    for name in kept(model):
        path = hosts[name.rpartition(".")[0]]
        layer = _recurrent_layer(modules[path], name.removeprefix(path))
        found[name] = Owner(places[path], layer, path)
    return found


def kind(module: "nn.Module") -> type:
    """The class of a module; a parametrisation makes one for each module, which is not meant."""
    from torch.nn.utils.parametrize import type_before_parametrizations

    return type_before_parametrizations(module)


def hosts_of(model: "nn.Module") -> dict[str, str]:
    """Path of a module -> its own; within a parametrisation, that of the module whose tensor is parametrised."""
    hosts: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        above = path.rpartition(".")[0]
        within = hosts.get(above, above) != above
        hosts[path] = hosts[above] if within else above if _is_parametrisation(path, module) else path
    return hosts


def _is_parametrisation(path: str, module: "nn.Module") -> bool:
    from torch.nn.utils.parametrize import ParametrizationList

    inside = list(module.children())
    named = path.rpartition(".")[2] == "parametrizations"
    return named and bool(inside) and all(isinstance(child, ParametrizationList) for child in inside)


def _recurrent_layer(module: "nn.Module", tensor: str) -> int:
    """The layer of a recurrent module that a tensor such as `weight_ih_l1_reverse` is of; -1 where there is one only."""
    from torch import nn

    counted = re.search(r"_l(\d+)", tensor)
    return int(counted[1]) if counted and isinstance(module, nn.RNNBase) and module.num_layers > 1 else -1
