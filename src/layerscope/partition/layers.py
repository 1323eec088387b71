"""One Part for each module that owns parameters itself."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerscope.partition.division import Division, division
from layerscope.partition.owners import Owner, owners
from layerscope.partition.part import Part, Slice
from layerscope.partition.tensors import same

if TYPE_CHECKING:
    from torch import nn

IDLE = "a buffer of a module without parameters"


@dataclass(frozen=True)
class Layer:
    """What an owner has: tensors, under all their names, and the paths of all modules that own the parameters."""

    name: str
    tensors: tuple[str, ...]
    modules: tuple[str, ...]
    trains: bool
    """Whether it has parameters; else it has buffers only, and the modules own these."""

    @property
    def part(self) -> Part:
        return Part(self.name, tuple(Slice(name) for name in self.tensors), self.modules)


def by_layer(model: "nn.Module") -> Division:
    """See `Partition.by_layer`."""
    found = layers(model)
    idle = {name: IDLE for layer in found if not layer.trains for name in layer.tensors}
    return division(model, tuple(layer.part for layer in found if layer.trains), idle)


def layers(model: "nn.Module") -> tuple[Layer, ...]:
    """All tensors that Parts are made of, each with the first module that owns it; in the order of modules.

    A parameter with several owners names its Layer after all of them. A buffer goes where the parameters of its module
    are; if these are in several Layers, to the first.
    """
    names, owner = same(model), owners(model)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    holders = {group: sorted({owner[name] for name in parameters & {*group} or group}) for group in names.values()}
    homes = {group: found[0] for group, found in holders.items() if parameters & {*group}}
    sharing: dict[Owner, set[Owner]] = {}
    for group, home in homes.items():
        sharing.setdefault(home, set()).update(holders[group])
    trained = frozenset(sharing)
    near = {each.path: home for home in sorted(trained, reverse=True) for each in sharing[home]}
    for group in [group for group in holders if group not in homes]:
        own = [each for each in holders[group] if each in trained]
        others = [near[each.path] for each in holders[group] if each.path in near]
        homes[group] = [*own, *others, *holders[group]][0]
        sharing.setdefault(homes[group], set(holders[group]))
    held: dict[Owner, list[str]] = {}
    for name, group in names.items():
        held.setdefault(homes[group], []).append(name)
    return tuple(_layer(held[home], sharing[home], home in trained) for home in sorted(held))


def _layer(tensors: list[str], sharing: Collection[Owner], trains: bool) -> Layer:
    order = sorted(sharing)
    name = " = ".join(owner.name for owner in order)
    return Layer(name, tuple(tensors), tuple(dict.fromkeys(owner.path for owner in order)), trains)
