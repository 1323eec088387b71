"""MNIST where there is one, else noise of its shape: neither time nor memory depends on the pixels."""

import os

import torch

import layerscope as ls
from layerscope.data import DataSet, Split


def mnist_or_like() -> tuple[DataSet, str]:
    """The data and what to call it in the table."""
    if os.environ.get("LAYERSCOPE_DATA"):
        return ls.data.load("mnist"), "MNIST"
    random = torch.Generator().manual_seed(0)
    train, test = (
        Split(torch.randn(n, 1, 28, 28, generator=random), torch.randint(10, (n,), generator=random))
        for n in (60000, 10000)
    )
    return DataSet("like mnist", train, test, 10, 0.0, 1.0, "noise"), "noise of MNIST's shape"
