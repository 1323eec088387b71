"""Intervals of the two sides of the conjecture: how often they hold, and that they have a width where nothing was seen."""

import numpy as np
import pytest
import torch

from layerscope.analyses.conjecture import blocks_of, difference, in_blocks


def counts(random: np.random.Generator, p: float, n: int, together: float) -> tuple[np.ndarray, np.ndarray]:
    """Wrong samples of blocks of 16, which share a draw that moves their chance: a beta law with this correlation."""
    sizes = np.array([len(part) for part in np.array_split(np.arange(n), -(-n // 16))])
    if together == 0:
        return random.binomial(sizes, p), sizes
    scale = (1 - together) / together
    return random.binomial(sizes, random.beta(p * scale, (1 - p) * scale, size=len(sizes))), sizes


@pytest.mark.parametrize("together", [0.0, 0.05])
@pytest.mark.parametrize(("p", "n"), [(0.005, 64), (0.01, 360), (0.03, 360), (0.1, 2000), (0.3, 64)])
def test_a_proportion_is_covered(p, n, together):
    """Student's interval over blocks misses half of the time at 0.01 and 64, for then all blocks often agree."""
    random, missed = np.random.default_rng(0), 0
    for _ in range(400):
        low, high = in_blocks(*counts(random, p, n, together))
        missed += not low <= p <= high
    assert missed <= 0.06 * 400 + 3 * np.sqrt(0.05 * 0.95 * 400)


@pytest.mark.parametrize(("up", "down", "n"), [(0.01, 0.0, 64), (0.05, 0.01, 360), (0.1, 0.1, 2000)])
def test_a_difference_is_covered(up, down, n):
    random, missed = np.random.default_rng(0), 0
    for _ in range(400):
        (worse, sizes), (better, _) = counts(random, up, n, 0.02), counts(random, down, n, 0.0)
        low, high = difference(worse, better, sizes)
        missed += not low <= up - down <= high
    assert missed <= 0.06 * 400 + 3 * np.sqrt(0.05 * 0.95 * 400)


def test_nothing_wrong_is_as_clopper_and_pearson_have_it():
    """For 64 samples of which none is wrong the upper end is 1 - 0.025^(1/64)."""
    low, high = in_blocks(np.zeros(4), np.full(4, 16))
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 64)))
    assert in_blocks(np.full(4, 16), np.full(4, 16)) == (pytest.approx(0.025 ** (1 / 64)), 1)
    low, high = difference(np.zeros(4), np.zeros(4), np.full(4, 16))
    assert low == pytest.approx(-high)
    assert high > 0.05


def test_every_sample_is_in_one_block():
    whole = [(torch.arange(10), torch.zeros(10)), (torch.arange(10, 14), torch.zeros(4))]
    for batches in (whole, [(part[:, None].expand(-1, k + 1), y) for k, (part, y) in enumerate(whole)]):
        blocks = blocks_of(batches, 4, 0)
        seen = [int(samples[0].reshape(len(samples[0]), -1)[row, 0]) for samples, rows in blocks for row in rows]
        assert sorted(seen) == list(range(14))
        assert max(len(rows) for _, rows in blocks) <= 4
