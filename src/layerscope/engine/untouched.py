"""The promise that the user's model is never changed."""

import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards, also when something was raised, the mode and attributes of every module and the
    global random states are what they were. Values and gradients are not touched inside: see `Subject`."""
    before = [(module, Kept(module)) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            model.eval()
            yield
    finally:
        for module, kept in before:
            kept.restore(module)
        random.setstate(states[0])
        np.random.set_state(states[1])


FOLLOWING = ("_flat_weights", "_flat_weight_refs")
"""Attributes of recurrent modules that follow from their parameters."""


class Kept:
    """What a module's forward may write to beside its values: its attributes (mode and hooks are among them), the content
    of those that are tensors, and of all collections in them."""

    def __init__(self, module: nn.Module) -> None:
        inside = vars(module)
        self._attributes = dict(inside)
        self._tensors = [(value, value.detach().clone()) for value in inside.values() if isinstance(value, Tensor)]
        self._collections = [(found, found.copy()) for value in inside.values() for found in _collections(value)]

    def same(self, module: nn.Module) -> bool:
        """Whether nothing of it was changed, but for lists that PyTorch makes of the parameters whenever these are others."""
        lists = {id(vars(module).get(name)) for name in FOLLOWING} | {id(self._attributes.get(n)) for n in FOLLOWING}
        now, before = (
            {k: v for k, v in found.items() if k not in FOLLOWING} for found in (vars(module), self._attributes)
        )
        return (
            _identical(now, before)
            and all(_identical(found, content) for found, content in self._collections if id(found) not in lists)
            and all(_same(tensor, content) for tensor, content in self._tensors)
        )

    def restore(self, module: nn.Module) -> None:
        inside = vars(module)
        if not _identical(inside, self._attributes):
            inside.clear()
            inside.update(self._attributes)
        for collection, content in self._collections:
            _refill(collection, content)
        with torch.no_grad():
            for tensor, content in self._tensors:
                if not _same(tensor, content):
                    tensor.copy_(content)


def _collections(value: Any, depth: int = 4) -> Iterator[Any]:
    """A collection and those in it that may be refilled; modules and tensors are not looked into."""
    if isinstance(value, list | dict | set | deque):
        yield value
        if depth:
            for inner in list(value.values() if isinstance(value, dict) else value):
                yield from _collections(inner, depth - 1)


def _refill(collection: Any, content: Any) -> None:
    if not _identical(collection, content):
        collection.clear()
        collection.extend(content) if isinstance(collection, list | deque) else collection.update(content)


def _identical(a: Any, b: Any) -> bool:
    """Whether two collections hold the same objects in the same order; tensors among them do not compare as one."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(a[key] is b[key] for key in a)
    return a == b if isinstance(a, set) else len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())  # a NaN is the same as a NaN
