"""Residual networks of version 1 and 2: `resnet-v1-18`, `resnet-v2-50`, `resnet-v1-56` for CIFAR, `resnet-v2-4^2`."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from layerscope.errors import UseError
from layerscope.models.pieces import (
    Bias,
    Modules,
    Scalar,
    Stem,
    Steps,
    convolution,
    head_of,
    normed,
    scaled,
    stem_of,
    with_norm,
)
from layerscope.partition.globs import matching

ResNetNorm = Literal["none", "batch", "scalar"]


@dataclass(frozen=True)
class Plan:
    """What a depth stands for: blocks of each stage, channels of the first (they double), and how shapes change."""

    blocks: tuple[int, ...]
    channels: int = 64
    expansion: int = 1
    shortcut: str = "projection"
    downsample: str = "block"
    norm: str = "batch"
    version: int = 1


PLANS = {
    18: Plan((2, 2, 2, 2)),
    34: Plan((3, 4, 6, 3)),
    50: Plan((3, 4, 6, 3), expansion=4),
    101: Plan((3, 4, 23, 3), expansion=4),
    152: Plan((3, 8, 36, 3), expansion=4),
    **{6 * n + 2: Plan((n, n, n), channels=16, shortcut="pad") for n in (3, 5, 7, 9, 18)},
}
"""The published depths: for ImageNet (He et al. 2016a, Table 1) and, 6n + 2, for CIFAR (there, Sec. 4.2)."""


def resnet(
    version: int,
    depth: int | str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    norm: ResNetNorm = "batch",
    width: float = 1.0,
    stem: Stem = "auto",
    downsample: Literal["auto", "block", "layer"] = "auto",
    shortcut: Literal["auto", "projection", "pad"] = "auto",
    remove: tuple[str, ...] = (),
) -> nn.Module:
    """Residual, version 1 (ReLU after the sum) or 2 (pre-activation); depth 18 .. 152, 6n+2 (CIFAR), or B^S: S stages of B.

    Inputs `[n, channels, height, width]`, outputs `[n, classes]`. Modules: stage0, stage1.block1, ..., final_linear.

    - Depth 18, 34: four stages of blocks of two 3x3 convolutions, with 64, 128, 256, 512 channels. 50, 101, 152: blocks of 1x1,
      3x3, 1x1 with four times the channels at the end; the stride is in the 3x3. 20, 32, 44, 56, 110: three stages of
      n = (depth - 2) / 6 blocks with 16, 32, 64 channels. B^S: S stages of B blocks as in 18.
    - `norm`: batch; none (then convolutions have biases); scalar: Fixup's single-number biases before each convolution and
      activation of blocks and before the final layer, and one factor for each residual branch; convolutions without bias. In
      version 1 the convolution of stage0 and those of downsample layers have one such number after them, in version 2 none.
    - `width` times all channels. 0.25 makes of 18 the "1x" of chatterji2020, App. D: 16, 16, 32, 64, 128 channels.
    - `stem`: imagenet is a 7x7 convolution and a 3x3 max pooling of stride 2 each, cifar a 3x3 convolution of stride 1; auto:
      imagenet from a height of 96 on.
    - `downsample`: block: the first block of a stage changes the shape; layer: a 3x3 convolution before the blocks does, so that
      all blocks have identity skips. auto: layer for B^S, else block.
    - `shortcut`: in blocks that change the shape: projection (1x1 convolution) or pad (every other pixel, zeros for the channels
      that are new). auto: pad for 6n+2, else projection.
    - `remove`: blocks to leave out, names or patterns (`stage2.block3,stage*.block[2-9]`); the others keep their names.

    Sources: He et al. 2016a, Table 1 and Sec. 4.2 (version 1); He et al. 2016b, Fig. 1b and Appendix (version 2); Zhang, Dauphin
    and Ma 2019, Sec. 3 (scalar); zhang2022, App. A and Table 2 (B^S, stems).
    Differences: He et al. 2016a have the stride of bottlenecks in the first 1x1. In version 2 a projection takes what the first
    convolution takes, and neither norm nor ReLU stands between stage0 and stage1, whose first block begins with them.
    chatterji2020 ends with max pooling, not average pooling. zhang2022 does not say what its downsample layers are: here they are
    linear in version 2, and followed by norm and ReLU in version 1.
    """
    plan = _chosen(depth, downsample, shortcut)
    plan = replace(plan, norm=norm, version=version)
    first = scaled(plan.channels, width)
    modules = stem_of(stem, input_shape, first, norm, preactivated=version == 2)
    for number, blocks in enumerate(plan.blocks, start=1):
        channels = scaled(plan.channels * 2 ** (number - 1), width)
        modules[f"stage{number}"] = nn.Sequential(_stage(plan, blocks, first, channels, 1 if number == 1 else 2))
        first = channels * plan.expansion
    if version == 2:
        modules |= normed("final_norm", norm, first)
        modules["final_relu"] = nn.ReLU()
    model = Steps(modules | head_of(first, classes, norm))
    _remove(model, remove)
    return model


class ResidualBlock(nn.Module):
    """Its shortcut plus its branch, and in version 1 ReLU of the sum."""

    branch: tuple[str, ...]
    """The linear maps of the residual branch, in order."""

    def __init__(self, modules: Modules, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.steps = tuple(modules)
        self.branch = tuple(name for name in modules if name.startswith("conv"))
        for name, module in modules.items():
            self.add_module(name, module)
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        entry = out = x
        for name in self.steps:
            entry = out if name == "conv1" else entry
            out = getattr(self, name)(out)
        skip = self.shortcut(x if isinstance(self.shortcut, nn.Identity | Pad) else entry)
        return self.activation(out + skip)


class Pad(nn.Module):
    """Every other pixel (with stride 2), then channels of zeros: a shortcut without parameters."""

    def __init__(self, stride: int, zeros: int) -> None:
        super().__init__()
        self.stride, self.zeros = stride, zeros

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))


def _chosen(depth: int | str, downsample: str, shortcut: str) -> Plan:
    plan = _plan(depth)
    plan = replace(plan, downsample=plan.downsample if downsample == "auto" else downsample)
    if shortcut != "auto" and plan.downsample == "layer":
        raise UseError(f"shortcut={shortcut} needs downsample=block: with downsample layers all skips are identities")
    return plan if shortcut == "auto" else replace(plan, shortcut=shortcut)


def _plan(depth: int | str) -> Plan:
    blocks, power, stages = str(depth).partition("^")
    if not power and int(blocks) in PLANS:
        return PLANS[int(blocks)]
    if power and 1 <= int(blocks) <= 100 and 1 <= int(stages) <= 6:
        return Plan((int(blocks),) * int(stages), downsample="layer")
    known = ", ".join(map(str, sorted(PLANS)))
    raise UseError(f"depth is one of {known}, or B^S (S stages of B blocks; B up to 100, S up to 6), not {depth}")


def _stage(plan: Plan, blocks: int, fan_in: int, channels: int, stride: int) -> Modules:
    """The modules of a stage; `channels` are those of the 3x3 convolutions."""
    fan_out = channels * plan.expansion
    modules: Modules = OrderedDict()
    if plan.downsample == "layer" and (stride, fan_in) != (1, fan_out):
        conv = convolution(fan_in, fan_out, 3, stride, plan.norm)
        modules["downsample"] = with_norm(conv, plan.norm) if plan.version == 1 else conv
        if plan.version == 1:
            modules["downsample_relu"] = nn.ReLU()
        fan_in, stride = fan_out, 1
    for number in range(1, blocks + 1):
        modules[f"block{number}"] = _block(plan, fan_in, channels, stride)
        fan_in, stride = fan_out, 1
    return modules


def _block(plan: Plan, fan_in: int, channels: int, stride: int) -> ResidualBlock:
    convs = _convolutions(plan, fan_in, channels, stride)
    shortcut = _shortcut(plan, fan_in, channels * plan.expansion, stride)
    if plan.version == 1:
        return ResidualBlock(_branch_v1(convs, plan.norm), shortcut, nn.ReLU())
    return ResidualBlock(_branch_v2(convs, plan.norm), shortcut, nn.Identity())


def _convolutions(plan: Plan, fan_in: int, channels: int, stride: int) -> list[nn.Conv2d]:
    if plan.expansion == 1:
        sizes = ((fan_in, channels, 3, stride), (channels, channels, 3, 1))
    else:
        wide = channels * plan.expansion
        sizes = ((fan_in, channels, 1, 1), (channels, channels, 3, stride), (channels, wide, 1, 1))
    return [convolution(*size, plan.norm) for size in sizes]


def _shortcut(plan: Plan, fan_in: int, fan_out: int, stride: int) -> nn.Module:
    if (stride, fan_in) == (1, fan_out):
        return nn.Identity()
    if plan.shortcut == "pad":
        return Pad(stride, fan_out - fan_in)
    conv = convolution(fan_in, fan_out, 1, stride, plan.norm)
    return with_norm(conv, "batch") if plan.version == 1 and plan.norm == "batch" else conv


def _branch_v1(convs: Sequence[nn.Conv2d], norm: str) -> Modules:
    modules: Modules = OrderedDict()
    for number, conv in enumerate(convs, start=1):
        modules |= _scalar(f"bias{number}", norm, Bias)
        modules[f"conv{number}"] = conv
        if number == len(convs):
            modules |= _scalar("scale", norm, Scalar)
        modules |= normed(f"norm{number}", norm, conv.out_channels)
        if number < len(convs):
            modules[f"relu{number}"] = nn.ReLU()
    return modules


def _branch_v2(convs: Sequence[nn.Conv2d], norm: str) -> Modules:
    modules: Modules = OrderedDict()
    for number, conv in enumerate(convs, start=1):
        modules |= normed(f"norm{number}", norm, conv.in_channels)
        modules[f"relu{number}"] = nn.ReLU()
        modules |= _scalar(f"bias{number}", norm, Bias)
        modules[f"conv{number}"] = conv
    return modules | _scalar("scale", norm, Scalar)


def _scalar(name: str, norm: str, kind: type[nn.Module]) -> Modules:
    return OrderedDict({name: kind()}) if norm == "scalar" else OrderedDict()


def _remove(model: nn.Module, patterns: Sequence[str]) -> None:
    """Takes blocks out of a network. Errors: UseError for a pattern without a block, and for a block that is needed."""
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, ResidualBlock)}
    for name in matching(patterns, blocks, "block to remove"):
        if not isinstance(blocks[name].shortcut, nn.Identity):
            raise UseError(f"remove: {name} cannot be left out, it changes the shape of what it is given")
        stage, _, block = name.partition(".")
        delattr(model.get_submodule(stage), block)
