"""What outputs and targets of a classification must look like."""

from typing import Any

import torch
from torch import Tensor

from layerscope.errors import UseError


def check_classes(outputs: Any, targets: Any, name: str) -> None:
    """Refuse outputs that are not a number a class, `[n, classes, ...]`, and targets that are not class numbers `[n, ...]`."""
    check_tensors(outputs, targets, name)
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise UseError(f"{name} needs targets that are class numbers (integers), not {targets.dtype}")
    if outputs.ndim < 2 or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise UseError(
            f"{name} needs outputs [n, classes, ...] and targets [n, ...], but outputs are {list(outputs.shape)} and "
            f"targets {list(targets.shape)}; say what they are with forward= and targets=, or take another metric"
        )
    check_labels(targets, outputs.shape[1], name)


def check_tensors(outputs: Any, targets: Any, name: str) -> None:
    for what, value in (("outputs", outputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise UseError(
                f"{name} needs {what} that are a tensor, not {'none' if value is None else type(value).__name__}; "
                f"say what they are with {'forward' if what == 'outputs' else 'targets'}="
            )


def check_labels(targets: Tensor, classes: int, name: str) -> None:
    """Refuse a label that is not one of 0 to classes - 1; the error names the first."""
    wrong = ((targets < 0) | (targets >= classes)).nonzero()
    if len(wrong):
        at = wrong[0].tolist()
        raise UseError(
            f"{name}: label {int(targets[tuple(at)])} (at {at} of the batch's targets) is not one of 0 to {classes - 1}, "
            f"the classes that the network has outputs for"
        )


def a_sample(values: Tensor) -> Tensor:
    """Values `[n]` as they are; of `[n, ...]`, such as one a pixel, the mean of each sample."""
    return values if values.ndim == 1 else values.flatten(1).double().mean(1)


def wide(outputs: Tensor) -> Tensor:
    """Outputs of half precision as float32, so that what is computed from them does not overflow."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
