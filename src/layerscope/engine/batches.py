"""How a batch becomes inputs, outputs and targets, where the user does not say."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.state import dense

Forward = Callable[[nn.Module, Any], Any]
"""(the network, a batch) -> its outputs."""
Targets = Callable[[Any], Any]
"""A batch -> its targets."""

LABELS = ("labels", "label", "targets", "target")
"""Keys under which a batch that is a mapping may hold its targets."""


def outputs_of(network: nn.Module, batch: Any) -> Any:
    """The outputs for a batch: of `(inputs, targets)`, of a mapping (all but its labels), or of inputs alone.

    Inputs that are a tuple or list are passed one by one, those that are a mapping by name. Tensors are moved to the
    network's device. Of what comes back a tensor is taken as it is, else `logits`, else the first of a tuple, else the
    only value of a mapping.
    """
    batch = moved(batch, device_of(network))
    if isinstance(batch, Mapping):
        key = _label_key(batch)
        return logits_of(network(**{name: value for name, value in batch.items() if name != key}))
    inputs = _pair(batch)[0] if isinstance(batch, tuple | list) else batch
    if isinstance(inputs, Mapping):
        return logits_of(network(**inputs))
    return logits_of(network(*inputs) if isinstance(inputs, tuple | list) else network(inputs))


def targets_of(batch: Any) -> Any:
    """The targets of a batch: the second of `(inputs, targets)`, the labels of a mapping, or none."""
    if isinstance(batch, Mapping):
        key = _label_key(batch)
        return None if key is None else batch[key]
    return _pair(batch)[1] if isinstance(batch, tuple | list) else None


def logits_of(found: Any) -> Any:
    """What metrics are given of what a network returned."""
    if isinstance(found, Tensor):
        return found
    if isinstance(found, Mapping):
        if "logits" in found:
            return found["logits"]
        if len(found) == 1:
            return next(iter(found.values()))
        raise UseError(f"the network returns {', '.join(map(str, found))}; say which one is meant with forward=")
    if (logits := getattr(found, "logits", None)) is not None:
        return logits
    if isinstance(found, tuple | list) and found:
        return logits_of(found[0])
    return found


def moved(value: Any, device: torch.device) -> Any:
    """The same structure with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: moved(inner, device) for name, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(inner, device) for inner in value))
    return type(value)(moved(inner, device) for inner in value) if type(value) in (tuple, list) else value


def device_of(network: nn.Module) -> torch.device:
    """The one device of a network; an error if it lies on several, or its values are nowhere."""
    named = [*network.named_parameters(), *network.named_buffers()]
    devices = {tensor.device: name for name, tensor in named}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise UseError(f"the model lies on several devices ({places}); move it to one with model.to(...)")
    device = next(iter(devices), torch.device("cpu"))
    if device.type == "meta":
        raise UseError("the model's tensors have no values (device meta); make it on a real device")
    return device


def leaves(value: Any) -> Iterator[Any]:
    """All tensors and plain values in a structure, in order."""
    if isinstance(value, Mapping):
        for name in value:
            yield from leaves(value[name])
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from leaves(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from leaves(getattr(value, field.name))
    else:
        yield value


def mark(value: Any, at_most: int | None = None) -> tuple[Any, ...]:
    """A small thing that differs where two structures differ: shapes, and a checksum of the values (of `at_most` of each
    tensor's, evenly spaced)."""
    return tuple(_mark(leaf, at_most) for leaf in leaves(value))


def _mark(leaf: Any, at_most: int | None) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = torch.from_numpy(leaf)
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    flat = dense(leaf.detach()).reshape(-1)
    if at_most is not None and flat.numel() > at_most:
        flat = flat[:: -(-flat.numel() // at_most)]
    plain = flat.cpu().contiguous().view(torch.uint8).numpy()
    return tuple(leaf.shape), str(leaf.dtype), zlib.crc32(plain.data)


def _label_key(batch: Mapping[str, Any]) -> str | None:
    return next((key for key in LABELS if key in batch), None)


def _pair(batch: Any) -> Any:
    if len(batch) != 2:
        raise UseError(
            f"a batch is a {type(batch).__name__} of {len(batch)}; only (inputs, targets) is understood without help: say "
            "what to do with it, as in forward=lambda model, batch: model(batch[0]), targets=lambda batch: batch[1]"
        )
    return batch
