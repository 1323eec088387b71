"""ResNets, DenseNets and Inception-v3 against published counts, other libraries, and forward passes written by hand."""

import math
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import layerscope as ls
from layerscope.errors import UseError
from layerscope.models.densenet import densenet
from layerscope.models.inception import inception
from layerscope.models.laws import Law
from layerscope.models.pieces import Bias, Scalar
from layerscope.models.resnet import ResidualBlock, resnet

IMAGENET = (3, 224, 224)
RESNETS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
DENSENETS = {121: 7_978_856, 169: 14_149_480, 201: 20_013_928}


def size(build: Any, *args: Any, **options: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(*args, **options).parameters())


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Any values, of which no bias, norm, scale or branch is without effect; in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            centre = 1.0 if tensor.ndim == 1 and name.endswith(("weight", "scale", "running_var")) else 0.0
            spread = 0.3 if tensor.ndim < 2 else math.sqrt(1 / tensor[0].numel())
            values = centre + spread * torch.randn(tensor.shape, generator=random)
            tensor.copy_(values.abs() + 0.1 if name.endswith("running_var") else values)
    return model.eval()


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def images(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def names(partition: ls.Partition) -> list[str]:
    return [part.name for part in partition]


# Published counts.


@pytest.mark.parametrize(("depth", "published"), RESNETS.items())
def test_resnet_counts(depth, published):
    """Version 2 has the norms of version 1 before instead of after the convolutions: the sizes of inputs instead of outputs,
    whose differences add up to what stage0 and the end differ by. What it lacks is the norm of the projections."""
    assert size(resnet, 1, depth, IMAGENET, 1000) == published
    projected = (128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    assert size(resnet, 2, depth, IMAGENET, 1000) == published - 2 * sum(projected)


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnet_counts_for_cifar(depth, published):
    """He et al. 2016a, Table 6; and by hand."""
    found, n = size(resnet, 1, depth, (3, 32, 32), 10), (depth - 2) // 6
    assert found / 1e6 == pytest.approx(published, abs=0.05 if published > 1 else 0.005)
    convolutions = 27 * 16 + 9 * (2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    assert found == convolutions + 2 * (16 + 2 * n * (16 + 32 + 64)) + 64 * 10 + 10


@pytest.mark.parametrize("stages", [2, 4])
def test_resnet_counts_with_downsample_layers(stages):
    channels = [64 * 2**stage for stage in range(stages)]
    by_hand = 3 * 9 * 64 + 64 + channels[-1] * 10 + 10
    by_hand += sum(4 * 2 * (9 * c * c + c) for c in channels) + sum(9 * c * c // 2 + c for c in channels[1:])
    assert size(resnet, 2, f"4^{stages}", (3, 32, 32), 10, norm="none") == by_hand


def test_the_widths_of_chatterji2020():
    with torch.device("meta"):
        model = resnet(1, 18, (3, 32, 32), 10, norm="none", width=0.25)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sorted({conv.out_channels for conv in convolutions}) == [16, 32, 64, 128]
    assert (convolutions[0].out_channels, convolutions[0].kernel_size, convolutions[0].stride) == (16, (3, 3), (1, 1))


def test_other_counts():
    for depth, published in DENSENETS.items():
        assert size(densenet, depth, IMAGENET, 1000) == published
    assert size(inception, (3, 299, 299), 1000) == 23_834_568


def test_counts_without_norm():
    """A norm has two numbers for each channel that it takes; a convolution has a bias for each that it gives."""
    for build in (partial(resnet, 1, 18), partial(resnet, 2, 50), partial(densenet, 121)):
        with torch.device("meta"):
            model = build(IMAGENET, 1000)
        norms = sum(2 * module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        biases = sum(module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d))
        assert size(build, IMAGENET, 1000, norm="none") == size(build, IMAGENET, 1000) - norms + biases


def test_the_channels_of_mixed2():
    """casper2019's figure A1c: a quarter to four times the 288 channels of one block, all else as it was."""
    with torch.device("meta"):
        models = {factor: inception((3, 299, 299), 10, mixed2=factor) for factor in (0.25, 1.0, 4.0)}
    taken = [model.get_parameter("mixed3.branch3x3.conv1.conv.weight").shape[1] for model in models.values()]
    assert taken == [72, 288, 1152]
    published, wide = (dict(models[factor].named_parameters()) for factor in (1.0, 4.0))
    changed = {name.split(".")[0] for name in published if published[name].shape != wide[name].shape}
    assert changed == {"mixed2", "mixed3", "mixed4"}  # the max pooling of mixed3 passes its channels on


# Against other libraries.


def copied(model: nn.Module, theirs: nn.Module, without: str) -> nn.Module:
    """With the values of another network, in the order of the state dicts."""
    tensors = [tensor for name, tensor in theirs.state_dict().items() if not name.startswith(without)]
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    return model.eval()


@pytest.mark.parametrize(
    ("depth", "blocks", "kind", "width", "seed"),
    [
        (18, (2, 2, 2, 2), "basic", 0.1, 0),
        (34, (3, 4, 6, 3), "basic", 0.07, 1),
        (50, (3, 4, 6, 3), "bottleneck", 0.05, 2),
        ("3^2", (3, 3), "basic", 0.3, 3),
    ],
)
def test_resnet_against_transformers(depth, blocks, kind, width, seed):
    transformers = pytest.importorskip("transformers")
    channels = [round(64 * 2**stage * width) for stage in range(len(blocks))]
    config = transformers.ResNetConfig(
        num_channels=2,
        embedding_size=channels[0],
        hidden_sizes=[each * (4 if kind == "bottleneck" else 1) for each in channels],
        depths=blocks,
        layer_type=kind,
        num_labels=5,
    )
    theirs = shaken(transformers.ResNetForImageClassification(config), seed)
    model = resnet(1, depth, (2, 45, 39), 5, width=width, stem="imagenet", downsample="block")
    model.load_state_dict({_ours(name): tensor for name, tensor in theirs.state_dict().items()})
    x = images(2, 45, 39)
    with torch.no_grad():
        expected = theirs(x).logits
    assert expected.std() > 1e-3
    assert torch.allclose(outputs(model.eval(), x), expected, rtol=1e-4, atol=1e-5)


def _ours(name: str) -> str:
    """The name here of a tensor of transformers' ResNet."""
    path = name.removeprefix("resnet.").replace("convolution", "conv").replace("normalization", "norm").split(".")
    if path[0] == "embedder":
        return ".".join(("stage0", *path[2:]))
    if path[0] == "classifier":
        return f"final_linear.{path[-1]}"
    block = f"stage{int(path[2]) + 1}.block{int(path[4]) + 1}"
    rest = path[5:] if path[5] == "shortcut" else [f"{path[7]}{int(path[6]) + 1}", *path[8:]]
    return ".".join((block, *rest))


TORCHVISION = {
    **{f"resnet{depth}": partial(resnet, 1, depth) for depth in RESNETS},
    **{f"densenet{depth}": partial(densenet, depth) for depth in DENSENETS},
    "inception_v3": inception,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_against_torchvision(name):
    try:
        models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    except RuntimeError as problem:
        pytest.skip(f"torchvision does not fit this torch: {problem}")
    theirs = models.get_model(name, weights=None, num_classes=10, **({"init_weights": False} if "inc" in name else {}))
    model = copied(TORCHVISION[name]((3, 101, 96), 10), shaken(theirs), without="AuxLogits")
    x = images(3, 101, 96)
    assert torch.allclose(outputs(model, x), outputs(theirs, x), rtol=1e-4, atol=1e-5)


# Against forward passes written by hand.


class ByHand:
    """A residual network from its state dict alone, with the equations of the papers."""

    def __init__(self, model: nn.Module, version: int, stages: int) -> None:
        self.state, self.version, self.stages = model.state_dict(), version, stages

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv("stage0.conv" if "stage0.conv.weight" in self.state else "stage0", x)
        if self.version == 1:
            x = functional.relu(self.norm("stage0.norm", x))
        for stage in range(1, self.stages + 1):
            for number in count(1):
                block = f"stage{stage}.block{number}"
                if not any(name.startswith(f"{block}.") for name in self.state):
                    break
                x = self.block(block, x, 2 if stage > 1 and number == 1 else 1)
        x = functional.relu(self.norm("final_norm", x)) if self.version == 2 else x
        x = x.mean((2, 3)) + self.state.get("final_bias.bias", 0)
        return x @ self.state["final_linear.weight"].T + self.state["final_linear.bias"]

    def block(self, name: str, x: Tensor, stride: int) -> Tensor:
        convs = 3 if f"{name}.conv3.weight" in self.state else 2
        out = entry = x
        for number in range(1, convs + 1):
            if self.version == 2:
                out = functional.relu(self.norm(f"{name}.norm{number}", out))
            out = out + self.state.get(f"{name}.bias{number}.bias", 0)
            entry = out if number == 1 else entry
            strided = number == convs - 1  # the first of two, the second of three
            out = self.conv(f"{name}.conv{number}", out, stride if strided else 1)
            if number == convs:
                out = out * self.state.get(f"{name}.scale.scale", 1)
            if self.version == 1:
                out = self.norm(f"{name}.norm{number}", out)
                out = functional.relu(out) if number < convs else out
        total = out + self.skip(name, x, entry, out, stride)
        return functional.relu(total) if self.version == 1 else total

    def skip(self, name: str, x: Tensor, entry: Tensor, out: Tensor, stride: int) -> Tensor:
        if f"{name}.shortcut.conv.weight" in self.state:
            return self.norm(f"{name}.shortcut.norm", self.conv(f"{name}.shortcut.conv", entry, stride))
        if f"{name}.shortcut.weight" in self.state:
            return self.conv(f"{name}.shortcut", entry, stride)
        strided = x[:, :, ::stride, ::stride]
        return torch.cat((strided, torch.zeros_like(out)[:, x.shape[1] :]), dim=1)

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return functional.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.running_mean" in self.state:
            mean, variance, weight, bias = (
                self.state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
            )
            return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
        return x + self.state.get(f"{name}.bias", 0)


@pytest.mark.parametrize("norm", ["none", "batch", "scalar"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("depth", "stages", "options"),
    [(18, 4, {}), (50, 4, {}), (20, 3, {}), (20, 3, {"shortcut": "projection"}), (18, 4, {"shortcut": "pad"})],
)
def test_resnet_against_equations(depth, stages, options, version, norm):
    model = shaken(resnet(version, depth, (3, 13, 16), 4, norm=norm, width=0.06, **options))
    expected = ByHand(model, version, stages)(images(3, 13, 16))
    assert expected.std() > 1e-3
    assert torch.allclose(
        outputs(model, images(3, 13, 16)), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


def test_downsample_layers_against_equations():
    model = shaken(resnet(2, "1^2", (3, 9, 8), 4, norm="none", width=0.1))
    tensors, x = model.state_dict(), images(3, 9, 8)

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return functional.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], stride, 1)

    x = conv("stage0", x)
    x = x + conv("stage1.block1.conv2", conv("stage1.block1.conv1", x.clamp(min=0)).clamp(min=0))
    x = conv("stage2.downsample", x, 2)
    x = x + conv("stage2.block1.conv2", conv("stage2.block1.conv1", x.clamp(min=0)).clamp(min=0))
    x = x.clamp(min=0).mean((2, 3)) @ tensors["final_linear.weight"].T + tensors["final_linear.bias"]
    assert torch.allclose(outputs(model, images(3, 9, 8)), x, atol=1e-5)


def test_a_small_densenet_layer_and_transition_against_equations():
    model = shaken(densenet(121, (3, 8, 8), 4, width=0.1))
    tensors, x = model.state_dict(), images(6, 8, 8)

    def activated(name: str, x: Tensor) -> Tensor:
        values = (tensors[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.relu(functional.batch_norm(x, *values))

    layer = model.get_submodule("block1.layer1")
    inner = functional.conv2d(activated("block1.layer1.norm1", x), tensors["block1.layer1.conv1.weight"])
    new = functional.conv2d(activated("block1.layer1.norm2", inner), tensors["block1.layer1.conv2.weight"], padding=1)
    assert torch.allclose(outputs(layer, x), torch.cat((x, new), dim=1), atol=1e-5)
    x = images(6 + 6 * 3, 8, 8)
    expected = functional.avg_pool2d(
        functional.conv2d(activated("transition1.norm", x), tensors["transition1.conv.weight"]), 2
    )
    assert torch.allclose(outputs(model.get_submodule("transition1"), x), expected, atol=1e-5)


# Blocks.


def blocks_of(model: nn.Module) -> dict[str, ResidualBlock]:
    return {name: module for name, module in model.named_modules() if isinstance(module, ResidualBlock)}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("norm", ["none", "batch", "scalar"])
def test_a_removed_block_is_one_whose_branch_gives_zero(version, norm):
    build = partial(resnet, version, 34, (1, 12, 12), 3, norm=norm, width=0.05)
    full = shaken(build())
    short = build(remove=("stage2.block3", "stage[34].block[3-9]", "stage3.block[34]"))
    left = set(blocks_of(short))
    removed = set(blocks_of(full)) - left
    assert removed == {
        "stage2.block3",
        "stage3.block3",
        "stage3.block4",
        "stage3.block5",
        "stage3.block6",
        "stage4.block3",
    }
    state = full.state_dict()
    for name in removed:
        for tensor in (f"{name}.{blocks_of(full)[name].branch[-1]}", f"{name}.norm2", f"{name}.scale"):
            for key in ("weight", "bias", "scale"):
                if f"{tensor}.{key}" in state and not (version == 2 and "norm2" in tensor):
                    state[f"{tensor}.{key}"].zero_()
    short.load_state_dict({name: tensor for name, tensor in state.items() if name in short.state_dict()})
    x = images(1, 12, 12)
    short.eval()
    full.load_state_dict(state)
    assert torch.allclose(outputs(short, x), outputs(full, x), atol=1e-5)
    assert not torch.allclose(outputs(short, x), outputs(shaken(build()), x), atol=1e-5)


def test_all_blocks_but_those_that_change_shapes_can_be_removed():
    model = resnet(2, 18, (1, 8, 8), 3, width=0.05, remove=("stage1.*", "stage*.block2"))
    assert list(blocks_of(model)) == ["stage2.block1", "stage3.block1", "stage4.block1"]
    assert outputs(model, images(1, 8, 8)).shape == (2, 3)
    assert not blocks_of(resnet(2, "4^2", (1, 8, 8), 3, remove=("*",)))


@pytest.mark.parametrize(("depth", "maps", "blocks"), [(18, 2, 8), (50, 3, 16), (56, 2, 27), ("4^4", 2, 16)])
def test_branches_name_their_linear_maps(depth, maps, blocks):
    with torch.device("meta"):
        found = blocks_of(resnet(2, depth, (3, 32, 32), 10))
    assert len(found) == blocks
    for block in found.values():
        assert block.branch == tuple(f"conv{number}" for number in range(1, maps + 1))
        assert all(isinstance(block.get_submodule(name), nn.Conv2d) for name in block.branch)


def test_scalars_declare_their_laws():
    model = resnet(1, 18, (1, 8, 8), 3, norm="scalar", width=0.05)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(conv.bias is None for conv in model.modules() if isinstance(conv, nn.Conv2d))
    scalars = [module for module in model.modules() if isinstance(module, Bias | Scalar)]
    assert len(scalars) == 8 * 5 + 2  # before and after each convolution, and a factor; after stage0, before the end
    for module in scalars:
        ((name, law),) = module.initial_laws.items()
        assert law in (Law("constant", 0.0), Law("constant", 1.0))
        assert law.could_give(dict(module.named_parameters())[name].detach())


@pytest.mark.parametrize("norm", ["none", "scalar"])
@pytest.mark.parametrize("version", [1, 2])
def test_152_layers_can_be_trained_without_norm(version, norm):
    """With Fixup's initial values the outputs are finite, and gradients of all branches neither vanish nor explode."""
    torch.manual_seed(0)
    model = resnet(version, 152, (3, 8, 8), 3, norm=norm, width=0.08)
    blocks = blocks_of(model)
    for conv in (module for module in model.modules() if isinstance(module, nn.Conv2d)):
        nn.init.kaiming_normal_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    for block in blocks.values():
        first, second, last = (block.get_parameter(f"{name}.weight") for name in block.branch)
        with torch.no_grad():
            for weight in (first, second):
                weight.mul_(len(blocks) ** (-1 / (2 * 3 - 2)))
            last.zero_()
    assert len(blocks) == 50
    functional.cross_entropy(model(images(3, 8, 8)), torch.tensor([0, 1])).backward()
    lasts = [block.get_parameter(f"{block.branch[-1]}.weight").grad for block in blocks.values()]
    assert all(gradient is not None and 1e-5 < float(gradient.norm()) < 1e2 for gradient in lasts)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


# Parts.

RESIDUAL = [f"stage{stage}.block{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]


@pytest.mark.parametrize("downsample", ["block", "layer"])
@pytest.mark.parametrize(
    ("version", "norm", "end"),
    [
        (1, "none", []),
        (1, "batch", []),
        (1, "scalar", ["final_bias"]),
        (2, "none", []),
        (2, "batch", ["final_norm"]),
        (2, "scalar", ["final_norm", "final_bias"]),
    ],
)
def test_parts_by_block(version, norm, end, downsample):
    with torch.device("meta"):
        model = resnet(version, 18, (3, 32, 32), 10, norm=norm, downsample=downsample)
    expected = ["stage0", *RESIDUAL, *end, "final_linear"]
    if downsample == "layer":
        for stage in (2, 3, 4):
            expected.insert(expected.index(f"stage{stage}.block1"), f"stage{stage}.downsample")
    assert names(ls.Partition.by_block(model)) == expected


def test_parts_by_block_of_every_depth():
    for version in (1, 2):
        for depth, blocks in {34: 16, 50: 16, 101: 33, 152: 50, 20: 9, 110: 54, "4^2": 8, "4^4": 16}.items():
            with torch.device("meta"):
                model = resnet(version, depth, IMAGENET, 10)
            found = names(ls.Partition.by_block(model))
            assert [name for name in found if ".block" in name] == list(blocks_of(model))
            downsamples = [
                f"stage{stage}.downsample" for stage in range(2, int(str(depth)[2:]) + 1 if "^" in str(depth) else 0)
            ]
            others = ["stage0", *downsamples, *(["final_norm"] if version == 2 else []), "final_linear"]
            assert [name for name in found if ".block" not in name] == others
            assert len(blocks_of(model)) == blocks


def test_parts_by_stage_and_layer():
    with torch.device("meta"):
        model = resnet(1, 18, (3, 32, 32), 10, norm="none")
    assert names(ls.Partition.by_stage(model)) == ["stage0", *[f"stage{n}" for n in (1, 2, 3, 4)], "final_linear"]
    layers = names(ls.Partition.by_layer(model))
    assert len(layers) == 21
    assert layers[:3] == ["stage0", "stage1.block1.conv1", "stage1.block1.conv2"]
    assert layers[5:8] == ["stage2.block1.conv1", "stage2.block1.conv2", "stage2.block1.shortcut"]
    assert layers[-1] == "final_linear"


def test_parts_of_densenet():
    with torch.device("meta"):
        model, plain = densenet(121, IMAGENET, 10), densenet(121, IMAGENET, 10, norm="none")
    found = names(ls.Partition.by_block(model))
    assert len(found) == 1 + 58 + 3 + 2
    assert found[:2] == ["stage0", "block1.layer1"]
    assert found[7:9] == ["transition1", "block2.layer1"]
    assert found[-3:] == ["block4.layer16", "final_norm", "final_linear"]
    assert len(names(ls.Partition.by_layer(plain))) == 121


def test_parts_of_inception():
    with torch.device("meta"):
        model = inception((3, 299, 299), 10)
    blocks = [*[f"conv{n}" for n in range(1, 6)], *[f"mixed{n}" for n in range(11)], "final_linear"]
    assert names(ls.Partition.by_block(model)) == names(ls.Partition.by_stage(model)) == blocks
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 94


# Use.


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 14), (3, 96, 96)])
@pytest.mark.parametrize("width", [0.02, 0.1])
def test_shapes(shape, width):
    builders = [partial(resnet, 1, 18), partial(resnet, 2, 50), partial(resnet, 1, 20), partial(resnet, 2, "4^2")]
    for build in (*builders, partial(densenet, 121)):
        assert outputs(build(shape, 7, width=width).eval(), images(*shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 75, 75), (3, 80, 99)])
def test_shapes_of_inception(shape):
    assert outputs(inception(shape, 7, width=0.05).eval(), images(*shape)).shape == (2, 7)


@pytest.mark.parametrize("norm", ["none", "batch", "scalar"])
@pytest.mark.parametrize("version", [1, 2])
def test_resnets_take_the_smallest_pictures_with_the_large_stem(version, norm):
    model = resnet(version, 18, (1, 8, 8), 7, norm=norm, stem="imagenet", width=0.05).eval()
    assert outputs(model, images(1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(("height", "width", "large"), [(95, 200, False), (96, 10, True), (32, 32, False)])
def test_the_stem_depends_on_the_height(height, width, large):
    for build in (partial(resnet, 1, 18), partial(resnet, 2, 18), partial(densenet, 121)):
        with torch.device("meta"):
            model = build((3, height, max(width, 29)), 10)
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        assert first.kernel_size == ((7, 7) if large else (3, 3))
        assert any(isinstance(module, nn.MaxPool2d) for module in model.modules()) == large


IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: resnet(1, 19, IMAGE, 10), r"depth is one of 18, 20, 32, 34, .*152, or B\^S .*not 19"),
        (lambda: resnet(1, "4^9", IMAGE, 10), r"not 4\^9"),
        (lambda: resnet(1, "0^2", IMAGE, 10), r"not 0\^2"),
        (lambda: resnet(1, 18, (784,), 10), "takes images"),
        (lambda: resnet(1, 18, IMAGE, 10, width=0.0), "width is a factor above 0"),
        (lambda: resnet(1, 18, IMAGE, 10, shortcut="pad", downsample="layer"), "shortcut=pad needs downsample=block"),
        (lambda: resnet(2, "4^2", IMAGE, 10, shortcut="projection"), "shortcut=projection needs downsample=block"),
        (
            lambda: resnet(1, 18, IMAGE, 10, remove=("stage1.block3",)),
            "unknown block to remove 'stage1.block3'; did you mean stage1.block2",
        ),
        (
            lambda: resnet(2, "4^2", IMAGE, 10, remove=("stage2.downsample",)),
            "unknown block to remove 'stage2.downsample'",
        ),
        (lambda: resnet(1, 18, IMAGE, 10, remove=("stage*.block1",)), "stage2.block1 cannot be left out, it changes"),
        (lambda: resnet(1, 50, IMAGE, 10, remove=("stage1.block1",)), "stage1.block1 cannot be left out"),
        (lambda: densenet(161, IMAGE, 10), "depth is one of 121, 169, 201, not 161"),
        (lambda: densenet(121, (784,), 10), "takes images"),
        (lambda: densenet(121, (3, 8, 7), 10), "at least 8 pixels"),
        (lambda: densenet(121, (3, 28, 32), 10, stem="imagenet"), "at least 29 pixels"),
        (lambda: densenet(121, IMAGE, 10, width=-1.0), "width is a factor"),
        (lambda: inception((3, 299, 74), 10), "at least 75 pixels"),
        (lambda: inception((3, 299, 299), 10, mixed2=0.0), "mixed2 is a factor above 0, not 0.0"),
        (lambda: inception((3, 299, 299), 10, momentum=1.5), "momentum is above 0 and at most 1, not 1.5"),
    ],
)
def test_errors(build, message):
    with torch.device("meta"), pytest.raises(UseError, match=message):
        build()


@pytest.mark.parametrize(("large", "least"), [("imagenet", 29), ("cifar", 8)])
def test_densenet_takes_what_it_says(large, least):
    model = densenet(121, (1, least, least), 3, stem=large, width=0.05).eval()
    assert outputs(model, images(1, least, least)).shape == (2, 3)


@pytest.mark.parametrize(
    ("build", "option", "values"),
    [
        (partial(resnet, 2, 18, (3, 24, 24), 5), "norm", ("batch", "none", "scalar")),
        (partial(resnet, 1, 18, (3, 24, 24), 5), "width", (1.0, 0.5)),
        (partial(resnet, 1, 18, (3, 24, 24), 5), "stem", ("cifar", "imagenet")),
        (partial(resnet, 2, 18, (3, 24, 24), 5), "downsample", ("block", "layer")),
        (partial(resnet, 1, 18, (3, 24, 24), 5), "shortcut", ("projection", "pad")),
        (partial(resnet, 1, 18, (3, 24, 24), 5), "remove", ((), ("stage1.block2",), ("stage1.*",))),
        (partial(densenet, 121, (3, 32, 32), 5), "norm", ("batch", "none")),
        (partial(densenet, 121, (3, 32, 32), 5), "width", (1.0, 0.5)),
        (partial(densenet, 121, (3, 32, 32), 5), "stem", ("cifar", "imagenet")),
        (partial(inception, (3, 75, 75), 5), "width", (1.0, 0.5)),
        (partial(inception, (3, 75, 75), 5), "mixed2", (1.0, 0.5)),
    ],
)
def test_no_option_is_ignored(build, option, values):
    assert len({size(build, **{option: value}) for value in values}) == len(values)


def test_the_defaults_that_depend_on_the_name():
    with torch.device("meta"):
        large, small, plain = (resnet(1, depth, IMAGE, 10) for depth in (18, 56, "4^2"))
        pads = [type(blocks_of(model)["stage2.block1"].shortcut).__name__ for model in (large, small, plain)]
    assert pads == ["Steps", "Pad", "Identity"]
    assert size(resnet, 2, "4^2", IMAGE, 10) != size(resnet, 2, "4^2", IMAGE, 10, downsample="block")


@pytest.mark.parametrize("momentum", [0.1, 0.0003])
def test_the_momentum_of_inceptions_statistics(momentum):
    model = inception((1, 75, 75), 3, width=0.05, momentum=momentum).train()
    x = images(1, 75, 75)
    with torch.no_grad():
        model(x)
        conv, norm = model.get_submodule("conv1.conv"), model.get_submodule("conv1.norm")
        assert isinstance(norm, nn.BatchNorm2d)
        assert torch.allclose(norm.get_buffer("running_mean"), momentum * conv(x).mean((0, 2, 3)), atol=1e-6)
        assert norm.eps == 0.001
