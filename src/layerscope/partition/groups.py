"""Layers put together by the modules that they are in."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.partition.division import Division, division
from layerscope.partition.layers import IDLE, Layer, layers
from layerscope.partition.part import ROOT, Part, Slice
from layerscope.partition.tensors import kept

if TYPE_CHECKING:
    from torch import nn

Home = Callable[[str], str | None]
"""Path of a module that owns tensors -> path of the module around it whose tensors are to be one Part, if there is one."""


def by_module(model: "nn.Module", depth: int) -> Division:
    """See `Partition.by_module`."""
    if depth < 1:
        raise UseError(f"modules are at depth 1 (the model's own children) or more, not at {depth}")
    return grouped(model, lambda path: ".".join(path.split(".")[:depth]))


def grouped(model: "nn.Module", home: Home) -> Division:
    """A Part for each home, of all that is in it; layers without a home stay Parts of their own.

    So do layers that are tied across homes. If these are not single weights but whole modules that are used twice, such
    a module is a Part.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    groups: dict[tuple[str, tuple[str, ...]], list[Layer]] = {}
    for layer in layers(model):
        groups.setdefault(_place(layer, home, modules), []).append(layer)
    order = {name: place for place, name in enumerate(kept(model))}
    parts, idle = [], {}
    for (name, paths), members in groups.items():
        tensors = sorted((name for layer in members for name in layer.tensors), key=order.__getitem__)
        if any(layer.trains for layer in members):
            parts.append(Part(name, tuple(Slice(tensor) for tensor in tensors), paths))
        else:
            idle |= dict.fromkeys(tensors, IDLE)
    return division(model, tuple(parts), idle)


def parent(path: str) -> str:
    """The path of the module around."""
    return path.rpartition(".")[0]


def _place(layer: Layer, home: Home, modules: Mapping[str, "nn.Module"]) -> tuple[str, tuple[str, ...]]:
    """The name of the Part that a layer goes to, and its modules."""
    homes = tuple(found for path in layer.modules if (found := home(path)) is not None)
    homeless = len(homes) < len(layer.modules)
    if homeless or (len(set(homes)) > 1 and not _one(layer.modules, modules)):
        return layer.name, layer.modules
    paths = homes[:1] if len(set(homes)) == 1 else _widest(layer.modules, homes, modules)
    return " = ".join(path or ROOT for path in paths), paths


def _widest(paths: Sequence[str], homes: Sequence[str], modules: Mapping[str, "nn.Module"]) -> tuple[str, ...]:
    """The module around that is at all these places, up to the homes."""
    above = [parent(path) for path in paths]
    at_home = any(path == home for path, home in zip(paths, homes, strict=True))
    return tuple(paths) if at_home or not _one(above, modules) else _widest(above, homes, modules)


def _one(paths: Sequence[str], modules: Mapping[str, "nn.Module"]) -> bool:
    """Whether the same module is at all these places."""
    return len({id(modules[path]) for path in paths}) == 1
