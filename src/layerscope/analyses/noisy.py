"""The expected error of a Part under noise, cell by cell: all draws on all data, or samples until a decision is sure.

A cell is a place on the way from the start (alpha) and a standard deviation (sigma); its expected error is E_u of the error on
these data of the network with theta^alpha + u in the Part, u ~ N(0, sigma^2 I). What shares a draw of u is one value of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from layerscope import rng
from layerscope.analyses.spec import CriticalitySpec
from layerscope.analyses.written import Drawn, Samples, Written
from layerscope.engine.batches import leaves, moved, samples_in
from layerscope.engine.precision import some
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task
from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb import Noise, Variant
from layerscope.perturb.noise import normals
from layerscope.stats import capital, of_zeros

TOGETHER = 4
"""Draws between two looks at a cell: few enough that one far from eps is left after the first."""
FEW, LESS = 16, 2
"""Draws in which a cell that would beat the best must be refused for the least value to be above it; and steps of sigma below the
best cell where it is looked for one that is surely feasible."""
CLOSE, LARGER = 32, 2
"""A cell that this many draws do not decide, nor place far below eps, has so many times larger blocks from then on."""
KEPT = 128 << 20
"""Bytes of normal numbers that are kept of a Part's first draws, with which every cell begins; and of samples as many."""
T = TypeVar("T")
Compute = Callable[[Subject, Sequence[Variant], Task, Reference, None], Iterable[list[dict[str, Any]]]]


class Block(NamedTuple):
    """Samples, and the error of the trained network on them."""

    samples: Any
    own: float


class Cell(NamedTuple):
    """A place on the way and a standard deviation."""

    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """What is smallest in the best cell: alpha / sigma."""
        return self.alpha / self.sigma


@runtime_checkable
class Cells(Protocol):
    """The cells of one Part, as far as they were asked for."""

    seen: dict[Cell, list[float]]
    """Of each cell that was looked at, the error of each draw on its samples, in [0, 1]: what bets are on."""
    beyond: dict[Cell, list[float]]
    """The same less the error of the trained network on these samples: what draws of samples hardly move."""
    own: float
    """The error of the trained network on all data."""
    passes: int
    """Samples that went through the network so far."""

    def error(self, cell: Cell) -> float:
        """The estimate of a cell's expected error. It may be a little beyond 0 or 1."""
        ...

    def best(self, eps: float) -> Cell | None:
        """The cell of the smallest ratio whose expected error is at most eps; None where there is none."""
        ...

    def unsure(self, eps: float) -> list[Cell]:
        """Cells whose draws do not make sure on which side of eps they are."""
        ...

    def interval(self, eps: float, best: Cell) -> tuple[float, float]:
        """Between which ratios the smallest of a feasible cell surely lies; the second is infinite where no cell is surely
        feasible."""
        ...


class _Asked:
    """A Part in a network on some data, and the draws that were looked at."""

    def __init__(self, subject: Subject, part: Part, task: Task, known: Reference, spec: CriticalitySpec) -> None:
        self.subject, self.part, self.task, self.known, self.spec = subject, part, task, known, spec
        self.seen: dict[Cell, list[float]] = {}
        self.beyond: dict[Cell, list[float]] = {}
        self.own = own_of(known)
        self.passes = 0
        self._price = price_of(spec)

    def error(self, cell: Cell, first: int | None = None) -> float:
        """See `Cells`; by its first draws, if so many are given. Where no draw changes a decision it is that of the trained
        network to the last bit, as which eps may be given."""
        return self.own + float(np.mean(self.beyond[cell][:first]))

    def unsure(self, eps: float) -> list[Cell]:
        """See `Cells`."""
        return [cell for cell in self.seen if self._sure(cell, eps) is None]

    def _sure(self, cell: Cell, eps: float) -> bool | None:
        """Whether a cell's expected error is at most eps; None where its draws do not tell."""
        bets = capital(np.asarray(self.seen.get(cell, [])), eps)
        return True if bets.low >= self._price else False if bets.high >= self._price else None

    def _variant(self, cell: Cell, draw: int) -> Variant:
        return Variant.of(self.part, Noise(cell.sigma, cell.alpha), draw, buffers="keep")


class Grid(_Asked):
    """All cells, each in `draws` draws on all data: slow and obvious. The sequential search is compared with it."""

    def __init__(self, compute: Compute, *asked: Any) -> None:
        super().__init__(*asked)
        cells = [Cell(alpha, sigma) for alpha in self.spec.alphas for sigma in self.spec.sigmas]
        variants = [self._variant(cell, draw) for cell in cells for draw in range(self.spec.draws)]
        found = iter(compute(self.subject, variants, self.task, self.known, None))
        for cell in cells:
            rows = [next(found)[0] for _ in range(self.spec.draws)]
            if failed := next((row["reason"] for row in rows if row["status"] != "ok"), ""):
                raise RuntimeError(failed)
            self.seen[cell] = [row["value"] for row in rows]
            self.beyond[cell] = [error - self.own for error in self.seen[cell]]
            self.passes += sum(row["n"] for row in rows)

    def best(self, eps: float) -> Cell | None:
        """See `Cells`; of several, that of the largest sigma."""
        feasible = [cell for cell in self.seen if self.error(cell) <= eps]
        return min(feasible, key=lambda cell: (cell.ratio, -cell.sigma), default=None)

    def interval(self, eps: float, best: Cell) -> tuple[float, float]:
        """See `Cells`."""
        sure = {cell: self._sure(cell, eps) for cell in self.seen}
        low = min((cell.ratio for cell, yes in sure.items() if yes is not False), default=best.ratio)
        return low, min((cell.ratio for cell, yes in sure.items() if yes), default=math.inf)


class Sequential(_Asked):
    """Few cells, each in draws on `block` samples at random until it is sure on which side of eps its expected error is.

    Along each alpha the largest sigma is found by bisection, as if the error grew with sigma, among those that would beat the
    best cell so far. A cell that is feasible takes many draws to decide, others few: so the alpha that promises most by the
    first draws comes first, and most of what is asked after it is refused. Every block is a fair choice (uniform over
    samples), so that the mean over blocks is the expected error on all data, and blocks are independent.
    """

    def __init__(self, blocks: "Few", memory: int, *asked: Any) -> None:
        super().__init__(*asked)
        self._blocks, self._memory = blocks, memory
        self._normals = Few(lambda draw: normals(self.part, self.subject.world, draw))
        self._written: Written | None = None

    def best(self, eps: float) -> Cell | None:
        """See `Cells`. The trained place comes right after the start: it makes the most to beat."""
        found: Cell | None = None
        first, *others = self.spec.alphas
        left = [first, *reversed(others)]
        while left:
            guess = self.guess(left, found, eps)
            alpha = left[0] if guess is None else guess.alpha
            found = last(self._better(alpha, found), partial(self._feasible, eps=eps), guess) or found
            left.remove(alpha)
        return found

    def unsure(self, eps: float) -> list[Cell]:
        """See `Cells`: those that were decided by their estimates."""
        return [cell for cell in super().unsure(eps) if len(self.seen[cell]) >= self.spec.most]

    def interval(self, eps: float, best: Cell) -> tuple[float, float]:
        """See `Cells`; as far as errors grow with sigma. Asks, along each alpha, from what would just beat the best so far on
        until a cell is surely not feasible, a few draws each; and at the best alpha once for less noise."""
        low, at = best, self.spec.sigmas.index(best.sigma)
        for alpha in self.spec.alphas:
            for cell in self._better(alpha, low):
                self._feasible(cell, eps, FEW)  # what is not refused by then stays open
                if self._sure(cell, eps) is False:
                    break
                low = cell
        if self._sure(best, eps) is None:
            less = max(0, at - LESS) if best.ratio else 0  # at the start the ratio is 0 whatever the noise
            self._feasible(Cell(best.alpha, self.spec.sigmas[less]), eps)
        return low.ratio, min((cell.ratio for cell in self.seen if self._sure(cell, eps)), default=math.inf)

    def _better(self, alpha: float, found: Cell | None) -> list[Cell]:
        """The cells of an alpha that would beat the best so far."""
        cells = (Cell(alpha, sigma) for sigma in self.spec.sigmas)
        return [cell for cell in cells if found is None or cell.ratio < found.ratio]

    def guess(self, alphas: Sequence[float], found: Cell | None, eps: float) -> Cell | None:
        """The best cell by the first draws of each; None if none of them beats the best so far."""
        guess = None
        for alpha in alphas:
            guess = last(self._better(alpha, guess or found), partial(self._promises, eps=eps)) or guess
        return guess

    def _promises(self, cell: Cell, eps: float) -> bool:
        if cell not in self.seen:
            self._look(cell, self.spec.block)
        return self.error(cell, TOGETHER) <= eps

    def _feasible(self, cell: Cell, eps: float, most: int | None = None) -> bool:
        most = min(most or self.spec.most, self.spec.most)
        while (sure := self._sure(cell, eps)) is None and (known := len(self.seen.get(cell, []))) < most:
            close = known >= CLOSE and self.error(cell) > eps / 4
            self._look(cell, self.spec.block * (LARGER if close else 1))
        return self.error(cell) <= eps if sure is None else sure

    def _look(self, cell: Cell, size: int) -> None:
        """A few more draws, each on so many samples. The size may follow from what was seen: the mean stays what it is."""
        seen, beyond = self.seen.setdefault(cell, []), self.beyond.setdefault(cell, [])
        known = len(seen)
        draws = range(known, min(known + TOGETHER, self.spec.most))
        for draw, wrong in zip(draws, self._outcomes(cell, draws, size), strict=True):
            self.passes += len(wrong)
            seen.append(float(wrong.double().mean()))
            beyond.append(seen[-1] - self._blocks[draw, size].own)

    def _outcomes(self, cell: Cell, draws: Sequence[int], size: int) -> list[Tensor]:
        """Which samples of the block of each draw are wrong."""
        blocks: list[Samples] = [((draw, size), self._blocks[draw, size].samples) for draw in draws]
        noise = Noise(cell.sigma, cell.alpha)
        if self._written is not None and self._written.good:
            outputs = self._written.outputs([noise], self._drawn(draws), blocks)
        else:
            outputs = self._slowly(cell, draws, blocks)
        if self._written is None:  # a few draws tell whether values can be written to one place
            self._written = Written(self.subject, [self.part], self._variant(cell, draws[-1]), self._memory)
            if len(draws) > 1:
                self._written.compare(outputs, [noise], self._drawn(draws), blocks)
                self._written.keep(0)
        metric = self.task.metrics[0]
        targets = (moved(self.task.targets(block), self.subject.device) for _, block in blocks)
        return [metric.keep(right, found) for right, found in zip(targets, outputs, strict=True)]

    def _drawn(self, draws: Sequence[int]) -> list[Drawn]:
        return [[self._normals[draw]] for draw in draws]

    def _slowly(self, cell: Cell, draws: Sequence[int], blocks: Sequence[Samples]) -> list[Any]:
        """The outputs for each block under each draw, of networks as the reference engine has them."""
        found = []
        for draw, (_, block) in zip(draws, blocks, strict=True):
            values = self.subject.values(self._variant(cell, draw))
            found.append(self.subject.run(values, lambda network, block=block: self.subject.outputs(network, block)))
        return found


class Few:
    """What is made of a key, kept while there is room for it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make, self._made, self._room = make, dict[Any, Any](), KEPT

    def __getitem__(self, key: Any) -> Any:
        if key in self._made:
            return self._made[key]
        made = self._make(key)
        nbytes = sum(leaf.nbytes for leaf in leaves(made) if isinstance(leaf, Tensor))
        if nbytes <= self._room:
            self._room -= nbytes
            self._made[key] = made
        return made


def price_of(spec: CriticalitySpec) -> float:
    """Log of what a bet on a cell must win for all decisions of a Part to be right at once with the level's probability."""
    return math.log(2 * len(spec.alphas) * len(spec.sigmas) / (1 - spec.level))


def enough(spec: CriticalitySpec, eps: float) -> int:
    """Draws that make sure that a cell's expected error is at most eps, if no sample is ever wrong: those of the spec, or as many
    times more as powers of two as it takes."""
    draws = spec.most if spec.search == "sequential" else spec.draws
    while of_zeros(draws, eps) < price_of(spec):
        draws *= 2
    return draws


def own_of(known: Reference) -> float:
    """The error of the trained network on all data."""
    return float(torch.cat([kept[0] for kept in known.kept]).double().mean())


def blocks_of(batches: Sequence[Any], known: Reference, seed: int) -> Few:
    """(draw, size) -> a `Block` of so many samples of one batch, which has as many chances as it has samples; the same for all
    Parts and cells, and of a smaller size the first of them."""
    sizes = torch.tensor([float(samples_in(batch)) for batch in batches])

    def make(key: tuple[int, int]) -> Block:
        draw, size = key
        generator = rng.generator(seed, "block of samples", "", draw)
        number = int(torch.multinomial(sizes, 1, generator=generator))
        batch = batches[number]
        rows = torch.randperm(samples_in(batch), generator=generator)[:size]
        if (block := some(batch, rows)) is None:
            raise UseError(
                "samples cannot be taken out of these batches: they must be tensors of one entry a sample; ask with "
                "search='grid'"
            )
        return Block(block, float(known.kept[number][0][rows].double().mean()))

    return Few(make)


def last(cells: Sequence[T], holds: Callable[[T], bool], guess: T | None = None) -> T | None:
    """The last cell for which something holds that holds up to it and not beyond, by bisection; None where it holds for none.
    The last is asked first, so that what holds there is found whatever is before; then the guess and its neighbours, or the
    first."""
    if not cells or holds(cells[-1]):
        return cells[-1] if cells else None
    at = cells.index(guess) if guess in cells else None
    ask = [0] if at is None else [at, at + 1, at - 1]
    good, bad = -1, len(cells) - 1
    while bad - good > 1:
        middle = next((place for place in ask if good < place < bad), (good + bad) // 2)
        good, bad = (middle, bad) if holds(cells[middle]) else (good, middle)
    return cells[good] if good >= 0 else None
