"""Real images where there are some, else noise of their shape: neither time nor memory depends on the pixels."""

import os

import torch

import layerscope as ls
from layerscope.data import DataSet, Split


def mnist_or_like() -> tuple[DataSet, str]:
    """The data and what to call it in the table."""
    return _real_or_like("mnist", (1, 28, 28), 60_000)


def cifar_or_like(whole: bool = False) -> tuple[DataSet, str]:
    """CIFAR-10, or a fifth of both its splits."""
    return _real_or_like(
        "cifar10" if whole else "cifar10?n_train=2000&n_test=400", (3, 32, 32), 50_000 if whole else 2_000
    )


def _real_or_like(name: str, shape: tuple[int, ...], n_train: int) -> tuple[DataSet, str]:
    set_, _, options = name.partition("?")
    if os.environ.get("LAYERSCOPE_DATA"):
        data = ls.data.load(name)
        return data, f"{set_} ({len(data.train):,} + {len(data.test):,})" if options else set_
    random = torch.Generator().manual_seed(0)
    n_test = 10_000 if n_train > 2_000 else 400
    train, test = (
        Split(torch.randn(n, *shape, generator=random), torch.randint(10, (n,), generator=random))
        for n in (n_train, n_test)
    )
    return DataSet(f"like {set_}", train, test, 10, 0.0, 1.0, "noise"), f"noise of {set_}'s shape"
