"""Small networks that together have whatever a foreign model may have, and those that a careful tool must refuse.

Every network of `ZOO` gives the same outputs each time in evaluation mode, and the same for a sample whatever batch it is in
(up to rounding), so that outcomes can be compared sample by sample. Draws of a factory come from the current random state of
torch; batches come from a seed of their own and are built afresh at each call.
"""

import threading
import warnings
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

SIZES = (3, 1, 2)
"""Samples in each batch, where a case does not say otherwise."""
IGNORED = -100
"""The target of a token that does not count."""

Make = Callable[[int, torch.Generator], Any]
"""(number of samples, random numbers) -> inputs or targets."""


@dataclass(frozen=True)
class Case:
    """A network and data for it. `forward` and `targets` are given where the default rule does not do.

    Default rule: of a batch `(inputs, targets)` a tensor goes in as `model(inputs)`, a tuple or list as `model(*inputs)`, a
    mapping as `model(**inputs)`; of a batch that is a mapping, "labels" are the targets and the rest goes in by name. What
    counts of the outputs: `.logits`, ["logits"], the first of a tuple, the only value of a mapping, or the tensor itself.
    """

    name: str
    model: Callable[[], nn.Module]
    """Builds it afresh; values are drawn from the current random state of torch."""
    batches: Callable[[], list[Any]]
    """Two or three batches of unequal size, always the same, in tensors of their own."""
    task: str
    """classes: [n, C] and targets [n]; tokens: [n, t, V] and [n, t], some of them IGNORED; dense: [n, C, h, w] and
    [n, h, w]; regression: both of one shape."""
    forward: Callable[[Callable[..., Any], Any], Any] | None = None
    targets: Callable[[Any], Any] | None = None
    parts: int | None = None
    """Layers counted by hand, where that is clear: modules that own parameters, a recurrent net one for each of its layers,
    tied weights once, a re-parametrised layer once."""
    join: Callable[[list[Any]], Any] | None = None
    """All batches as one, where joining tensors along the first dimension does not do."""
    apart: str = ""
    """Why the batches cannot be joined, where they cannot."""


# --- Batches ---------------------------------------------------------------------------------------------------------


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Make:
    """Standard normals, `shape` for each sample."""
    return lambda n, draw: torch.randn(n, *shape, generator=draw).to(dtype)


def integers(high: int, *shape: int, low: int = 0) -> Make:
    """Whole numbers from `low` up to below `high`."""
    return lambda n, draw: torch.randint(low, high, (n, *shape), generator=draw)


def several(*makes: Make) -> Make:
    """A tuple of inputs."""
    return lambda n, draw: tuple(make(n, draw) for make in makes)


def named(**makes: Make) -> Make:
    """A dict of inputs."""
    return lambda n, draw: {name: make(n, draw) for name, make in makes.items()}


def labels(high: int, *shape: int) -> Make:
    """Targets of tokens: the last one of each sample is IGNORED."""

    def make(n: int, draw: torch.Generator) -> Tensor:
        made = integers(high, *shape)(n, draw)
        made[:, -1] = IGNORED
        return made

    return make


def pairs(inputs: Make, targets: Make, sizes: tuple[int, ...] = SIZES) -> Callable[[], list[Any]]:
    """Batches (inputs, targets)."""

    def build() -> list[Any]:
        draw = torch.Generator().manual_seed(0)
        return [(inputs(n, draw), targets(n, draw)) for n in sizes]

    return build


def records(wrap: Callable[..., Any] = dict, **makes: Make) -> Callable[[], list[Any]]:
    """Batches that are mappings, made by `wrap` from a dict."""

    def build() -> list[Any]:
        draw = torch.Generator().manual_seed(0)
        return [wrap(named(**makes)(n, draw)) for n in SIZES]

    return build


def joined(batches: list[Any]) -> Any:
    """All batches as one: tensors along the first dimension, tuples, lists, dataclasses and mappings by member."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(batches)
    if isinstance(first, Mapping):
        return type(first)({name: joined([batch[name] for batch in batches]) for name in first})  # type: ignore[call-arg]
    if isinstance(first, tuple | list):
        members = [joined(list(column)) for column in zip(*batches, strict=True)]
        return type(first)(*members) if hasattr(first, "_fields") else type(first)(members)
    if hasattr(first, "__dataclass_fields__"):
        names = first.__dataclass_fields__
        return type(first)(**{name: joined([getattr(batch, name) for batch in batches]) for name in names})
    if all(batch == first for batch in batches):
        return first
    raise TypeError(f"cannot join {batches}")


VECTORS = pairs(numbers(6), integers(3))
"""Six numbers a sample, three classes: the data of most cases."""
PICTURES = pairs(numbers(2, 8, 8), integers(3))
"""Two channels of 8 x 8, three classes."""
SEQUENCES = pairs(numbers(5, 4), integers(3))
"""Five steps of four numbers, three classes."""
WORDS = pairs(integers(11, 5, low=1), integers(3))
"""Five words of ten, three classes; word 0 is padding and does not occur."""
TWO_INPUTS = several(numbers(6), integers(4))
"""Six numbers and a kind."""


# --- Perceptrons, number formats, values of odd kinds ------------------------------------------------------------------


def mlp() -> nn.Module:
    """Three linear layers."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def bare_linear() -> nn.Module:
    """The model itself is the layer: it owns all parameters."""
    return nn.Linear(6, 3)


def nested_sequential() -> nn.Module:
    """Sequentials in Sequentials, one of them empty."""
    inner = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.GELU()))
    return nn.Sequential(nn.Sequential(nn.Linear(6, 8), inner), nn.Sequential(), nn.Sequential(nn.Linear(8, 3)))


def zero_parameter_submodules() -> nn.Module:
    """More modules without parameters than with."""
    return nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(), same=nn.Identity(), first=nn.Linear(6, 8), act=nn.SiLU(), pool=nn.AvgPool1d(2),
            list=nn.Sequential(), norm=nn.BatchNorm1d(4, affine=False, track_running_stats=True), head=nn.Linear(4, 3),
            scores=nn.LogSoftmax(dim=1),
        )
    )  # fmt: skip


def odd_names() -> nn.Module:
    """Names that differ by case only, with spaces, slashes, other letters, digits: not one is a good file name."""
    model = nn.Sequential()
    model.add_module("a", nn.Linear(6, 4))
    model.add_module("A", nn.Linear(4, 4))
    model.add_module("/größe 1:2", nn.Linear(4, 4))
    model.add_module("007", nn.Linear(4, 4))
    model.add_module("weight", nn.Linear(4, 3))
    return model


class Dropouts(nn.Module):
    """Dropout as module and as function; the evaluation mode turns both off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.drop, self.alpha = nn.Dropout(0.5, inplace=True), nn.AlphaDropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.first(x)).relu()
        return self.head(functional.dropout(self.alpha(h), 0.5, training=self.training))


class ComplexLinear(nn.Module):
    """A linear map of complex numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, dtype=torch.complex64) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs, dtype=torch.complex64))

    def forward(self, z: Tensor) -> Tensor:
        return functional.linear(z, self.weight, self.bias)


class Complex(nn.Module):
    """Complex parameters; the outputs are absolute values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = ComplexLinear(6, 5), ComplexLinear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(x.to(torch.complex64)))).abs()


class MixedPrecision(nn.Module):
    """float32, then bfloat16, then float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.head = nn.Linear(6, 8), nn.Linear(8, 8).bfloat16(), nn.Linear(8, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.first(x).bfloat16()).double())


class Quantized(nn.Module):
    """Weights in whole numbers: parameters that cannot have gradients, with a scale that can."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-127, 128, (8, 6)).to(torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.rand(8, 1) / 127)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.linear(x, self.weight * self.scale).relu())


class Scalars(nn.Module):
    """Parameters without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 3)
        self.temperature = nn.Parameter(torch.rand(()) + 0.5)
        self.offset = nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x) + self.offset.sigmoid() * x[:, :3]) / self.temperature


class EmptyParameter(nn.Module):
    """A parameter without any value: prompts, of which there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(0, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.prompts.expand(0, 6), x])
        return self.head(rows)


class PReLUBilinear(nn.Module):
    """PReLU with a slope for each channel; a bilinear map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.pair = nn.Linear(6, 5), nn.PReLU(5), nn.Bilinear(5, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.act(self.first(x)), x)


class Frozen(nn.Module):
    """A first layer that is not trained, and a second whose bias is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.first.requires_grad_(False)
        self.second.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu())


class Strided(nn.Module):
    """Parameters that do not lie in memory in the order of their indices."""

    def __init__(self) -> None:
        super().__init__()
        self.turned = nn.Parameter(torch.randn(6, 8).t())
        self.skipped = nn.Parameter(torch.randn(3, 16)[:, ::2])

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.turned).relu(), self.skipped)


class Overlapping(nn.Module):
    """Two parameters that lie in the same memory: the second is a view of the first's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 3, bias=False)
        self.second.weight = nn.Parameter(self.first.weight.detach()[:3])

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


# --- Bare parameters, containers ---------------------------------------------------------------------------------------


class RootParameters(nn.Module):
    """Scale and shift owned by the root, beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.scale + self.shift)


class LearnedQuery(nn.Module):
    """Pools a sequence by its likeness to a learned query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nt,ntw->nw", (x @ self.query).softmax(dim=1), x)


class QueryPooling(nn.Module):
    """A learned query in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool, self.head = nn.Linear(4, 6), LearnedQuery(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.first(x).tanh()))


class ParameterContainers(nn.Module):
    """A ParameterList and a ParameterDict."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(6, 6) / 2) for _ in range(3)])
        self.last = nn.ParameterDict({"weight": nn.Parameter(torch.randn(6, 3)), "bias": nn.Parameter(torch.randn(3))})

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x @ self.last["weight"] + self.last["bias"]


class Routed(nn.Module):
    """Each batch names the head that it goes through; one head is never asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 3) for name in ("left", "right", "never")})

    def forward(self, x: Tensor, *, head: str) -> Tensor:
        return self.heads[head](self.body(x).relu())


def routed_batches() -> list[Any]:
    heads = ("left", "right", "left")
    return [({"x": x, "head": head}, y) for (x, y), head in zip(VECTORS(), heads, strict=True)]


class UnusedLayer(nn.Module):
    """A layer that no outcome depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pretraining_head, self.head = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu())


class HiddenModules(nn.Module):
    """Layers in a plain list, so that neither parameters() nor state_dict() nor eval() knows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(6, 6), nn.Linear(6, 6)]
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return self.head(x)


# --- Attention ---------------------------------------------------------------------------------------------------------


class PackedAttention(nn.Module):
    """Query, key and value weights in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head((x + mixed).mean(dim=1))


class SeparateAttention(nn.Module):
    """Keys and values of other widths, each with a weight of its own; learned extra key and value; time first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=5, vdim=7, add_bias_kv=True, add_zero_attn=True)
        self.head = nn.Linear(8, 3)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed, _ = self.attention(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        return self.head(mixed.mean(dim=0))


class EncoderClassifier(nn.Module):
    """PyTorch's own encoder, which in evaluation takes another path through the code than in training."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        padding = words == 0
        h = self.encoder(self.words(words), src_key_padding_mask=padding)
        kept = (~padding)[:, :, None]
        return self.head((h * kept).sum(dim=1) / kept.sum(dim=1))


def padded_words(n: int, draw: torch.Generator) -> Tensor:
    """Sentences of one to six words, filled up with 0."""
    words = integers(11, 6, low=1)(n, draw)
    lengths = integers(7, 1, low=1)(n, draw)
    return torch.where(torch.arange(6) < lengths, words, 0)


class PreNormEncoder(nn.Module):
    """The encoder with norms first, a mask and no padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", batch_first=True, norm_first=True, bias=False)
        self.encoder = nn.TransformerEncoder(layer, 1, norm=nn.LayerNorm(4), enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.head(self.encoder(x, mask=mask, is_causal=True)[:, -1])


class EncoderDecoder(nn.Module):
    """PyTorch's whole Transformer: sources and what came before in, scores of the next words out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        self.transformer.encoder.enable_nested_tensor = False
        self.head = nn.Linear(8, 11)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(before.shape[1], device=before.device)
        return self.head(self.transformer(self.words(source), self.words(before), tgt_mask=mask, tgt_is_causal=True))


class Block(nn.Module):
    """A block of a Transformer, written out: one layer for query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv, is_causal=causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token and positions as bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.ModuleList([Block(8, 2) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Output(OrderedDict[str, Any]):
    """Outputs by key or by attribute, as the hub's libraries give them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class TiedLanguageModel(nn.Module):
    """Causal, with the embedding's weight used again to score the next word."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(11, 8), nn.Embedding(8, 8)
        self.block, self.norm = Block(8, 2), nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.words.weight
        self.register_buffer("position_ids", torch.arange(8), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = True) -> Output:
        positions = self.get_buffer("position_ids")[: input_ids.shape[1]]
        h = self.block(self.words(input_ids) + self.positions(positions), causal=True)
        return Output(loss=None, logits=self.lm_head(self.norm(h)), past_key_values=(h,) if use_cache else None)


# --- Shared and tied ---------------------------------------------------------------------------------------------------


class SharedBlock(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            x = x + torch.tanh(self.block(x))
        return self.head(x)


class TwoNames(nn.Module):
    """One layer registered under three names, two of them in a container.

    `torch.func.functional_call` leaves the given tensors in such a model, if it gets or makes a value for each name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.layers = nn.ModuleList([self.first, nn.ReLU(), self.first])
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class TiedAutoencoder(nn.Module):
    """Decodes with the encoder's weight, turned."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.encoder(x).tanh(), self.encoder.weight.t(), self.bias)


class Siamese(nn.Module):
    """Two inputs through the same tower: are they of one kind?"""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head((self.tower(one) - self.tower(other)).abs())


class Shifted(nn.Module):
    """Adds a buffer that may belong to another module too."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.get_buffer("shift"))


def shared_buffer() -> nn.Module:
    """Two modules that own the same buffer."""
    shift = torch.randn(6)
    return nn.Sequential(Shifted(shift), nn.Tanh(), Shifted(shift), nn.Linear(6, 3))


# --- Recurrent ---------------------------------------------------------------------------------------------------------


class RecurrentClassifier(nn.Module):
    """Reads a sequence, classifies by the last step."""

    def __init__(self, recurrent: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class ProjectedLSTM(nn.Module):
    """States smaller than the cells, in two layers. PyTorch warns once that it has no fast path for this."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 6, 2, batch_first=True, proj_size=3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LSTM with projections", UserWarning)
            return self.head(self.recurrent(x)[0][:, -1])


class CellLoop(nn.Module):
    """Cells unrolled in a loop of Python, from a learned start."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.upper, self.head = nn.RNNCell(4, 6), nn.LSTMCell(6, 5), nn.Linear(5, 3)
        self.start = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        h, state = self.start.expand(len(x), -1), None
        for step in x.unbind(dim=1):
            h = self.cell(step, h)
            state = self.upper(h, state)
        assert state is not None
        return self.head(state[0])


class PackedLSTM(nn.Module):
    """Sequences of unequal length, packed; the lengths are an input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class RecurrentTagger(nn.Module):
    """Scores each word; the batches differ in length."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.gru, self.head = nn.Embedding(11, 6), nn.GRU(6, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.gru(self.words(words))[0])


def masks(n: int, draw: torch.Generator) -> Tensor:
    """Ones, then zeros; the first is a one."""
    lengths = integers(6, 1, low=1)(n, draw)
    return (torch.arange(5) < lengths).long()


def lengths_of_sequences(n: int, draw: torch.Generator) -> Tensor:
    return masks(n, draw).sum(dim=1)


def sentences_of_unequal_length() -> list[Any]:
    draw = torch.Generator().manual_seed(0)
    return [(integers(11, t)(n, draw), labels(4, t)(n, draw)) for n, t in ((2, 3), (3, 6), (1, 4))]


# --- Convolutions ------------------------------------------------------------------------------------------------------


def conv1d() -> nn.Module:
    """Convolutions along time."""
    head = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))
    return nn.Sequential(nn.Conv1d(5, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 6, 2, stride=2), nn.ReLU(), *head)


def conv3d() -> nn.Module:
    """Convolutions of volumes."""
    return nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(3, 3))


def grouped_convs() -> nn.Module:
    """Depthwise, pointwise, grouped, dilated, with mirrored edges, without bias."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU6(), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2, padding_mode="reflect"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def channels_last() -> nn.Module:
    """Weights that lie in memory with their channels last."""
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def lazy() -> nn.Module:
    """Layers that learned their sizes from a first batch."""
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(torch.zeros(1, 2, 8, 8))
    return model


class Decoder(nn.Module):
    """From a few numbers to a map of classes, by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.up1, self.up2 = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 3, 3, stride=2, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up2(self.up1(self.first(x).relu().view(-1, 4, 2, 2)).relu())[:, :, :8, :8]


def double_conv(inputs: int, outputs: int) -> nn.Module:
    """Two convolutions with norms."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = double_conv(2, 4), double_conv(4, 6), double_conv(6, 8)
        self.up2, self.up1 = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.join2, self.join1 = double_conv(12, 6), double_conv(8, 4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        low = self.bottom(functional.max_pool2d(two, 2))
        two = self.join2(torch.cat([two, self.up2(low)], dim=1))
        return self.head(self.join1(torch.cat([one, self.up1(two)], dim=1)))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, all in place."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        x += shortcut
        return self.relu(x)


class ResNet(nn.Module):
    """Stages of residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InPlace(nn.Module):
    """Changes its activations in place, also by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        y = self.second(h)
        y += h
        y[:, ::2] *= 0.5
        y.clamp_(-3, 3)
        return self.head(y)


def relu_on_inputs() -> nn.Module:
    """The first thing it does changes the user's batch in place; a second time changes nothing more."""
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))


class Bytes(nn.Module):
    """Takes pictures as bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, stride=2), nn.Linear(36, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.conv(pictures.float() / 255).relu().flatten(1))


def bytes_of_pictures(n: int, draw: torch.Generator) -> Tensor:
    return integers(256, 2, 8, 8)(n, draw).to(torch.uint8)


# --- Embeddings --------------------------------------------------------------------------------------------------------


class BagWithOffsets(nn.Module):
    """All words of a batch in one row, and where each sentence begins; beside it, another bag that leaves word 0 out."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.EmbeddingBag(11, 6, mode="mean")
        self.sum = nn.EmbeddingBag(11, 6, mode="sum", padding_idx=0)
        self.head = nn.Linear(12, 3)

    def forward(self, words: Tensor, offsets: Tensor) -> Tensor:
        return self.head(torch.cat([self.mean(words, offsets), self.sum(words, offsets)], dim=1))


def bags() -> list[Any]:
    """Sentences of two to five words; a batch has fewer samples than words."""
    draw, made = torch.Generator().manual_seed(0), []
    for n in SIZES:
        lengths = torch.randint(2, 6, (n,), generator=draw)
        words = torch.randint(11, (int(lengths.sum()),), generator=draw)
        made.append(((words, lengths.cumsum(0) - lengths), integers(3)(n, draw)))
    return made


def joined_bags(batches: list[Any]) -> Any:
    starts = [0]
    for (words, _), _ in batches:
        starts.append(starts[-1] + len(words))
    offsets = torch.cat([batch[0][1] + start for batch, start in zip(batches, starts[:-1], strict=True)])
    return (torch.cat([words for (words, _), _ in batches]), offsets), torch.cat([y for _, y in batches])


class PaddedEmbedding(nn.Module):
    """A row of zeros for padding, sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 6, padding_idx=0, sparse=True), nn.Linear(6, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words).sum(dim=1))


class MaxNormEmbedding(nn.Module):
    """An embedding that shortens its own rows, in place, when they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        # Short rows: PyTorch adds 1e-7 to the length, which for these is more than rounding, so once is enough.
        self.words, self.head = nn.Embedding(11, 6, max_norm=0.005), nn.Linear(6, 3)
        with torch.no_grad():
            self.words.weight *= 0.005

    def forward(self, words: Tensor) -> Tensor:
        return self.head(200 * self.words(words).mean(dim=1))


class Constrained(nn.Module):
    """Puts its weights back into a box before it uses them, by `.data`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight *= 4

    def forward(self, x: Tensor) -> Tensor:
        self.first.weight.data = self.first.weight.data.clamp(-1, 1)
        self.head.weight.data.clamp_(-0.3, 0.3)
        return self.head(self.first(x).relu())


# --- Norms -------------------------------------------------------------------------------------------------------------


def with_statistics(model: nn.Module) -> nn.Module:
    """Gives the norms running statistics and affine values, as if they had been trained."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.2, 1)
                if module.affine:
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0.2, 0.2)
    return model


def batch_norm() -> nn.Module:
    """Norms of pictures and of features; one keeps the plain mean of all batches."""
    convs = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return with_statistics(nn.Sequential(*convs, nn.Linear(16, 8), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 3)))


def batch_norm_without_affine() -> nn.Module:
    """Norms that own running statistics but no parameters."""
    norm = nn.BatchNorm1d(8, affine=False)
    return with_statistics(nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 3)))


def other_norms() -> nn.Module:
    """Norms within a sample: by group, by layer, by root mean square, by neighbours."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.LocalResponseNorm(2), nn.Conv2d(4, 4, 3),
        nn.LayerNorm([4, 4, 4]), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8, bias=False),
        nn.Linear(8, 8), nn.RMSNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 3),
    )  # fmt: skip


def instance_norm() -> nn.Module:
    """Norms by channel of a sample: with running statistics, without, and without parameters."""
    convs = nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.ReLU()
    more = nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4), nn.ReLU()
    return with_statistics(nn.Sequential(*convs, *more, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)))


class FrozenBatchNorm(nn.Module):
    """A norm whose weight and bias are buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in {
            "weight": torch.rand(channels) + 0.5, "bias": torch.randn(channels),
            "running_mean": torch.randn(channels), "running_var": torch.rand(channels) + 0.5,
        }.items():  # fmt: skip
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance, weight, bias = map(self.get_buffer, ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, variance, weight, bias)


def frozen_batch_norm() -> nn.Module:
    """A weight and a bias that are not parameters."""
    return nn.Sequential(nn.Linear(6, 8), FrozenBatchNorm(8), nn.ReLU(), nn.Linear(8, 3))


# --- Parametrised weights ----------------------------------------------------------------------------------------------


def weight_norm() -> nn.Module:
    """Length and direction of the weights apart, by a parametrisation."""
    layers = parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 3))
    return nn.Sequential(*layers)


def spectral_norm() -> nn.Module:
    """Weights divided by their greatest singular value, by a parametrisation with buffers."""
    conv, linear = parametrizations.spectral_norm(nn.Conv2d(2, 4, 3)), parametrizations.spectral_norm(nn.Linear(4, 3))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


def orthogonal() -> nn.Module:
    """A weight kept orthogonal."""
    return nn.Sequential(nn.Linear(6, 4), parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3))


class Symmetric(nn.Module):
    """A symmetric matrix out of any square one."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


class LowRankChange(nn.Module):
    """A weight plus a learned change of low rank."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(1, width)), nn.Parameter(torch.randn(width, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def stacked_parametrizations() -> nn.Module:
    """Two parametrisations of one weight, the second with parameters of its own."""
    square = nn.Linear(6, 6)
    parametrize.register_parametrization(square, "weight", Symmetric())
    parametrize.register_parametrization(square, "weight", LowRankChange(6))
    return nn.Sequential(square, nn.ReLU(), nn.Linear(6, 3))


def old_weight_norm() -> nn.Module:
    """Length and direction apart by a hook, which puts the weight in as a plain attribute before each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.utils.weight_norm(nn.Linear(8, 3)))


def old_spectral_norm() -> nn.Module:
    """Divided by the greatest singular value by a hook."""
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(8, 3)))


def pruned() -> nn.Module:
    """Half of the weights masked, by a hook and a buffer."""
    model = mlp()
    for layer in (model.get_submodule("0"), model.get_submodule("2")):
        prune.random_unstructured(layer, "weight", 0.5)
    return model


class LoRA(nn.Module):
    """A frozen layer with a change of low rank in bare parameters."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(2, base.in_features))
        self.lora_b = nn.Parameter(torch.randn(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * (x @ self.lora_a.t() @ self.lora_b.t())


class LoRAModules(nn.Module):
    """A frozen layer with a change of low rank in layers of their own, by the adapter's name."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.1)})

    def forward(self, x: Tensor) -> Tensor:
        change = self.lora_B["default"](self.lora_A["default"](self.lora_dropout["default"](x)))
        return self.base_layer(x) + 0.5 * change


def lora() -> nn.Module:
    """Adapters of bare parameters."""
    return nn.Sequential(LoRA(nn.Linear(6, 8)), nn.ReLU(), LoRA(nn.Linear(8, 3)))


def lora_modules() -> nn.Module:
    """Adapters of layers."""
    return nn.Sequential(LoRAModules(nn.Linear(6, 8)), nn.ReLU(), LoRAModules(nn.Linear(8, 3)))


# --- Control flow that depends on the data -----------------------------------------------------------------------------


class Branching(nn.Module):
    """Runs a second layer only if some sample of the batch asks for it, and uses it for such samples only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rare, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        asked = x[:, 0] > 0.5
        if asked.any():
            h = torch.where(asked[:, None], self.rare(h).relu(), h)
        return self.head(h)


class Pondering(nn.Module):
    """As many rounds as the hardest sample of the batch needs; each sample stops after its own number of rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.round, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rounds = x[:, 0].abs().mul(2).long() + 1
        for number in range(int(rounds.max())):
            x = torch.where((number < rounds)[:, None], torch.tanh(self.round(x)), x)
        return self.head(x)


class MixtureOfExperts(nn.Module):
    """Each sample goes to one expert; an expert without samples is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 4, bias=False)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.gate(x).softmax(dim=1).max(dim=1)
        out = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero().squeeze(1)
            if mine.numel():
                out[mine] = shares[mine, None] * expert(x[mine])
        return out


# --- Outputs and batches of other structure ----------------------------------------------------------------------------


class Answering(nn.Module):
    """Two layers; `answer` makes the outputs of the logits and the features."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.head, self.answer = nn.Linear(6, 8), nn.Linear(8, 3), answer

    def forward(self, x: Tensor) -> Any:
        features = self.first(x).relu()
        return self.answer(self.head(features), features)


class Named(NamedTuple):
    """Outputs by position or by name."""

    scores: Tensor
    features: Tensor


@dataclass
class Answer:
    """Outputs by attribute."""

    logits: Tensor
    features: Tensor | None = None
    loss: Tensor | None = None


def in_a_tuple(logits: Tensor, features: Tensor) -> Any:
    return logits, (features, None)


def in_a_dict(logits: Tensor, features: Tensor) -> Any:
    return {"features": features, "logits": logits}


def alone_in_a_dict(logits: Tensor, features: Tensor) -> Any:
    return {"scores": logits}


class TwoInputs(nn.Module):
    """Numbers and a kind, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.kinds, self.head = nn.Linear(6, 8), nn.Embedding(4, 8), nn.Linear(8, 3)

    def forward(self, values: Tensor, kind: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(torch.tanh(self.first(values) * scale + self.kinds(kind)))


class WordClassifier(nn.Module):
    """Words with a mask in, an object with `.logits` out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, **rest: Any) -> Answer:
        mask = attention_mask[:, :, None].to(self.head.weight.dtype)
        return Answer(self.head((self.words(input_ids) * mask).sum(dim=1) / mask.sum(dim=1)))


class Encoding(UserDict[str, Any]):
    """A mapping that is no dict and gives its members as attributes too, as tokenizers of the hub do."""

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]

    def to(self, device: Any) -> "Encoding":
        return Encoding({name: value.to(device) for name, value in self.data.items()})


@dataclass
class Sample:
    """A batch by attribute."""

    values: Tensor
    kind: Tensor
    outcome: Tensor


def samples() -> list[Any]:
    return [Sample(values, kind, outcome) for (values, kind), outcome in pairs(TWO_INPUTS, integers(3))()]


def run_sample(network: Callable[..., Any], batch: Sample) -> Any:
    return network(batch.values, kind=batch.kind)


def outcome_of(batch: Sample) -> Any:
    return batch.outcome


def weighted() -> list[Any]:
    return [(x, y, torch.ones(len(y))) for x, y in VECTORS()]


def first_member(network: Callable[..., Any], batch: Any) -> Any:
    return network(batch[0])


def second_member(batch: Any) -> Any:
    return batch[1]


def in_a_list(n: int, draw: torch.Generator) -> list[Tensor]:
    return list(TWO_INPUTS(n, draw))


# --- Memory, hooks, what else a model may keep -------------------------------------------------------------------------


class Buffers(nn.Module):
    """Buffers that are not saved, of whole numbers and of truth values; a tensor that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(11, 6), nn.Embedding(5, 6), nn.Linear(6, 3)
        self.register_buffer("position_ids", torch.arange(5)[None], persistent=False)
        self.register_buffer("kept", torch.tensor([True, True, False, True, True]))
        self.register_buffer("steps", torch.tensor(17))
        self.register_buffer("nothing", None)
        self.plain = torch.rand(6) + 0.5

    def forward(self, words: Tensor) -> Tensor:
        h = self.words(words) + self.positions(self.get_buffer("position_ids"))
        return self.head(h[:, self.get_buffer("kept")].mean(dim=1) * self.plain)


class Remembering(nn.Module):
    """Keeps what it saw last, in itself: an activation, all activations by name, and how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.last: Tensor | None = None
        self.features: dict[str, Tensor] = {}
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        self.features["first"] = self.first(x)
        self.calls += 1
        return self.head(self.features["first"].relu())


class Counting(nn.Module):
    """Counts its calls in a buffer and draws a number; neither has an effect."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("calls", torch.tensor(0), persistent=False)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + len(x)
        torch.rand(1)
        return self.head(self.first(x).relu())


class GrowingTable(nn.Module):
    """Registers a longer table of positions whenever a longer sentence comes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 4)
        self.grow(2)

    def grow(self, length: int) -> None:
        angles = torch.arange(length)[:, None] / 10.0 ** torch.arange(6)
        self.register_buffer("table", angles.cos().to(self.head.weight.device), persistent=False)

    def forward(self, words: Tensor) -> Tensor:
        if words.shape[1] > len(self.get_buffer("table")):
            self.grow(words.shape[1])
        return self.head(torch.tanh(self.words(words) * self.get_buffer("table")[: words.shape[1]]))


class CachedMasks(nn.Module):
    """Keeps masks it has made, by length, in a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 4)
        self.masks: dict[int, Tensor] = {}

    def forward(self, words: Tensor) -> Tensor:
        length = words.shape[1]
        if length not in self.masks:
            self.masks[length] = torch.ones(length, length, device=words.device).tril() / length
        return self.head(torch.tanh(self.masks[length] @ self.words(words)))


def double_inputs(module: nn.Module, args: Any) -> Any:
    return (2 * args[0], *args[1:])


def halve_outputs(module: nn.Module, args: Any, kwargs: Any, outputs: Tensor) -> Tensor:
    return outputs / 2


def do_nothing(*_: Any) -> None:
    return None


def hooked() -> nn.Module:
    """Hooks that change inputs and outputs, of the whole and of a layer, and one on gradients."""
    model = mlp()
    model.register_forward_pre_hook(double_inputs)
    model.get_submodule("0").register_forward_hook(halve_outputs, with_kwargs=True)
    model.get_submodule("2").register_full_backward_hook(do_nothing)
    next(model.parameters()).register_hook(do_nothing)
    return model


class ClosureHook(nn.Module):
    """A hook on one layer uses another layer of the very model it was made for: a copy's hook still uses the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.side, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.first.register_forward_hook(lambda _, args, outputs: outputs + self.side(args[0]).tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x))


class Uncopiable(nn.Module):
    """Holds a lock and a local function: neither copy.deepcopy nor pickle can take it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.lock, self.act = threading.Lock(), lambda h: h.sin()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.head(self.act(self.first(x)))


class Checkpointed(nn.Module):
    """Forgets its activations, and computes them again when the gradient needs them: after
    `torch.func.functional_call` that is with the model's own values, and the gradient is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(checkpoint(self.middle, h, use_reentrant=False))  # type: ignore[arg-type]


class ExtraState(nn.Module):
    """Its state dict has an entry that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.scale = nn.Linear(6, 8), nn.Linear(8, 3), 0.5

    def get_extra_state(self) -> dict[str, Any]:
        return {"version": 2, "scale": self.scale}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu() * self.scale)


def drop_backbone(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}backbone.")]:
        del state[name]


def miss_no_backbone(module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if "backbone." not in name]


class PartialStateDict(nn.Module):
    """Its state dict leaves the frozen backbone out, and loading does not miss it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(6, 8).requires_grad_(False), nn.Linear(8, 3)
        self.register_state_dict_post_hook(drop_backbone)
        self.register_load_state_dict_post_hook(miss_no_backbone)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x).relu())


def scripted() -> nn.Module:
    """Compiled to TorchScript: `torch.func.functional_call` refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(mlp())  # type: ignore[return-value]


def data_parallel() -> nn.Module:
    """Wrapped for several devices, here none: names begin with "module.", `torch.func.functional_call` refuses it."""
    model = nn.DataParallel(mlp())
    model.device_ids, model.module = [], model.module.cpu()
    return model


class SparseBuffer(nn.Module):
    """A buffer in a sparse format."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("links", (torch.eye(8) + torch.eye(8).roll(1, 0)).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sparse.mm(self.get_buffer("links"), self.first(x).t()).t())


ZOO: tuple[Case, ...] = (
    Case("mlp", mlp, VECTORS, "classes", parts=3),
    Case("bare_linear", bare_linear, VECTORS, "classes", parts=1),
    Case("nested_sequential", nested_sequential, VECTORS, "classes", parts=3),
    Case("zero_parameter_submodules", zero_parameter_submodules, VECTORS, "classes", parts=2),
    Case("odd_names", odd_names, VECTORS, "classes", parts=5),
    Case("dropouts", Dropouts, VECTORS, "classes", parts=2),
    Case(
        "regression",
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)),
        pairs(numbers(6), numbers(2)),
        "regression",
        parts=2,
    ),
    Case(
        "regression_of_one_number",
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)),
        pairs(numbers(6), numbers()),
        "regression",
        parts=2,
    ),
    # number formats, values of odd kinds
    Case("float16", lambda: mlp().half(), pairs(numbers(6, dtype=torch.float16), integers(3)), "classes", parts=3),
    Case(
        "bfloat16", lambda: mlp().bfloat16(), pairs(numbers(6, dtype=torch.bfloat16), integers(3)), "classes", parts=3
    ),
    Case("float64", lambda: mlp().double(), pairs(numbers(6, dtype=torch.float64), integers(3)), "classes", parts=3),
    Case("complex", Complex, VECTORS, "classes", parts=2),
    Case("mixed_precision", MixedPrecision, VECTORS, "classes", parts=3),
    Case("quantized", Quantized, VECTORS, "classes", parts=2),
    Case("scalars", Scalars, VECTORS, "classes", parts=2),
    Case("empty_parameter", EmptyParameter, VECTORS, "classes"),
    Case("prelu_bilinear", PReLUBilinear, VECTORS, "classes", parts=3),
    Case("frozen", Frozen, VECTORS, "classes", parts=3),
    Case("strided", Strided, VECTORS, "classes", parts=1),
    Case("overlapping", Overlapping, VECTORS, "classes"),
    # bare parameters, containers
    Case("root_parameters", RootParameters, VECTORS, "classes", parts=2),
    Case("learned_query", QueryPooling, SEQUENCES, "classes", parts=3),
    Case("parameter_containers", ParameterContainers, VECTORS, "classes", parts=2),
    Case("routed", Routed, routed_batches, "classes", parts=4, apart="each batch names a head of its own"),
    Case("unused_layer", UnusedLayer, VECTORS, "classes", parts=3),
    Case("hidden_modules", HiddenModules, VECTORS, "classes", parts=1),
    # attention
    Case("packed_attention", PackedAttention, SEQUENCES, "classes", parts=4),
    Case(
        "separate_attention",
        SeparateAttention,
        pairs(several(numbers(3, 8), numbers(4, 5), numbers(4, 7)), integers(3)),
        "classes",
        parts=3,
    ),
    Case("encoder", EncoderClassifier, pairs(padded_words, integers(3)), "classes", parts=14),
    Case("pre_norm_encoder", PreNormEncoder, SEQUENCES, "classes", parts=8),
    Case(
        "encoder_decoder",
        EncoderDecoder,
        pairs(several(integers(11, 4), integers(11, 5)), labels(11, 5)),
        "tokens",
        parts=19,
    ),
    Case("vision_transformer", VisionTransformer, PICTURES, "classes", parts=16),
    Case(
        "tied_language_model",
        TiedLanguageModel,
        records(Encoding, input_ids=integers(11, 5), attention_mask=masks, labels=labels(11, 5)),
        "tokens",
        parts=9,
    ),
    # shared and tied
    Case("shared_block", SharedBlock, VECTORS, "classes", parts=3),
    Case("two_names", TwoNames, VECTORS, "classes", parts=2),
    Case("tied_autoencoder", TiedAutoencoder, pairs(numbers(6), numbers(6)), "regression", parts=2),
    Case("siamese", Siamese, pairs(several(numbers(6), numbers(6)), integers(2)), "classes", parts=3),
    Case("shared_buffer", shared_buffer, VECTORS, "classes", parts=3),
    # recurrent
    Case(
        "lstm",
        lambda: RecurrentClassifier(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True, dropout=0.1), 10),
        SEQUENCES,
        "classes",
        parts=3,
    ),
    Case("gru", lambda: RecurrentClassifier(nn.GRU(4, 6, batch_first=True), 6), SEQUENCES, "classes", parts=2),
    Case(
        "rnn",
        lambda: RecurrentClassifier(nn.RNN(4, 6, 3, nonlinearity="relu", bias=False, batch_first=True), 6),
        SEQUENCES,
        "classes",
        parts=4,
    ),
    Case("lstm_with_projection", ProjectedLSTM, SEQUENCES, "classes", parts=3),
    Case("cell_loop", CellLoop, SEQUENCES, "classes", parts=4),
    Case(
        "packed_lstm",
        PackedLSTM,
        pairs(several(numbers(5, 4), lengths_of_sequences), integers(3)),
        "classes",
        parts=2,
    ),
    Case(
        "recurrent_tagger",
        RecurrentTagger,
        sentences_of_unequal_length,
        "tokens",
        parts=3,
        apart="the sentences of each batch have a length of their own",
    ),
    # convolutions
    Case("conv1d", conv1d, pairs(numbers(5, 8), integers(3)), "classes", parts=3),
    Case("conv3d", conv3d, pairs(numbers(1, 3, 3, 3), integers(3)), "classes", parts=2),
    Case("grouped_convs", grouped_convs, PICTURES, "classes", parts=5),
    Case("channels_last", channels_last, PICTURES, "classes", parts=3),
    Case("lazy", lazy, PICTURES, "classes", parts=2),
    Case("decoder", Decoder, pairs(numbers(6), integers(3, 8, 8)), "dense", parts=3),
    Case("unet", lambda: with_statistics(UNet()), pairs(numbers(2, 8, 8), integers(3, 8, 8)), "dense", parts=23),
    Case("resnet", lambda: with_statistics(ResNet()), PICTURES, "classes", parts=21),
    Case("in_place", InPlace, VECTORS, "classes", parts=3),
    Case("relu_on_inputs", relu_on_inputs, VECTORS, "classes", parts=2),
    Case("bytes", Bytes, pairs(bytes_of_pictures, integers(3)), "classes", parts=2),
    # embeddings, weights that change themselves
    Case("bag_with_offsets", BagWithOffsets, bags, "classes", parts=3, join=joined_bags),
    Case("padded_embedding", PaddedEmbedding, pairs(padded_words, integers(3)), "classes", parts=2),
    Case("max_norm_embedding", MaxNormEmbedding, WORDS, "classes", parts=2),
    Case("constrained", Constrained, VECTORS, "classes", parts=2),
    # norms
    Case("batch_norm", batch_norm, PICTURES, "classes", parts=5),
    Case("batch_norm_without_affine", batch_norm_without_affine, VECTORS, "classes", parts=2),
    Case("other_norms", other_norms, PICTURES, "classes", parts=9),
    Case("instance_norm", instance_norm, PICTURES, "classes", parts=5),
    Case("frozen_batch_norm", frozen_batch_norm, VECTORS, "classes", parts=2),
    # parametrised weights, adapters
    Case("weight_norm", weight_norm, VECTORS, "classes", parts=2),
    Case("spectral_norm", spectral_norm, PICTURES, "classes", parts=2),
    Case("orthogonal", orthogonal, VECTORS, "classes", parts=3),
    Case("stacked_parametrizations", stacked_parametrizations, VECTORS, "classes", parts=2),
    Case("old_weight_norm", old_weight_norm, VECTORS, "classes", parts=2),
    Case("old_spectral_norm", old_spectral_norm, VECTORS, "classes", parts=2),
    Case("pruned", pruned, VECTORS, "classes", parts=3),
    Case("lora", lora, VECTORS, "classes", parts=4),
    Case("lora_modules", lora_modules, VECTORS, "classes", parts=6),
    # control flow that depends on the data
    Case("branching", Branching, VECTORS, "classes", parts=3),
    Case("pondering", Pondering, VECTORS, "classes", parts=2),
    Case("mixture_of_experts", MixtureOfExperts, VECTORS, "classes", parts=9),
    # outputs and batches of other structure
    Case("tuple_outputs", lambda: Answering(in_a_tuple), VECTORS, "classes", parts=2),
    Case("named_tuple_outputs", lambda: Answering(Named), VECTORS, "classes", parts=2),
    Case("dict_outputs", lambda: Answering(in_a_dict), VECTORS, "classes", parts=2),
    Case("only_value_outputs", lambda: Answering(alone_in_a_dict), VECTORS, "classes", parts=2),
    Case("object_outputs", lambda: Answering(Answer), VECTORS, "classes", parts=2),
    Case("positional_inputs", TwoInputs, pairs(TWO_INPUTS, integers(3)), "classes", parts=3),
    Case("list_inputs", TwoInputs, pairs(in_a_list, integers(3)), "classes", parts=3),
    Case(
        "keyword_inputs",
        TwoInputs,
        pairs(named(kind=integers(4), values=numbers(6), scale=lambda n, draw: 0.5), integers(3)),
        "classes",
        parts=3,
    ),
    Case(
        "dict_batches", TwoInputs, records(labels=integers(3), kind=integers(4), values=numbers(6)), "classes", parts=3
    ),
    Case(
        "user_dict_batches",
        WordClassifier,
        records(Encoding, input_ids=integers(11, 5), attention_mask=masks, labels=integers(3), rows=integers(9)),
        "classes",
        parts=2,
    ),
    Case("object_batches", TwoInputs, samples, "classes", forward=run_sample, targets=outcome_of, parts=3),
    Case("weighted_batches", mlp, weighted, "classes", forward=first_member, targets=second_member, parts=3),
    # memory, hooks, what else a model may keep
    Case("buffers", Buffers, WORDS, "classes", parts=3),
    Case("remembering", Remembering, VECTORS, "classes", parts=2),
    Case("counting", Counting, VECTORS, "classes", parts=2),
    Case(
        "growing_table",
        GrowingTable,
        sentences_of_unequal_length,
        "tokens",
        parts=2,
        apart="the sentences of each batch have a length of their own",
    ),
    Case(
        "cached_masks",
        CachedMasks,
        sentences_of_unequal_length,
        "tokens",
        parts=2,
        apart="the sentences of each batch have a length of their own",
    ),
    Case("hooked", hooked, VECTORS, "classes", parts=3),
    Case("closure_hook", ClosureHook, VECTORS, "classes", parts=3),
    Case("uncopiable", Uncopiable, VECTORS, "classes", parts=2),
    Case("checkpointed", Checkpointed, VECTORS, "classes", parts=4),
    Case("extra_state", ExtraState, VECTORS, "classes", parts=2),
    Case("partial_state_dict", PartialStateDict, VECTORS, "classes", parts=2),
    Case("scripted", scripted, VECTORS, "classes", parts=3),
    Case("data_parallel", data_parallel, VECTORS, "classes", parts=3),
    Case("sparse_buffer", SparseBuffer, VECTORS, "classes", parts=2),
)
"""One case a kind of model or data; a new kind is one class and one row."""


# --- What a probe must refuse in evaluation mode -----------------------------------------------------------------------


class Fault(NamedTuple):
    """Something with which no two numbers can be compared, and words for what is wrong, as a regular expression."""

    name: str
    model: Callable[[], nn.Module]
    batches: Callable[[], Iterable[Any]]
    wrong: str


class AlwaysDropping(nn.Module):
    """Dropout that the evaluation mode does not turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.dropout(self.first(x), 0.5, training=True))


class Noisy(nn.Module):
    """Adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + 0.1 * torch.randn(len(x), 3)


class Accumulating(nn.Module):
    """Its outputs depend on a buffer that sums over all calls."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("total", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.total += x.mean(dim=0)
        return self.head(x + self.total)


class Ageing(nn.Module):
    """Its outputs depend on how often it was called, by a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.calls = nn.Linear(6, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(x) * (1 + 0.1 * self.calls)


class Carrying(nn.Module):
    """A recurrent net that starts each batch where the one before ended."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 4), nn.Linear(4, 3)
        self.state: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        start = None if self.state is None else self.state.mean(dim=0, keepdim=True).expand(len(x), -1)
        h = self.cell(x, start)
        self.state = h.detach()
        return self.head(h)


class SpoilingInputs(nn.Module):
    """Changes the user's batch in place, each time more."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mul_(0.5))


class Noised(Dataset[Any]):
    """Augments: the inputs are others at each reading, the targets are not."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index] + 0.1 * torch.randn(6), self.targets[index]


class Shortening:
    """One batch fewer at each pass, down to one."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.passes = batches, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches[: max(1, len(self.batches) + 1 - self.passes)])


class Lengthening(Shortening):
    """One batch more at each pass, from one on."""

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches[: self.passes])


class SecondPassEmpty(Shortening):
    """Gives its batches once, without being an iterator."""

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches if self.passes == 1 else [])


def all_vectors() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return numbers(6)(24, draw), integers(3)(24, draw)


def shuffled() -> DataLoader[Any]:
    """Another order on each pass."""
    return DataLoader(TensorDataset(*all_vectors()), batch_size=8, shuffle=True)


def augmented() -> DataLoader[Any]:
    """Other inputs on each pass."""
    return DataLoader(Noised(*all_vectors()), batch_size=8)


def generated() -> Iterator[Any]:
    """A generator, which can be read once."""
    yield from VECTORS()


OUTPUTS_CHANGE = r"other outputs|same batch|random|determinis|differ"
DATA_CHANGE = r"other batches on each pass"
READ_ONCE = r"gone through only once|read (only )?once"

FAULTY: tuple[Fault, ...] = (
    Fault("dropout_always_on", AlwaysDropping, VECTORS, OUTPUTS_CHANGE),
    Fault("noise_in_forward", Noisy, VECTORS, OUTPUTS_CHANGE),
    Fault("accumulating_buffer", Accumulating, VECTORS, OUTPUTS_CHANGE),
    Fault("counter_attribute", Ageing, VECTORS, OUTPUTS_CHANGE),
    Fault("state_carried_over", Carrying, VECTORS, OUTPUTS_CHANGE),
    Fault("inputs_spoiled", SpoilingInputs, VECTORS, f"{OUTPUTS_CHANGE}|{DATA_CHANGE}|inputs"),
    Fault("shuffled_data", mlp, shuffled, DATA_CHANGE),
    Fault("augmented_data", mlp, augmented, DATA_CHANGE),
    Fault("generator", mlp, generated, READ_ONCE),
    Fault("list_iterator", mlp, lambda: iter(VECTORS()), READ_ONCE),
    Fault("shortening_data", mlp, lambda: Shortening(VECTORS()), DATA_CHANGE),
    Fault("lengthening_data", mlp, lambda: Lengthening(VECTORS()), DATA_CHANGE),
    Fault("second_pass_empty", mlp, lambda: SecondPassEmpty(VECTORS()), f"{DATA_CHANGE}|{READ_ONCE}"),
)
"""In each, two passes of the same network over the same data do not give the same outputs."""


# --- Models that do not follow their parameters ------------------------------------------------------------------------


class CachedWeights(nn.Module):
    """Computes its weight once, at the first evaluation, and never again until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 3))
        self.merged: Tensor | None = None

    def train(self, mode: bool = True) -> "CachedWeights":
        if mode:
            self.merged = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x @ (self.a @ self.b)
        if self.merged is None:
            self.merged = (self.a @ self.b).detach()
        return x @ self.merged


class ParametersInAList(nn.Module):
    """Uses its parameters by a plain list beside the registered names: values put in by name are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
        self.weights = [self.first.weight, self.second.weight]

    def forward(self, x: Tensor) -> Tensor:
        for before, weight in pairwise([None, *self.weights]):
            x = functional.linear(x if before is None else x.tanh(), weight)  # type: ignore[arg-type]
        return x


class BoundParameter(nn.Module):
    """Uses a parameter by a function that was given it once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.apply_first = partial(functional.linear, weight=self.first.weight, bias=self.first.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.apply_first(x).relu())


UNFAITHFUL: tuple[Fault, ...] = (
    Fault("cached_weights", CachedWeights, VECTORS, r"follow|cache|no effect"),
    Fault("parameters_in_a_list", ParametersInAList, VECTORS, r"follow|by name|no effect"),
    Fault("bound_parameter", BoundParameter, VECTORS, r"follow|by name|no effect"),
)
"""Outputs are the same each time, but values given by `torch.func.functional_call` do not reach all of the computation:
whoever changes parts of such a network that way reads numbers of another network. A change in place reaches the last two."""
