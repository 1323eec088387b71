"""Variants measured piece by piece, each going on from what is known of it: how engines work to a budget."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from layerscope.engine.budget import Cell, Work, spend, used
from layerscope.engine.certified import Certify, Watch
from layerscope.engine.subject import Subject
from layerscope.engine.task import Measured, Reference, Row, Task
from layerscope.perturb import Variant
from layerscope.runtime import Progress
from layerscope.sequential import Answers


@dataclass(frozen=True)
class Asked:
    """One split: its samples in random order, in batches; what the unmodified network makes of them; what is asked."""

    task: Task
    known: Reference
    certify: Certify

    @property
    def ends(self) -> list[int]:
        """After how many samples each batch ends."""
        return list(accumulate(len(kept[0]) for kept in self.known.kept))

    def between(self, start: int, stop: int) -> tuple[Task, Reference]:
        """The batches from `start` to before `stop`."""
        batches = list(self.task.data)[start:stop]
        return replace(self.task, data=batches, batches=len(batches)), self.known.between(start, stop)

    def rows(self, cell: Cell, otherwise: str) -> list[Row]:
        """The rows of one Variant; `otherwise` is why there is none of one that was not measured."""
        if cell.state == "not measured":
            return [{"metric": self.certify.metric.name, "status": cell.state, "reason": otherwise}]
        if cell.state == "failed":
            return [cell.place]
        return [cell.place | row for row in self.certify.rows(cell.answers)]


@dataclass(frozen=True)
class Sitting(Certify):
    """Some batches, on which Variants go on from what is known of them. The answer is what is known of each then, whether it
    is what was asked or not."""

    known: Mapping[Variant, Answers]
    batches: int

    def watch(self, running: Sequence[Measured]) -> Watch:
        return Watch(self, running, Answers.joined([self.known[one.variant] for one in running]), self.batches)

    def rows(self, answer: Answers) -> list[Row]:
        return [{"known": answer}]


def best(
    subject: Subject,
    asked: Mapping[str, Asked],
    variants: Iterable[Variant],
    seconds: float,
    done: MutableMapping[str, list[Row]],
    compute: Callable[..., Iterable[list[Row]]],
    clock: Callable[[], float],
    progress: Progress | None,
) -> list[Cell]:
    """What can be known of all Variants on all splits in a time, of which what is in `done` has taken a part already."""
    cells = [
        Cell(split, variant, Answers.of(one.certify.question, 1))
        for split, one in asked.items()
        for variant in variants
    ]
    cells = [cell.resumed(done[cell.key][0]) if cell.key in done else cell for cell in cells]
    total, ends = math.ceil(seconds), {split: one.ends for split, one in asked.items()}
    for i, cell in spend(cells, ends, measuring(subject, compute, asked), seconds, clock):
        cells[i] = cell
        done[cell.key] = [cell.kept()]
        if progress is not None:
            progress("seconds of evaluation", min(int(used(cells)), total - 1), total)
    if progress is not None:
        ended = min(math.ceil(used(cells)), total)
        progress("seconds of evaluation", ended, ended)
    return cells


def measuring(subject: Subject, compute: Callable[..., Iterable[list[Row]]], asked: Mapping[str, Asked]) -> Work:
    """The work of an engine on these splits."""
    subject.recalibrations = {}  # a Variant comes again with each piece

    def work(cells: Sequence[Cell], start: int, stop: int) -> Iterator[Cell]:
        split = asked[cells[0].split]
        task, known = split.between(start, stop)
        answers = {cell.variant: cell.answers for cell in cells}
        sitting = Sitting(split.certify.question, split.certify.metric, answers, stop - start)
        found = compute(subject, [cell.variant for cell in cells], task, known, sitting)
        for cell, (row,) in zip(cells, found, strict=True):
            after = replace(cell, answers=row.pop("known", cell.answers))
            yield replace(after, place=row | _rechecked(cell, row, after.n - cell.n))

    return work


def _rechecked(cell: Cell, row: Row, samples: int) -> Row:
    """How many samples were computed again in float32 in all pieces, where that is counted; None in a row says that all of
    this piece were."""
    if "rechecked" not in row:
        return {}
    now = samples if row["rechecked"] is None else row["rechecked"]
    return {"rechecked": cell.place.get("rechecked", 0) + now}
