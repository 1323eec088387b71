"""scikit-learn's 1,797 real handwritten digits, 8 x 8: the data set that needs no file."""

from pathlib import Path

import numpy as np
import torch

from layerscope import rng
from layerscope.data.raw import Raw

TEST = 360
"""Size of the test split: a fifth, as in no published split; the order is drawn once and for all."""


def read(name: str, root: Path | None) -> Raw:
    """Images `[n, 8, 8]` (uint8, 0..16) and labels `[n]` of a fixed random split: 1,437 train, 360 test."""
    from sklearn.datasets import load_digits as embedded

    images, labels = embedded(return_X_y=True)
    order = torch.randperm(len(labels), generator=rng.generator(0, "split", "digits"))
    inputs = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 8, 8)[order]
    targets = torch.from_numpy(labels.astype(np.uint8))[order]
    return Raw((inputs[TEST:], targets[TEST:]), (inputs[:TEST], targets[:TEST]), classes=10)
