"""The exact engine: what comes before the changed place is computed once a batch, and shared by all variants.

The reference engine stays the oracle: both compute the same operations on the same numbers, so that outputs are equal bit
for bit. What cannot be taken apart goes to the reference engine, and says so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.engine import reference as slow
from layerscope.engine.batches import leaves, mark
from layerscope.engine.certified import Certify
from layerscope.engine.precision import FULL, Precision
from layerscope.engine.subject import Subject
from layerscope.engine.tape import NEVER, NOTHING, Tape, storage_of
from layerscope.engine.task import Measured, Reference, Row, Task, Unsplittable, reason_of, rechecked
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.perturb import Variant
from layerscope.perturb.swap import put_in
from layerscope.state import State

TOGETHER = (16, 256)
"""How many variants are evaluated on a batch before the next batch: at least so many that the forward they share hardly
counts, at most so many, and between these as many as take `AWHILE`, for a stop loses the work on those that are not done."""
AWHILE = 30.0
"""Seconds, at those that the unmodified network took."""


Place = frozenset[str]
"""What Variants of one place change: the names of places in the model."""


@dataclass
class Running(Measured):
    """A Variant between batches: besides, the network that it is a change of, and the values that are its own, by place."""

    base: State = field(default_factory=dict)
    own: State = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where it differs from its base."""
        return frozenset(self.own)

    @property
    def nbytes(self) -> int:
        return _nbytes(self.own.values())

    @property
    def ended(self) -> bool:
        """Whether it needs no further batch."""
        return bool(self.failed) or self.answer is not None


def evaluate(
    subject: Subject,
    variants: Sequence[Variant],
    task: Task,
    known: Reference,
    certify: Certify | None = None,
    *,
    memory: int,
    precision: str = FULL,
) -> Iterator[list[Row]]:
    """As the reference engine: for each Variant, in the order asked, the rows of all metrics. `memory` is how many bytes
    changed values may take, and as many again the outputs that are kept of one batch."""
    how = slow.tried(subject, task, precision)
    count = min(max(TOGETHER[0], int(AWHILE / known.seconds)), TOGETHER[1])
    todo, why, checked = list(variants), "", set[Place]()
    while todo:
        some = todo[:count]
        rows = [] if why else _tried(subject, some, task, known, certify, memory, how, checked)
        if isinstance(rows, str):
            why, rows = rows, []
        yield from rows or _slowly(subject, some, task, known, certify, why, precision)
        todo = todo[len(rows) or len(some) :]


def _slowly(
    subject: Subject,
    variants: Sequence[Variant],
    task: Task,
    known: Reference,
    certify: Certify | None,
    why: str,
    precision: str,
) -> Iterator[list[Row]]:
    for rows in slow.evaluate(subject, variants, task, known, certify, precision=precision):
        yield [row | {"engine": f"reference: {why}"} for row in rows]


def _tried(
    subject: Subject,
    variants: Sequence[Variant],
    task: Task,
    known: Reference,
    certify: Certify | None,
    memory: int,
    how: Precision,
    checked: set[Place],
) -> list[list[Row]] | str:
    """The rows of the first Variants, as many as there is room for; or why this engine cannot be used."""
    if subject.written:
        return f"its forward writes to {sorted(subject.written)[0]}"
    try:
        with untouched(subject.model), torch.no_grad():
            running = _begun(subject, variants, task, known, memory, how)
            for base in {id(one.base): one.base for one in running}.values():
                some = [one for one in running if one.base is base]
                _Pass(subject, base, some, task, memory, how, checked).run(known, certify)
    except Unsplittable as problem:
        return str(problem)
    again = evaluate(subject, [one.variant for one in running if one.again], task, known, certify, memory=memory)
    return [rechecked(next(again)) if one.again else one.rows(subject, task, "replay", how) for one in running]


def _begun(
    subject: Subject, variants: Sequence[Variant], task: Task, known: Reference, memory: int, how: Precision
) -> list[Running]:
    """The first Variants, as many as there is room for (at least one)."""
    bases: dict[bool, State] = {}
    running: list[Running] = []
    measured = _nbytes(leaves(known.kept))  # about what metrics keep of a Variant too
    for variant in variants:
        if running and _nbytes(_changed(subject, variant)) + measured > memory:
            break
        running.append(_start(subject, variant, task, bases, how))
        memory -= running[-1].nbytes + measured
    return running


def _changed(subject: Subject, variant: Variant) -> Iterator[Tensor]:
    """What a Variant changes, without values."""
    for name in {name for edit in variant.edits for name in edit.part.tensors}:
        yield subject.world.like[name]


def _nbytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _start(subject: Subject, variant: Variant, task: Task, bases: dict[bool, State], how: Precision) -> Running:
    unmodified = bases.setdefault(False, subject.unmodified())
    try:
        values = subject.values(variant)
        recalibrated = subject.is_recalibrated(variant, values)
        if recalibrated and True not in bases:
            bases[True] = subject.recalibrated()
    except UseError:
        raise
    except Exception as problem:
        return Running.of(variant, task, how, failed=reason_of(problem), base=unmodified)
    base = bases[recalibrated]
    other = {name for name, value in values.items() if value is not base[name] and not _equal(value, base[name])}
    own = {place: value for place, value in subject.inside(values).items() if place in other}
    return Running.of(variant, task, how, base=base, own=own)


class _Pass:
    """All batches: of each, one forward of the network that the Variants are changes of, then what is left of theirs."""

    def __init__(
        self,
        subject: Subject,
        base: State,
        running: list[Running],
        task: Task,
        memory: int,
        how: Precision,
        checked: set[Place],
    ) -> None:
        self._how, self._subject, self._running, self._task, self._memory = how, subject, running, task, memory
        self._checked = checked
        self._inside, self._tape = subject.inside(base), Tape(subject.model)
        self._storages = {place: storage_of(tensor) for place, tensor in self._inside.items()}
        self._wanted = NOTHING

    def run(self, known: Reference, certify: Certify | None) -> None:
        """Until the data end, or no Variant needs another batch."""
        watch = None if certify is None else certify.watch(self._running)

        def work(network: nn.Module) -> None:
            for batch, targets, kept in slow.paired(self._task, known, self._subject):
                forward = self._how.forward(partial(self._subject.outputs, network, batch))
                for one, found in self._outputs(forward):
                    one.measure(self._task, found, partial(self._whole, network, one), batch, targets, kept)
                if watch is not None and not watch.after(kept[0]):
                    break
            self._tape.check()

        with self._tape.listening():
            self._subject.run_inside(self._inside, work)

    def _outputs(self, forward: Callable[[], Any]) -> Iterator[tuple[Running, Callable[[], Any]]]:
        """For each Variant that is not done, what gives its outputs on a batch."""
        self._record(forward)
        if self._wanted is NOTHING or self._tape.nbytes(self._wanted) > self._memory:  # not all is kept that is wanted
            self._wanted = self._tape.wanted(map(self._moment, self._running), self._memory)
            self._record(forward)
        for one in self._running:
            if not one.ended:
                yield one, partial(self._replayed if one.place in self._checked else self._compared, forward, one)

    def _whole(self, network: nn.Module, one: Running, batch: Any) -> Any:
        with put_in(self._subject.model, one.own):
            return self._subject.outputs(network, batch)

    def _replayed(self, forward: Callable[[], Any], one: Running) -> Any:
        with put_in(self._subject.model, one.own):
            return self._tape.replay(forward, self._moment(one))

    def _record(self, forward: Callable[[], Any]) -> None:
        try:
            self._tape.record(forward, self._storages.values(), self._wanted)
        except (UseError, Unsplittable):
            raise
        except Exception as problem:
            raise Unsplittable(f"the network raises {reason_of(problem)}") from None

    def _moment(self, one: Running) -> int:
        """When a forward first uses a value that a Variant changes: from then on it is computed anew."""
        uses = [
            self._tape.first_use.get(self._storages[place], NEVER) if self._storages[place] else 0
            for place in one.own
            if self._inside[place].numel()
        ]
        return min(uses, default=NEVER)

    def _compared(self, forward: Callable[[], Any], one: Running) -> Any:
        """The outputs of a whole forward, if a replay gives the same bit for bit: of each place the first batch of one Variant.
        Who does something that the tape does not see (a cache outside the model, a value read without an operation) is found."""
        try:
            found: Any = mark(self._replayed(forward, one))  # first: a whole forward might make right what it relies on
        except Exception as problem:  # so must the whole
            found = reason_of(problem)
        with put_in(self._subject.model, one.own):
            whole = forward()
        if mark(whole) != found:
            part = " + ".join(edit.part.name for edit in one.variant.edits) or "nothing"
            raise Unsplittable(f"with {part} changed, what was kept does not give the outputs of a whole forward")
        self._checked.add(one.place)
        return whole


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.layout == b.layout == torch.strided and a.dtype == b.dtype and torch.equal(a, b)
