"""The training loop of a stack: many trajectories at once, an epoch at a time, each as its own training would be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerscope import rng
from layerscope.data import DataSet, Split
from layerscope.metrics.error import is_error
from layerscope.state import State
from layerscope.training.frozen import freeze, frozen_parts
from layerscope.training.optimizers import optimizer_of, restore, state_of_optimizer
from layerscope.training.spec import TrainSpec
from layerscope.training.stack import Stack, work_of

Pair = tuple[float, float]
"""Cross-entropy and error."""


@dataclass(frozen=True)
class Lap:
    """An epoch of one member: means over the epoch, while the weights moved (none before the first); those of the network
    after it on the other splits; and why the epoch could not be finished, if it `diverged`."""

    train: Pair | None
    others: dict[str, Pair] = field(default_factory=dict)
    diverged: str = ""


@dataclass(frozen=True)
class Inputs:
    """One split of all members: each different tensor of inputs once, and the targets of each data set."""

    tensors: list[Tensor]
    targets: Tensor
    which: list[int]
    """Data set -> its tensor in `tensors`."""

    @classmethod
    def of(cls, splits: Sequence[Split]) -> "Inputs":
        tensors: list[Tensor] = []
        which = []
        for split in splits:
            same = (i for i, there in enumerate(tensors) if there is split.inputs or torch.equal(there, split.inputs))
            which.append(next(same, len(tensors)))
            if which[-1] == len(tensors):
                tensors.append(split.inputs)
        return cls(tensors, torch.stack([split.targets for split in splits]), which)

    def __len__(self) -> int:
        return self.targets.shape[1]


class Stacked:
    """Trainings of one form that go on together. They differ in the seed and in the data, whose splits are of equal sizes.

    Members go by their place in `specs`; `members` has those that have not left. Each sees the samples of every step in
    the order that its own training would see them, and its values move as they would there, but for rounding.
    """

    def __init__(
        self, specs: Sequence[TrainSpec], models: Sequence[nn.Module], data: Sequence[DataSet], device: str = "cpu"
    ) -> None:
        self.spec, self._seeds = specs[0], [spec.seed for spec in specs]
        different = list({id(each): each for each in data}.values())
        self._set_of = [next(i for i, there in enumerate(different) if there is each) for each in data]
        names = different[0].splits
        self._splits = {name: Inputs.of([each.splits[name].to(device) for each in different]) for name in names}
        self.members = sorted(range(len(specs)), key=lambda i: (*self._feed(i), i))
        for model in models:
            freeze(model, frozen_parts(model, self.spec.freeze, self.spec.freeze_by))
        _, self._outputs, _ = work_of(models[0], tuple(data[0].input_shape), 1)
        self._take(Stack.of([models[i].to(device) for i in self.members]))

    def _feed(self, member: int) -> tuple[int, int]:
        """Members with the same see the same inputs in each step."""
        return self._splits["train"].which[self._set_of[member]], self._seeds[member]

    def _take(self, stack: Stack, state: Mapping[str, Tensor] | None = None) -> None:
        self.stack, self._optimizer = stack, optimizer_of(stack.values.values(), self.spec)
        restore(stack.values, self._optimizer, state or {})

    def measured(self) -> dict[int, Lap]:
        """Member -> the network as it is."""
        return {member: Lap(None, others) for member, others in self._measured().items()}

    def epoch(self, number: int) -> dict[int, Lap]:
        """Member -> its epoch, from 1. One whose cross-entropy is not finite has the values from before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.spec.learning_rate(number - 1)
        before = {name: value.detach().clone() for name, value in self.stack.values.items()}
        losses, errors = self._pass(number)
        n, others = len(self._splits["train"]), self._measured()
        laps = {}
        for at, member in enumerate(self.members):
            train = (losses[at] / n, errors[at] / n)
            laps[member] = Lap(train, others[member], _diverged(train[0], others[member], n))
            if laps[member].diverged:
                for name, value in self.stack.values.items():
                    value.detach()[at] = before[name][at]
        return laps

    def _pass(self, number: int) -> tuple[list[float], list[int]]:
        """One pass over the training data: sums of cross-entropy and of errors of each member."""
        train, feeds = self._splits["train"], self._feeds("train")
        orders = {
            seed: torch.randperm(len(train), generator=rng.generator(seed, "order", draw=number))
            for seed in {seed for (_, seed), _ in feeds}
        }
        of_feeds = torch.stack([orders[seed] for (_, seed), _ in feeds])
        of_members = torch.stack([orders[self._seeds[member]] for member in self.members])
        sets = torch.tensor([self._set_of[member] for member in self.members])[:, None]
        losses = torch.zeros(len(self.members), dtype=torch.float64, device=train.targets.device)
        errors = torch.zeros(len(self.members), dtype=torch.int64, device=train.targets.device)
        for start in range(0, len(train), self.spec.batch_size):
            step = slice(start, start + self.spec.batch_size)
            inputs = _gathered(train.tensors, [which for (which, _), _ in feeds], of_feeds[:, step])
            targets = train.targets[sets, of_members[:, step]]
            outputs = self.stack.outputs(inputs, [count for _, count in feeds])
            loss = cross_entropy(outputs, targets, reduction="none")
            self._optimizer.zero_grad()
            loss.mean(1).sum().backward()
            self._optimizer.step()
            losses += loss.detach().sum(1)
            errors += is_error(outputs.detach(), targets).sum(1)
        return losses.tolist(), errors.tolist()

    @torch.no_grad()
    def _measured(self) -> dict[int, dict[str, Pair]]:
        """Member -> split -> what the network as it is does there."""
        found: dict[int, dict[str, Pair]] = {member: {} for member in self.members}
        for name in ("validation", "test"):
            if name in self._splits:
                for member, pair in zip(self.members, self._measured_on(name), strict=True):
                    found[member][name] = pair
        return found

    def _measured_on(self, name: str) -> list[Pair]:
        split, feeds = self._splits[name], self._feeds(name)
        sets = torch.tensor([self._set_of[member] for member in self.members])
        losses = torch.zeros(len(self.members), dtype=torch.float64, device=split.targets.device)
        errors = torch.zeros(len(self.members), dtype=torch.int64, device=split.targets.device)
        size = self._tested()
        for start in range(0, len(split), size):
            step = slice(start, start + size)
            inputs = [split.tensors[which][step] for (which, *_), _ in feeds]
            inputs = inputs[0][None] if len(inputs) == 1 else torch.stack(inputs)
            targets = split.targets[sets, step]
            outputs = self.stack.outputs(inputs, [count for _, count in feeds])
            losses += cross_entropy(outputs, targets, reduction="none").sum(1)
            errors += is_error(outputs.detach(), targets).sum(1)
        n = len(split)
        return [(loss / n, error / n) for loss, error in zip(losses.tolist(), errors.tolist(), strict=True)]

    def _tested(self) -> int:
        """Samples of a batch where networks are measured: as in a training alone, fewer where a stack has no room for them."""
        return max(1, min(TESTED, OUTPUTS // (self._outputs * len(self.members))))

    def _feeds(self, name: str) -> list[tuple[tuple[int, ...], int]]:
        """The feeds of a split and how many members side by side share each: in training, those of a seed."""
        keys = (
            self._feed(member) if name == "train" else (self._splits[name].which[self._set_of[member]],)
            for member in self.members
        )
        return [(key, len(list(same))) for key, same in groupby(keys)]

    def leave(self, leaving: Iterable[int]) -> None:
        """These members go on no further."""
        gone = set(leaving)
        if not gone & set(self.members):
            return
        places = torch.tensor([at for at, member in enumerate(self.members) if member not in gone], dtype=torch.int64)
        values = self.stack.values
        held = {
            label: value[places] if value.shape == values[label.partition(".")[2]].shape else value
            for label, value in state_of_optimizer(values, self._optimizer).items()
        }
        self.members = [self.members[at] for at in places.tolist()]
        if self.members:
            self._take(self.stack.only(places), held)

    def values(self, member: int) -> State:
        """The network of a member, copied."""
        return self.stack.member(self.members.index(member))

    def state(self) -> dict[str, Tensor]:
        """All tensors that the rest of the trainings of `members` depends on."""
        network = {f"model.{name}": value.detach() for name, value in self.stack.values.items()}
        held = state_of_optimizer(self.stack.values, self._optimizer)
        return network | {f"optimizer.{name}": value for name, value in held.items()}

    def restore(self, members: Sequence[int], state: Mapping[str, Tensor]) -> None:
        """Go on from the `state` of these members."""
        self.members = list(members)
        device = next(iter(self.stack.values.values())).device
        parts: dict[str, dict[str, Any]] = {"model": {}, "optimizer": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        # Copied: tensors that lie elsewhere in memory than PyTorch puts them are multiplied in another order.
        stack = Stack(self.stack.form, {name: value.to(device).clone() for name, value in parts["model"].items()})
        self._take(stack, parts["optimizer"])


TESTED = 512
"""Samples of a batch where networks are measured, as in a training alone."""
OUTPUTS = 32_000_000
"""At most so many outputs of layers in a step of a stack: 128 MB, and as much again for their gradients."""


def _gathered(tensors: Sequence[Tensor], which: Sequence[int], order: Tensor) -> Tensor:
    """`[feeds, n, *shape]`: of each feed its inputs in its order, `[feeds, n]`."""
    order = order.to(tensors[0].device)
    if len(set(which)) == 1:
        inputs = tensors[which[0]]
        return inputs.index_select(0, order.flatten()).view(*order.shape, *inputs.shape[1:])
    return torch.stack([tensors[i].index_select(0, indices) for i, indices in zip(which, order, strict=True)])


def _diverged(loss: float, others: Mapping[str, Pair], n: int) -> str:
    """Why a training cannot go on after an epoch; nothing if it can."""
    if not abs(loss) < float("inf"):
        return f"the training cross-entropy was not finite within the {n} samples"
    wrong = [name for name, (value, _) in others.items() if not abs(value) < float("inf")]
    return f"the cross-entropy on {wrong[0]} data was not finite after it" if wrong else ""
