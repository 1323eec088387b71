"""The promise that the user's model is never changed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_REGISTRIES = ("_parameters", "_buffers", "_modules")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards, also when something was raised, the mode and attributes of every module and the
    global random states are what they were. Values and gradients are not touched inside: see `Subject`."""
    before = [(module, _Kept(module)) for module in model.modules()]
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


class _Kept:
    """What a module's forward may write to beside its values: its mode, what is registered with it, its attributes, and
    the content of those that are tensors, lists, dictionaries or sets."""

    def __init__(self, module: nn.Module) -> None:
        inside = vars(module)
        self._attributes = dict(inside)
        self._registered = {name: dict(inside[name]) for name in _REGISTRIES}
        own = {name: value for name, value in inside.items() if not name.startswith("_")}
        self._tensors = {name: value.detach().clone() for name, value in own.items() if isinstance(value, Tensor)}
        self._collections = {name: value.copy() for name, value in own.items() if type(value) in (list, dict, set)}

    def restore(self, module: nn.Module) -> None:
        inside = vars(module)
        inside.clear()
        inside.update(self._attributes)
        for name, registered in self._registered.items():
            _refill(inside[name], registered)
        for name, content in self._collections.items():
            _refill(inside[name], content)
        with torch.no_grad():
            for name, content in self._tensors.items():
                if not _same(inside[name], content):
                    inside[name].copy_(content)


def _refill(collection: Any, content: Any) -> None:
    if not _identical(collection, content):
        collection.clear()
        collection.extend(content) if isinstance(collection, list) else collection.update(content)


def _identical(a: Any, b: Any) -> bool:
    """Whether two collections hold the same objects in the same order; tensors among them do not compare as one."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(a[key] is b[key] for key in a)
    return a == b if isinstance(a, set) else len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())  # a NaN is the same as a NaN
