"""Random module trees with everything that makes tensors hard to account for."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations


class Packed(nn.Module):
    """Attention with one linear map for queries, keys and values, as in timm."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(4, 12)
        self.proj = nn.Linear(4, 4)


class PackedAttention(Packed):
    """Under a name that says so."""


class Grouped(nn.Module):
    """Attention whose heads may share keys and values, as in Llama."""

    def __init__(self, heads: int, groups: int) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads = heads, groups
        self.q_proj = nn.Linear(4, 2 * heads, bias=False)
        self.k_proj = nn.Linear(4, 2 * groups)
        self.v_proj = nn.Linear(4, 2 * groups, bias=False)
        self.o_proj = nn.Linear(2 * heads, 4)


class Block(nn.Module):
    """What repeats."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.norm, self.linear, self.inside = nn.LayerNorm(2), nn.Linear(2, 2), nn.ModuleList(inside)


def _attention(heads: int, with_bias: bool, other_sizes: bool) -> nn.Module:
    size = 3 if other_sizes else None
    return nn.MultiheadAttention(4, heads, bias=with_bias, add_bias_kv=with_bias, kdim=size, vdim=size)


def _parametrised(kind: str, bias: bool) -> nn.Module:
    return getattr(parametrizations, kind)(nn.Linear(2, 2, bias=bias))


def _batch_norm(affine: bool, running: bool) -> nn.Module:
    return nn.BatchNorm1d(2, affine=affine, track_running_stats=running)


def _recurrent(kind: type[nn.RNNBase], layers: int, both: bool) -> nn.Module:
    return kind(2, 2, num_layers=layers, bidirectional=both)


def _nothing() -> nn.Module:
    return nn.ReLU()


LEAVES = st.one_of(
    st.builds(_nothing),
    st.builds(nn.Linear, st.just(2), st.just(2), bias=st.booleans()),
    st.builds(_batch_norm, st.booleans(), st.booleans()),
    st.builds(nn.LayerNorm, st.just(2), elementwise_affine=st.booleans()),
    st.builds(_recurrent, st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), st.integers(1, 2), st.booleans()),
    st.builds(_parametrised, st.sampled_from(["weight_norm", "spectral_norm", "orthogonal"]), st.booleans()),
    st.builds(_attention, st.sampled_from([1, 2]), st.booleans(), st.booleans()),
    st.builds(Grouped, st.sampled_from([2, 4]), st.sampled_from([1, 2])),
    st.builds(Packed, st.sampled_from([2, 3])),
    st.builds(PackedAttention, st.sampled_from([2, 3])),
)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> nn.Module:
    """Nested modules with norms, buffers of all kinds, bare parameters, plain tensors, recurrence, attention,
    parametrised weights, modules that are used twice and tied weights."""
    made: list[nn.Module] = []
    tree = draw(_branches(made, depth))
    linear = [module for module in made if isinstance(module, nn.Linear) and "weight" in module._parameters]
    if len(linear) > 1 and draw(st.booleans()):
        linear[-1].weight = linear[0].weight
    if len(linear) > 2 and linear[1].bias is not None and draw(st.booleans()):
        linear[-1].bias = linear[1].bias
    return tree


@st.composite
def _branches(draw: st.DrawFn, made: list[nn.Module], depth: int) -> nn.Module:
    inside = []
    for _ in range(draw(st.integers(0, 3))):
        kinds = ["leaf", "leaf", "branch", "shared"] if depth else ["leaf"]
        kind = draw(st.sampled_from(kinds))
        if kind == "shared" and made:
            inside.append(draw(st.sampled_from(made)))
        else:
            inside.append(draw(_branches(made, depth - 1) if kind == "branch" else LEAVES))
            made.append(inside[-1])
    branch = draw(st.sampled_from([_dict, nn.ModuleList, _sequential, _block]))(inside)
    _decorate(branch, draw(st.sets(st.sampled_from(["bare", "mask", "passing", "plain", "shared mask"]))), made)
    return branch


def _dict(inside: Sequence[nn.Module]) -> nn.Module:
    return nn.ModuleDict({f"m{number}": module for number, module in enumerate(inside)})


def _sequential(inside: Sequence[nn.Module]) -> nn.Module:
    return nn.Sequential(*inside)


def _block(inside: Sequence[nn.Module]) -> nn.Module:
    return Block(*inside)


def _decorate(module: nn.Module, what: set[str], made: Sequence[nn.Module]) -> None:
    """Tensors that the module itself has."""
    if "bare" in what:
        module.register_parameter("bare", nn.Parameter(torch.zeros(2)))
    if "mask" in what:
        module.register_buffer("mask", torch.zeros(3))
    if "passing" in what:
        module.register_buffer("passing", torch.zeros(3), persistent=False)
    if "plain" in what:
        vars(module)["plain"] = torch.zeros(2, 2)
    masks = [other.get_buffer("mask") for other in made if "mask" in other._buffers]
    if "shared mask" in what and masks:
        module.register_buffer("shared_mask", masks[0])
