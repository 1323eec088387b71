"""A layer as the linear map that it is: weights, and where they are applied to an input of one size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.errors import UseError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
APPLY = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
MODES = ("zeros", "circular")


class Bracket(NamedTuple):
    """A value is between `low` and `high`, but for rounding; `risk` is the probability that `high` is too small."""

    low: float
    high: float
    risk: float = 0.0


@dataclass(frozen=True, eq=False)
class Operator:
    """A convolution without its bias, on inputs `[inputs, *size]`; a linear layer is one with a kernel of 1 on a size of 1.

    `weight` is `[outputs, inputs / groups, *kernel]`, in float64 on the CPU. `padding` has the entries before and after each
    axis; `mode` says what they are: zeros, or circular (the other end of the input).
    """

    weight: Tensor
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    mode: str = "zeros"

    @classmethod
    def of(cls, module: nn.Module, size: tuple[int, ...] = ()) -> "Operator":
        """The linear map of a module: of a linear layer; of a convolution on inputs of `size`, such as (32, 32); of a
        transposed convolution its adjoint, a convolution that has the same singular values.

        Raises `UseError` for other modules and padding modes, and where the size does not fit.
        """
        if isinstance(module, nn.Linear):
            return cls(_values(module.weight)[:, :, None], (1,), (1,), (1,), ((0, 0),))
        if not isinstance(module, Convolution | Transposed):
            raise UseError(
                f"a {type(module).__name__} is no linear layer or convolution, so that it is no one linear map"
            )
        axes = len(module.kernel_size)
        if len(size) != axes or min(size) < 1:
            raise UseError(f"{module} needs the size of its inputs, {axes} positive numbers, not {list(size)}")
        if module.padding_mode not in MODES:
            raise UseError(f"padding mode {module.padding_mode!r} is not handled; it must be one of {', '.join(MODES)}")
        reach = tuple(d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        padding = _padding(module.padding, reach)
        if isinstance(module, Transposed):
            size = _of_outputs(module, size, reach, padding)
        return cls(
            _values(module.weight),
            size,
            tuple(module.stride),
            tuple(module.dilation),
            padding,
            module.groups,
            module.padding_mode,
        )

    def __post_init__(self) -> None:
        if min(self.outputs) < 1:
            raise UseError(f"a kernel of {list(self.kernel)} does not fit on inputs of size {list(self.size)}")
        if self.mode == "circular" and any(max(pad) > n for pad, n in zip(self.padding, self.size, strict=True)):
            raise UseError(f"padding {list(self.padding)} goes round inputs of size {list(self.size)} more than once")

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def reach(self) -> tuple[int, ...]:
        """Of each axis, how far the last entry of the kernel is from the first."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.weight.shape[1] * self.groups, *self.size)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of one output."""
        axes = zip(self.size, self.padding, self.reach, self.stride, strict=True)
        return (self.weight.shape[0], *((n + sum(pad) - reach - 1) // s + 1 for n, pad, reach, s in axes))

    def apply(self, x: Tensor) -> Tensor:
        """Outputs `[batch, *outputs]` of inputs `[batch, *inputs]`."""
        ends = [end for pad in reversed(self.padding) for end in pad]
        x = functional.pad(x, ends, mode="constant" if self.mode == "zeros" else "circular")
        apply = APPLY[len(self.size)]
        return apply(x, self.weight, stride=self.stride, dilation=self.dilation, groups=self.groups)

    @cached_property
    def adjoint(self) -> Callable[[Tensor], Tensor]:
        """The transposed map: `[1, *inputs]` of `[1, *outputs]`."""
        back = torch.func.vjp(self.apply, self.weight.new_zeros(1, *self.inputs))[1]
        return lambda y: back(y)[0]


def dense(operator: Operator) -> Tensor:
    """The matrix of an operator `[outputs, inputs]`, column by column: it grows with the fourth power of a picture's side."""
    n = prod(operator.inputs)
    basis = torch.eye(n, dtype=operator.weight.dtype, device=operator.weight.device)
    return operator.apply(basis.reshape(n, *operator.inputs)).reshape(n, -1).mT


def frobenius(operator: Operator) -> float:
    """The 2-norm of all entries of an operator's matrix, in which an entry of a kernel is as often as it meets an input.

    Raises `UseError` where windows go round in circles and reach further than the input: then entries of a kernel meet.
    """
    if operator.mode == "circular" and any(r >= n for r, n in zip(operator.reach, operator.size, strict=True)):
        raise UseError(f"a kernel that reaches {list(operator.reach)} goes round inputs of size {list(operator.size)}")
    squares = replace(operator, weight=operator.weight.square())
    return float(squares.apply(operator.weight.new_ones(1, *operator.inputs)).sum().sqrt())


def _values(weight: Tensor) -> Tensor:
    if not weight.is_floating_point():
        raise UseError(f"weights must be real numbers with a fraction, not {weight.dtype}")
    return weight.detach().double().cpu()


def _padding(given: str | tuple[int, ...], reach: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if given == "same":
        return tuple((r // 2, r - r // 2) for r in reach)
    return tuple((p, p) for p in ((0,) * len(reach) if isinstance(given, str) else given))


def _of_outputs(
    module: Transposed, size: tuple[int, ...], reach: tuple[int, ...], padding: tuple[tuple[int, int], ...]
) -> tuple[int, ...]:
    """The size of a transposed convolution's outputs."""
    more = module.output_padding
    if any(m >= s for m, s in zip(more, module.stride, strict=True)):
        raise UseError(f"output padding {list(more)} must be less than the stride {list(module.stride)}")
    axes = zip(size, module.stride, padding, reach, more, strict=True)
    return tuple((n - 1) * s - sum(p) + r + m + 1 for n, s, p, r, m in axes)
