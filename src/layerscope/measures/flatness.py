"""How far the values of a network can go until something happens."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from layerscope.state import State

Slope = Callable[[State], tuple[float, Mapping[str, Tensor]]]
"""Values -> a loss, and its gradients."""


def between(holds: Callable[[float], bool], low: float, high: float, ratio: float = 1.02) -> tuple[float, float]:
    """Two numbers a factor of at most `ratio` apart, of which something holds at the first and not at the second, by bisection
    of logarithms between `low` and `high`; (0, low) where it does not hold at `low`, (high, inf) where it holds at `high`.

    Which numbers are asked depends on the answers alone.
    """
    if holds(high):
        return high, math.inf
    if not holds(low):
        return 0.0, low
    while high > low * ratio:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def climbs(centre: State, slope: Slope, radius: float, steps: int, enough: float) -> bool:
    """Whether ascent finds values with a loss of at least `enough`, no further from the centre than `radius` times the 2-norm
    of each tensor, in each tensor's 2-norm.

    Each of `steps` steps goes 2.5 / steps of the way to the border, along the gradient of each tensor, and back to the border
    if it is crossed. What it does not find may be there all the same.
    Source: Madry et al., Towards deep learning models resistant to adversarial attacks, 2018 (projected gradient).
    """
    far = {name: radius * float(tensor.double().norm()) for name, tensor in centre.items()}
    moved = {name: torch.zeros_like(tensor) for name, tensor in centre.items()}
    for left in range(steps, -1, -1):
        loss, gradients = slope({name: tensor + moved[name] for name, tensor in centre.items()})
        if loss >= enough or not math.isfinite(loss):
            return True
        if left:
            for name, gradient in gradients.items():
                length = float(gradient.double().norm())
                if length > 0 and math.isfinite(length):
                    step = moved[name] + gradient * (2.5 / steps * far[name] / length)
                    size = float(step.double().norm())
                    moved[name] = step * (far[name] / size) if size > far[name] else step
    return False
