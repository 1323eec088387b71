"""The modules of a network as chatterji2020 has them: its linear maps, with their weights alone."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.engine.subject import Subject
from layerscope.errors import UseError
from layerscope.measures.operator import Convolution, Operator, Transposed
from layerscope.partition import ROOT, Part, Partition, every_tensor, first_names
from layerscope.perturb.swap import parameters
from layerscope.state import State

TIED = "a weight that another module has too, which counts once"
BIAS = "a bias: modules are the weights of linear layers and convolutions"


@dataclass(frozen=True)
class Modules:
    """The weights of linear layers and convolutions that are called: a Part of each, and why other tensors are left out."""

    partition: Partition
    paths: dict[str, str]
    """Name of a Part -> path of its module."""
    transposed: frozenset[str]
    """Names of Parts of transposed convolutions, whose operators are their adjoints."""

    @classmethod
    def of(cls, model: nn.Module, called: set[str]) -> "Modules":
        """Those of a network, of which the modules at these paths are called."""
        names, firsts, own = every_tensor(model), first_names(model), parameters(model)
        modules = dict(model.named_modules(remove_duplicate=False))
        parts: list[Part] = []
        taken: dict[str, str] = {}
        paths: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for path, module in model.named_modules():
            if not isinstance(module, nn.Linear | Convolution | Transposed):
                continue
            weights = [name for name in firsts if name in own and _is_weight(name, path)]
            first = {firsts[name] for name in weights}
            if path not in called:
                reasons |= dict.fromkeys(weights, f"the weight of a {type(module).__name__} that is not called")
            elif first & set(taken):
                reasons |= dict.fromkeys(weights, TIED)
            elif weights:
                name = path or ROOT
                every = [other for other in firsts if firsts[other] in first]
                parts.append(Part(name, tuple(every), (path,)))  # type: ignore[arg-type]
                taken |= dict.fromkeys(every, name)
                paths[name] = path
        out = {name: reasons.get(name) or _reason(name, modules) for name in names if name not in taken}
        transposed = frozenset(name for name, path in paths.items() if isinstance(modules[path], Transposed))
        return cls(Partition(tuple(parts), out), paths, transposed)


def _is_weight(name: str, path: str) -> bool:
    """Whether a parameter is a module's weight, or what a parametrisation makes it from."""
    under = f"{path}." if path else ""
    return name.startswith(under) and "bias" not in name[len(under) :]


def _reason(name: str, modules: dict[str, nn.Module]) -> str:
    path, _, own = name.rpartition(".")
    owner = modules.get(path)
    if isinstance(owner, nn.Linear | Convolution | Transposed) and own == "bias":
        return BIAS
    return f"of a {type(owner).__name__}: modules are the weights of linear layers and convolutions"


@dataclass(frozen=True)
class Map:
    """A module's weight, the linear map that it makes on inputs of the size that it is called with, and whether it is called
    with several sizes, of which the first counts. Where there is no such map, `operator` says why."""

    weight: Tensor
    operator: Operator | str
    several: bool = False


def maps_of(subject: Subject, values: State, batch: Any) -> dict[str, Map]:
    """Path -> what each linear layer and convolution that is called for a batch with these values is."""
    paths = {id(module): path for path, module in subject.model.named_modules()}
    found: dict[str, Map] = {}
    sizes: dict[str, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: Any, _outputs: Any) -> None:
        if id(module) not in paths or not isinstance(module, nn.Linear | Convolution | Transposed):
            return
        path, given = paths[id(module)], next((x for x in inputs if isinstance(x, Tensor)), None)
        axes = 0 if isinstance(module, nn.Linear) else len(module.kernel_size)
        size = () if given is None or not axes else tuple(given.shape[-axes:])
        if path in found:
            several = found[path].several or size != sizes[path]
            found[path] = replace(found[path], several=several)
            return
        sizes[path] = size
        try:
            operator: Operator | str = Operator.of(module, size)
        except UseError as problem:
            operator = str(problem)
        found[path] = Map(module.weight.detach().clone(), operator)

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        subject.run(values, lambda network: subject.outputs(network, batch))
    finally:
        handle.remove()
    return found
