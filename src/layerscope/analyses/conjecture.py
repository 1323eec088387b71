"""Both sides of chatterji2020's conjecture on test data: the error of the network under noise, and what noise adds to it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerscope import rng
from layerscope.analyses.joint import Joint, Point
from layerscope.analyses.spec import BoundsSpec
from layerscope.engine.batches import samples_in
from layerscope.engine.certified import joined
from layerscope.engine.precision import some
from layerscope.errors import UseError
from layerscope.stats import Interval

Row = dict[str, Any]
Block = tuple[Any, Tensor]
"""Samples, and which of them are meant."""
METRICS = "expected_error", "conjecture"
ONE_EACH = "tensors of one entry a sample, in tuples, lists or dictionaries"
"""What batches must be for samples to be taken out of them."""


def apart(batches: Iterable[Any]) -> bool:
    """Whether samples can be taken out of all of these batches."""
    return all(some(batch, torch.arange(0)) is not None for batch in batches)


def blocks_of(batches: Sequence[Any], size: int, seed: int) -> list[Block]:
    """All samples in random order, in two or more blocks of at most `size` that have none in common. Where batches cannot be put
    together, for tensors are not of one shape, a block is of one batch. None if samples cannot be taken out of batches."""
    if not apart(batches):
        return []
    try:
        wholes = [joined(list(batches), "")]
    except UseError:
        wholes = batches
    found = []
    for number, whole in enumerate(wholes):
        n = samples_in(whole)
        order = torch.randperm(n, generator=rng.generator(seed, "sample order", "test", number))
        several = max(math.ceil(n / size), min(n, 2))
        found += [(whole, rows) for rows in order.tensor_split(several)] if n else []
    return found


def tested(joint: Joint, point: Point, blocks: Sequence[Block], spec: BoundsSpec) -> list[Row]:
    """The error on test data of the network under noise, and how much larger it is than without. Every sample is used once, under
    a draw that it shares with its block; how many of a block noise puts wrong, or right, is paired sample by sample."""
    if not blocks:
        reason = f"samples cannot be taken out of the test batches, which must be {ONE_EACH}"
        return [_row(metric, status="not applicable", reason=reason) for metric in METRICS]
    wrong, worse, better = [], [], []
    for draw, (samples, rows) in enumerate(blocks, spec.most + spec.draws):
        block = some(samples, rows)
        noisy, plain = joint.wrong(point, draw, block), joint.wrong((), draw, block)
        for counts, which in ((wrong, noisy), (worse, noisy & ~plain), (better, plain & ~noisy)):
            counts.append(int(which.sum()))
    sizes = np.array([len(rows) for _, rows in blocks])
    found = (
        in_blocks(np.array(wrong), sizes, spec.level),
        difference(np.array(worse), np.array(better), sizes, spec.level),
    )
    n = int(sizes.sum())
    values = sum(wrong) / n, (sum(worse) - sum(better)) / n
    return [
        _row(metric, value=value, n=n, low=low, high=high, interval="population", level=spec.level)
        for metric, value, (low, high) in zip(METRICS, values, found, strict=True)
    ]


def _row(metric: str, **fields: Any) -> Row:
    return {"metric": metric, "split": "test", "unit": "fraction", "status": "ok", **fields}


def in_blocks(counts: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a proportion from independent blocks, of which samples share something: that of Clopper and Pearson for as many
    samples that share nothing as would scatter so much, and no more than there are.

    Source: Korn and Graubard (1998), Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data, Survey Methodology 24:2.
    """
    from scipy.stats import beta, t

    n, blocks, tail = int(sizes.sum()), len(sizes), (1 + level) / 2
    p = float(counts.sum()) / n
    scatter = blocks / (blocks - 1) * float(np.square(counts - p * sizes).sum()) / n**2 if blocks > 1 else 0.0
    alone = float(n)
    if scatter > 0:
        alone = min(n, p * (1 - p) / scatter * float(t.ppf(tail, n - 1) / t.ppf(tail, blocks - 1)) ** 2)
    hits, misses = p * alone, (1 - p) * alone
    low = float(beta.ppf(1 - tail, hits, misses + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(tail, hits + 1, misses)) if misses > 0 else 1.0
    return Interval(low, high)


def difference(worse: np.ndarray, better: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of how much more of a population goes from right to wrong than from wrong to right, from counts in independent
    blocks: that of a difference, from the intervals of both shares.

    Source: Zou and Donner (2008), Construction of confidence limits about effect measures: a general approach, Statistics in
    Medicine 27:10 (MOVER).
    """
    up, down = in_blocks(worse, sizes, level), in_blocks(better, sizes, level)
    n = float(sizes.sum())
    ups, downs = float(worse.sum()) / n, float(better.sum()) / n
    low = math.hypot(ups - up.low, down.high - downs)
    high = math.hypot(up.high - ups, downs - down.low)
    return Interval(ups - downs - low, ups - downs + high)
