"""Modules, blocks, stages, patterns and joint groups, of networks as they are built in the wild."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from layerscope.errors import UseError
from layerscope.partition import Part, Partition, Slice


def linear() -> nn.Linear:
    return nn.Linear(1, 1, bias=False)


class Tree(nn.Module):
    """A module of the given children."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class BasicBlock(Tree):
    """A residual block."""

    def __init__(self, shorten: bool = False) -> None:
        shortcut = nn.Sequential(linear(), nn.BatchNorm1d(1)) if shorten else nn.Identity()
        super().__init__(conv1=linear(), bn1=nn.BatchNorm1d(1), conv2=linear(), bn2=nn.BatchNorm1d(1), short=shortcut)


class ConvUnit(Tree):
    """A convolution with its norm."""

    def __init__(self) -> None:
        super().__init__(conv=linear(), bn=nn.BatchNorm1d(1))


class Stage(Tree):
    """Blocks after a smaller input."""


class Encoder(Tree):
    """Transformer layers."""


class Layer(Tree):
    """A transformer layer."""


class Expert(Tree):
    """One of many multilayer perceptrons."""


class Embeddings(Tree):
    """Where words become vectors."""


class Inception(Tree):
    """Branches of convolutions."""


class DoubleConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(linear(), nn.BatchNorm1d(1), linear(), nn.BatchNorm1d(1))


class Down(Tree):
    """A step into the depth of a U-Net."""

    def __init__(self) -> None:
        super().__init__(maxpool_conv=nn.Sequential(nn.Identity(), DoubleConv()))


class Up(Tree):
    """A step out of it."""

    def __init__(self) -> None:
        super().__init__(up=linear(), conv=DoubleConv())


class OutConv(Tree):
    """A last convolution."""


def resnet() -> nn.Module:
    stages = {f"layer{i}": nn.Sequential(BasicBlock(shorten=i > 1), BasicBlock()) for i in (1, 2)}
    return Tree(conv1=linear(), bn1=nn.BatchNorm1d(1), **stages, fc=linear())


def resnet_of_stages() -> nn.Module:
    stages = [Stage(downsample=linear(), blocks=nn.ModuleList([BasicBlock(), BasicBlock()])) for _ in range(2)]
    return Tree(stem=linear(), stages=nn.ModuleList(stages))


def encoder() -> Encoder:
    return Encoder(layers=nn.ModuleList([layer(), layer()]), norm=nn.LayerNorm(1))


def layer() -> Layer:
    return Layer(attention=nn.MultiheadAttention(1, 1), norm=nn.LayerNorm(1), fc1=linear(), fc2=linear())


def bert() -> nn.Module:
    return Tree(
        embeddings=Embeddings(word=nn.Embedding(2, 1), norm=nn.LayerNorm(1)), encoder=encoder(), pooler=linear()
    )


def mixture_of_experts() -> nn.Module:
    def one() -> Layer:
        experts = nn.ModuleList([Expert(up=linear(), down=linear()) for _ in range(3)])
        return Layer(attention=nn.MultiheadAttention(1, 1), router=linear(), experts=experts)

    return Tree(layers=nn.ModuleList([one(), one()]))


def inception() -> nn.Module:
    def one() -> Inception:
        return Inception(b1=ConvUnit(), b2=nn.Sequential(ConvUnit(), ConvUnit()))

    return Tree(a=one(), b=one(), fc=linear())


def unet() -> nn.Module:
    return Tree(inc=DoubleConv(), down1=Down(), down2=Down(), up1=Up(), up2=Up(), outc=OutConv(conv=linear()))


def shared_layers() -> nn.Module:
    one = layer()
    return Tree(embed=linear(), layers=nn.ModuleList([one, one, one]))


def of_torch() -> nn.Module:
    sizes = {"d_model": 2, "nhead": 2, "dim_feedforward": 2, "batch_first": True}
    return nn.Transformer(**sizes, num_encoder_layers=2, num_decoder_layers=2)


def normed_mlps() -> nn.Module:
    def one() -> Layer:
        return Layer(fc1=parametrizations.weight_norm(linear()), fc2=parametrizations.weight_norm(linear()))

    return nn.Sequential(one(), one())


BLOCKS = {
    resnet: ["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"],
    resnet_of_stages: ["stem"]
    + [f"stages.{i}.{where}" for i in (0, 1) for where in ("downsample", "blocks.0", "blocks.1")],
    bert: ["embeddings.word", "embeddings.norm", "encoder.layers.0", "encoder.layers.1", "encoder.norm", "pooler"],
    lambda: Tree(text=encoder(), image=encoder()): [
        f"{tower}.{where}" for tower in ("text", "image") for where in ("layers.0", "layers.1", "norm")
    ],
    of_torch: [f"{tower}.{where}" for tower in ("encoder", "decoder") for where in ("layers.0", "layers.1", "norm")],
    mixture_of_experts: ["layers.0", "layers.1"],
    inception: ["a", "b", "fc"],
    unet: ["inc", "down1", "down2", "up1", "up2", "outc.conv"],
    shared_layers: ["embed", "layers.0 = layers.1 = layers.2"],
    normed_mlps: ["0", "1"],
    lambda: nn.Sequential(linear(), nn.ReLU(), linear()): ["0", "2"],
    lambda: Tree(a=nn.MultiheadAttention(1, 1), b=nn.MultiheadAttention(1, 1)): ["a", "b"],
    lambda: Tree(rnn=nn.LSTM(1, 1, num_layers=2), fc=linear()): ["rnn.l0", "rnn.l1", "fc"],
    lambda: Tree(one=layer()): [f"one.{where}" for where in ("attention", "attention.out_proj", "norm", "fc1", "fc2")],
}


@pytest.mark.parametrize("network", BLOCKS)
def test_blocks(network):
    model = network()
    partition = Partition.by_block(model)
    partition.check(model)
    assert [part.name for part in partition] == BLOCKS[network]


STAGES = {
    resnet: ["conv1", "bn1", "layer1", "layer2", "fc"],
    resnet_of_stages: [
        "stem",
        "stages.0.downsample",
        "stages.0.blocks",
        "stages.1.downsample",
        "stages.1.blocks",
    ],
    bert: ["embeddings.word", "embeddings.norm", "encoder.layers", "encoder.norm", "pooler"],
    unet: ["inc", "down1", "down2", "up1", "up2", "outc.conv"],
    shared_layers: ["embed", "layers"],
    lambda: nn.Sequential(linear(), BasicBlock(), BasicBlock()): ["0", "(root)"],
}


@pytest.mark.parametrize("network", STAGES)
def test_stages(network):
    model = network()
    partition = Partition.by_stage(model)
    partition.check(model)
    assert [part.name for part in partition] == STAGES[network]


def test_a_block_has_all_that_is_in_it():
    model = resnet()
    model.layer2[1].mean = nn.BatchNorm1d(1, affine=False)
    partition = Partition.by_block(model)
    inside = tuple(name for name in model.state_dict() if name.startswith("layer2.1."))
    assert partition["layer2.1"].tensors == inside
    assert partition["layer2.1"].modules == ("layer2.1",)
    assert Partition.by_stage(model)["layer2"].modules == ("layer2.0", "layer2.1")
    assert set(Partition.by_layer(model).left_out) == {name for name in inside if ".mean." in name}


def test_a_container_with_parameters_of_its_own_is_in_its_stage():
    model = resnet()
    model.layer1.scale = nn.Parameter(torch.ones(1))
    assert "layer1.scale" in Partition.by_stage(model)["layer1"].tensors
    assert Partition.by_block(model)["layer1"].tensors == ("layer1.scale",)


def test_blocks_of_a_given_class():
    assert [part.name for part in Partition.by_block(resnet_of_stages(), of="Stage")] == [
        "stem",
        "stages.0",
        "stages.1",
    ]
    names = [part.name for part in Partition.by_block(bert(), of="MultiheadAttention | LayerNorm")]
    assert {"encoder.layers.0.attention", "encoder.layers.0.norm", "encoder.layers.0.fc1"} <= set(names)
    names = [part.name for part in Partition.by_stage(unet(), of="Down")]
    assert {"inc.double_conv.0", "down1", "down2", "up1.up", "outc.conv"} <= set(names)


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(
        UseError, match="no module of class 'Blok'; there are: BasicBlock, BatchNorm1d, Identity, Linear"
    ):
        Partition.by_block(resnet(), of="Blok")


def test_weights_tied_across_blocks_are_parts_of_their_own():
    model = Tree(layers=nn.ModuleList([layer(), layer()]))
    model.layers[1].fc1.weight = model.layers[0].fc1.weight
    tied = "layers.0.fc1 = layers.1.fc1"
    assert [part.name for part in Partition.by_block(model)] == ["layers.0", tied, "layers.1"]
    assert [part.name for part in Partition.by_stage(model)] == ["layers"]


def test_modules_at_a_depth():
    model = resnet()
    model.scale = nn.Parameter(torch.ones(1))
    partition = Partition.by_module(model)
    assert [part.name for part in partition] == ["(root)", "conv1", "bn1", "layer1", "layer2", "fc"]
    assert partition["layer1"].tensors == tuple(name for name in model.state_dict() if name.startswith("layer1."))
    assert partition["layer1"].modules == ("layer1",)
    deeper = [part.name for part in Partition.by_module(model, depth=2)]
    assert deeper == ["(root)", "conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "fc"]
    with pytest.raises(UseError, match=r"at depth 1 .* or more, not at 0"):
        Partition.by_module(model, depth=0)


def test_modules_with_buffers_only_are_left_out():
    model = Tree(norm=nn.BatchNorm1d(1, affine=False), fc=linear())
    partition = Partition.by_module(model)
    assert [part.name for part in partition] == ["fc"]
    assert set(partition.left_out.values()) == {"a buffer of a module without parameters"}


def test_weights_tied_across_modules_are_a_part_of_their_own():
    model = Tree(transformer=Tree(wte=nn.Embedding(2, 1), fc=linear()), lm_head=nn.Linear(1, 2))
    model.lm_head.weight = model.transformer.wte.weight
    partition = Partition.by_module(model)
    assert [part.name for part in partition] == ["transformer.wte = lm_head", "transformer", "lm_head"]
    assert partition["lm_head"].tensors == ("lm_head.bias",)


def test_a_module_that_is_used_twice_is_one_part():
    inner = Tree(fc=linear(), norm=nn.LayerNorm(1))
    partition = Partition.by_module(Tree(a=inner, b=Tree(inner=inner, fc=linear())))
    assert [part.name for part in partition] == ["a = b.inner", "b"]
    assert partition["a = b.inner"].modules == ("a", "b.inner")
    assert partition["b"].tensors == ("b.fc.weight",)


def test_patterns():
    model = resnet()
    partition = Partition.by_pattern(model, {"stem": "conv1.*|bn1.*", "norms": "layer*.bn?.weight | layer*.bn?.bias"})
    partition.check(model)
    assert partition["stem"].tensors == tuple(
        name for name in model.state_dict() if name.startswith(("conv1.", "bn1."))
    )
    assert partition["norms"].modules[:2] == ("layer1.0.bn1", "layer1.0.bn2")
    assert len(partition["norms"].tensors) == 16
    assert partition.left_out["fc.weight"] == "matches no pattern"


def test_patterns_that_make_no_sense_are_refused():
    with pytest.raises(UseError, match=r"conv1\.weight is matched for 'a' and for 'b'; it can be in one Part only"):
        Partition.by_pattern(resnet(), {"a": "conv*", "b": "*.weight"})
    with pytest.raises(UseError, match=r"unknown tensor 'conv1\.wait'; did you mean .*conv1\.weight"):
        Partition.by_pattern(resnet(), {"a": "fc.*|conv1.wait"})


def test_tied_tensors_go_where_one_of_their_names_goes():
    model = Tree(a=linear(), b=linear(), c=linear())
    model.b.weight = model.a.weight
    partition = Partition.by_pattern(model, {"x": "b.*"})
    assert partition["x"].tensors == ("a.weight", "b.weight")
    assert partition["x"].modules == ("a", "b")
    with pytest.raises(UseError, match=r"a\.weight \(tied: a\.weight = b\.weight\) is matched for 'x' and for 'y'"):
        Partition.by_pattern(model, {"x": "b.*", "y": "a.*"})


def test_joint_groups():
    partition = Partition.by_block(resnet()).joined({"stem": ["conv1", "bn1"], "late": ["layer2.*", "fc"]})
    assert [part.name for part in partition] == ["stem", "layer1.0", "layer1.1", "late"]
    assert partition["late"].modules == ("layer2.0", "layer2.1", "fc")
    partition.check(resnet())
    assert [part.name for part in partition.joined({"stem": "stem"})] == [part.name for part in partition]


def test_joint_groups_join_slices():
    parts = (
        Part("a", (Slice("w", 0, ((0, 1), (4, 5))), Slice("b"))),
        Part("c", (Slice("v"),)),
        Part("d", (Slice("w", 0, ((1, 2),)),)),
    )
    joint = Partition(parts, {"x": "why"}).joined({"ad": ["a", "d"]})
    assert joint["ad"].slices == (Slice("w", 0, ((0, 2), (4, 5))), Slice("b"))
    assert [part.name for part in joint] == ["ad", "c"]
    assert joint.left_out == {"x": "why"}


REFUSED = {
    "unknown Part 'layer1.2'; did you mean layer1": {"a": ["layer1.2"]},
    "the Part 'fc' is in 'a' and in 'b'": {"a": ["fc"], "b": ["f*"]},
    "the joint group 'a' has no Parts": {"a": []},
    "different names .* several are named 'fc'": {"fc": ["conv1", "bn1"]},
}


@pytest.mark.parametrize("fault", REFUSED)
def test_groups_that_make_no_sense_are_refused(fault):
    with pytest.raises(UseError, match=fault):
        Partition.by_block(resnet()).joined(REFUSED[fault])
