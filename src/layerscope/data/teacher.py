"""Random inputs that a random network labels: `teacher:10`, data without any structure but that of their labels.

Source: casper2019, Sec. 3 "Datasets" and App. A "MLPs".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerscope import rng
from layerscope.data.raw import Raw, Ready, check_memory
from layerscope.errors import UseError
from layerscope.query import whole_number
from layerscope.state import content_hash

FORM = "teacher"
OPTIONS = ("hidden", "std")
SAMPLES = 1000
"""Of each split, where nothing else is asked for; the paper's number."""
MOST = 999_999_999
SHARES = (0.4, 0.6)
"""Between which shares of random inputs a teacher must give each of its two labels."""
TEACHERS = 1000
MEASURED = 10_000
BLOCK = 1000
"""Inputs at a time: 10,000 of 10,000 dimensions would take 400 MB."""


@dataclass(frozen=True)
class Teacher:
    """A network of one hidden layer with ReLU and two outputs: weights and biases `[hidden, d]`, `[hidden]`, `[2, hidden]`,
    `[2]`."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor]

    @classmethod
    def drawn(cls, d: int, hidden: int, std: float, seed: int, draw: int) -> "Teacher":
        """All values normal with mean 0 and the same standard deviation."""
        shapes = {"hidden.weight": (hidden, d), "hidden.bias": (hidden,), "out.weight": (2, hidden), "out.bias": (2,)}
        drawn = (
            torch.randn(shape, generator=rng.generator(seed, "teacher", name, draw)) * std
            for name, shape in shapes.items()
        )
        weight, bias, out_weight, out_bias = (tensor.double() for tensor in drawn)
        return cls((weight, bias, out_weight, out_bias))

    def labels(self, inputs: Tensor) -> Tensor:
        """0 or 1 for each input of `[n, d]`; in float64, so that no machine's rounding decides."""
        weight, bias, out_weight, out_bias = self.tensors
        blocks = (torch.relu(x.double() @ weight.T + bias) @ out_weight.T + out_bias for x in inputs.split(BLOCK))
        return torch.cat([outputs.argmax(1) for outputs in blocks])


def read(place: str, options: Mapping[str, str], root: Path | None) -> Raw:
    """Standard normal inputs `[n, D]` (float32) and the labels `[n]` (0 or 1) that a teacher gives them.

    `place` is D. `n_train`, `n_test` (1,000 each) and `n_validation` (none) samples are drawn; `hidden` is the width of the
    teacher: 32, that of the smallest student; `std` the standard deviation of its weights and biases. The teacher is drawn
    again until it gives each label to 40 to 60 % of 10,000 other inputs; which draw it was, and the share, is recorded.
    Raises `UseError` if none of 1,000 teachers does.

    Differs from the paper (casper2019, Sec. 3): it does not state the teacher's standard deviation; 1 is our choice. But for
    the biases it changes no label.
    """
    if not place:
        raise UseError(f"{FORM} needs the number of dimensions of the inputs: {FORM}:10")
    d = whole_number(FORM, "D", place, MOST)
    hidden = whole_number(FORM, "hidden", options.get("hidden", "32"), MOST)
    std, seed = _std(options.get("std", "1.0")), int(options.get("seed", "0"))
    sizes = {
        "train": _number(options, "n_train") + _number(options, "n_validation", 0),
        "test": _number(options, "n_test"),
    }
    values = sum(sizes.values()) + 3 * hidden + 3 * BLOCK  # the teacher and a block of inputs, in both precisions
    check_memory(f"{FORM}:{place}", values, d, "samples", "Use fewer samples or dimensions, or a narrower teacher")
    teacher, draw, share = _found(d, hidden, std, seed)
    train, test = (_labelled(teacher, split, n, d, seed) for split, n in sizes.items())
    about = {"hidden": hidden, "std": std, "draw": draw, "share_of_label_1": share, "measured_on": MEASURED}
    content = content_hash({"train.0": train[0], "train.1": train[1], "test.0": test[0], "test.1": test[1]})
    return Raw(train, test, classes=2, ready=Ready(0.0, 1.0, content, {"seed": seed, "teacher": about}))


def _found(d: int, hidden: int, std: float, seed: int) -> tuple[Teacher, int, float]:
    """The first teacher whose labels are balanced, the index of its draw, and its share of label 1."""
    for draw in range(TEACHERS):
        teacher = Teacher.drawn(d, hidden, std, seed, draw)
        share = _share(teacher, d, seed)
        if SHARES[0] <= share <= SHARES[1]:
            return teacher, draw, share
    raise UseError(
        f"{FORM}:{d}: none of {TEACHERS} teachers gives each label to {SHARES[0]:.0%} to {SHARES[1]:.0%} of random inputs; "
        f"try another seed, or a wider teacher than hidden={hidden}"
    )


def _share(teacher: Teacher, d: int, seed: int) -> float:
    """How many of 10,000 inputs that are in no split get label 1."""
    ones = sum(
        int(teacher.labels(_inputs(BLOCK, d, seed, "measured", block)).sum()) for block in range(MEASURED // BLOCK)
    )
    return ones / MEASURED


def _labelled(teacher: Teacher, split: str, n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    inputs = _inputs(n, d, seed, split)
    return inputs, teacher.labels(inputs)


def _inputs(n: int, d: int, seed: int, name: str, draw: int = 0) -> Tensor:
    return torch.randn((n, d), generator=rng.generator(seed, "teacher inputs", name, draw))


def _number(options: Mapping[str, str], key: str, default: int = SAMPLES) -> int:
    return whole_number(FORM, key, options[key], MOST) if key in options else default


def _std(value: str) -> float:
    try:
        std = float(value)
    except ValueError:
        std = 0.0
    if not 0 < std <= 1e6:
        raise UseError(f"{FORM}: option std must be a number above 0, not {value!r}")
    return std
