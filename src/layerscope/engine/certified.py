"""Answers from part of the data: who stops when, and what is said then. The bounds are those of `layerscope.sequential`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerscope import rng
from layerscope.engine.batches import leaves, with_each
from layerscope.engine.task import Measured, Reference, Row, Task
from layerscope.errors import UseError
from layerscope.metrics import Metric
from layerscope.metrics.base import SampleMean
from layerscope.perturb import Variant
from layerscope.sequential import Answers, Question, Rule, looks

FIRST, GROWTH = 128, 1.1
"""Samples before the first look, and how much more there are at each next one."""


@dataclass(frozen=True)
class Certify:
    """What is asked of all Variants of a map at once, by the errors of one metric."""

    question: Question
    metric: Metric[Any]

    @classmethod
    def of(cls, known: Reference, metric: Metric[Any], rule: Rule, cells: int, level: float) -> "Certify":
        """For `cells` Variants, on samples of which the unmodified network's outcomes are known."""
        wrong = torch.cat([kept[0] for kept in known.kept]) if known.kept else torch.zeros(0)
        if not isinstance(metric, SampleMean) or wrong.dtype != torch.bool:
            raise UseError(
                f"answers can be certified for metrics that say right or wrong of each sample, as error does, not {metric.name}"
            )
        return cls(Question(int((~wrong).sum()), int(wrong.sum()), max(1, cells), rule, level), metric)

    def watch(self, running: Sequence[Measured]) -> "Watch":
        """Follows some of the Variants through the data."""
        return Watch(self, running, Answers.of(self.question, len(running)))

    def rows(self, answer: Answers) -> list[Row]:
        """The rows of one Variant: its change of error, and by it its error."""
        base, n = self.question.wrong / self.question.n, int(answer.n[0])
        low, high, estimate = (float(found[0]) for found in (answer.low, answer.high, answer.estimate))
        place = {"n": n, "interval": "dataset", "level": self.question.level, "unit": getattr(self.metric, "unit", "")}
        changed = {"value": base + estimate, "low": base + low, "high": base + high}
        return [
            place | {"metric": self.metric.name, **changed},
            place | {"metric": f"{self.metric.name}_delta", "value": estimate, "low": low, "high": high},
        ]


class Watch:
    """Looks at Variants after each batch, and gives those their answer that need no further one; and all after so many
    `batches`. `answers` is what is known of them before."""

    def __init__(
        self, certify: Certify, running: Sequence[Measured], answers: Answers, batches: float = math.inf
    ) -> None:
        self._certify, self._running, self._answers, self._batches = certify, running, answers, batches

    def after(self, wrong: Tensor) -> bool:
        """After a batch of which the unmodified network has these samples `wrong` [n]: whether any Variant needs another."""
        answers = self._answers
        open_ = np.flatnonzero(answers.open)
        now = torch.stack([self._now(self._running[i], wrong) for i in open_.tolist()])
        worse, better = (now & ~wrong).sum(1).numpy(), (wrong & ~now).sum(1).numpy()
        self._answers = answers = answers.after(int((~wrong).sum()), int(wrong.sum()), worse, better)
        self._batches -= 1
        more = answers.open[open_] & (self._batches > 0)
        for i in open_[~more]:
            self._running[i].answer = self._certify.rows(answers.cell(int(i)))
        return bool(more.any())

    def _now(self, one: Measured, wrong: Tensor) -> Tensor:
        """Which samples of the last batch a Variant has wrong; no others of one that failed: it has no answer."""
        return wrong if one.failed else one.states[0][-1][0]


def unmodified(certify: Certify, known: Reference) -> list[Row]:
    """The rows of the unmodified network, which is measured on all samples."""
    return certify.metric.compute([(kept[0], kept[0]) for kept in known.kept])


def shuffled(task: Task, seed: int, split: str) -> Task:
    """The task with its samples in a random order that depends on `seed` and `split` alone, in batches between looks."""
    samples = joined(list(task.data), TOGETHER)
    n = _length(samples)
    order = torch.randperm(n, generator=rng.generator(seed, "sample order", split))
    starts = [0, *looks(n, FIRST, GROWTH)]
    batches = [with_each(samples, lambda tensor, some=order[a:b]: tensor[some]) for a, b in pairwise(starts)]
    return Task(batches, task.metrics, task.targets, len(batches))


TOGETHER = (
    "certified answers need samples in random order, and these batches cannot be taken apart into samples: they must be "
    "tensors of one shape a sample, in tuples, lists or dictionaries; ask without --within, --decide and --budget"
)


def joined(batches: list[Any], refusal: str) -> Any:
    """All batches as one, of tensors whose first axis is that of samples; a `UseError` with this text where they are not such."""
    first: Any = batches[0] if batches else None
    if isinstance(first, Tensor) and all(isinstance(b, Tensor) and b.shape[1:] == first.shape[1:] for b in batches):
        return torch.cat(batches)
    if isinstance(first, Mapping) and all(isinstance(b, Mapping) and list(b) == list(first) for b in batches):
        return {key: joined([batch[key] for batch in batches], refusal) for key in first}
    if type(first) in (tuple, list) and all(type(b) is type(first) and len(b) == len(first) for b in batches):
        return type(first)([joined([batch[i] for batch in batches], refusal) for i in range(len(first))])  # pyright: ignore
    raise UseError(refusal)


def _length(samples: Any) -> int:
    lengths = {len(leaf) for leaf in leaves(samples) if isinstance(leaf, Tensor)}
    if len(lengths) != 1:
        raise UseError(
            f"certified answers need as many of everything as there are samples, but there are {sorted(lengths)}"
        )
    return lengths.pop()


def cells(variants: Iterable[Variant]) -> int:
    """How many answers are asked for: of each Variant that changes something."""
    return sum(bool(variant.edits) for variant in variants)
