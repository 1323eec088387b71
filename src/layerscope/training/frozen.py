"""Parts that keep their initial values in training."""

from torch import nn

from layerscope.errors import UseError, unknown
from layerscope.partition import BY, Part
from layerscope.partition.globs import matching
from layerscope.perturb.swap import places

BYS = ("layer", "module", "block", "stage")
"""Partitions whose Parts are whole tensors: half a tensor cannot be frozen."""


def frozen_parts(model: nn.Module, patterns: tuple[str, ...], by: str) -> list[Part]:
    """The Parts that names or patterns mean; an error for one that means none, or for all Parts at once."""
    if not patterns:
        return []
    if by not in BYS:
        raise unknown("freeze_by", by, BYS)
    parts = {part.name: part for part in BY[by](model)}
    chosen = matching(patterns, parts, "Part to freeze")
    if len(chosen) == len(parts):
        raise UseError("freeze means every Part of the network: nothing would be trained")
    return [parts[name] for name in chosen]


def freeze(model: nn.Module, parts: list[Part]) -> list[nn.Module]:
    """Take the parameters of Parts out of training. Gives the modules that must not run in training mode, because they would
    change the Parts' buffers: they use the statistics that they have."""
    names = {name for part in parts for name in part.tensors}
    still = []
    for name, tensor, is_buffer in places(model):
        if name in names and not is_buffer:
            tensor.requires_grad_(False)
        elif name in names:
            still.append(model.get_submodule(name.rpartition(".")[0]))
    return still
