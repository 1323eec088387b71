"""Random changes of training images, against pictures cut out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope.training.augment import CHANGES, PAD, Images, flip, imagenet, pad_crop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """All values differ, so that each can be found again."""
    return torch.arange(n * 3 * height * width, dtype=torch.float32).reshape(n, 3, height, width)


def test_every_moved_picture_is_a_window_of_the_padded_one():
    images = pictures(200, 6, 5)
    moved = pad_crop(images, generator(), Images(-7.0, 6, 5)).numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)), constant_values=-7.0)
    places = []
    for image, wide in zip(moved, padded, strict=True):
        found = [
            (top, left)
            for top in range(2 * PAD + 1)
            for left in range(2 * PAD + 1)
            if np.array_equal(image, wide[:, top : top + 6, left : left + 5])
        ]
        places.append(found[0])
        assert found
    tops, lefts = map(np.array, zip(*places, strict=True))
    for moves in (tops, lefts):  # 200 draws of 9 places
        assert set(moves) == set(range(2 * PAD + 1))
        assert np.bincount(moves).max() < 45
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.25


def test_half_of_the_pictures_are_mirrored():
    images = pictures(400, 3, 4)
    changed = flip(images, generator(), Images(0.0, 3, 4)).numpy()
    mirrored = [np.array_equal(a, b[:, :, ::-1]) for a, b in zip(changed, images.numpy(), strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(changed, images.numpy(), strict=True)]
    assert sum(mirrored) + sum(same) == 400
    assert 160 < sum(mirrored) < 240


def test_imagenet_crops_are_straight_pieces_of_the_picture():
    """A picture whose values are its coordinates shows which rectangle was taken."""
    height, width, side = 48, 64, 24
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images = torch.stack([x, y, torch.zeros_like(x)]).expand(300, 3, height, width).contiguous()
    crops = imagenet(images, generator(), Images(0.0, side, side))
    assert crops.shape == (300, 3, side, side)
    inner = slice(4, -4)  # at the border of a picture, values beyond its outermost pixel centres are theirs
    across, down = crops[:, 0, :, inner], crops[:, 1, inner, :]
    assert torch.allclose(across, across[:, :1], atol=1e-3)
    assert torch.allclose(down, down[:, :, :1], atol=1e-3)
    w = (across[:, 0, -1] - across[:, 0, 0]).abs() * side / (side - 9)
    h = (down[:, -1, 0] - down[:, 0, 0]) * side / (side - 9)
    area, ratio = w * h / (height * width), w / h
    fits = (w < 0.99 * width) & (h < 0.99 * height)
    assert area.min() > 0.079
    assert area.max() <= 1.01
    assert ratio[fits].min() > 0.74
    assert ratio[fits].max() < 1.35
    assert 0.35 < area.mean() < 0.6  # uniform on 0.08 to 1, less what does not fit
    mirrored = (across[:, 0, -1] < across[:, 0, 0]).float().mean()
    assert 0.4 < mirrored < 0.6


@pytest.mark.parametrize("name", list(CHANGES))
@given(seed=st.integers(0, 2**31), n=st.integers(1, 5))
def test_nothing_is_drawn_but_from_the_generator(name, seed, n):
    images, about = torch.rand(n, 1, 8, 8), Images(-1.0, 8, 8)
    before, state = images.clone(), torch.get_rng_state()
    first, second = (CHANGES[name](images, generator(seed), about) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == images.shape
