"""How far all modules can go back at once: a point where the joint criticality is small, and a certificate of its expected error.

A point has a cell (alpha, sigma) for each module. Its expected error is E_u of the error on these data of the network in
which every module has theta^alpha + u, u ~ N(0, sigma^2 I).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from layerscope.analyses.noisy import Cell, Few, Sequential, blocks_of, last, own_of
from layerscope.analyses.spec import BoundsSpec
from layerscope.analyses.written import Normals, Written
from layerscope.engine.batches import moved
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task
from layerscope.measures.bounds import OBJECTIVES, Module
from layerscope.partition import Part
from layerscope.perturb import Edit, Noise, Variant
from layerscope.perturb.noise import normals
from layerscope.stats import capital

SMALL = 0.01
"""Share of the sum below which a module's term is left as it is in the end."""
FAR, NEAR = 8, 32
"""Draws by which a change of one module's cell is judged: the first if they put it beyond eps, or else the second."""
REACH = 1, 2
"""How many places of the grid a module's sigma and alpha may move in one trade."""
COMPARED = 4
"""Draws in which values written to one place are compared with values put in afresh."""
Point = tuple[Cell, ...]
"""A cell of each module, in order."""


@dataclass(frozen=True)
class Moved:
    """A Part that training moved: how many parameters it has, and how far they went together."""

    part: Part
    k: int
    distance: float

    def under(self, cell: Cell) -> Module:
        """The same under noise."""
        return Module(self.k, self.distance, cell.alpha, cell.sigma)


class Joint:
    """The network with all modules changed at once, as far as it was asked about; `passes` counts samples."""

    def __init__(
        self,
        subject: Subject,
        modules: Sequence[Moved],
        task: Task,
        known: Reference,
        spec: BoundsSpec,
        memory: int,
    ) -> None:
        self.modules, self.passes = modules, 0
        self._subject, self._task, self._known, self._spec, self._memory = subject, task, known, spec, memory
        self._own = own_of(known)
        self._blocks = blocks_of(list(task.data), known, spec.seed)
        self._errors: dict[Point, list[float]] = {}
        parts = [module.part for module in modules]
        self._normals = Few(lambda key: normals(parts[key[0]], subject.world, key[1]))
        self._written: Written | None = None

    def best(self, eps: float) -> Point | None:
        """A point of a small objective whose expected error is, surely, at most eps by draws 0, 1, ... of the noise; None if none
        was found. It is no more than good: its objective is an upper bound of the smallest there is.

        The search starts at a point that is good for an eps half way to the training error: about the cells that each module
        bears alone, or the trained values, with as much less noise in all of them as it takes. Then modules trade error among
        them until nothing is gained (see `_traded`). What that leaves of eps is taken by one module after the other, from that
        with the largest term on, each of which moves to the best cell that the others leave it, as if errors grew with sigma;
        not if its term is less than a hundredth of the sum, for no cell could make that much smaller.
        """
        point = self._start((eps + min(self._own, eps)) / 2) or self._start(eps)
        if point is None:
            return None
        for _ in range(self._spec.rounds):
            before, point = point, self._traded(point, eps)
            if point == before:
                break
        for at in sorted(range(len(point)), key=lambda i, now=point: -self._term(i, now[i])):
            if self._term(at, point[at]) > SMALL * self._total(point):
                point = self._moved(point, at, eps)
        return point

    def fresh(self, point: Point) -> np.ndarray:
        """The errors of a point in draws that took no part in the search `[draws]`."""
        first = self._spec.most
        return np.array([self._error(point, draw) for draw in range(first, first + self._spec.draws)])

    def wrong(self, point: Point, draw: int, block: Any) -> torch.Tensor:
        """Which samples of a block are wrong under a draw `[n]`; of the trained network, at a point of no cells."""
        return self._found(self._outputs(point, draw, block), block)

    def _outputs(self, point: Point, draw: int, block: Any) -> Any:
        values = self._subject.values(self._variant(point, draw))
        return self._subject.run(values, lambda network: self._subject.outputs(network, block))

    def _variant(self, point: Point, draw: int) -> Variant:
        edits = [Edit(m.part, noise) for m, noise in zip(self.modules, _noises(point), strict=False)]
        return Variant(tuple(edits), draw, buffers="keep")

    def _found(self, outputs: Any, block: Any) -> torch.Tensor:
        """Which samples are wrong."""
        targets = moved(self._task.targets(block), self._subject.device)
        found = self._task.metrics[0].keep(targets, outputs)
        self.passes += len(found)
        return found

    @property
    def _trained(self) -> Cell:
        return Cell(self._spec.alphas[-1], self._spec.sigmas[-1])

    def _term(self, at: int, cell: Cell) -> float:
        return OBJECTIVES[self._spec.objective](self.modules[at].under(cell))

    def _total(self, point: Point) -> float:
        return sum(self._term(at, cell) for at, cell in enumerate(point))

    def _alone(self, eps: float) -> list[Cell]:
        """About the best cell of each module while the others stay trained; where there is none, what has least noise. A few
        draws are enough: where all of them together are too much, there will be less noise in all."""
        spec, found = self._spec.alone((min(max(eps, 1e-9), 1 - 1e-9),)), []
        for module in self.modules:
            cells = Sequential(self._blocks, self._memory, self._subject, module.part, self._task, self._known, spec)
            found.append(cells.guess(self._spec.alphas, None, eps) or self._trained)
            self.passes += cells.passes
        return found

    def _start(self, eps: float) -> Point | None:
        """The better of the two points that the search may start at."""
        starts = [self._quiet(cells, eps) for cells in (self._alone(eps), [self._trained] * len(self.modules))]
        return min((start for start in starts if start is not None), key=self._total, default=None)

    def _quiet(self, cells: Sequence[Cell], eps: float) -> Point | None:
        """These cells with less noise, as many places of the grid in all of them as it takes; None if none will do."""
        sigmas = self._spec.sigmas
        less = [
            tuple(Cell(cell.alpha, sigmas[max(0, sigmas.index(cell.sigma) - by)]) for cell in cells)
            for by in reversed(range(len(sigmas)))
        ]
        return last(less, lambda point: self._feasible(point, eps))

    def _traded(self, point: Point, eps: float) -> Point:
        """A better point near this one, in which modules bear other shares of the error; the same, if there is none.

        Where the network bears no more, one module can only gain what another gives up, and no move of a single module finds
        that. So each module has a price list: cells near its own, from the one that spoils least on, each the one that saves most
        for the error it adds. All modules start with the first of their lists, and whichever step saves most for its error comes
        next. Errors are added up in this order alone; the last of these points that is better and feasible is taken.
        """
        lists = [self._prices(at, point, eps) for at in range(len(point))]
        now = tuple(prices[0][0] for prices in lists)
        points = [now]
        steps = [(gain, at, cell) for at, prices in enumerate(lists) for cell, gain in prices[1:]]
        for _, at, cell in sorted(steps, key=lambda step: -step[0]):
            points.append(now := _put(now, at, cell))
        better = [one for one in points if self._total(one) < self._total(point)]
        return last(better, lambda one: self._feasible(one, eps)) or point

    def _prices(self, at: int, point: Point, eps: float) -> list[tuple[Cell, float]]:
        """Cells near that of one module, the one that spoils least first, each with what it saves for the error that it adds."""
        with self._kept(at):
            changes = {cell: self._change(point, _put(point, at, cell), eps) for cell in self._near(at, point)}
        return hull(changes, {cell: self._term(at, cell) for cell in changes})

    def _near(self, at: int, point: Point) -> list[Cell]:
        """The cells that a module may move to in a trade, its own among them."""
        spec, cell = self._spec, point[at]
        around = lambda grid, value, by: grid[max(0, grid.index(value) - by) : grid.index(value) + by + 1]  # noqa: E731
        sigmas, alphas = around(spec.sigmas, cell.sigma, REACH[0]), around(spec.alphas, cell.alpha, REACH[1])
        return [Cell(alpha, sigma) for alpha in alphas for sigma in sigmas]

    def _change(self, point: Point, other: Point, eps: float) -> float:
        """By how much the expected error of another point is larger, by a few draws that both have."""
        for few in (FAR, NEAR):
            change = float(np.mean(self._first(other, few)) - np.mean(self._first(point, few)))
            if change > eps:
                break
        return change

    def _first(self, point: Point, few: int) -> list[float]:
        """The errors of a point in the first draws."""
        errors = self._errors.setdefault(point, [])
        while len(errors) < min(few, self._spec.most):
            errors.append(self._error(point, len(errors)))
        return errors[:few]

    def _moved(self, point: Point, at: int, eps: float) -> Point:
        """The point with the best cell of one module."""
        first, *others = self._spec.alphas
        best = point[at]
        with self._kept(at):  # the others stay what they are
            for alpha in (first, *reversed(others)):
                cells = [Cell(alpha, sigma) for sigma in self._spec.sigmas]
                better = [cell for cell in cells if self._term(at, cell) < self._term(at, best)]
                better = better[:1] if alpha == 0 else better  # all are worth the same, and the first spoils least
                best = last(better, lambda cell: self._feasible(_put(point, at, cell), eps)) or best
        return _put(point, at, best)

    @contextmanager
    def _kept(self, at: int) -> Iterator[None]:
        """What comes before a module is kept meanwhile: the others stay what they are."""
        if self._written is not None:
            self._written.keep(at)
        yield
        if self._written is not None:
            self._written.keep(None)

    def _feasible(self, point: Point, eps: float) -> bool:
        """Whether an expected error is surely at most eps, by `most` draws at the most. What is said in the end rests on others:
        of many points that are asked about the lucky ones are taken."""
        errors, price = self._errors.setdefault(point, []), -math.log(1 - self._spec.level)
        while True:
            bets = capital(np.asarray(errors), eps)
            if bets.low >= price or bets.high >= price or len(errors) >= self._spec.most:
                return bets.low >= price
            errors.append(self._error(point, len(errors)))

    def _error(self, point: Point, draw: int) -> float:
        key = draw, self._spec.block
        block = self._blocks[key].samples
        if self._written is None:
            self._written = self._writing(point)
        if not self._written.good:
            return float(self.wrong(point, draw, block).double().mean())
        (outputs,) = self._written.outputs(_noises(point), [self._drawn(draw)], [(key, block)])
        return float(self._found(outputs, block).double().mean())

    def _drawn(self, draw: int) -> list[Normals]:
        return [self._normals[at, draw] for at in range(len(self.modules))]

    def _writing(self, point: Point) -> Written:
        """A network to write values to, compared with networks that are made afresh in a few draws."""
        keys = [(draw, self._spec.block) for draw in range(COMPARED)]
        blocks = [(key, self._blocks[key].samples) for key in keys]
        expected = [self._outputs(point, draw, block) for (draw, _), block in blocks]
        parts = [module.part for module in self.modules]
        found = Written(self._subject, parts, self._variant(point, COMPARED), self._memory)
        found.compare(expected, _noises(point), [self._drawn(draw) for draw, _ in keys], blocks)
        return found


def hull(errors: Mapping[Cell, float], terms: Mapping[Cell, float]) -> list[tuple[Cell, float]]:
    """The lower convex hull of cells by error and term, from the least error on, each with its gain: what it saves of the term
    for the error that it adds to the one before. Gains fall."""
    now = min(errors, key=lambda cell: (errors[cell], terms[cell]))
    found = [(now, math.inf)]
    while True:
        less = [cell for cell in errors if terms[cell] < terms[now] and errors[cell] > errors[now]]
        gains = {cell: (terms[now] - terms[cell]) / (errors[cell] - errors[now]) for cell in less}
        if not gains:
            return found
        now = max(gains, key=lambda cell: gains[cell])
        found.append((now, gains[now]))


def _put(point: Point, at: int, cell: Cell) -> Point:
    """The point with another cell of one module."""
    return (*point[:at], cell, *point[at + 1 :])


def _noises(point: Point) -> list[Noise]:
    return [Noise(cell.sigma, cell.alpha) for cell in point]
