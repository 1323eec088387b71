"""The law each tensor was drawn from at the start, so that re-randomisation can draw from the same law again."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layerscope import rng
from layerscope.errors import unknown


@dataclass(frozen=True)
class Law:
    """The law of one tensor with independent entries: normal (`scale` is the standard deviation, mean 0),
    uniform (on -scale .. scale) or constant (all entries equal `scale`)."""

    kind: Literal["normal", "uniform", "constant"]
    scale: float

    def __str__(self) -> str:
        return f"constant {self.scale:g}" if self.kind == "constant" else f"{self.kind} of scale {self.scale:g}"

    def sample(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of the shape and dtype of `like`; always drawn in float32 on the CPU, so that it is the same anywhere."""
        if self.kind == "constant":
            return torch.full_like(like, self.scale)
        values = torch.empty(like.shape, dtype=torch.float32)
        if self.kind == "normal":
            values.normal_(0.0, self.scale, generator=generator)
        else:
            values.uniform_(-self.scale, self.scale, generator=generator)
        return values.to(like)


Laws = Mapping[str, Law]
"""Tensor name -> its initial law."""

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def _pytorch(fan_in: int, _fan_out: int) -> tuple[Law, Law]:
    bound = 1 / math.sqrt(fan_in)
    return Law("uniform", bound), Law("uniform", bound)


def _zero_bias(weight: Callable[[int, int], Law]) -> Callable[[int, int], tuple[Law, Law]]:
    return lambda fan_in, fan_out: (weight(fan_in, fan_out), Law("constant", 0.0))


INITIALISERS: dict[str, Callable[[int, int], tuple[Law, Law]]] = {
    "pytorch": _pytorch,
    "glorot": _zero_bias(lambda i, o: Law("uniform", math.sqrt(6 / (i + o)))),
    "he": _zero_bias(lambda i, o: Law("normal", math.sqrt(2 / i))),
}
"""Name -> (fan in, fan out) -> laws of weight and bias.

pytorch: uniform on +-1/sqrt(fan in), bias too (the default of `nn.Linear` and `nn.Conv*`). glorot: uniform of variance
2/(fan in + fan out), zero bias. he: normal of variance 2/(fan in), zero bias.
"""


def laws_of(model: nn.Module, initialiser: str = "pytorch") -> dict[str, Law]:
    """The initial laws of a model's tensors: those of linear maps and convolutions by the named initialiser; norm layers
    start at weight 1, bias 0, running mean 0, running variance 1, as in PyTorch.

    A tensor of any other module has no entry: nobody has said which law it was drawn from.
    """
    if initialiser not in INITIALISERS:
        raise unknown("initialiser", initialiser, INITIALISERS)
    laws: dict[str, Law] = {}
    for path, module in model.named_modules():
        found = _laws_of_module(module, initialiser)
        names = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
        laws |= {f"{path}.{name}" if path else name: law for name, law in found.items() if name in names}
    return laws


def _laws_of_module(module: nn.Module, initialiser: str) -> dict[str, Law]:
    if type(module) in _LINEAR:
        weight = module.weight
        assert isinstance(weight, Tensor)
        receptive = math.prod(weight.shape[2:])
        laws = INITIALISERS[initialiser](weight.shape[1] * receptive, weight.shape[0] * receptive)
        return dict(zip(("weight", "bias"), laws, strict=True))
    if isinstance(module, _NORM):
        values = {
            "weight": 1.0,
            "bias": 0.0,
            "running_mean": 0.0,
            "running_var": 1.0,
            "num_batches_tracked": 0.0,
        }
        return {name: Law("constant", value) for name, value in values.items()}
    return {}


def initialise(model: nn.Module, laws: Laws, seed: int) -> None:
    """Set a model's tensors to draws from their laws; each draw depends on seed and tensor name only."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in laws:
                tensor.copy_(laws[name].sample(tensor, rng.generator(seed, "initialise", name)))
