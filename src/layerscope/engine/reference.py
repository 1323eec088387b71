"""The slow, obvious engine: every variant, every batch, the whole network. Faster engines are compared with it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layerscope.engine.batches import Targets, mark, moved, targets_of
from layerscope.engine.probe import OTHER_BATCHES
from layerscope.engine.subject import Subject
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.metrics import Metric, Observation
from layerscope.perturb import Variant

MARKED = 4096
"""Of how many of a batch's targets it is checked that they are the same on each pass."""


@dataclass(frozen=True)
class Task:
    """What variants are evaluated on: the data, which of a batch are the targets, and the metrics.

    Data give batches any number of times; `batches` is how many, if that is known.
    """

    data: Iterable[Any]
    metrics: Sequence[Metric[Any]]
    targets: Targets = targets_of
    batches: int | None = None


@dataclass(frozen=True)
class Reference:
    """What is kept of a pass of the unmodified network: of each batch, what the metrics asked for and a mark of its targets;
    and each metric's value of guessing, where there is one."""

    kept: list[list[Any]]
    marks: list[Any]
    chance: list[float | None]


def reference(subject: Subject, task: Task) -> Reference:
    """One pass of the unmodified network; an error if the data do not give as many batches as they did before."""
    found = Reference([], [], [])

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
    return found


def evaluate(
    subject: Subject, variants: Sequence[Variant], task: Task, known: Reference
) -> Iterator[list[dict[str, Any]]]:
    """For each variant, in the order asked, the rows of all metrics. One whose forward raises is a row with status
    `failed` and the reason."""
    for variant in variants:
        with untouched(subject.model), torch.no_grad():
            place = {"status": "ok", "engine": "reference", **variant.row(subject.world)}
            try:
                rows = subject.run(subject.values(variant), lambda network: _rows(network, task, known, subject))
            except UseError:
                raise
            except Exception as problem:
                failure = {"status": "failed", "reason": f"{type(problem).__name__}: {' '.join(str(problem).split())}"}
                rows = [{"metric": metric.name, **failure} for metric in task.metrics]
        yield [place | row for row in rows]


def _rows(network: nn.Module, task: Task, known: Reference, subject: Subject) -> list[dict[str, Any]]:
    states = [metric.init() for metric in task.metrics]
    for batch, targets, kept in paired(task, known, subject):
        outputs = subject.outputs(network, batch)
        for at, metric in enumerate(task.metrics):
            states[at] = metric.update(states[at], Observation(targets, outputs, kept[at]))
    return [row for metric, state in zip(task.metrics, states, strict=True) for row in metric.compute(state)]


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
