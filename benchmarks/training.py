"""A training with all its checkpoints against a bare PyTorch loop of the same steps."""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope as ls
from benchmarks.data import mnist_or_like
from benchmarks.frame import Result, ratio
from layerscope.data import DataSet
from layerscope.training import session
from layerscope.training.loop import start

EPOCHS = 2


def run() -> list[Result]:
    data, name = mnist_or_like()
    spec = ls.TrainSpec(data="mnist", epochs=EPOCHS)
    session.load = lambda *_: data  # type: ignore[assignment]  # in memory already: reading it is not what is measured

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            ls.train(spec, Path(folder) / "run")

    a, b, quotient = ratio(ours, lambda: bare(start(spec, data), data, spec))
    measured = f"{a:.2f} s for {EPOCHS} epochs, ratio {quotient:.3f}"
    return [
        Result(
            f"train fcn-3x256 on {name}, a checkpoint an epoch",
            measured,
            f"bare loop {b:.2f} s",
            "<= 1.2x",
            quotient <= 1.2,
        )
    ]


def bare(model: nn.Module, data: DataSet, spec: ls.TrainSpec) -> None:
    """What one would write by hand: no test error, no checkpoints, nothing recorded."""
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum, fused=True)
    for _ in range(spec.epochs):
        for chosen in torch.randperm(len(data.train)).split(spec.batch_size):
            loss = cross_entropy(model(data.train.inputs[chosen]), data.train.targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
