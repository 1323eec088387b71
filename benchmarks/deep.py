"""The criticality of all modules of a ResNet18 of half width on 5,000 images of CIFAR-10: half an hour, with training."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import layerscope as ls
from benchmarks.criticality import train as settle
from benchmarks.frame import Result
from layerscope.models import build
from layerscope.run import Run
from layerscope.training.session import train
from layerscope.training.spec import TrainSpec

SPEC = TrainSpec(
    model="resnet-v1-18?norm=none&width=0.5",
    data="cifar10?n_train=5000&n_test=2000",
    epochs=40,
    batch_size=64,
    lr=0.02,
    schedule="constant",
    until="loss",
    target_loss=0.19,
    checkpoints=(1, 2, 5, 10),
)
"""At the end of its last epoch the error may still be at eps, where no cell is decided: an epoch of smaller steps follows."""
LIMIT = 20


def run() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        yield searched(train(SPEC, Path(folder) / "run"))


def searched(trained: Run) -> Result:
    """From the run of `SPEC`."""
    data = ls.data.load(SPEC.data)
    x, y = data.train.inputs, data.train.targets
    batches = list(zip(x.split(500), y.split(500), strict=True))
    model = build(SPEC.model, data.input_shape, data.classes)
    before = ls.Trajectory.open(trained.checkpoints.path)
    model.load_state_dict(before[ls.FINAL])
    settle(model, x, y, epochs=1, lr=SPEC.lr / 10, batch_size=SPEC.batch_size)
    trajectory = ls.Trajectory.of(initial=before[ls.INIT], final=ls.state_of(model))
    began = time.perf_counter()
    table = ls.criticality(model, trajectory, batches, eps=0.1)
    minutes = (time.perf_counter() - began) / 60
    whole = table.where(metric="criticality", part="whole network").iloc[0]
    return Result(
        f"criticality of a ResNet18 of half width, {whole['n']} modules, 5,000 images of CIFAR-10, eps = 0.1, "
        f"{torch.get_num_threads()} threads, trained to an error of {table.provenance['error']:.1%}",
        f"{minutes:.1f} min, {whole['passes']:,} sample passes",
        f"full grid: {whole['n'] * 1210 * 5000:,} passes",
        f"< {LIMIT} min",
        minutes < LIMIT,
        1,
    )
