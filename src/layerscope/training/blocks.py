"""Which members of a population are trained as one stack."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.data import DataSet, load
from layerscope.models import build
from layerscope.training.spec import TrainSpec
from layerscope.training.stack import why_not, work_of
from layerscope.training.stacked import OUTPUTS

MEMBERS = 128
"""At most so many in a stack."""
VALUES = 4_000_000
"""At most so many values in a stack: beyond, they and their momentum no longer stay near the processor."""
PRODUCTS = 60_000_000
"""A network with more multiplications in the forward of a step is trained alone: its own products keep two processors busy."""


@dataclass(frozen=True)
class Block:
    """Members (by place) that are trained as one stack; or one member, with the reason `why` it is trained alone. `work`
    says about how long it takes, beside other blocks: values times samples, at most. The longest is better not the last. `nbytes`
    is the memory that values, gradients, optimiser and outputs of a stack take."""

    members: tuple[int, ...]
    why: str = ""
    work: int = 0
    nbytes: int = 0


def blocks_of(specs: Sequence[TrainSpec], data_dir: str | Path | None = None) -> list[Block]:
    """The members in blocks, each block one unit of work. It depends on specs and data alone.

    A stack is of one form and setting: its members differ in the seed and in the data, whose splits are of equal sizes.
    """
    return blocks_of_sets(specs, loaded([spec.data for spec in specs], data_dir))


def blocks_of_sets(specs: Sequence[TrainSpec], sets: Mapping[str, DataSet]) -> list[Block]:
    """The same, of data sets that are in memory already."""
    alike: dict[Any, list[int]] = {}
    for i, spec in enumerate(specs):
        alike.setdefault(_key(spec, sets[spec.data]), []).append(i)
    return [block for members in alike.values() for block in _split(members, specs, sets)]


def loaded(names: Sequence[str], data_dir: str | Path | None) -> dict[str, DataSet]:
    """Each data set once; equal inputs, as of sets that differ in label noise, are held in memory once."""
    found: dict[str, DataSet] = {}
    for name in dict.fromkeys(names):
        data = load(name, data_dir)
        for there in found.values():
            data = _sharing(data, there)
        found[name] = data
    return found


def _sharing(data: DataSet, there: DataSet) -> DataSet:
    """The data set with the inputs of another in place of its own, where they are equal."""
    changed = {
        name: dataclasses.replace(split, source=there.splits[name].source)
        for name, split in data.splits.items()
        if name in there.splits and _equal(split.held, there.splits[name].held)
    }
    return dataclasses.replace(data, **changed)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def _key(spec: TrainSpec, data: DataSet) -> Any:
    """Members with the same may be in one stack."""
    form = dataclasses.replace(spec, seed=0, data="")
    sizes = tuple((name, len(split), split.shape) for name, split in data.splits.items())
    return form, data.classes, sizes


def _split(members: Sequence[int], specs: Sequence[TrainSpec], sets: Mapping[str, DataSet]) -> list[Block]:
    spec, data = specs[members[0]], sets[specs[members[0]].data]
    with torch.device("meta"):
        form = build(spec.model, data.input_shape, data.classes)
    work = sum(parameter.numel() for parameter in form.parameters()) * len(data.train) * spec.epochs
    if why := _alone(spec, data, form) or ("" if len(members) > 1 else "no other member is of its form and setting"):
        return [Block((i,), why, work) for i in members]
    size, outputs, _ = work_of(form, data.input_shape, _batch(spec, data))
    most = max(2, min(MEMBERS, VALUES // size, OUTPUTS // outputs))
    # Those that see the same inputs side by side, in blocks of about equal size.
    members = sorted(members, key=lambda i: (specs[i].seed, i))
    each = math.ceil(len(members) / math.ceil(len(members) / most))
    cut = [tuple(sorted(members[at : at + each])) for at in range(0, len(members), each)]
    held = 4 * (5 * size + 2 * outputs)
    return [Block(some, "" if len(some) > 1 else "it is left over", work * len(some), held * len(some)) for some in cut]


def _alone(spec: TrainSpec, data: DataSet, form: nn.Module) -> str:
    """Why members of this form and setting are trained one by one; nothing if they are stacked."""
    if spec.augment != "none":
        return f"its inputs are changed at random (augment={spec.augment})"
    if spec.precision != "float32":
        return f"its precision is {spec.precision}"
    if any(split.held is None for split in data.splits.values()):
        return "its inputs are not in memory"
    if why := why_not(form):
        return why
    _, _, products = work_of(form, data.input_shape, _batch(spec, data))
    if products <= PRODUCTS:
        return ""
    return f"a step takes {products / 1e6:,.0f} million multiplications, and stacks pay below {PRODUCTS / 1e6:,.0f}"


def _batch(spec: TrainSpec, data: DataSet) -> int:
    return min(spec.batch_size, len(data.train))
