"""Attention divided into projections and heads; what a head is, is worked out by other means."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from layerscope.partition import Part, Partition, rows

from .test_partition import contents

WIDTH, HEADS, SIZE = 12, 3, 4


class Conv1D(nn.Module):
    """GPT-2's linear map: the weight is [inputs, outputs]."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries, keys, values [n, heads, tokens, size] -> [n, tokens, heads * size]."""
    mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def heads(x: Tensor, number: int) -> Tensor:
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


class VisionAttention(nn.Module):
    """As in timm: rows [q|k|v]."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(*(heads(part, HEADS) for part in self.qkv(x).chunk(3, dim=-1))))


class CausalSelfAttention(nn.Module):
    """As in GPT-2: columns [q|k|v]."""

    def __init__(self, map_: type[nn.Module] = Conv1D) -> None:
        super().__init__()
        self.n_head = HEADS
        sizes = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH)]
        self.c_attn, self.c_proj = (map_(*size) if map_ is Conv1D else nn.Linear(*size[::-1]) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(attend(*(heads(part, HEADS) for part in self.c_attn(x).chunk(3, dim=-1))))


@dataclass
class Config:
    num_attention_heads: int
    num_key_value_heads: int


class SharedKeys(nn.Module):
    """As in Llama: 4 heads, 2 of keys and values; the numbers are in the configuration."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.config, self.groups = Config(4, groups), groups
        self.q_proj, self.k_proj = nn.Linear(WIDTH, 4 * 3, bias=False), nn.Linear(WIDTH, groups * 3)
        self.v_proj, self.o_proj = nn.Linear(WIDTH, groups * 3), nn.Linear(4 * 3, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = heads(self.q_proj(x), 4), heads(self.k_proj(x), self.groups), heads(self.v_proj(x), self.groups)
        several = 4 // self.groups
        return self.o_proj(attend(q, k.repeat_interleave(several, 1), v.repeat_interleave(several, 1)))


class TorchAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence to itself."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


def without(model: nn.Module, part: Part) -> dict[str, Tensor]:
    """The model's values with zeros in the Part."""
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for where in part.slices:
        for start, stop in where.ranges or [(0, values[where.tensor].shape[where.axis])]:
            values[where.tensor].narrow(where.axis, start, stop - start).zero_()
    return values


CASES = {
    "torch": (TorchAttention, "inner.out_proj", "inner."),
    "torch without bias": (lambda: TorchAttention(bias=False), "inner.out_proj", "inner."),
    "vision": (VisionAttention, "proj", ""),
    "vision without bias": (lambda: VisionAttention(bias=False), "proj", ""),
    "text": (CausalSelfAttention, "c_proj", ""),
    "text with linear": (lambda: CausalSelfAttention(nn.Linear), "c_proj", ""),
    "shared keys": (SharedKeys, "o_proj", ""),
    "one key": (lambda: SharedKeys(1), "o_proj", ""),
    "own keys": (lambda: SharedKeys(4), "o_proj", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_without_a_heads_values_its_output_is_missing(case):
    """What reaches the output projection is cut in equal shares, one a head; a head's Part is right if zeros in it give
    the same as zeros in its share there."""
    make, out, prefix = CASES[case]
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(2, 5, WIDTH, dtype=torch.double)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    partition = Partition.by_head(model)
    partition.check(model)
    names = [part.name for part in partition if ".head" in f".{part.name}"]
    assert names == [f"{prefix}head{index}" for index in range(len(names))]
    assert len(names) == (4 if "key" in case else HEADS)
    size = WIDTH // len(names)
    for index, name in enumerate(names):
        values = dict(model.state_dict())
        columns = values[f"{out}.weight"].clone()
        columns.narrow(0 if case == "text" else 1, index * size, size).zero_()
        expected = functional_call(model, values | {f"{out}.weight": columns}, x)
        found = functional_call(model, without(model, partition[name]), x)
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, model(x))


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_is_what_attention_by_hand_says(bias):
    """The output is the sum over heads of each head's share: computed here from the formula, without one head."""
    torch.manual_seed(1)
    model, x = TorchAttention(bias=bias).double(), torch.randn(2, 5, WIDTH, dtype=torch.double)
    if bias:
        nn.init.normal_(model.inner.in_proj_bias)
        nn.init.normal_(model.inner.out_proj.bias)
    weights = model.inner.in_proj_weight.unflatten(0, (3, HEADS, SIZE))
    biases = model.inner.in_proj_bias.unflatten(0, (3, HEADS, SIZE)) if bias else torch.zeros(3, HEADS, SIZE)
    shares = []
    for head in range(HEADS):
        q, k, v = (x @ weights[which, head].T + biases[which, head] for which in range(3))
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(SIZE), dim=-1) @ v
        shares.append(mixed @ model.inner.out_proj.weight[:, head * SIZE : (head + 1) * SIZE].T)
    last = model.inner.out_proj.bias if bias else 0
    torch.testing.assert_close(model(x), sum(shares) + last)
    partition = Partition.by_head(model)
    for head in range(HEADS):
        found = functional_call(model, without(model, partition[f"inner.head{head}"]), x)
        torch.testing.assert_close(found, sum(shares[:head] + shares[head + 1 :]) + last)


@pytest.mark.parametrize("case", ["torch", "torch without bias", "vision", "text", "text with linear"])
def test_projections_are_what_they_are_called(case):
    """With zeros in the queries or the keys attention is even; with zeros in the values nothing comes out."""
    make, out, prefix = CASES[case]
    torch.manual_seed(2)
    model, x = make().double(), torch.randn(2, 5, WIDTH, dtype=torch.double)
    partition = Partition.by_projection(model)
    partition.check(model)
    parts = {name: functional_call(model, without(model, partition[f"{prefix}{name}"]), x) for name in "qkv"}
    torch.testing.assert_close(parts["q"], parts["k"])
    torch.testing.assert_close(parts["q"], parts["q"][:, :1].expand_as(x))
    bias = model.state_dict().get(f"{out}.bias", torch.zeros(WIDTH, dtype=torch.double))
    torch.testing.assert_close(parts["v"], bias.expand_as(x))


def test_heads_of_torchs_attention():
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2), "fc": nn.Linear(4, 1)})
    partition = Partition.by_head(model)
    assert contents(partition) == {
        "attn.head0": [
            "attn.in_proj_weight[0:2+4:6+8:10]",
            "attn.in_proj_bias[0:2+4:6+8:10]",
            "attn.out_proj.weight[:, 0:2]",
        ],
        "attn.head1": [
            "attn.in_proj_weight[2:4+6:8+10:12]",
            "attn.in_proj_bias[2:4+6:8+10:12]",
            "attn.out_proj.weight[:, 2:4]",
        ],
        "attn.out_proj": ["attn.out_proj.bias"],
        "fc": ["fc.weight", "fc.bias"],
    }
    assert partition["attn.head0"].modules == ("attn", "attn.out_proj")
    counts = [row["parameters"] for row in rows(model, partition)["parts"]]
    assert counts == [3 * 2 * 4 + 3 * 2 + 2 * 4] * 2 + [4, 5]


def test_projections_of_torchs_attention():
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2, bias=False, kdim=3, add_bias_kv=True)})
    assert contents(Partition.by_projection(model)) == {
        "attn.q": ["attn.q_proj_weight"],
        "attn.k": ["attn.k_proj_weight", "attn.bias_k"],
        "attn.v": ["attn.v_proj_weight", "attn.bias_v"],
        "attn.out_proj": ["attn.out_proj.weight"],
    }
    assert contents(Partition.by_head(model))["attn.head1"] == [
        "attn.q_proj_weight[2:4]",
        "attn.k_proj_weight[2:4]",
        "attn.bias_k[:, :, 2:4]",
        "attn.v_proj_weight[2:4]",
        "attn.bias_v[:, :, 2:4]",
        "attn.out_proj.weight[:, 2:4]",
    ]


def test_projections_of_packed_attention():
    assert contents(Partition.by_projection(VisionAttention())) == {
        "q": ["qkv.weight[0:12]", "qkv.bias[0:12]"],
        "k": ["qkv.weight[12:24]", "qkv.bias[12:24]"],
        "v": ["qkv.weight[24:36]", "qkv.bias[24:36]"],
        "proj": ["proj.weight", "proj.bias"],
    }
    assert contents(Partition.by_projection(CausalSelfAttention()))["k"] == [
        "c_attn.weight[:, 12:24]",
        "c_attn.bias[12:24]",
    ]
    assert Partition.by_projection(CausalSelfAttention())["k"].modules == ("c_attn",)


def test_heads_that_share_keys():
    shares = [f"{3 * index}:{3 * index + 3}" for index in range(4)]
    keys = [f"{name}.{what}" for name in ("k_proj", "v_proj") for what in ("weight", "bias")]
    assert contents(Partition.by_head(SharedKeys())) == {
        **{f"head{i}": [f"q_proj.weight[{shares[i]}]", f"o_proj.weight[:, {shares[i]}]"] for i in range(4)},
        **{f"kv{i}": [f"{name}[{shares[i]}]" for name in keys] for i in range(2)},
        "o_proj": ["o_proj.bias"],
    }


def test_an_output_projection_elsewhere_stays_whole():
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_attention_heads = 2
            self.query, self.key, self.value = (nn.Linear(4, 4, bias=False) for _ in range(3))

    model = nn.ModuleDict({"self": Inner(), "output": nn.Linear(4, 4)})
    assert contents(Partition.by_head(model)) == {
        "self.head0": [f"self.{name}.weight[0:2]" for name in ("query", "key", "value")],
        "self.head1": [f"self.{name}.weight[2:4]" for name in ("query", "key", "value")],
        "output": ["output.weight", "output.bias"],
    }


def odd_heads() -> nn.Module:
    model = VisionAttention()
    model.num_heads = 5
    return model


def keys_of_another_size() -> nn.Module:
    model = SharedKeys()
    model.config.num_key_value_heads = 4
    return model


def packed_otherwise() -> nn.Module:
    model = VisionAttention()
    model.qkv = nn.Linear(WIDTH, WIDTH)
    return model


def tied_to_another() -> nn.Module:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(4, 2), "b": nn.MultiheadAttention(4, 2)})
    model["b"].in_proj_weight = model["a"].in_proj_weight
    return model


def parametrised() -> nn.Module:
    return parametrizations.weight_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")


@pytest.mark.parametrize("make", [odd_heads, keys_of_another_size, packed_otherwise, tied_to_another, parametrised])
def test_what_does_not_divide_stays_whole(make):
    model = make()
    assert Partition.by_head(model) == Partition.by_layer(model)


@pytest.mark.parametrize("make", [SharedKeys, packed_otherwise, tied_to_another, parametrised])
def test_what_is_not_packed_stays_as_it_is(make):
    model = make()
    assert Partition.by_projection(model) == Partition.by_layer(model)


def test_attention_that_is_used_twice():
    one = nn.MultiheadAttention(4, 2)
    partition = Partition.by_head(nn.ModuleDict({"a": one, "b": one}))
    assert [part.name for part in partition] == ["a.head0 = b.head0", "a.head1 = b.head1", "a.out_proj = b.out_proj"]
    assert contents(partition)["a.head0 = b.head0"][:2] == [
        "a.in_proj_weight[0:2+4:6+8:10]",
        "b.in_proj_weight[0:2+4:6+8:10]",
    ]


def test_buffers_of_a_divided_module_are_left_out():
    model = VisionAttention()
    model.qkv.register_buffer("mask", torch.zeros(1))
    reason = "a buffer of a module whose parameters are divided among Parts"
    assert Partition.by_head(model).left_out == {"qkv.mask": reason}


def test_joint_projections():
    model = TorchAttention()
    joint = Partition.by_projection(model).joined({"to keys": ["inner.q", "inner.k"]})
    joint.check(model)
    assert contents(joint)["to keys"] == ["inner.in_proj_weight[0:24]", "inner.in_proj_bias[0:24]"]


def test_packing_that_may_be_head_by_head_stays_whole():
    """The same names and shapes, but nobody has said that q, k and v lie one after the other."""

    class BigCodeAttention(CausalSelfAttention):
        pass

    class HeadFirst(VisionAttention):
        head_first = True

    HeadFirst.__name__ = "Attention"
    assert [part.name for part in Partition.by_projection(BigCodeAttention())] == ["c_attn", "c_proj"]
    assert "q" not in [part.name for part in Partition.by_projection(HeadFirst())]
