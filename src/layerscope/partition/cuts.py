"""Layers divided: attention into its projections or its heads."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layerscope.partition.attention import Attention, attentions
from layerscope.partition.division import Division, division
from layerscope.partition.layers import IDLE, layers
from layerscope.partition.part import Part, Slice, merged
from layerscope.partition.tensors import join, kept

if TYPE_CHECKING:
    from torch import nn

DIVIDED = "a buffer of a module whose parameters are divided among Parts"


def by_projection(model: "nn.Module") -> Division:
    """See `Partition.by_projection`."""
    return _cut(model, [part for found in attentions(model) if found.packed for part in _projections(found)])


def by_head(model: "nn.Module") -> Division:
    """See `Partition.by_head`."""
    return _cut(model, [part for found in attentions(model) if found.divides for part in _heads(found)])


def _projections(attention: Attention) -> list[Part]:
    spans = {"q": attention.q, "k": attention.k, "v": attention.v}
    return [_part(attention, name, [span.share() for span in found]) for name, found in spans.items()]


def _heads(attention: Attention) -> list[Part]:
    """Keys and values that several heads share are Parts of their own."""
    heads, groups = attention.heads, attention.groups
    of_keys = (*attention.k, *attention.v)
    shared = of_keys if groups < heads else ()
    own = (*attention.q, *(() if shared else of_keys), *attention.out)
    pieces = {f"head{head}": [span.share(head, heads) for span in own] for head in range(heads)}
    pieces |= {f"kv{group}": [span.share(group, groups) for span in shared] for group in range(groups) if shared}
    return [_part(attention, name, slices) for name, slices in pieces.items()]


def _part(attention: Attention, name: str, slices: Iterable[Slice]) -> Part:
    """The Part at all paths that the module has."""
    placed = [replace(each, tensor=join(path, each.tensor)) for each in merged(slices) for path in attention.paths]
    return Part(" = ".join(join(path, name) for path in attention.paths), tuple(placed))


def _cut(model: "nn.Module", pieces: Sequence[Part]) -> Division:
    """The layers without the pieces, and the pieces before the first layer that they are from."""
    found = layers(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in kept(model).items()}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    places = {name: place for place, layer in enumerate(found) for name in layer.tensors}
    taken = {name for piece in pieces for name in piece.tensors}
    cut: dict[int, list[Part]] = {}
    for piece in pieces:
        sources = sorted({places[name] for name in piece.tensors})
        modules = dict.fromkeys(path for place in sources for path in found[place].modules)
        slices = tuple(_all_as_whole(each, shapes[each.tensor]) for each in piece.slices)
        cut.setdefault(sources[0], []).append(Part(piece.name, slices, tuple(modules)))
    parts, idle = [], {}
    for place, layer in enumerate(found):
        rest = tuple(name for name in layer.tensors if name not in taken)
        parts += cut.get(place, [])
        if parameters.isdisjoint(rest):
            idle |= dict.fromkeys(rest, DIVIDED if layer.trains else IDLE)
        else:
            parts.append(replace(layer, tensors=rest).part)
    return division(model, parts, idle)


def _all_as_whole(each: Slice, shape: Sequence[int]) -> Slice:
    return Slice(each.tensor) if each.ranges == ((0, shape[each.axis]),) else each
