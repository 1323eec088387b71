"""The exact engine: what comes before the changed place is computed once a batch, and shared by all variants.

The reference engine stays the oracle: both compute the same operations on the same numbers, so that outputs are equal bit
for bit. What cannot be taken apart goes to the reference engine, and says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.engine import reference as slow
from layerscope.engine.batches import mark
from layerscope.engine.reference import Reference, Task
from layerscope.engine.subject import Subject
from layerscope.engine.tape import NEVER, Plan, Tape, Unsplittable, storage_of
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.metrics import Observation
from layerscope.perturb import Variant
from layerscope.perturb.swap import put_in, within
from layerscope.state import State

MEMORY = 1 << 30
"""Bytes that changed values, and as many that outputs of one batch, may take."""
TOGETHER = 64
"""Variants that are evaluated on a batch before the next batch: more would put off the first results."""

Row = dict[str, Any]


@dataclass
class Running:
    """A Variant between batches: the values that are its own, by place in the model; its network before that change; the
    states of its metrics; why it failed."""

    variant: Variant
    base: State
    own: State
    states: list[Any]
    failed: str = ""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.own.values())


def evaluate(
    subject: Subject, variants: Sequence[Variant], task: Task, known: Reference, memory: int = MEMORY
) -> Iterator[list[Row]]:
    """As the reference engine: for each Variant, in the order asked, the rows of all metrics. `memory` is how many bytes
    changed values may take, and as many again the outputs that are kept of one batch."""
    todo, why = list(variants), ""
    while todo:
        some = todo[:TOGETHER]
        rows = [] if why else _tried(subject, some, task, known, memory)
        if isinstance(rows, str):
            why, rows = rows, []
        yield from rows or _slowly(subject, some, task, known, why)
        todo = todo[len(rows) or len(some) :]


def _slowly(
    subject: Subject, variants: Sequence[Variant], task: Task, known: Reference, why: str
) -> Iterator[list[Row]]:
    for rows in slow.evaluate(subject, variants, task, known):
        yield [row | {"engine": f"reference: {why}"} for row in rows]


def _tried(
    subject: Subject, variants: Sequence[Variant], task: Task, known: Reference, memory: int
) -> list[list[Row]] | str:
    """The rows of the first Variants, as many as there is room for; or why this engine cannot be used."""
    if subject.written:
        return f"its forward writes to {sorted(subject.written)[0]}"
    try:
        with untouched(subject.model), torch.no_grad():
            running = _begun(subject, variants, task, memory)
            for base in {id(one.base): one.base for one in running}.values():
                _pass(subject, base, [one for one in running if one.base is base], task, known, memory)
    except Unsplittable as problem:
        return str(problem)
    return [_rows(subject, one, task) for one in running]


def _begun(subject: Subject, variants: Sequence[Variant], task: Task, memory: int) -> list[Running]:
    """The first Variants, as many as there is room for (at least one)."""
    bases: dict[bool, State] = {}
    running: list[Running] = []
    for variant in variants:
        one = _start(subject, variant, task, bases)
        memory -= one.nbytes
        if running and memory < 0:
            break
        running.append(one)
    return running


def _start(subject: Subject, variant: Variant, task: Task, bases: dict[bool, State]) -> Running:
    states = [metric.init() for metric in task.metrics]
    unmodified = bases.setdefault(False, subject.unmodified())
    try:
        values = subject.values(variant)
        recalibrated = subject.is_recalibrated(variant, values)
        if recalibrated and True not in bases:
            bases[True] = subject.recalibrated()
    except UseError:
        raise
    except Exception as problem:
        return Running(variant, unmodified, {}, states, _reason(problem))
    base = bases[recalibrated]
    other = {name for name, value in values.items() if value is not base[name] and not _equal(value, base[name])}
    own = {place: value for place, value in subject.inside(values).items() if place in other}
    return Running(variant, base, own, states)


def _pass(subject: Subject, base: State, running: list[Running], task: Task, known: Reference, memory: int) -> None:
    """All batches: of each, one forward of the network that the Variants are changes of, then what is left of theirs."""
    inside, tape = subject.inside(base), Tape(subject.model)
    storages = {place: storage_of(tensor) for place, tensor in inside.items()}
    plan: Plan | None = None

    def work(network: nn.Module) -> None:
        nonlocal plan
        with tape.listening():
            for batch, targets, kept in slow.paired(task, known, subject):
                forward = lambda batch=batch: subject.outputs(network, batch)  # noqa: E731
                _recorded(tape, forward, storages, plan)
                moments = [_moment(tape, one, inside, storages) for one in running]
                if plan is None:
                    plan = tape.plan(moments, memory)
                    tape.keep(plan)
                    _check(subject, tape, forward, running, moments)
                for one, until in zip(running, moments, strict=True):
                    _step(subject, tape, forward, one, until, Seen(task, targets, kept))

    within(subject.model, inside, work)


@dataclass(frozen=True)
class Seen:
    """A batch, as metrics see it beside the outputs."""

    task: Task
    targets: Any
    kept: list[Any]


def _recorded(tape: Tape, forward: Callable[[], Any], storages: Mapping[str, int], plan: Plan | None) -> None:
    try:
        tape.record(forward, storages.values(), plan)
    except (UseError, Unsplittable):
        raise
    except Exception as problem:
        raise Unsplittable(f"the network raises {_reason(problem)}") from None


def _moment(tape: Tape, one: Running, inside: State, storages: Mapping[str, int]) -> int:
    """When a forward first uses a value that a Variant changes: from then on it is computed anew."""
    uses = [
        tape.first_use.get(storages[place], NEVER) if storages[place] else 0
        for place in one.own
        if inside[place].numel()
    ]
    return min(uses, default=NEVER)


def _step(subject: Subject, tape: Tape, forward: Callable[[], Any], one: Running, until: int, seen: Seen) -> None:
    """One batch of one Variant."""
    if one.failed:
        return
    try:
        with put_in(subject.model, one.own):
            outputs = tape.replay(forward, until)
        for at, metric in enumerate(seen.task.metrics):
            one.states[at] = metric.update(one.states[at], Observation(seen.targets, outputs, seen.kept[at]))
    except (UseError, Unsplittable):
        raise
    except Exception as problem:
        one.failed = _reason(problem)


def _check(
    subject: Subject, tape: Tape, forward: Callable[[], Any], running: list[Running], moments: list[int]
) -> None:
    """Compare the first batch of one Variant of each place with a whole forward, bit for bit: who does something that the
    tape does not see (a cache outside the model, a value that is read without an operation) is found here."""
    places_seen: set[frozenset[str]] = set()
    for one, until in zip(running, moments, strict=True):
        if frozenset(one.own) in places_seen or one.failed:
            continue
        places_seen.add(frozenset(one.own))
        with put_in(subject.model, one.own):
            try:
                whole = mark(forward())
            except Exception:  # it fails again when it is its turn, and is told then
                continue
            if mark(tape.replay(forward, until)) != whole:
                part = " + ".join(edit.part.name for edit in one.variant.edits)
                raise Unsplittable(
                    f"with {part} changed, what was computed before does not give the outputs of a whole forward"
                )


def _rows(subject: Subject, one: Running, task: Task) -> list[Row]:
    place = {"status": "ok", "engine": "replay", **one.variant.row(subject.world)}
    if one.failed:
        return [place | {"metric": metric.name, "status": "failed", "reason": one.failed} for metric in task.metrics]
    computed = (metric.compute(state) for metric, state in zip(task.metrics, one.states, strict=True))
    return [place | row for rows in computed for row in rows]


def _reason(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.layout == b.layout == torch.strided and a.dtype == b.dtype and torch.equal(a, b)
