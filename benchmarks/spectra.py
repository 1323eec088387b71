"""G5: all singular values of convolutions, and the largest alone, against NumPy's fft2 and svd, both in float64."""

from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.frame import Result, ratio
from layerscope.measures.circular import largest_circular, singular_values
from layerscope.measures.lanczos import largest
from layerscope.measures.operator import Operator

LAYERS = [(32, 32, 32), (64, 64, 32), (32, 64, 16), (128, 128, 8)]
"""Inputs, outputs and the side of the picture: layers of a ResNet18 of half and full width for CIFAR-10."""


def run() -> list[Result]:
    results = []
    for inputs, outputs, side in LAYERS:
        torch.manual_seed(0)
        operator = Operator.of(nn.Conv2d(inputs, outputs, 3, padding=1), (side, side))
        kernel = np.ascontiguousarray(operator.weight.permute(2, 3, 0, 1).numpy())
        numpy = partial(by_numpy, kernel, side)
        name = f"3 x 3, {inputs} to {outputs} channels, {side} x {side}, circular"
        ours, theirs, share = ratio(partial(singular_values, operator), numpy)
        true = np.sort(numpy().ravel())[::-1]
        wrong = float(np.abs(singular_values(operator).numpy() - true).max() / true[0])
        what = f"{ours * 1e3:.0f} ms, {1 / share:.1f}x; off by {wrong:.0e} of the largest"
        against = f"NumPy {theirs * 1e3:.0f} ms"
        results.append(Result(f"spectrum of {name}", what, against, ">= 4x, 1e-5", share <= 1 / 4 and wrong < 1e-5))
        ours, theirs, share = ratio(partial(largest_circular, operator), numpy)
        low, high, _ = largest_circular(operator)
        held = low * (1 - 1e-12) <= true[0] <= high <= 1.0011 * low
        what = f"{ours * 1e3:.1f} ms, {1 / share:.1f}x; within 0.1 %: {'yes' if held else 'no'}"
        against = f"NumPy {theirs * 1e3:.0f} ms"
        results.append(Result(f"largest of {name}", what, against, ">= 30x, 0.1 %", share <= 1 / 30 and held))
    operator = Operator.of(nn.Conv2d(32, 32, 3, padding=1), (32, 32))
    ours, theirs, share = ratio(partial(largest, operator), partial(largest_circular, operator))
    low, high, _ = largest(operator)
    what, against = f"{ours * 1e3:.0f} ms, {share:.0f}x as long", f"circular {theirs * 1e3:.0f} ms"
    name = "largest of 3 x 3, 32 to 32 channels, 32 x 32, zero padding"
    results.append(Result(name, what, against, "0.1 %", high <= 1.0011 * low))
    return results


def by_numpy(kernel: np.ndarray, side: int) -> np.ndarray:
    return np.linalg.svd(np.fft.fft2(kernel, (side, side), axes=(0, 1)), compute_uv=False)
