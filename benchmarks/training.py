"""A training with all its checkpoints, losses and errors against a bare PyTorch loop of the same steps."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

import layerscope as ls
from benchmarks.data import cifar_or_like, mnist_or_like
from benchmarks.frame import REPEATS, Result
from layerscope.data import DataSet
from layerscope.training import session
from layerscope.training.loop import start

GOAL = 1.1
GPU_GOAL = 1.3


def run() -> Iterator[Result]:
    fcn = ls.TrainSpec(data="mnist", epochs=2)
    conv = ls.TrainSpec(model="alexnet-small?width=0.25", data="cifar10", epochs=2)
    residual = ls.TrainSpec(model="resnet-v2-18?norm=none&width=0.25", data="cifar10", epochs=2)
    augmented = ls.TrainSpec(model="alexnet-small?width=0.25", data="cifar10", epochs=2, augment="pad-crop-flip")
    images = cifar_or_like()
    yield measured(fcn, *mnist_or_like())
    for spec in (conv, residual, augmented):
        yield measured(spec, *images)
    if torch.cuda.is_available():
        yield on_gpu()


def on_gpu() -> Result:
    """The whole of CIFAR-10, ResNet18 of full width in bfloat16: the fastest plain loop we know is the other side."""
    spec = ls.TrainSpec(model="resnet-v1-18", data="cifar10", epochs=2, precision="bfloat16", batch_size=512, lr=0.1)
    return measured(spec, *cifar_or_like(whole=True), device="cuda", goal=GPU_GOAL)


def measured(spec: ls.TrainSpec, data: DataSet, name: str, device: str = "cpu", goal: float = GOAL) -> Result:
    """The second epoch of both, in turn: a training begins with a test of the untrained network, which is no part of an epoch."""
    session.load = lambda *_: data  # type: ignore[assignment]  # in memory already: reading it is not what is measured
    on_device = data.train.inputs.to(device), data.train.targets.to(device)
    times = [(ours(spec, device), bare(start(spec, data), *on_device, data.black, spec)) for _ in range(1 + REPEATS)]
    a, b = (statistics.median(column) for column in zip(*times[1:], strict=True))
    options = ", augmented" if spec.augment != "none" else ""
    return Result(
        f"an epoch of {spec.model}{options} on {name} ({device}, {spec.precision}) with its checkpoint and test",
        f"{a:.2f} s, ratio {a / b:.3f}",
        f"bare loop, no test {b:.2f} s",
        f"<= {goal}x",
        a / b <= goal,
    )


def ours(spec: ls.TrainSpec, device: str) -> float:
    """Seconds of the second epoch, from the end of the first to its own."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        ls.train(spec, Path(folder) / "run", device=device, progress=lambda *_: ends.append(time.perf_counter()))
    return ends[1] - ends[0]


def bare(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, black: float, spec: ls.TrainSpec) -> float:
    """Seconds of the second epoch of what one would write by hand: data on the device, channels_last, a fused optimiser;
    nothing tested, kept or recorded."""
    device = inputs.device
    model.to(device)
    if inputs.ndim == 4 and inputs.shape[1] == 3:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum, fused=True)
    half = spec.precision == "bfloat16"
    for _ in range(spec.epochs):
        began = time.perf_counter()
        for chosen in torch.randperm(len(targets), device=device).split(spec.batch_size):
            batch = augmented(inputs[chosen], black) if spec.augment != "none" else inputs[chosen]
            with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                loss = cross_entropy(model(batch), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - began


def augmented(images: torch.Tensor, black: float) -> torch.Tensor:
    """Pad, crop and flip by one gather of a batch, as fast public loops do."""
    n, channels, height, width = images.shape
    padded = pad(images, (4,) * 4, value=black)
    top, left = torch.randint(9, (2, n), device=images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(torch.rand(n, 1, device=images.device) < 0.5, columns.flip(1), columns)
    index = torch.arange(n, device=images.device)[:, None, None, None]
    return padded[
        index,
        torch.arange(channels, device=images.device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None],
    ]
