"""The expected error of a Part under noise, cell by cell: all draws on all data, or samples until a decision is sure.

A cell is a place on the way from the start (alpha) and a standard deviation (sigma); its expected error is E_u of the error on
these data of the network with theta^alpha + u in the Part, u ~ N(0, sigma^2 I). What shares a draw of u is one value of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from layerscope import rng
from layerscope.analyses.spec import CriticalitySpec
from layerscope.engine.batches import moved, samples_in
from layerscope.engine.precision import some
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task
from layerscope.errors import UseError
from layerscope.partition import Part
from layerscope.perturb import Noise, Variant
from layerscope.stats import capital

Compute = Callable[[Subject, Sequence[Variant], Task, Reference, None], Iterable[list[dict[str, Any]]]]


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

    errors: dict[Cell, list[float]]
    """Of each cell that was looked at, the error under each draw."""
    passes: int
    """Samples that went through the network so far."""

    def best(self, eps: float) -> Cell | None:
        """The cell of the smallest ratio whose expected error is at most eps; None where there is none."""
        ...

    def unsure(self, eps: float) -> list[Cell]:
        """Cells whose draws do not make sure on which side of eps they are."""
        ...


class _Asked:
    """A Part in a network on some data, and the draws that were looked at."""

    def __init__(self, subject: Subject, part: Part, task: Task, known: Reference, spec: CriticalitySpec) -> None:
        self.subject, self.part, self.task, self.known, self.spec = subject, part, task, known, spec
        self.errors: dict[Cell, list[float]] = {}
        self.passes = 0
        self._price = math.log(2 * len(spec.alphas) * len(spec.sigmas) / (1 - spec.level))

    def unsure(self, eps: float) -> list[Cell]:
        """See `Cells`."""
        return [cell for cell in self.errors if self._sure(cell, eps) is None]

    def _sure(self, cell: Cell, eps: float) -> bool | None:
        """Whether a cell's expected error is at most eps; None where its draws do not tell."""
        bets = capital(np.asarray(self.errors[cell]), eps)
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
            self.errors[cell] = [row["value"] for row in rows]
            self.passes += sum(row["n"] for row in rows)

    def best(self, eps: float) -> Cell | None:
        """See `Cells`; of several, that of the largest sigma."""
        feasible = [cell for cell, errors in self.errors.items() if np.mean(errors) <= eps]
        return min(feasible, key=lambda cell: (cell.ratio, -cell.sigma), default=None)


class Sequential(_Asked):
    """Few cells, each in draws on `block` samples at random until it is sure on which side of eps its expected error is.

    Along each alpha the largest sigma is found by bisection, as if the error grew with sigma, among those that would beat the
    best cell so far. Every block is a fair choice (uniform over samples), so that the mean over blocks is the expected error on
    all data, and blocks are independent.
    """

    def __init__(self, batches: Sequence[Any], *asked: Any) -> None:
        super().__init__(*asked)
        self._batches, self._sizes = batches, torch.tensor([float(samples_in(batch)) for batch in batches])

    def best(self, eps: float) -> Cell | None:
        """See `Cells`. The trained place is asked after the start: it makes the most to beat."""
        found: Cell | None = None
        first, *others = self.spec.alphas
        for alpha in (first, *reversed(others)):
            cells = [Cell(alpha, sigma) for sigma in self.spec.sigmas]
            better = [cell for cell in cells if found is None or cell.ratio < found.ratio]
            found = last(better, lambda cell: self._feasible(cell, eps)) or found
        return found

    def _feasible(self, cell: Cell, eps: float) -> bool:
        errors = self.errors.setdefault(cell, [])
        while (sure := self._sure(cell, eps)) is None and len(errors) < self.spec.most:
            errors.append(self._error(cell, len(errors)))
        return bool(np.mean(errors) <= eps) if sure is None else sure

    def _error(self, cell: Cell, draw: int) -> float:
        """On one block under one draw."""
        block, metric = self._block(draw), self.task.metrics[0]
        targets = moved(self.task.targets(block), self.subject.device)

        def work(network: nn.Module) -> torch.Tensor:
            return metric.keep(targets, self.subject.outputs(network, block))

        wrong = self.subject.run(self.subject.values(self._variant(cell, draw)), work)
        self.passes += len(wrong)
        return float(wrong.double().mean())

    def _block(self, draw: int) -> Any:
        """Samples of one batch, which has as many chances as it has samples; the same for all cells."""
        generator = rng.generator(self.spec.seed, "block of samples", "", draw)
        batch = self._batches[int(torch.multinomial(self._sizes, 1, generator=generator))]
        rows = torch.randperm(samples_in(batch), generator=generator)[: self.spec.block]
        if (block := some(batch, rows)) is None:
            raise UseError(
                "samples cannot be taken out of these batches: they must be tensors of one entry a sample; ask with "
                "search='grid'"
            )
        return block


def last(cells: Sequence[Cell], holds: Callable[[Cell], bool]) -> Cell | None:
    """The last cell for which something holds that holds up to it and not beyond, by bisection; None where it holds for none.
    The last is asked first, so that what holds there is found whatever is before."""
    if not cells or holds(cells[-1]):
        return cells[-1] if cells else None
    if not holds(cells[0]):
        return None
    good, bad = 0, len(cells) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(cells[middle]) else (good, middle)
    return cells[good]
