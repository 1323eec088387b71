"""A network whose Part has one value after the other, and where what comes before the Part is computed once."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from layerscope.engine.batches import mark
from layerscope.engine.subject import Subject
from layerscope.engine.tape import NEVER, Tape, Wanted, storage_of
from layerscope.engine.task import Unsplittable
from layerscope.partition import Part, Slice
from layerscope.perturb import Noise, Variant
from layerscope.perturb.patch import put
from layerscope.perturb.trained import trained

WORTH = 1e-3
"""Seconds of a forward that must come before a Part for their outputs to be kept: to listen takes time too."""

Normals = dict[Slice, Tensor]
"""The numbers of N(0, 1) of a draw, of one Part."""
Drawn = Sequence[Normals]
"""Those of all Parts."""
Place = tuple[Slice, Tensor, Tensor]
"""What is changed, its trained values, and the tensor to write to."""
Samples = tuple[Hashable, Any]
"""Samples, and a key that they can be known by."""


class Written:
    """A network whose Parts have one value after the other, written to one place: nothing else is put in afresh. `good` says that
    this gives what the reference gives; it does not where a forward writes to its parameters, or keeps what it made of them.

    What modules before a Part return for a block is kept in `memory` bytes, and given when the block comes again.
    """

    def __init__(self, subject: Subject, parts: Sequence[Part], variant: Variant, memory: int) -> None:
        values, firsts = subject.values(variant), subject.world.firsts
        self.good = False
        self._subject, self._inside, self._memory = subject, subject.inside(values), memory
        self._places: list[list[Place]] = []
        for part in parts:
            places: dict[Slice, Place] = {}
            for where, old in trained(
                part, subject.world
            ).items():  # a tied tensor is that of its first name in the Part
                first = replace(where, tensor=firsts[where.tensor])
                places.setdefault(first, (where, old, values[first.tensor]))
            self._places.append(list(places.values()))
        self._before: _Before | None = None
        self._keeps = memory > 0

    def compare(
        self, expected: Sequence[Any], noises: Sequence[Noise], drawn: Sequence[Drawn], blocks: Sequence[Samples]
    ) -> None:
        """Find out whether all this gives what is expected, to the bit: as it is, and with what is kept."""
        same = lambda: mark(self.outputs(noises, drawn, blocks)) == mark(expected)  # noqa: E731
        self.good = same()
        if self.good and self._keeps:
            self.keep(0)
            self._keeps = same() and same()  # what is kept at first, and then given
            self.keep(None)

    def keep(self, at: int | None) -> None:
        """Keep what comes before the Part of this number: from now on a block that comes again finds other values in it, and
        in no other Part. None: keep nothing."""
        self._before = None
        if self._keeps and at is not None:
            storages = {storage_of(place) for _, _, place in self._places[at]}
            self._before = _Before(self._subject.model, storages, self._memory)

    def outputs(self, noises: Sequence[Noise], drawn: Sequence[Drawn], blocks: Sequence[Samples]) -> list[Any]:
        """For each block under each draw; `noises` are of the Parts."""
        world = self._subject.world

        def work(network: nn.Module) -> list[Any]:
            found = []
            for normals, (key, block) in zip(drawn, blocks, strict=True):
                for noise, normal, places in zip(noises, normals, self._places, strict=True):
                    for where, old, place in places:
                        new = noise.at(where, old, normal[where], world).to(place.device)
                        place.copy_(put(place, where, new))
                found.append(self._forward(key, partial(self._subject.outputs, network, block)))
            return found

        return self._subject.run_inside(self._inside, work)

    def _forward(self, key: Hashable, forward: Callable[[], Any]) -> Any:
        if self._before is not None:
            try:
                return self._before.outputs(key, forward)
            except Unsplittable:
                self._before, self._keeps = None, False
        return forward()


class _Before:
    """What modules return in a forward before it first uses certain storages, for each block, as far as there is room."""

    def __init__(self, model: nn.Module, storages: set[int], room: int) -> None:
        self._model, self._storages, self._room = model, storages, room
        self._tapes: dict[Hashable, Tape] = {}
        self._wanted: Wanted | None = None

    def outputs(self, key: Hashable, forward: Callable[[], Any]) -> Any:
        """What a forward gives, all of it or what is left of it."""
        if self._wanted is None:
            self._wanted = self._of(forward)
        if tape := self._tapes.get(key):
            with tape.listening():
                return tape.replay(forward, self._moment(tape))
        if not self._wanted.kept or self._room <= 0:
            return forward()
        tape = Tape(self._model)
        with tape.listening():
            outputs = tape.record(forward, self._storages, replace(self._wanted, memory=self._room))
        self._room -= tape.nbytes(self._wanted)
        self._tapes[key] = tape
        return outputs

    def _of(self, forward: Callable[[], Any]) -> Wanted:
        """Of which calls the outputs are worth being kept."""
        tape = Tape(self._model)
        with tape.listening():
            tape.record(forward, self._storages)
        wanted = tape.wanted([self._moment(tape)], self._room)
        saved = sum(tape.calls[number].seconds for number in wanted.kept)
        return wanted if saved >= WORTH else Wanted()

    def _moment(self, tape: Tape) -> int:
        return min(tape.first_use.values(), default=NEVER)
