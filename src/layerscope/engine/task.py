"""What an engine is asked, what is known beforehand, and what it has of a Variant so far."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from torch import Tensor

from layerscope.engine.batches import Targets, samples_in, targets_of
from layerscope.engine.precision import Changed, Close, Precision, some
from layerscope.engine.subject import Subject
from layerscope.errors import UseError
from layerscope.metrics import Metric, Observation
from layerscope.perturb import Variant

Row = dict[str, Any]


class Unsplittable(Exception):  # noqa: N818 (not an error: the reference engine takes over)
    """The model cannot be taken apart; the message says why."""


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
    each metric's value of guessing, where there is one; and how many `seconds` the pass took."""

    kept: list[list[Any]]
    marks: list[Any]
    chance: list[float | None]
    seconds: float

    def between(self, start: int, stop: int) -> "Reference":
        """Of the batches from `start` to before `stop`, with their share of the time."""
        share = (stop - start) / len(self.kept)
        return replace(self, kept=self.kept[start:stop], marks=self.marks[start:stop], seconds=self.seconds * share)


@dataclass
class Measured:
    """A Variant while it is measured: the states of its metrics, why it failed, its answer if it was given one early; with
    short products, its close calls, and whether it has to be measured again without."""

    variant: Variant
    states: list[Any]
    failed: str = ""
    answer: list[Row] | None = None
    close: Close | None = None
    again: bool = False

    @classmethod
    def of(cls, variant: Variant, task: Task, precision: Precision, **more: Any) -> Self:
        """Nothing measured yet."""
        states = [metric.init() for metric in task.metrics]
        return cls(variant, states, close=Close(task.metrics) if precision.short else None, **more)

    def measure(
        self,
        task: Task,
        outputs: Callable[[], Any],
        exact: Callable[[Any], Any],
        batch: Any,
        targets: Any,
        kept: list[Any],
    ) -> None:
        """On a batch, from its outputs, or those of `exact` for some of its samples. An exception of the model's own code or
        of a metric is the end of this Variant alone."""
        try:
            found = outputs()
            if self.close is not None:
                found = self.close.outputs(found, partial(_of_some, exact, batch), targets, samples_in(batch))
            self.update(task, found, targets, kept)
        except (UseError, Unsplittable):
            raise
        except Changed:
            self.failed, self.again = "it has to be measured in float32", True
        except Exception as problem:
            self.failed = reason_of(problem)

    def update(self, task: Task, outputs: Any, targets: Any, kept: list[Any]) -> None:
        """After a batch."""
        for at, metric in enumerate(task.metrics):
            self.states[at] = metric.update(self.states[at], Observation(targets, outputs, kept[at]))

    def rows(self, subject: Subject, task: Task, engine: str, how: Precision) -> list[Row]:
        """What a table says of it. One that failed is a row with status `failed` and the reason."""
        engine = f"{engine} in float32: {how.why}" if how.why else engine
        place = {"status": "ok", "engine": engine, **self.variant.row(subject.world)}
        if self.close is not None:
            place["rechecked"] = self.close.again
        if self.failed:
            return [place | {"metric": m.name, "status": "failed", "reason": self.failed} for m in task.metrics]
        if self.answer is not None:
            return [place | row for row in self.answer]
        return [place | row for m, state in zip(task.metrics, self.states, strict=True) for row in m.compute(state)]


def _of_some(exact: Callable[[Any], Any], batch: Any, rows: Tensor | None) -> Any:
    given = batch if rows is None else some(batch, rows)
    return None if given is None else exact(given)


def rechecked(rows: list[Row]) -> list[Row]:
    """The rows of a Variant that was measured again in float32 on all samples."""
    return [row | {"rechecked": row.get("n")} for row in rows]


def reason_of(problem: Exception) -> str:
    """An exception of somebody's code, in one line."""
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
