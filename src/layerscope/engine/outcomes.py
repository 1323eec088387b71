"""What the numbers of a map are made of: of each Variant and each sample, whether it is wrong. For pairing and for replay."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from layerscope.engine.reference import evaluate as reference_engine
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Row, Task
from layerscope.errors import UseError
from layerscope.metrics.base import SampleMean
from layerscope.perturb import Variant

Array = np.ndarray


class PerSample:
    """A metric's numbers before the mean is taken over samples."""

    def __init__(self, metric: SampleMean) -> None:
        self.name = metric.name
        self.keep, self.init, self.update = metric.keep, metric.init, metric.update

    def compute(self, state: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Row]:
        return [{"metric": self.name, "outcomes": torch.cat([values for values, _ in state]).numpy()}]


def outcomes(
    subject: Subject,
    variants: Sequence[Variant],
    task: Task,
    compute: Callable[..., Iterable[list[Row]]] = reference_engine,
) -> tuple[Array, Array]:
    """What the task's one metric, which is a mean over samples, says of each of them: of the Variants `[variants, n]`, and of
    the unmodified network `[n]`; truth values for error (True where wrong), else numbers. Samples are in the data's order.

    `compute` is the engine. Raises `UseError` if the metric says nothing of single samples, and if a Variant fails, for it has
    no outcomes.
    """
    (metric,) = task.metrics
    if not isinstance(metric, SampleMean):
        raise UseError(
            f"{metric.name} is no mean over samples, so it says nothing of each; take one that is, such as error"
        )
    task = replace(task, metrics=[PerSample(metric)])
    known = reference(subject, task)
    found = [_of(rows[0]) for rows in compute(subject, variants, task, known, None)]
    unmodified = torch.cat([kept[0] for kept in known.kept]).numpy()
    return np.array(found).reshape(len(found), len(unmodified)), unmodified


def _of(row: Row) -> Any:
    if row["status"] == "failed":
        raise UseError(f"variant {row['variant']} failed, so it has no outcomes: {row['reason']}; leave it out")
    return row["outcomes"]
