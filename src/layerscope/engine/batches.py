"""How a batch becomes inputs, outputs and targets, where the user does not say."""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
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
    first = next(chain(network.parameters(), network.buffers()), None)  # all are on one device: see `device_of`
    batch = batch if first is None else moved(batch, first.device)
    if isinstance(batch, Mapping):
        key = _label_key(batch)
        named = {name: value for name, value in batch.items() if name != key}
        return logits_of(network(**named, **_decoded(network, named, None if key is None else batch[key])))
    inputs = _pair(batch)[0] if isinstance(batch, tuple | list) else batch
    if isinstance(inputs, Mapping):
        return logits_of(network(**inputs))
    return logits_of(network(*inputs) if isinstance(inputs, tuple | list) else network(inputs))


def _decoded(network: nn.Module, named: Mapping[str, Any], labels: Any) -> dict[str, Any]:
    """What the decoder of an encoder-decoder is given, which such models make of the labels: without it some would decode
    their inputs instead."""
    if not getattr(getattr(network, "config", None), "is_encoder_decoder", False):
        return {}
    if any(name.startswith("decoder_input") for name in named):
        return {}
    shifted = getattr(network, "prepare_decoder_input_ids_from_labels", None)
    if shifted is None or labels is None:
        raise UseError(
            "the model is an encoder-decoder, and its batches have no decoder_input_ids; put them in, or say what to do with "
            "forward=lambda model, batch: model(input_ids=..., decoder_input_ids=...).logits"
        )
    return {"decoder_input_ids": shifted(labels=labels)}


def copied(value: Any) -> Any:
    """The same structure with tensors of its own."""
    return with_each(value, lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf))


def samples_in(batch: Any) -> int:
    """How many samples a batch has: the length of its first tensor."""
    return next((len(leaf) for leaf in leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim), 1)


def samples_of(batches: Iterable[Any] | None) -> int:
    """How many samples there are; goes through all of them."""
    return sum(map(samples_in, batches or ()))


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
    return with_each(value, lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)


def with_each(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure of mappings, tuples and lists with what `change` gives for everything in it."""
    if isinstance(value, Mapping):
        return {name: with_each(inner, change) for name, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_each(inner, change) for inner in value))
    return type(value)(with_each(inner, change) for inner in value) if type(value) in (tuple, list) else change(value)


@dataclass(frozen=True)
class First:
    """The first batches of data, until there are as many samples as wanted; in the data's own order."""

    batches: Iterable[Any]
    samples: int

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in self.batches:
            if seen >= self.samples:
                return
            seen += samples_in(batch)
            yield batch


def leaves(value: Any) -> Iterator[Any]:
    """All tensors and plain values in a structure, in order, with the names under which mappings and objects have them."""
    if isinstance(value, Mapping):
        for name in value:
            yield name
            yield from leaves(value[name])
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from leaves(inner)
    elif hasattr(value, "__dict__") and not isinstance(value, Tensor | np.ndarray | type | nn.Module):
        yield from leaves(vars(value))
    else:
        yield value


def mark(value: Any, at_most: int | None = None) -> tuple[Any, ...]:
    """A small thing that differs where two structures differ: shapes, and a checksum of the values (of `at_most` of each
    tensor's, evenly spaced)."""
    return tuple(_mark(leaf, at_most) for leaf in leaves(value))


def _mark(leaf: Any, at_most: int | None) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf.shape, str(leaf.dtype), zlib.crc32(np.ascontiguousarray(leaf).tobytes())
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
