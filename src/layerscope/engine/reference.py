"""The slow, obvious engine: every variant, every batch, the whole network. Faster engines are compared with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.metrics import Metric, Observation
from layerscope.perturb import Patch, Variant, World, bind
from layerscope.step import FINAL

Forward = Callable[[Callable[..., Any], Any], Any]
"""(the network as a function, a batch) -> its outputs."""


def first_of_pair(network: Callable[..., Any], batch: Any) -> Any:
    """The outputs for a batch of (inputs, targets)."""
    return network(batch[0])


def second_of_pair(batch: Any) -> Any:
    """The targets of a batch of (inputs, targets)."""
    return batch[1]


def evaluate(
    model: nn.Module,
    world: World,
    variants: Sequence[Variant],
    data: Iterable[Any],
    metrics: Sequence[Metric[Any]],
    *,
    forward: Forward = first_of_pair,
    targets: Callable[[Any], Any] = second_of_pair,
) -> Iterator[list[dict[str, Any]]]:
    """For each variant, in the order asked, the rows of all metrics."""
    if iter(data) is data:
        raise UseError(
            "data can be gone through only once, but each variant needs it; pass a DataLoader or a list of batches"
        )
    final = world.trajectory[FINAL]
    with untouched(model), torch.inference_mode():
        network = bind(model, final, Patch())
        reference = [forward(network, batch) for batch in data]
    if not reference:
        raise UseError("data gives no batch")
    for variant in variants:
        with untouched(model), torch.inference_mode():
            network = bind(model, final, variant.patch(world))
            states = [metric.init() for metric in metrics]
            for batch, unmodified in zip(data, reference, strict=True):
                seen = Observation(targets(batch), forward(network, batch), unmodified)
                states = [metric.update(state, seen) for metric, state in zip(metrics, states, strict=True)]
        place = {"status": "ok", "engine": "reference", **variant.row(world)}
        yield [place | row for metric, state in zip(metrics, states, strict=True) for row in metric.compute(state)]
