"""Random changes of training images, on whole batches of tensors `[n, channels, height, width]`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PAD = 4
"""Pixels by which a padded image may move. Source: zhang2022, App. A; chatterji2020, App. C."""
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
"""Share of the area and ratio of the sides of ImageNet crops, as is usual since Szegedy et al. 2015; the papers state none."""


@dataclass(frozen=True)
class Images:
    """What is known of the images of a data set: the value of black after normalisation, and the size that networks get."""

    black: float
    height: int
    width: int


Change = Callable[[Tensor, torch.Generator, Images], Tensor]


def flip(images: Tensor, generator: torch.Generator, about: Images) -> Tensor:
    """Each image mirrored left-right with probability 1/2."""
    chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def pad_crop(images: Tensor, generator: torch.Generator, about: Images) -> Tensor:
    """Each image moved by -4 to 4 pixels each way; what comes in from outside is black."""
    n, _, height, width = images.shape
    top, left = torch.randint(2 * PAD + 1, (2, n), generator=generator).to(images.device)
    padded = functional.pad(images, (PAD,) * 4, value=about.black)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [n, channels, 9, 9, height, width], nothing copied
    return windows[torch.arange(n, device=images.device), :, top, left]


def pad_crop_flip(images: Tensor, generator: torch.Generator, about: Images) -> Tensor:
    """`pad_crop`, then `flip`."""
    return flip(pad_crop(images, generator, about), generator, about)


def imagenet(images: Tensor, generator: torch.Generator, about: Images) -> Tensor:
    """A random crop of each image, resized to what networks get (bilinear, without antialiasing), then `flip`.

    Crops are drawn as torchvision draws them, except that one that does not fit is made narrower or lower until it does. They
    are of the images as they are kept: of an image folder, of the middle square of each picture.
    """
    n, _, height, width = images.shape
    area, ratio, x, y = torch.rand((4, n), generator=generator)
    side = ((AREA[0] + (AREA[1] - AREA[0]) * area) * height * width).sqrt()
    shape = (math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * ratio).exp().sqrt()
    w, h = (side * shape / width).clamp(max=1), (side / shape / height).clamp(max=1)  # shares of the image
    zero = torch.zeros(n)
    rows = (w, zero, (2 * x - 1) * (1 - w)), (zero, h, (2 * y - 1) * (1 - h))
    maps = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images)
    grid = functional.affine_grid(maps, [n, images.shape[1], about.height, about.width], align_corners=False)
    crops = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return flip(crops, generator, about)


UNCROPPED = ("imagenet",)
"""Changes of the images as they are kept; the others are of their middle, which networks get."""

CHANGES: dict[str, Change] = {"flip": flip, "pad-crop": pad_crop, "pad-crop-flip": pad_crop_flip, "imagenet": imagenet}
