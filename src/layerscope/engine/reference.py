"""The slow, obvious engine: every variant, every batch, the whole network. Faster engines are compared with it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from layerscope.engine.batches import mark, moved
from layerscope.engine.certified import Certify
from layerscope.engine.precision import FULL, Precision
from layerscope.engine.probe import OTHER_BATCHES
from layerscope.engine.subject import Subject
from layerscope.engine.task import Measured, Reference, Row, Task, reason_of, rechecked
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.metrics import Metric
from layerscope.perturb import Variant

MARKED = 4096
"""Of how many of a batch's targets it is checked that they are the same on each pass."""


def reference(subject: Subject, task: Task) -> Reference:
    """One pass of the unmodified network; an error if the data do not give as many batches as they did before."""
    found, began = Reference([], [], [], 0.0), time.perf_counter()

    def work(network: nn.Module) -> None:
        for batch in task.data:
            outputs, targets = subject.outputs(network, batch), moved(task.targets(batch), subject.device)
            found.kept.append([metric.keep(targets, outputs) for metric in task.metrics])
            found.marks.append(_mark(batch, targets))
            if not found.chance:
                found.chance.extend(_chance(metric, targets, outputs) for metric in task.metrics)

    with untouched(subject.model), torch.no_grad():
        subject.run(subject.unmodified(), work)
    if not found.kept:
        raise UseError("data gives no batch")
    if task.batches not in (None, len(found.kept)):
        raise UseError(OTHER_BATCHES)
    return replace(found, seconds=time.perf_counter() - began)


def evaluate(
    subject: Subject,
    variants: Sequence[Variant],
    task: Task,
    known: Reference,
    certify: Certify | None = None,
    *,
    precision: str = FULL,
) -> Iterator[list[Row]]:
    """For each variant, in the order asked, the rows of all metrics. One whose forward raises is a row with status
    `failed` and the reason. With `certify` a variant is measured until its answer is settled. `precision` is that of
    products; with another than float32 close calls are computed again in float32."""
    how = tried(subject, task, precision)
    for variant in variants:
        one = Measured.of(variant, task, how)
        with untouched(subject.model), torch.no_grad():
            try:
                values = subject.values(variant)
                subject.run(values, lambda network, one=one: _measure(network, one, task, known, subject, certify, how))
            except UseError:
                raise
            except Exception as problem:
                one.failed = reason_of(problem)
        if one.again:  # a decision of an earlier batch might be another
            yield from map(rechecked, evaluate(subject, [variant], task, known, certify))
        else:
            yield one.rows(subject, task, "reference", how)


def tried(subject: Subject, task: Task, precision: str) -> Precision:
    """The format of products, tried on the first batch."""
    how = Precision.of(precision, subject.device, task.metrics)
    if not how.short:
        return how
    batch = next(iter(task.data))
    with untouched(subject.model), torch.no_grad():
        return subject.run(subject.unmodified(), lambda net: how.tried(partial(subject.outputs, net, batch)))


def _measure(
    network: nn.Module,
    one: Measured,
    task: Task,
    known: Reference,
    subject: Subject,
    certify: Certify | None,
    how: Precision,
) -> None:
    watch = None if certify is None else certify.watch([one])
    for batch, targets, kept in paired(task, known, subject):
        exact = partial(subject.outputs, network)
        one.measure(task, how.forward(partial(exact, batch)), exact, batch, targets, kept)
        if one.failed or (watch is not None and not watch.after(kept[0])):
            return


def paired(task: Task, known: Reference, subject: Subject) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Each batch with its targets and what was kept of it; an error if the data are not the same in the same order."""
    count = 0
    for count, batch in enumerate(task.data, start=1):
        targets = moved(task.targets(batch), subject.device)
        if count > len(known.marks) or _mark(batch, targets) != known.marks[count - 1]:
            raise UseError(OTHER_BATCHES)
        yield batch, targets, known.kept[count - 1]
    if count < len(known.marks):
        raise UseError(OTHER_BATCHES)


def _mark(batch: Any, targets: Any) -> Any:
    return mark(batch if targets is None else targets, MARKED)


def _chance(metric: Metric[Any], targets: Any, outputs: Any) -> float | None:
    chance = getattr(metric, "chance", None)
    return None if chance is None else chance(targets, outputs)
