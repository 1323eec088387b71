"""Residual and transformer blocks, found from the tree of modules: no list of known models."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.partition.division import Division
from layerscope.partition.groups import grouped, parent
from layerscope.partition.layers import Layer, layers
from layerscope.partition.owners import hosts_of, kind
from layerscope.partition.tensors import kept

if TYPE_CHECKING:
    from torch import nn

Tree = Mapping[str, "nn.Module"]
"""Path -> module: the model first, what is above before what is below, but for what is within parametrisations."""


# How blocks are told from what is around them and what is in them.
#
# A tower is a module outside of any list that holds a list of candidates of one class: an encoder beside a decoder. The
# candidates have two linear maps or more; else the branches of an Inception block, each a list of convolutions with
# their norms, would make it a tower. A stage may be in a list itself, as a transformer block may that holds a list of
# experts. But a stage has little else (one linear map, which makes its input smaller), and its elements have norms.


def by_block(model: "nn.Module", of: str | None) -> Division:
    """See `Partition.by_block`."""
    blocks = set(block_paths(model, of))
    return grouped(model, lambda path: next((above for above in _upwards(path) if above in blocks), None))


def by_stage(model: "nn.Module", of: str | None) -> Division:
    """See `Partition.by_stage`."""
    from torch import nn

    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    modules = dict(model.named_modules(remove_duplicate=False))
    blocks = block_paths(model, of)
    stages = {path: parent(path) if isinstance(modules[parent(path)], containers) else path for path in blocks}
    members: dict[tuple[str, ...], tuple[str, ...]] = {
        (stage,): tuple(path for path in blocks if stages[path] == stage) for stage in stages.values()
    }
    parts, left_out = grouped(model, lambda path: next((stages[up] for up in _upwards(path) if up in stages), None))
    return tuple(replace(part, modules=members.get(part.modules, part.modules)) for part in parts), left_out


def block_paths(model: "nn.Module", of: str | None) -> list[str]:
    """The paths of the blocks; none where the network has none.

    Errors: UseError if the network has no module of a class that is asked for.
    """
    hosts = hosts_of(model)
    modules = model.named_modules(remove_duplicate=False)
    tree = {path: module for path, module in modules if hosts[path] == path}
    meant = _of_classes(tree, [name.strip() for name in of.split("|")]) if of else _repeated(model, tree)
    found: dict[str, None] = {}
    for path in tree:
        if path in meant and not any(above in found for above in _upwards(path)):
            found[path] = None
    return list(found)


def _of_classes(tree: Tree, names: list[str]) -> set[str]:
    classes = {path: kind(module).__name__ for path, module in tree.items() if path}
    for name in names:
        if name not in classes.values():
            there = ", ".join(sorted(set(classes.values())))
            raise UseError(f"the network has no module of class {name!r}; there are: {there}")
    return {path for path, name in classes.items() if name in names}


def _repeated(model: "nn.Module", tree: Tree) -> set[str]:
    """Modules of at least two layers whose class occurs at least twice; but neither towers nor stages of such modules."""
    tensors = kept(model)
    trained = [layer for layer in layers(model) if layer.trains]
    linear = [layer for layer in trained if any(tensors[name].ndim > 1 for name in layer.tensors)]
    classes = Counter(kind(module) for module in tree.values())
    sizes, linear_sizes = _sizes(trained), _sizes(linear)
    repeated = {
        path
        for path, module in tree.items()
        if path and classes[kind(module)] > 1 and sizes[path] > 1 and not _is_plain_container(module)
    }
    elements = {path for path in repeated & _in_lists(tree) if linear_sizes[path] > 1}
    towers = _around_lists(tree, elements) - _in_lists(tree)
    residual = {path for path in elements if sizes[path] > linear_sizes[path]}
    outside = _sizes(linear, residual)
    stages = {path for path in _around_lists(tree, residual) if outside[path] < 2}
    return repeated - towers - stages


def _sizes(found: Iterable[Layer], elements: Collection[str] = ()) -> Counter[str]:
    """Path of a module -> how many of these layers it has, outside the elements below it."""
    sizes: Counter[str] = Counter()
    for owner in {path for layer in found for path in layer.modules}:
        for path in _upwards(owner):
            sizes[path] += 1
            if path in elements:
                break
    return sizes


def _in_lists(tree: Tree) -> set[str]:
    from torch import nn

    return {path for path in tree if path and isinstance(tree[parent(path)], nn.Sequential | nn.ModuleList)}


def _around_lists(tree: Tree, elements: set[str]) -> set[str]:
    """Modules that hold a list with at least two of these elements of one class."""
    lists = Counter((parent(path), kind(tree[path])) for path in elements)
    return {up for (path, _), number in lists.items() if number > 1 for up in _upwards(path)}


def _is_plain_container(module: "nn.Module") -> bool:
    """Whether it only holds others: its class does not say how they work together."""
    from torch import nn

    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return isinstance(module, containers) and type(module).forward in (nn.Sequential.forward, nn.Module.forward)


def _upwards(path: str) -> Iterator[str]:
    """The path itself and those of all modules around it, up to the model."""
    while path:
        yield path
        path = parent(path)
    yield path
