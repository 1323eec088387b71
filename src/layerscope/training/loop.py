"""The training loop: a trajectory, one epoch at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerscope import rng
from layerscope.data import DataSet, Split
from layerscope.errors import UseError
from layerscope.metrics.error import is_error
from layerscope.models import build
from layerscope.models.initialisers import initialise, laws_of
from layerscope.state import State
from layerscope.training.spec import TrainSpec

TOGETHER = 64
"""Steps whose outputs are counted at once: one by one the counting takes as long as a small network's step."""


@dataclass(frozen=True)
class Moment:
    """The training after an epoch: read it before asking for the next. `rows` are the losses of this epoch."""

    epoch: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    rows: list[dict[str, Any]]

    def state(self) -> dict[str, Tensor]:
        """All tensors that the rest of the training depends on: the network's, and the momentum of each parameter."""
        momenta = {
            f"momentum.{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if "momentum_buffer" in self.optimizer.state[parameter]
        }
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()} | momenta


@dataclass(frozen=True)
class Stopped:
    """Where a training was stopped: the epoch it had finished, and `Moment.state()` then."""

    epoch: int
    state: State


def start(spec: TrainSpec, data: DataSet) -> nn.Module:
    """The network before any data is seen, drawn from the laws of the spec."""
    model = build(spec.model, data.input_shape, data.classes)
    initialise(model, laws_of(model, spec.initialiser), spec.seed)
    return model


def moments(spec: TrainSpec, model: nn.Module, data: DataSet, stopped: Stopped | None = None) -> Iterator[Moment]:
    """The training of a `start` before any data is seen and after each epoch; from where it was stopped, with the same bits.

    Raises `UseError` where the loss is not finite.
    """
    optimizer = torch.optim.SGD(model.parameters(), spec.lr, spec.momentum, weight_decay=spec.weight_decay, fused=True)
    if stopped is None:
        yield Moment(0, model, optimizer, _rows(0, "test", *measure(model, data.test)))
    else:
        _restore(model, optimizer, stopped.state)
    for epoch in range(stopped.epoch + 1 if stopped else 1, spec.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate(epoch - 1)
        seen = _epoch(model, optimizer, data.train, spec, epoch)
        rows = _rows(epoch, "train", *seen) + _rows(epoch, "test", *measure(model, data.test))
        if not math.isfinite(seen[0]):
            raise UseError(
                f"training diverged in epoch {epoch} (loss {seen[0]}); the checkpoints before it are kept. "
                f"A smaller learning rate than {spec.lr} is the first thing to try"
            )
        yield Moment(epoch, model, optimizer, rows)


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    model.load_state_dict({name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in state:
            optimizer.state[parameter]["momentum_buffer"] = state[f"momentum.{name}"].clone()


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Split, spec: TrainSpec, epoch: int
) -> tuple[float, float, int]:
    """One pass in an order that depends on seed and epoch alone: mean loss and error while the weights move, and n."""
    order = torch.randperm(len(train), generator=rng.generator(spec.seed, "order", draw=epoch))
    model.train()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    loss_sum, errors = 0.0, 0
    for indices in order.split(spec.batch_size):
        targets = train.targets[indices]
        outputs = model(train.inputs[indices])
        loss = cross_entropy(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append((loss.detach(), outputs.detach(), targets))
        if len(seen) == TOGETHER:
            loss_sum, errors = _added(loss_sum, errors, seen)
    loss_sum, errors = _added(loss_sum, errors, seen)
    return loss_sum / len(train), errors / len(train), len(train)


def _added(loss_sum: float, errors: int, seen: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, int]:
    """The sums with what was seen added; `seen` is emptied."""
    if seen:
        losses, outputs, targets = zip(*seen, strict=True)
        sizes = torch.tensor([len(each) for each in targets], dtype=torch.float64)
        loss_sum += float(torch.stack(losses).double() @ sizes)
        errors += int(is_error(torch.cat(outputs), torch.cat(targets)).sum())
        seen.clear()
    return loss_sum, errors


@torch.inference_mode()
def measure(model: nn.Module, split: Split) -> tuple[float, float, int]:
    """Mean loss, error and n of the network as it is."""
    model.eval()
    loss_sum, errors = 0.0, 0
    for inputs, targets in split.batches():
        outputs = model(inputs)
        loss_sum += cross_entropy(outputs, targets, reduction="sum").item()
        errors += int(is_error(outputs, targets).sum())
    return loss_sum / len(split), errors / len(split), len(split)


def _rows(epoch: int, split: str, loss: float, error: float, n: int) -> list[dict[str, Any]]:
    reason = "mean over the epoch, while the weights moved" if split == "train" else ""
    place = {"step": epoch, "split": split, "n": n, "status": "ok", "reason": reason}
    return [
        place | {"metric": "cross_entropy", "unit": "nats", "value": loss},
        place | {"metric": "error", "unit": "fraction", "value": error},
    ]
