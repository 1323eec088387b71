"""What an engine is asked, what is known beforehand, and what it has of a Variant so far."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.engine.batches import Targets, targets_of
from layerscope.engine.subject import Subject
from layerscope.metrics import Metric, Observation
from layerscope.perturb import Variant

Row = dict[str, Any]


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


@dataclass
class Measured:
    """A Variant while it is measured: the states of its metrics, why it failed, its answer if it was given one early."""

    variant: Variant
    states: list[Any]
    failed: str = ""
    answer: list[Row] | None = None

    def update(self, task: Task, outputs: Any, targets: Any, kept: list[Any]) -> None:
        """After a batch."""
        for at, metric in enumerate(task.metrics):
            self.states[at] = metric.update(self.states[at], Observation(targets, outputs, kept[at]))

    def rows(self, subject: Subject, task: Task, engine: str) -> list[Row]:
        """What a table says of it. One that failed is a row with status `failed` and the reason."""
        place = {"status": "ok", "engine": engine, **self.variant.row(subject.world)}
        if self.failed:
            return [place | {"metric": m.name, "status": "failed", "reason": self.failed} for m in task.metrics]
        if self.answer is not None:
            return [place | row for row in self.answer]
        return [place | row for m, state in zip(task.metrics, self.states, strict=True) for row in m.compute(state)]


def reason_of(problem: Exception) -> str:
    """An exception of somebody's code, in one line."""
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
