"""Laws that the tensors of a network can be drawn from at the start."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

ENOUGH = 1 << 20
"""Entries that are looked at to tell one law from another: of many more than that a part will do."""

Address = Callable[[str], torch.Generator]
"""Tensor name -> the generator of its draw."""


@runtime_checkable
class AnyLaw(Protocol):
    """How one tensor is drawn. `computed` says that it is not drawn, but follows from the draw of another tensor."""

    computed: ClassVar[bool]

    def draw(self, name: str, like: Tensor, address: Address) -> Tensor:
        """The tensor of this name, of the shape and dtype of `like`, which needs no values (it may be on `meta`)."""
        ...


_SHAPES = {
    "normal": (math.inf, 1.0, math.sqrt(2)),
    "truncated": (2.0, 0.879626, 1.168562),
    "uniform": (1.0, 1 / math.sqrt(3), math.sqrt(0.8)),
}
"""Kind of a law -> farthest value and standard deviation in units of its scale, and the standard deviation of the squares in
units of the variance."""


@dataclass(frozen=True)
class Law:
    """The law of one tensor with independent entries: normal (`scale` is the standard deviation), truncated (the same normal
    law, cut at `centre` +- 2 `scale`: its own standard deviation is 0.88 `scale`), uniform (on `centre` - `scale` ..
    `centre` + `scale`) or constant (all entries equal `scale`).

    `zero` is an index along the first axis whose entries are 0 (the padding row of an embedding). `fitted` says that
    nobody stated the law: its moments are those of the values at the start.
    """

    computed: ClassVar[bool] = False
    kind: Literal["normal", "truncated", "uniform", "constant"]
    scale: float
    centre: float = 0.0
    zero: int | None = None
    fitted: bool = False

    def __str__(self) -> str:
        text = f"constant {self.scale:g}" if self.kind == "constant" else f"{self.kind} of scale {self.scale:g}"
        text += f" around {self.centre:g}" if self.centre else ""
        text += f", row {self.zero} zero" if self.zero is not None else ""
        return f"fitted to the start: {text}" if self.fitted else text

    def draw(self, name: str, like: Tensor, address: Address) -> Tensor:
        return self.sample(like, address(name))

    def sample(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of the shape and dtype of `like`; always drawn in float32 on the CPU, so that it is the same anywhere."""
        if self.kind == "constant":
            return torch.full(like.shape, self.scale, dtype=like.dtype)
        values = torch.empty(like.shape, dtype=torch.float32)
        if self.kind == "normal":
            values.normal_(self.centre, self.scale, generator=generator)
        elif self.kind == "truncated":
            low, high = self.centre - 2 * self.scale, self.centre + 2 * self.scale
            nn.init.trunc_normal_(values, self.centre, self.scale, low, high, generator=generator)
        else:
            values.uniform_(self.centre - self.scale, self.centre + self.scale, generator=generator)
        if self.zero is not None:
            values[self.zero] = 0.0
        return values.to(like.dtype)

    def could_give(self, values: Tensor) -> bool:
        """Whether values may be a draw: False only if their range, mean or mean square could not come from this law, at
        six standard errors. What nobody can tell from a few values passes."""
        if self.kind == "constant":
            return bool((values == self.scale).all())
        entries = _entries(values, self.zero) - self.centre
        n, rounding = entries.numel(), torch.finfo(values.dtype).eps
        if not n:
            return True
        reach, of_scale, spread = _SHAPES[self.kind]
        wide = float(entries.abs().max()) > self.scale * reach * (1 + rounding)
        sigma = self.scale * of_scale
        off_centre = abs(float(entries.mean())) > 6 * sigma / math.sqrt(n)
        square = float(entries.square().mean()) / sigma**2 if sigma else math.inf
        return not (wide or off_centre or abs(square - 1) > 6 * spread / math.sqrt(n) + rounding)


@dataclass(frozen=True)
class Magnitude:
    """Weight norm's magnitudes: the norms of the direction that is drawn under the name `direction`.

    Source: torch.nn.utils.parametrizations.weight_norm, which sets g = ||v|| when it is put on a module.
    """

    computed: ClassVar[bool] = True
    direction: str
    law: Law
    shape: tuple[int, ...]
    dim: int

    def __str__(self) -> str:
        return f"the norms of {self.direction}"

    def draw(self, name: str, like: Tensor, address: Address) -> Tensor:
        direction = self.law.sample(torch.empty(self.shape), address(self.direction))
        return torch.norm_except_dim(direction, 2, self.dim).to(like.dtype)


@dataclass(frozen=True)
class Singular:
    """Spectral norm's vectors: the leading singular vectors (`left` or right) of the weight drawn under the name `weight`.

    PyTorch starts them with 15 steps of power iteration; these are what such steps converge to.
    """

    computed: ClassVar[bool] = True
    weight: str
    law: Law
    shape: tuple[int, ...]
    dim: int
    left: bool

    def __str__(self) -> str:
        return f"leading singular vector of {self.weight}"

    def draw(self, name: str, like: Tensor, address: Address) -> Tensor:
        return self.of(self.law.sample(torch.empty(self.shape), address(self.weight))).to(like.dtype)

    def of(self, weight: Tensor) -> Tensor:
        """The vector of a weight, in float32."""
        weight = weight.float()
        u, _, v = torch.linalg.svd(weight.movedim(self.dim, 0).flatten(1), full_matrices=False)
        sign = torch.sign(u[:, 0].sum()) or 1.0  # the pair has a sign of its own: fixed, so that u and v agree
        return (u[:, 0] if self.left else v[0]) * sign


Laws = Mapping[str, AnyLaw]
"""Tensor name -> its initial law."""


def fitted(values: Tensor, zero: int | None = None) -> Law:
    """The law whose moments are those of the values at the start: constant where they are all equal, uniform where their
    kurtosis is nearer to that of a uniform law (1.8) than of a normal one (3), else normal."""
    entries = _entries(values, zero)
    if not entries.numel() or bool((entries == entries[0]).all()):
        return Law("constant", float(entries[0]) if entries.numel() else 0.0, fitted=True)
    n, mean, std = entries.numel(), float(entries.mean()), float(entries.std(correction=0))
    centre = mean if abs(mean) > 4 * std / math.sqrt(n) else 0.0
    centred = entries - centre
    if float(centred.pow(4).mean()) / std**4 < 2.1:
        return Law("uniform", float(centred.abs().max()) * (n + 1) / n, centre, zero, True)
    return Law("normal", float(centred.square().mean().sqrt()), centre, zero, True)


def _entries(values: Tensor, zero: int | None) -> Tensor:
    """All entries in one row, or of very many some, evenly spaced; without those that are zero by law."""
    if zero is not None:
        kept = torch.arange(len(values)) != zero % len(values)
        values = values[kept.to(values.device)]
    values = values.reshape(-1)
    return values[:: -(-values.numel() // ENOUGH) or 1].double()
