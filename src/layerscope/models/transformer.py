"""Small vision transformers, `transformer-DxW`: D encoder blocks of width W."""

import math
from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.models import pieces
from layerscope.models.laws import Law


def transformer(
    depth: int,
    units: int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    heads: int = 4,
    patch: int = 4,
    mlp: float = 2.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Transformer on the patches of a picture: embed, tokens, block1 .. blockD, final_norm, final_linear.

    Inputs `[n, channels, height, width]`, outputs `[n, classes]`. `embed` maps each patch of `patch` x `patch` pixels to `units`
    numbers; `tokens` puts a learned class token before them and adds learned positions; the blocks normalise before attention
    (of so many `heads`) and before two dense layers with GELU (hidden: `mlp` times `units`), and add to what they got;
    final_linear reads the class token. Dropout stands after the positions and after every linear map of a block but
    queries, keys and values.

    Source: none of the four papers; Dosovitskiy et al. 2021 (arXiv 2010.11929), Sec. 3.1 and App. B.1.

    Differs from the paper: small, hidden ratio 2 and not 4; the class token starts normal of scale 0.02, as positions do, not
    zero; linear maps start by the initialiser, and layer norm has PyTorch's epsilon.
    """
    _check_sizes(depth, units, heads, mlp)
    patches = _patches(input_shape, patch)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["embed"] = nn.Conv2d(input_shape[0], units, patch, stride=patch)
    modules["tokens"] = Tokens(patches, units)
    if dropout:
        modules["dropout"] = pieces.dropped(dropout)
    for number in range(1, depth + 1):
        modules[f"block{number}"] = Block(units, heads, max(1, round(mlp * units)), dropout)
    modules |= {"final_norm": nn.LayerNorm(units), "first": First(), "final_linear": nn.Linear(units, classes)}
    return nn.Sequential(modules)


class Tokens(nn.Module):
    """Maps of patches `[n, units, rows, columns]` as tokens with their positions, `[n, 1 + patches, units]`; first the class
    token."""

    initial_laws: ClassVar[dict[str, Law]] = {
        "class_token": Law("normal", 0.02),
        "positions": Law("normal", 0.02),
    }

    def __init__(self, patches: int, units: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, units))
        self.positions = nn.Parameter(torch.empty(1 + patches, units))
        for name, law in self.initial_laws.items():
            nn.init.normal_(self.get_parameter(name), std=law.scale)

    def forward(self, maps: Tensor) -> Tensor:
        patches = maps.flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(patches), 1, -1)
        return torch.cat([first, patches], dim=1) + self.positions


class Block(nn.Module):
    """Attention, then two dense layers, each after a layer norm and added to its input: `[n, tokens, units]` to the same."""

    def __init__(self, units: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(units)
        self.attention = nn.MultiheadAttention(units, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(units)
        self.dense1 = nn.Linear(units, hidden)
        self.gelu = nn.GELU()
        self.dense2 = nn.Linear(hidden, units)
        self.dropout = pieces.dropped(dropout)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        attended, _ = self.attention(normed, normed, normed, need_weights=False)
        x = x + self.dropout(attended)
        hidden = self.dropout(self.gelu(self.dense1(self.norm2(x))))
        return x + self.dropout(self.dense2(hidden))


class First(nn.Module):
    """The first token, `[n, units]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def _check_sizes(depth: int, units: int, heads: int, mlp: float) -> None:
    if min(depth, units) < 1:
        raise UseError("a transformer has at least one block, of width 1 at least")
    if heads < 1 or units % heads:
        raise UseError(f"width {units} does not divide into {heads} heads; heads that fit: {_divisors(units)}")
    if not 0 < mlp < math.inf:
        raise UseError(f"mlp is the hidden units of a block for each unit of its width, a factor above 0, not {mlp}")


def _patches(input_shape: tuple[int, ...], patch: int) -> int:
    """How many patches a picture has."""
    pieces.image_channels(input_shape)
    _, height, width = input_shape
    if patch < 1 or height % patch or width % patch:
        fit = _divisors(math.gcd(height, width))
        raise UseError(f"pictures of {height} x {width} do not divide into patches of {patch}; patches that fit: {fit}")
    return (height // patch) * (width // patch)


def _divisors(number: int) -> str:
    return ", ".join(str(each) for each in range(1, number + 1) if number % each == 0)
