"""VGG, AlexNet, MLP, recurrent networks and transformers: against published counts and forward passes written out by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.models.alexnet import alexnet
from layerscope.models.fcn import fcn
from layerscope.models.mlp import mlp
from layerscope.models.recurrent import recurrent
from layerscope.models.transformer import transformer
from layerscope.models.vgg import vgg

POOLED_AFTER = {11: (1, 2, 4, 6, 8), 13: (2, 4, 6, 8, 10), 16: (2, 4, 7, 10, 13), 19: (2, 4, 8, 12, 16)}
SMALL = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 12, 20)]


def count(builder, *args, **options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in builder(*args, **options).parameters())


def ready(model: nn.Module) -> nn.Module:
    """In evaluation mode, with norms whose statistics and values are not the trivial ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                for tensor in module.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def double(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def agrees(model: nn.Module, x: torch.Tensor, expected: torch.Tensor) -> None:
    """In double precision, with gradients and without (attention has other kernels there)."""
    model, x = model.double(), x.double()
    assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-12)


# VGG


@pytest.mark.parametrize(
    ("depth", "plain", "normed"),
    [
        (11, 132_863_336, 132_868_840),
        (13, 133_047_848, 133_053_736),
        (16, 138_357_544, 138_365_992),
        (19, 143_667_240, 143_678_248),
    ],
)
def test_vgg_has_the_published_parameters(depth, plain, normed):
    assert count(vgg, depth, (3, 224, 224), 1000) == plain
    assert count(vgg, depth, (3, 224, 224), 1000, norm="batch") == normed


@pytest.mark.parametrize(("depth", "printed"), [(11, "2.8e+07"), (16, "3.4e+07")])
def test_vgg_on_cifar_has_the_parameters_of_chatterji2020(depth, printed):
    assert f"{count(vgg, depth, (3, 32, 32), 10):.1e}" == printed


def halved(x: torch.Tensor) -> torch.Tensor:
    """The largest of each 2 x 2 pixels, with what is beyond the border as small as can be."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-math.inf)
    return torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)


def areas(x: torch.Tensor, side: int) -> torch.Tensor:
    """Means over side x side areas, which overlap where there are fewer pixels."""
    rows, columns = ([(n * i // side, -(-n * (i + 1) // side)) for i in range(side)] for n in x.shape[2:])
    means = [[x[:, :, top:bottom, left:right].mean((2, 3)) for left, right in columns] for top, bottom in rows]
    return torch.stack([torch.stack(row, -1) for row in means], -2)


def dense(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    for name in ("dense1", "dense2"):
        x = (x @ state[f"{name}.weight"].T + state[f"{name}.bias"]).clamp(min=0)
    return x @ state["final_linear.weight"].T + state["final_linear.bias"]


def vgg_by_hand(depth: int, state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    side = 7 if min(x.shape[2:]) >= 96 else 1
    for number in range(1, depth - 2):
        x = F.conv2d(x, state[f"conv{number}.weight"], state[f"conv{number}.bias"], padding=1)
        if f"norm{number}.weight" in state:
            weight, bias, mean, var = (
                state[f"norm{number}.{name}"][:, None, None]
                for name in ("weight", "bias", "running_mean", "running_var")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        x = x.clamp(min=0)
        if number in POOLED_AFTER[depth]:
            x = halved(x)
    return dense(areas(x, side).flatten(1), state)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg_against_the_forward_pass_by_hand(depth, norm):
    for shape in [*SMALL, (3, 96, 100), (1, 90, 100)] if depth == 11 else SMALL:
        model = ready(vgg(depth, shape, 5, norm=norm, width=1 / 32))
        x = torch.randn(2, *shape)
        assert model(x).shape == (2, 5)
        agrees(model, x, vgg_by_hand(depth, double(model), x.double()))


def test_vgg_pools_as_published_where_sides_are_even():
    """Rounding up changes nothing there: 224 pixels become 7 in five halvings, 32 become 1."""
    for side in (224, 32):
        model = vgg(11, (1, side, side), 2, width=1 / 64)
        features = model[: list(dict(model.named_children())).index("average")]  # type: ignore[index]
        with torch.no_grad():
            assert features(torch.randn(1, 1, side, side)).shape[2:] == (side // 32, side // 32)


def test_vgg_layers():
    model = vgg(16, (1, 8, 8), 3, width=1 / 64)
    names = [part.name for part in ls.Partition.by_layer(model)]
    assert names == [*(f"conv{n}" for n in range(1, 14)), "dense1", "dense2", "final_linear"]
    assert [part.name for part in ls.Partition.by_layer(vgg(11, (1, 8, 8), 3, norm="batch", width=1 / 64))][:4] == [
        "conv1",
        "norm1",
        "conv2",
        "norm2",
    ]


def test_vgg_width_and_hidden_units():
    model = vgg(11, (3, 32, 32), 10, width=0.25, hidden=100)
    sizes = [m.weight.shape[0] for m in model if isinstance(m, nn.Conv2d | nn.Linear)]  # type: ignore[union-attr]
    assert sizes == [16, 32, 64, 64, 128, 128, 128, 128, 25, 25, 10]


@pytest.mark.parametrize("depth", [11, 16])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vgg_against_torchvision(depth, norm):
    theirs_name = f"vgg{depth}" + ("_bn" if norm == "batch" else "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchvision import models  # type: ignore[import-not-found]
    except (ImportError, RuntimeError) as problem:
        pytest.skip(f"torchvision cannot be imported: {problem}")
    with torch.device("meta"):
        ours = vgg(depth, (3, 96, 96), 1000, norm=norm).eval()  # type: ignore[arg-type]
    theirs = getattr(models, theirs_name)(init_weights=False).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)


# AlexNet


def response_normalised(x: np.ndarray) -> np.ndarray:
    """Of TensorFlow's documentation: depth_radius 2, bias 1, alpha 2e-5, beta 0.75, over channels."""
    result = np.empty_like(x)
    for channel in range(x.shape[1]):
        near = x[:, max(0, channel - 2) : channel + 3]
        result[:, channel] = x[:, channel] / (1.0 + 2e-5 * (near**2).sum(axis=1)) ** 0.75
    return result


def alexnet_by_hand(state: dict[str, torch.Tensor], x: torch.Tensor, lrn: bool) -> torch.Tensor:
    for name in ("conv1", "conv2"):
        x = F.conv2d(F.pad(x, (2, 2, 2, 2)), state[f"{name}.weight"], state[f"{name}.bias"]).clamp(min=0)
        height, width = x.shape[2] // 2, x.shape[3] // 2
        x = F.pad(x, (0, 1, 0, 1))  # zeros are no larger than what a ReLU gives
        shifts = [
            x[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2][:, :, :height, :width]
            for i in range(3)
            for j in range(3)
        ]
        x = torch.stack(shifts).amax(0)
        x = torch.from_numpy(response_normalised(x.numpy())) if lrn else x
    return dense(x.flatten(1), state)


@pytest.mark.parametrize("shape", [*SMALL, (1, 4, 7)])
@pytest.mark.parametrize("lrn", [True, False])
def test_alexnet_against_the_forward_pass_by_hand(shape, lrn):
    model = alexnet(shape, 3, width=0.125, lrn=lrn).eval()
    x = 100 * torch.randn(2, *shape)  # so that response normalisation is felt
    assert model(x).shape == (2, 3)
    agrees(model, x, alexnet_by_hand(double(model), x.double(), lrn))


def test_alexnets_response_normalisation_is_that_of_the_paper():
    x = 100 * torch.randn(2, 9, 4, 4, dtype=torch.float64)
    ours = dict(alexnet((1, 8, 8), 2, width=0.1).named_children())["lrn1"](x)
    assert np.allclose(ours.numpy(), response_normalised(x.numpy()), rtol=1e-12)
    assert not torch.allclose(ours, x, rtol=0.1)


def test_alexnet_against_arithmetic():
    conv = 3 * 25 * 96 + 96 + 96 * 25 * 256 + 256
    rest = 384 + 384 * 192 + 192 + 192 * 10 + 10
    assert count(alexnet, (3, 32, 32), 10) == conv + 256 * 8 * 8 * 384 + rest
    assert count(alexnet, (3, 28, 28), 10) == conv + 256 * 7 * 7 * 384 + rest
    model = alexnet((3, 32, 32), 10, width=0.25)
    assert [part.name for part in ls.Partition.by_layer(model)] == [
        "conv1",
        "conv2",
        "dense1",
        "dense2",
        "final_linear",
    ]
    assert [m.weight.shape[0] for m in model if hasattr(m, "weight")] == [24, 64, 96, 48, 10]  # type: ignore[union-attr]


def test_the_borders_are_those_that_the_count_of_zhang2016_implies():
    """28 x 28 pixels, twice 64 filters: Table 1 of arXiv 1611.03530."""
    with torch.device("meta"):
        dense1 = alexnet((3, 28, 28), 10).get_parameter("dense1.weight")
    positions = dense1.shape[1] // 256
    by_arithmetic = 76 * 64 + 64 * 25 * 64 + 64 + 64 * positions * 384 + 384 + 384 * 192 + 192 + 192 * 10 + 10
    assert by_arithmetic == 1_387_786


# MLP


def test_mlp_is_a_network_of_one_hidden_layer():
    model = mlp((10,), 2)
    assert [tuple(p.shape) for p in model.parameters()] == [(128, 10), (128,), (2, 128), (2,)]
    assert count(mlp, (10_000,), 2, width=0.25) == 32 * 10_000 + 32 + 2 * 32 + 2
    x, state = torch.randn(4, 10), double(model)
    hidden = (x.double() @ state["layer1.weight"].T + state["layer1.bias"]).clamp(min=0)
    agrees(model, x, hidden @ state["layer2.weight"].T + state["layer2.bias"])
    assert list(state) == list(fcn("128", (10,), 2).state_dict())


def test_a_fully_connected_network_without_biases():
    """One linear map after another: twice the input gives twice the output."""
    network = ls.models.build("fcn-2x8?bias=no", (1, 4, 4), 3)
    assert [name for name, _ in network.named_parameters()] == [f"layer{k}.weight" for k in (1, 2, 3)]
    x = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(network(2 * x), 2 * network(x))


# Recurrent networks

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def step(cell: str, inputs: torch.Tensor, states: torch.Tensor, h: torch.Tensor, c: torch.Tensor):
    """One step of a cell; `inputs` and `states` are what the two linear maps give for all gates."""
    if cell == "rnn":
        return torch.tanh(inputs + states), c
    if cell == "gru":
        (r_in, z_in, n_in), (r_h, z_h, n_h) = inputs.chunk(3, 1), states.chunk(3, 1)
        reset, update = torch.sigmoid(r_in + r_h), torch.sigmoid(z_in + z_h)
        return (1 - update) * torch.tanh(n_in + reset * n_h) + update * h, c
    i, f, g, o = (inputs + states).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def read(cell: str, state: dict[str, torch.Tensor], layer: str, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """The hidden state after each row."""
    w_in, w_h, b_in, b_h = (
        state[f"{cell}.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = c = torch.zeros(len(rows[0]), w_h.shape[1], dtype=torch.float64)
    found = []
    for row in rows:
        h, c = step(cell, row @ w_in.T + b_in, h @ w_h.T + b_h, h, c)
        found.append(h)
    return found


def recurrent_by_hand(cell: str, state: dict[str, torch.Tensor], x: torch.Tensor, layers: int, both: bool):
    rows = [torch.cat([x[:, channel, row] for channel in range(x.shape[1])], dim=1) for row in range(x.shape[2])]
    last: list[torch.Tensor] = []
    for layer in range(layers):
        down = read(cell, state, f"{layer}", rows)
        up = read(cell, state, f"{layer}_reverse", rows[::-1])[::-1] if both else []
        last = [down[-1], up[0]] if both else [down[-1]]
        rows = [torch.cat(pair, dim=1) for pair in zip(down, up, strict=True)] if both else down
    return torch.cat(last, dim=1) @ state["final_linear.weight"].T + state["final_linear.bias"]


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_networks_against_the_loop_by_hand(cell, layers, both):
    for shape in SMALL:
        model = recurrent(cell, 6, shape, 3, layers=layers, bidirectional=both).eval()
        x = torch.randn(2, *shape)
        assert model(x).shape == (2, 3)
        agrees(model, x, recurrent_by_hand(cell, double(model), x.double(), layers, both))


@pytest.mark.parametrize(("cell", "gates"), GATES.items())
def test_recurrent_networks_against_arithmetic(cell, gates):
    one = gates * (3 * 32 * 50 + 50 * 50 + 2 * 50)
    second = gates * (50 * 50 + 50 * 50 + 2 * 50)
    above_both = gates * (100 * 50 + 50 * 50 + 2 * 50)
    assert count(recurrent, cell, 50, (3, 32, 32), 10) == one + 510
    assert count(recurrent, cell, 50, (3, 32, 32), 10, layers=2) == one + second + 510
    both = count(recurrent, cell, 50, (3, 32, 32), 10, layers=2, bidirectional=True)
    assert both == 2 * one + 2 * above_both + 1010


def test_recurrent_layers():
    names = [part.name for part in ls.Partition.by_layer(recurrent("lstm", 4, (1, 8, 8), 3))]
    assert names == ["lstm", "final_linear"]
    stacked = recurrent("gru", 4, (1, 8, 8), 3, layers=2, bidirectional=True)
    assert [part.name for part in ls.Partition.by_layer(stacked)] == ["gru.l0", "gru.l1", "final_linear"]


def test_a_recurrent_network_drops_between_layers_and_at_the_end():
    """Each layer's states are copied to the next and to the outputs: 0 where dropped, twice as large where kept."""
    model = recurrent("rnn", 200, (1, 3, 2), 200, layers=2, dropout=0.5).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.get_parameter("rnn.bias_ih_l0").fill_(20)  # tanh(20) is 1
        model.get_parameter("rnn.weight_ih_l1").copy_(torch.eye(200))  # dropped: tanh(0), kept: tanh(2)
        model.get_parameter("final_linear.weight").copy_(torch.eye(200))
        found = {round(float(value), 5) for value in model(torch.randn(3, 1, 3, 2)).flatten()}
    assert found == {0.0, round(2 * math.tanh(2), 5)}
    assert model.get_submodule("rnn").dropout == 0.5


# Transformers


def standardised(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention_by_hand(x: torch.Tensor, state: dict[str, torch.Tensor], name: str, heads: int) -> torch.Tensor:
    n, tokens, units = x.shape
    packed = torch.einsum("ntu,ou->nto", x, state[f"{name}.in_proj_weight"]) + state[f"{name}.in_proj_bias"]
    q, k, v = packed.reshape(n, tokens, 3, heads, units // heads).unbind(2)
    weights = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(units // heads)
    weights = weights.exp() / weights.exp().sum(-1, keepdim=True)
    mixed = torch.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, tokens, units)
    return mixed @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def patches_of(x: torch.Tensor, patch: int) -> torch.Tensor:
    rows, columns = x.shape[2] // patch, x.shape[3] // patch
    cut = [
        x[:, :, patch * i : patch * (i + 1), patch * j : patch * (j + 1)] for i in range(rows) for j in range(columns)
    ]
    return torch.stack([each.flatten(1) for each in cut], dim=1)


def transformer_by_hand(state: dict[str, torch.Tensor], x: torch.Tensor, depth: int, heads: int, patch: int):
    embedded = patches_of(x, patch) @ state["embed.weight"].flatten(1).T + state["embed.bias"]
    first = state["tokens.class_token"].repeat(len(x), 1, 1)
    x = torch.cat([first, embedded], dim=1) + state["tokens.positions"]
    for block in (f"block{number}" for number in range(1, depth + 1)):
        x = x + attention_by_hand(standardised(x, state, f"{block}.norm1"), state, f"{block}.attention", heads)
        hidden = standardised(x, state, f"{block}.norm2") @ state[f"{block}.dense1.weight"].T
        hidden = hidden + state[f"{block}.dense1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ state[f"{block}.dense2.weight"].T + state[f"{block}.dense2.bias"]
    x = standardised(x, state, "final_norm")[:, 0]
    return x @ state["final_linear.weight"].T + state["final_linear.bias"]


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize(("heads", "patch"), [(4, 4), (3, 2), (1, 4)])
def test_transformers_against_the_forward_pass_by_hand(shape, heads, patch):
    model = ready(transformer(2, 12, shape, 3, heads=heads, patch=patch, mlp=1.5))
    x = torch.randn(2, *shape)
    assert model(x).shape == (2, 3)
    agrees(model, x, transformer_by_hand(double(model), x.double(), 2, heads, patch))


def test_transformers_against_arithmetic():
    block = 2 * 2 * 64 + (3 * 64 * 64 + 3 * 64) + (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64)
    rest = (3 * 16 * 64 + 64) + 64 + 65 * 64 + 2 * 64 + (64 * 10 + 10)
    assert count(transformer, 3, 64, (3, 32, 32), 10) == 3 * block + rest


def test_transformer_parts():
    model = transformer(2, 8, (1, 8, 8), 3)
    layers = [part.name for part in ls.Partition.by_layer(model)]
    inside = ["norm1", "attention", "attention.out_proj", "norm2", "dense1", "dense2"]
    blocks = [f"{block}.{name}" for block in ("block1", "block2") for name in inside]
    assert layers == ["embed", "tokens", *blocks, "final_norm", "final_linear"]
    found = [part.name for part in ls.Partition.by_block(model)]
    assert found == ["embed", "tokens", "block1", "block2", "final_norm", "final_linear"]
    heads = [part.name for part in ls.Partition.by_head(model) if part.name.startswith("block1.attention.head")]
    assert heads == [f"block1.attention.head{head}" for head in range(4)]
    projections = [part.name for part in ls.Partition.by_projection(model)]
    assert {f"block2.attention.{letter}" for letter in "qkv"} <= set(projections)


def test_a_transformer_drops_after_the_positions_and_after_every_linear_map_of_a_block():
    """Where a call of dropout gives zeros: the outputs change, so what it gives is used."""
    model = transformer(1, 8, (1, 8, 8), 3, dropout=0.5).eval()
    x = torch.randn(2, 1, 8, 8)
    shapes: list[torch.Size] = []

    def zeros_at(place: int):
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            shapes.append(output.shape)
            return 0 * output if len(shapes) - 1 == place else output

        return hook

    plain = model(x)
    for place in range(4):
        shapes.clear()
        hooks = [m.register_forward_hook(zeros_at(place)) for m in model.modules() if isinstance(m, nn.Dropout)]
        assert not torch.allclose(model(x), plain)
        for hook in hooks:
            hook.remove()
    assert shapes == [(2, 5, 8), (2, 5, 8), (2, 5, 16), (2, 5, 8)]


# What all have in common

EVERY = [
    lambda shape: vgg(11, shape, 3, width=1 / 32),
    lambda shape: vgg(13, shape, 3, norm="batch", width=1 / 32, dropout=0.5),
    lambda shape: alexnet(shape, 3, width=0.125),
    lambda shape: mlp(shape, 3),
    lambda shape: recurrent("lstm", 30, shape, 3, layers=2, bidirectional=True),
    lambda shape: recurrent("gru", 30, shape, 3),
    lambda shape: recurrent("rnn", 30, shape, 3),
    lambda shape: transformer(2, 32, shape, 3),
]


@pytest.mark.parametrize("make", EVERY)
def test_every_tensor_has_a_law_and_starts_as_it_says(make):
    torch.manual_seed(0)
    model = make((3, 8, 8))
    laws = ls.laws_of(model)
    for name, tensor in model.state_dict().items():
        assert laws[name].could_give(tensor), name


@pytest.mark.parametrize("make", EVERY)
def test_gradients_reach_every_parameter(make):
    torch.manual_seed(0)
    model = make((3, 8, 8)).train()
    F.cross_entropy(model(torch.randn(8, 3, 8, 8)), torch.arange(8) % 3).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad.any() for name, p in model.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("make", EVERY)
def test_every_partition_fits(make):
    model = make((3, 8, 8))
    for way in ("by_layer", "by_module", "by_block", "by_stage", "by_projection", "by_head"):
        getattr(ls.Partition, way)(model).check(model)


@pytest.mark.parametrize(
    ("builder", "args", "options"),
    [
        (vgg, (11, (3, 8, 8), 3), {"norm": "batch", "width": 0.5, "hidden": 64}),
        (alexnet, ((3, 8, 8), 3), {"width": 0.5}),
        (mlp, ((9,), 3), {"width": 0.5}),
        (recurrent, ("gru", 8, (3, 8, 8), 3), {"layers": 3, "bidirectional": True}),
        (transformer, (2, 16, (3, 8, 8), 3), {"patch": 2, "mlp": 3.0}),
    ],
)
def test_options_that_change_the_number_of_parameters(builder, args, options):
    counts = [count(builder, *args), *(count(builder, *args, **{key: value}) for key, value in options.items())]
    assert len(set(counts)) == len(counts)


def outputs(make, x: torch.Tensor, train: bool) -> torch.Tensor:
    torch.manual_seed(3)
    model = make().train(train)
    with torch.no_grad():
        return model(x)


def test_options_that_change_outputs_only():
    x = 100 * torch.randn(4, 3, 8, 8)
    a, b = [outputs(lambda lrn=lrn: alexnet((3, 8, 8), 3, width=0.1, lrn=lrn), x, False) for lrn in (True, False)]
    assert not torch.allclose(a, b)
    a, b = [outputs(lambda h=h: transformer(1, 16, (3, 8, 8), 3, heads=h), x, False) for h in (2, 4)]
    assert not torch.allclose(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: vgg(11, (3, 8, 8), 3, width=0.25, hidden=400, dropout=rate),
        lambda rate: alexnet((3, 8, 8), 3, width=0.25, dropout=rate),
        lambda rate: recurrent("lstm", 20, (3, 8, 8), 3, dropout=rate),
        lambda rate: recurrent("lstm", 20, (3, 8, 8), 3, layers=2, dropout=rate),
        lambda rate: transformer(1, 16, (3, 8, 8), 3, dropout=rate),
    ],
)
def test_dropout_acts_in_training_only_and_adds_no_tensors(make):
    x = torch.randn(4, 3, 8, 8)
    plain, dropped = (outputs(lambda rate=rate: make(rate), x, True) for rate in (0.0, 0.5))
    assert not torch.allclose(plain, dropped, atol=1e-6)
    plain, dropped = (outputs(lambda rate=rate: make(rate), x, False) for rate in (0.0, 0.5))
    assert torch.equal(plain, dropped)
    assert list(make(0.0).state_dict()) == list(make(0.5).state_dict())


PICTURE = (3, 8, 8)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: vgg(11, (64,), 3), "it takes images"),
        (lambda: alexnet((64,), 3), "it takes images"),
        (lambda: recurrent("lstm", 3, (64,), 3), "it takes images"),
        (lambda: transformer(1, 8, (64,), 3), "it takes images"),
        (lambda: vgg(11, PICTURE, 3, width=0), "width is a factor above 0"),
        (lambda: vgg(11, PICTURE, 3, hidden=0), "hidden is a number of units, at least 1, not 0"),
        (lambda: vgg(11, PICTURE, 3, dropout=1.0), r"dropout is a share in \[0, 1\), not 1.0"),
        (lambda: alexnet((3, 3, 9), 3), "at least 4 x 4 pixels"),
        (lambda: alexnet(PICTURE, 3, dropout=-0.1), "dropout is a share"),
        (lambda: mlp((5,), 3, width=math.nan), "width is a factor above 0"),
        (lambda: recurrent("lstm", 0, PICTURE, 3), "at least one unit"),
        (lambda: recurrent("gru", 3, PICTURE, 3, layers=0), "at least one layer"),
        (lambda: recurrent("rnn", 3, PICTURE, 3, layers=2, dropout=1.5), "dropout is a share"),
        (lambda: transformer(0, 8, PICTURE, 3), "at least one block"),
        (lambda: transformer(1, 0, PICTURE, 3), "width 1 at least"),
        (lambda: transformer(1, 10, PICTURE, 3), "width 10 does not divide into 4 heads; heads that fit: 1, 2, 5, 10"),
        (lambda: transformer(1, 8, PICTURE, 3, heads=0), "does not divide into 0 heads"),
        (
            lambda: transformer(1, 8, (1, 28, 20), 3, patch=8),
            "28 x 20 do not divide into patches of 8; patches that fit: 1, 2, 4$",
        ),
        (lambda: transformer(1, 8, PICTURE, 3, patch=0), "patches that fit: 1, 2, 4, 8"),
        (lambda: transformer(1, 8, PICTURE, 3, mlp=0), "mlp is"),
        (lambda: transformer(1, 8, PICTURE, 3, dropout=2), "dropout is a share"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with torch.device("meta"), pytest.raises(UseError, match=says):
        make()


@pytest.mark.parametrize("builder", [vgg, alexnet, mlp, recurrent, transformer])
def test_the_first_line_says_what_the_family_is(builder):
    first = builder.__doc__.partition("\n")[0]
    assert first.endswith(".")
    assert len(first) < 110
