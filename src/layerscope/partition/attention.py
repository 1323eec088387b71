"""Where attention keeps its queries, keys, values and output, and how many heads share them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layerscope.partition.owners import kind
from layerscope.partition.part import Slice
from layerscope.partition.tensors import join, kept, same

if TYPE_CHECKING:
    from torch import nn

PACKED = ("qkv", "c_attn")
Q = ("q", "query", "q_proj", "q_lin", "to_q")
K = ("k", "key", "k_proj", "k_lin", "to_k")
V = ("v", "value", "v_proj", "v_lin", "to_v")
OUT = ("out_proj", "o_proj", "c_proj", "proj", "dense", "o", "out_lin", "to_out", "to_out.0")
HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads", "heads")
GROUPS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head")
"""What implementations call their submodules and numbers."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Span:
    """Neighbouring indices of a tensor along an axis: those of one projection, head after head."""

    tensor: str
    axis: int
    start: int
    size: int

    def share(self, index: int = 0, of: int = 1) -> Slice:
        """One of so many equal shares."""
        width = self.size // of
        start = self.start + index * width
        return Slice(self.tensor, self.axis, ((start, start + width),))


@dataclass(frozen=True)
class Attention:
    """A module with attention. Names of tensors are relative to it, as are those of a module that is at several paths.

    `groups` is how many heads of keys and values there are; fewer than `heads` where several share one.
    """

    q: tuple[Span, ...]
    k: tuple[Span, ...]
    v: tuple[Span, ...]
    out: tuple[Span, ...] = ()
    heads: int = 1
    groups: int = 1
    packed: bool = False
    paths: tuple[str, ...] = ()

    @property
    def divides(self) -> bool:
        """Whether sizes are such that they can be divided into heads."""
        if not self.heads or self.heads % self.groups or self.q[0].size * self.groups != self.k[0].size * self.heads:
            return False
        by_head = all(span.size % self.heads == 0 for span in (*self.q, *self.out))
        return by_head and all(span.size % self.groups == 0 for span in (*self.k, *self.v))


def attentions(model: "nn.Module") -> Iterator[Attention]:
    """The modules of a network with attention in a known form. What is tied to other modules is not counted as theirs."""
    tensors, names = kept(model), same(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    places: dict[int, list[str]] = {}
    for path, module in modules.items():
        places.setdefault(id(module), []).append(path)
    for paths in places.values():
        module = modules[paths[0]]
        below = [
            name.removeprefix(start) for start in [join(paths[0], "")] for name in tensors if name.startswith(start)
        ]
        own = [name for name in below if {*names[join(paths[0], name)]} == {join(path, name) for path in paths}]
        shapes = {name: tuple(tensors[join(paths[0], name)].shape) for name in own}
        found = _torch(module, shapes) or _packed(module, shapes) or _separate(module, shapes)
        if found:
            yield replace(found, paths=tuple(paths))


def _torch(module: "nn.Module", shapes: Shapes) -> Attention | None:
    """`nn.MultiheadAttention`: rows [q|k|v] of one weight, or three weights; always one bias."""
    from torch import nn

    if not isinstance(module, nn.MultiheadAttention):
        return None
    size = module.embed_dim
    found: list[tuple[Span, ...]] = []
    for index, letter in enumerate("qkv"):
        rows = [Span(name, 0, index * size, size) for name in ("in_proj_weight", "in_proj_bias")]
        spans = [Span(f"{letter}_proj_weight", 0, 0, size), *rows, Span(f"bias_{letter}", 2, 0, size)]
        found.append(tuple(span for span in spans if span.tensor in shapes))
    q, k, v = found
    if not all(spans and spans[0].tensor.endswith("weight") for spans in found):
        return None
    return Attention(q, k, v, _output(module, shapes, size), module.num_heads, module.num_heads, packed=True)


def _packed(module: "nn.Module", shapes: Shapes) -> Attention | None:
    """Outputs [q|k|v] of one linear map: timm and torchvision (`qkv`), GPT-2 and nanoGPT (`c_attn`).

    Others pack a head's q, k and v side by side under the same names and shapes: they say so (`head_first`), or their class
    is not one of those known for `c_attn`. They stay whole: a wrong label is worse than none.
    """
    name = kind(module).__name__
    interleaved = getattr(module, "head_first", False) or (
        hasattr(module, "c_attn") and name not in ("GPT2Attention", "CausalSelfAttention")
    )
    if "Attention" not in name or interleaved:
        return None
    for outputs, inputs in _maps(module, shapes, PACKED):
        size = inputs.size
        if outputs[0].size == 3 * size:
            q, k, v = (tuple(replace(span, start=index * size, size=size) for span in outputs) for index in range(3))
            heads = _number(module, HEADS)
            return Attention(q, k, v, _output(module, shapes, size), heads, heads, packed=True)
    return None


def _separate(module: "nn.Module", shapes: Shapes) -> Attention | None:
    """A linear map each for queries, keys and values, and a number of heads; keys and values may have fewer heads."""
    heads = _number(module, HEADS)
    groups = _number(module, GROUPS) or heads
    q, k, v = (next((outputs for outputs, _ in _maps(module, shapes, names)), ()) for names in (Q, K, V))
    if not (heads and q and k and v):
        return None
    return Attention(q, k, v, _output(module, shapes, v[0].size * heads // groups), heads, groups)


def _output(module: "nn.Module", shapes: Shapes, size: int) -> tuple[Span, ...]:
    """The columns of the output projection, if it is in the module and takes what the heads give."""
    return next(((inputs,) for _, inputs in _maps(module, shapes, OUT) if inputs.size == size), ())


def _maps(module: "nn.Module", shapes: Shapes, names: Sequence[str]) -> Iterator[tuple[tuple[Span, ...], Span]]:
    """The outputs (weight and bias) and the inputs of each linear map by one of these names."""
    from torch import nn

    for name, child in ((name, _below(module, name)) for name in names):
        conv1d = child is not None and kind(child).__name__ == "Conv1D"
        shape = shapes.get(f"{name}.weight", ())
        if len(shape) == 2 and (conv1d or isinstance(child, nn.Linear)):
            out, into = (1, 0) if conv1d else (0, 1)
            bias = [Span(f"{name}.bias", 0, 0, shape[out])] if f"{name}.bias" in shapes else []
            yield (Span(f"{name}.weight", out, 0, shape[out]), *bias), Span(f"{name}.weight", into, 0, shape[into])


def _below(module: "nn.Module | None", name: str) -> "nn.Module | None":
    for child in name.split("."):
        module = dict(module.named_children()).get(child) if module is not None else None
    return module


def _number(module: "nn.Module", names: Sequence[str]) -> int:
    """The first of these attributes that is a number, of the module or its configuration; else 0."""
    places = (module, getattr(module, "config", None))
    values = [getattr(place, name, None) for place in places for name in names]
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
