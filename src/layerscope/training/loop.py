"""The training loop: a trajectory, one epoch at a time."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
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
from layerscope.training.augment import CHANGES, UNCROPPED, Images
from layerscope.training.frozen import freeze, frozen_parts
from layerscope.training.optimizers import optimizer_of, restore, state_of_optimizer
from layerscope.training.spec import TrainSpec

TOGETHER = 64
"""Steps whose outputs are counted at once: one by one the counting takes as long as a small network's step."""


@dataclass(frozen=True)
class Moment:
    """The training after an epoch: read it before asking for the next. `rows` are the losses of this epoch.

    `diverged` says why an epoch could not be finished; the network is then that of the epoch before.
    """

    epoch: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    rows: list[dict[str, Any]]
    diverged: str = ""

    def state(self) -> dict[str, Tensor]:
        """All tensors that the rest of the training depends on: the network's, and those of the optimiser."""
        network = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        held = state_of_optimizer(dict(self.model.named_parameters()), self.optimizer)
        return network | {f"optimizer.{name}": tensor for name, tensor in held.items()}


@dataclass(frozen=True)
class Stopped:
    """Where a training was stopped: the epoch it had finished, and `Moment.state()` then."""

    epoch: int
    state: State


@dataclass
class Seen:
    """Loss and errors of an epoch's samples, while the weights move. What is seen is counted `TOGETHER`."""

    loss_sum: float = 0.0
    errors: int = 0
    n: int = 0
    waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> bool:
        """Whether the loss is finite as far as it has been counted."""
        self.waiting.append((loss.detach(), outputs.detach(), targets))
        return len(self.waiting) < TOGETHER or self.count()

    def count(self) -> bool:
        if self.waiting:
            losses, outputs, targets = zip(*self.waiting, strict=True)
            sizes = torch.tensor([len(each) for each in targets], dtype=torch.float64)
            self.loss_sum += float(torch.stack(losses).double().cpu() @ sizes)
            self.errors += int(is_error(torch.cat(outputs), torch.cat(targets)).sum())
            self.n += sum(len(each) for each in targets)
            self.waiting.clear()
        return math.isfinite(self.loss_sum)


def start(spec: TrainSpec, data: DataSet) -> nn.Module:
    """The network before any data is seen, drawn from the laws of the spec. Raises `UseError` for what cannot be trained."""
    with torch.random.fork_rng():  # PyTorch's modules draw values of their own when they are made
        model = build(spec.model, data.input_shape, data.classes)
    initialise(model, laws_of(model, spec.initialiser), spec.seed)
    frozen_parts(model, spec.freeze, spec.freeze_by)
    if spec.augment != "none" and len(data.input_shape) != 3:
        raise UseError(f"augment={spec.augment} is for images; inputs of {data.name} are {list(data.input_shape)}")
    if spec.until == "validation" and data.validation is None:
        raise UseError(f"until=validation needs validation data; take them out: {data.name}?n_validation=5000")
    _try_smallest_batch(spec, model, data)
    return model


def _try_smallest_batch(spec: TrainSpec, model: nn.Module, data: DataSet) -> None:
    """Refuse, before anything is written, what a step cannot be done with: one sample where there is batch norm, for one."""
    smallest = len(data.train) % spec.batch_size or min(spec.batch_size, len(data.train))
    some, trial = next(data.train.ordered(torch.arange(smallest), smallest))[0], copy.deepcopy(model)
    still = freeze(trial, frozen_parts(trial, spec.freeze, spec.freeze_by))
    try:
        with torch.no_grad(), _seeded(0):
            _in_training(trial, still)(_change(spec, data)(some, torch.Generator()))
    except (RuntimeError, ValueError) as problem:
        raise UseError(
            f"{spec.model} cannot be trained on {data.name} in batches of {spec.batch_size} (the smallest has {smallest} of the "
            f"{len(data.train)} samples): {str(problem).strip()}"
        ) from None


def _in_training(model: nn.Module, still: list[nn.Module]) -> nn.Module:
    """The model in training mode, but for modules whose statistics are frozen."""
    model.train()
    for module in still:
        module.eval()
    return model


def moments(
    spec: TrainSpec, model: nn.Module, data: DataSet, stopped: Stopped | None = None, device: str = "cpu"
) -> Iterator[Moment]:
    """The training of a `start` before any data is seen and after each epoch; from where it was stopped, with the same bits
    (on a CPU, with as many threads). An epoch whose loss is not finite is the last, and says so.
    """
    place(model, device)
    train, others = data.train.to(device), _measured(data, device)
    still = freeze(model, frozen_parts(model, spec.freeze, spec.freeze_by))
    optimizer = optimizer_of(model.parameters(), spec)
    if stopped is None:
        yield Moment(0, model, optimizer, _measured_rows(0, model, others))
    else:
        _restore(model, optimizer, stopped.state)
    for epoch in range(stopped.epoch + 1 if stopped else 1, spec.epochs + 1):
        good = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        seen = _epoch(model, optimizer, train, data, spec, epoch, still)
        rows = _measured_rows(epoch, model, others) if seen.count() else []
        if diverged := _diverged(seen, rows):
            model.load_state_dict(good)
            yield Moment(epoch, model, optimizer, [failure(epoch, seen.n, diverged)], diverged)
            return
        rows = [*rows_of(epoch, "train", seen.loss_sum / seen.n, seen.errors / seen.n, seen.n), *rows]
        yield Moment(epoch, model, optimizer, rows)


def place(model: nn.Module, device: str) -> None:
    """Move a network to a device, laid out as its convolutions are fastest.

    On a CPU, the gradient of a strided 1x1 convolution of few channels that are last in memory is written outside its
    workspace: the process dies, or worse, does not (oneDNN issue 6035: fewer than 8 with AVX2, 16 with AVX-512).
    """
    model.to(device)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    fatal = [c for c in convs if set(c.kernel_size) == {1} and max(c.stride) > 1 and c.in_channels // c.groups < 16]
    if convs and not (fatal and device == "cpu"):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    model.load_state_dict({name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")})
    held = {n.removeprefix("optimizer."): t for n, t in state.items() if n.startswith("optimizer.")}
    restore(dict(model.named_parameters()), optimizer, held)


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Split,
    data: DataSet,
    spec: TrainSpec,
    epoch: int,
    still: list[nn.Module],
) -> Seen:
    """One pass in an order that depends on seed and epoch alone; it ends early where the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate(epoch - 1)
    order = torch.randperm(len(train), generator=rng.generator(spec.seed, "order", draw=epoch))
    changes = rng.generator(spec.seed, "augment", draw=epoch)
    change = _change(spec, data)
    _in_training(model, still)
    seen = Seen()
    with _seeded(rng.address(spec.seed, "layers", draw=epoch)):
        for inputs, targets in train.ordered(order, spec.batch_size):
            inputs = change(inputs, changes)
            with _precision(spec, inputs.device):
                outputs = model(inputs)
                loss = cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not seen.add(loss, outputs, targets):
                break
    return seen


def _change(spec: TrainSpec, data: DataSet) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What becomes of a batch of training inputs before the network gets it."""
    if spec.augment == "none":
        return lambda inputs, _: data.train.cropped(inputs)
    change, about = CHANGES[spec.augment], Images(data.black, *data.input_shape[-2:])
    if spec.augment in UNCROPPED:
        return lambda inputs, generator: change(inputs, generator, about)
    return lambda inputs, generator: change(data.train.cropped(inputs), generator, about)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """PyTorch's global random state, from which dropout draws, is of this seed; and the caller's own afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _precision(spec: TrainSpec, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if spec.precision == "bfloat16" else nullcontext()


def _measured(data: DataSet, device: str) -> dict[str, Split]:
    """The splits that are measured before training and after each epoch."""
    splits = {"validation": data.validation, "test": data.test}
    return {name: split.to(device) for name, split in splits.items() if split is not None}


@torch.inference_mode()
def measure(model: nn.Module, split: Split) -> tuple[float, float, int]:
    """Mean loss, error and n of the network as it is, in float32: the network that analyses measure."""
    model.eval()
    loss_sum, errors = 0.0, 0
    for inputs, targets in split.batches():
        outputs = model(inputs)
        loss_sum += cross_entropy(outputs, targets, reduction="sum").item()
        errors += int(is_error(outputs, targets).sum())
    return loss_sum / len(split), errors / len(split), len(split)


def _measured_rows(epoch: int, model: nn.Module, splits: dict[str, Split]) -> list[dict[str, Any]]:
    return [row for name, split in splits.items() for row in rows_of(epoch, name, *measure(model, split))]


def rows_of(epoch: int, split: str, loss: float, error: float, n: int) -> list[dict[str, Any]]:
    """The rows of an epoch and a split."""
    reason = "mean over the epoch, while the weights moved" if split == "train" else ""
    place = {"step": epoch, "split": split, "n": n, "status": "ok", "reason": reason}
    return [
        place | {"metric": "cross_entropy", "unit": "nats", "value": loss},
        place | {"metric": "error", "unit": "fraction", "value": error},
    ]


def _diverged(seen: Seen, rows: list[dict[str, Any]]) -> str:
    """Why a training cannot go on after an epoch; nothing if it can."""
    if not math.isfinite(seen.loss_sum):
        return f"the training cross-entropy was not finite within the first {seen.n} samples"
    wrong = [row["split"] for row in rows if not math.isfinite(row["value"])]
    return f"the cross-entropy on {wrong[0]} data was not finite after it" if wrong else ""


def failure(epoch: int, n: int, why: str) -> dict[str, Any]:
    """The row of an epoch that could not be finished; `n` samples of it were seen."""
    place = {"step": epoch, "split": "train", "n": n, "status": "diverged", "reason": why}
    return place | {"metric": "cross_entropy", "unit": "nats", "value": math.nan}
