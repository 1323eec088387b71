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
    if isinstance(data, Iterator):
        raise UseError(
            "data can be gone through only once, but each variant needs it; pass a DataLoader or a list of batches"
        )
    final = world.trajectory[FINAL]
    with untouched(model), torch.inference_mode():
        network = bind(model, final, Patch())
        reference = [(targets(batch), forward(network, batch)) for batch in data]
    if not reference:
        raise UseError("data gives no batch")
    for variant in variants:
        with untouched(model), torch.inference_mode():
            network = bind(model, final, variant.patch(world))
            states = [metric.init() for metric in metrics]
            for batch, (truth, unmodified) in paired(data, reference, targets):
                seen = Observation(truth, forward(network, batch), unmodified)
                states = [metric.update(state, seen) for metric, state in zip(metrics, states, strict=True)]
        place = {"status": "ok", "engine": "reference", **variant.row(world)}
        yield [place | row for metric, state in zip(metrics, states, strict=True) for row in metric.compute(state)]


def paired(data: Iterable[Any], reference: Sequence[tuple[Any, Any]], targets: Callable[[Any], Any]) -> Iterator[Any]:
    """Each batch with what the first pass gave for it; an error if the data are not the same in the same order."""
    changed = UseError("data gives other batches on each pass, so that nothing can be compared; pass shuffle=False")
    known = iter(reference)
    for batch in data:
        before = next(known, None)
        if before is None or not _equal(targets(batch), before[0]):
            raise changed
        yield batch, before
    if next(known, None) is not None:
        raise changed


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)
