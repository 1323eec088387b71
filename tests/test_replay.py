"""The exact engine: the same rows as the reference engine's, bit for bit (for the zoo, see test_zoo), with less work."""

import ctypes
import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import layerscope as ls
from layerscope.analyses.robustness import engine_of, subject_of
from layerscope.engine import replay
from layerscope.engine.batches import outputs_of
from layerscope.engine.reference import reference
from layerscope.engine.tape import ABSENT, Tape, Unsplittable, storage_of
from layerscope.engine.task import Task

WIDTH = 6
STEPS = ("call", "shared", "skip", "add_", "relu", "relu_", "functional", "pair", "nested", "slice_")


class Pair(nn.Module):
    """Returns a tuple and a dictionary, one of which is its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x, {"out": self.linear(x)}


class Program(nn.Module):
    """A network that does what it is told, step by step: shared modules, skips, activations in place, weights that are used
    without a call of their module, programs within programs."""

    def __init__(self, steps: tuple[str, ...], depth: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.own = nn.ModuleDict({str(i): self._module(step, depth) for i, step in enumerate(steps)})

    def _module(self, step: str, depth: int) -> nn.Module:
        if step == "nested" and depth:
            return Program(tuple(reversed(self.steps)), depth - 1)
        made = {"relu": nn.ReLU, "relu_": lambda: nn.ReLU(inplace=True), "pair": Pair}
        return made.get(step, lambda: nn.Linear(WIDTH, WIDTH))()

    def forward(self, x: Tensor) -> Tensor:
        kept = [x]
        for i, step in enumerate(self.steps):
            x = self._step(step, self.own[str(i)], x, kept)
            kept.append(x)
        return x

    def _step(self, step: str, own: nn.Module, x: Tensor, kept: list[Tensor]) -> Tensor:
        if step == "shared":
            return torch.tanh(self.shared(x))
        if step == "skip":
            return own(x) + kept[len(kept) // 2]
        if step == "add_":
            return own(x).add_(kept[0])
        if step == "functional":
            return F.linear(x, own.weight).sin_()
        if step == "pair":
            before, found = own(x)
            return before * 0.5 + found["out"].mul_(2)
        if step == "slice_":
            out = own(x)
            out[:, :2] *= 3
            return out
        return own(x)


def numbers(n: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, WIDTH, generator=random), torch.randint(WIDTH, (n,), generator=random)
    return [(x[i : i + 7], y[i : i + 7]) for i in range(0, n, 7)]


def history(model: nn.Module) -> ls.Trajectory:
    random = torch.Generator().manual_seed(3)
    final = ls.state_of(model)
    start = {name: torch.randn(value.shape, generator=random).to(value) for name, value in final.items()}
    return ls.Trajectory.of(initial=start, final=final)


def variants_of(model: nn.Module) -> list[ls.Variant]:
    parts = list(ls.Partition.by_layer(model))
    found = [ls.Variant.of(part, ls.Rewind(), buffers="keep") for part in parts]
    found += [ls.Variant.of(part, ls.Rerandomize(), draw=1, buffers="keep") for part in parts]
    both = [ls.Variant((ls.Edit(a, ls.Rewind()), ls.Edit(b, ls.Rewind())), buffers="keep") for a, b in pairwise(parts)]
    return [ls.Variant(), *found, *both]


def outputs_by(
    engine: str, model: nn.Module, variants: list[ls.Variant], data: Any
) -> tuple[ls.Table, dict[str, list[Tensor]]]:
    """The table, and all outputs that metrics were shown, in the order of variants."""
    seen: list[Tensor] = []

    def note(outputs: Tensor, _targets: Any) -> Tensor:
        seen.append(outputs.clone())
        return outputs.sum(1)

    table = ls.evaluate(model, history(model), variants, data, [ls.ErrorRate(), note], plan=ls.Plan(engine=engine))
    return table, {"seen": seen}


def equal(model: nn.Module, variants: list[ls.Variant], data: Any, expected: str = "replay") -> None:
    (fast, a), (slow, b) = (outputs_by(engine, model, variants, data) for engine in ("replay", "reference"))
    assert fast.frame.drop(columns="engine").equals(slow.frame.drop(columns="engine"))
    assert {text.partition(":")[0] for text in fast.frame["engine"]} == {expected}
    if expected == "replay":  # the same outputs, whatever the order
        assert sorted(map(mark, a["seen"])) == sorted(map(mark, b["seen"]))
        assert len(a["seen"]) == len(data) * (len(variants) + 1)


def mark(outputs: Tensor) -> bytes:
    return outputs.numpy().tobytes()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=7), st.booleans())
def test_programs(steps, double):
    torch.manual_seed(0)
    model = Program(tuple(steps)).double() if double else Program(tuple(steps))
    data = [(x.to(next(model.parameters()).dtype), y) for x, y in numbers(17)]
    equal(model, variants_of(model), data)


def test_any_order_is_the_order_given():
    model = Program(("call", "skip", "relu_", "call"))
    variants = variants_of(model)
    mixed = [variants[i] for i in torch.randperm(len(variants), generator=torch.Generator().manual_seed(1)).tolist()]
    table, _ = outputs_by("replay", model, mixed, numbers(10))
    assert list(dict.fromkeys(table.frame["variant"])) == [variant.id for variant in mixed]


def chain(depth: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(depth)))


def flops(engine: str, model: nn.Module, variants: list[ls.Variant], data: Any) -> int:
    counted: list[int] = []

    def forward(network: nn.Module, batch: Any) -> Tensor:
        with FlopCounterMode(display=False) as counter:
            outputs = outputs_of(network, batch)
        counted.append(counter.get_total_flops())
        return outputs

    ls.evaluate(model, history(model), variants, data, forward=forward, plan=ls.Plan(engine=engine))
    return sum(counted)


def test_the_work_is_what_the_structure_allows():
    """D equal modules, each changed many times: the mean variant needs (D + 1) / (2 D) of a forward. What comes on top is
    counted: the probe, the pass of the unmodified network and its recording, and a check of each place."""
    depth, draws, batches = 12, 40, 6
    model, data = chain(depth), numbers(7 * batches)
    parts = list(ls.Partition.by_layer(model))
    variants = [ls.Variant.of(part, ls.Rerandomize(), draw=k) for part in parts for k in range(draws)]
    one = flops("reference", model, [], data[:1]) // 8 or 1
    work = {engine: flops(engine, model, variants, data) for engine in ("replay", "reference")}
    before = flops("reference", model, [], data)
    shared = (work["replay"] - before) / (work["reference"] - before)
    bound = (depth + 1) / (2 * depth)
    assert bound <= shared < bound + 0.04
    assert one


def test_without_memory_everything_is_computed_again():
    """Outputs that there is no room for are computed again: slower, and the same."""
    model = Program(("call", "skip", "relu_", "pair", "call"))
    tape = Tape(model)
    x = numbers(7)[0][0]
    values = {storage_of(p): name for name, p in model.named_parameters()}
    with torch.no_grad(), tape.listening():
        expected = tape.record(lambda: model(x), values)
        moments = sorted(set(tape.first_use.values()))
        for memory in (0, 200, 10**9):
            tape.record(lambda: model(x), values)
            plan = tape.wanted(moments, memory)
            kept = sum(tape.calls[number].nbytes for number in plan.kept)
            assert kept <= memory
            assert bool(plan.kept) == (memory >= 200)
            tape.record(lambda: model(x), values, plan)
            assert {i for i, call in enumerate(tape.calls) if call.output is not ABSENT} <= plan.kept
            for until in moments:
                assert torch.equal(tape.replay(lambda: model(x), until), expected)
    assert all("forward" not in vars(module) for module in model.modules())


def test_what_is_recorded_is_never_spoiled():
    """An activation in place after the record, in every replay too."""
    model = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True)
    )
    x = numbers(7)[0][0]
    tape = Tape(model)
    storages = [storage_of(p) for p in model.parameters()]
    with torch.no_grad(), tape.listening():
        expected = tape.record(lambda: model(x), storages)
        plan = tape.wanted([tape.first_use[storage_of(model[2].weight)]], 10**9)
        tape.record(lambda: model(x), storages, plan)
        until = tape.first_use[storage_of(model[2].weight)]
        for _ in range(3):
            assert torch.equal(tape.replay(lambda: model(x), until), expected)


class Counts(nn.Module):
    """Keeps something from one forward to the next, from the third batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.seen = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), 0

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e3:
            self.seen += 1
        return self.last(self.first(x))


def test_a_model_that_changes_itself_goes_to_the_reference_engine_and_says_so():
    model = Counts()
    data = numbers(21)
    data[-1] = (data[-1][0] + 1e3, data[-1][1])
    equal(model, variants_of(model), data, "reference")
    table, _ = outputs_by("replay", model, variants_of(model), data)
    assert set(table.frame["engine"]) == {"reference: the model (Counts) changes itself in its forward"}


class CountsLarge(nn.Module):
    """Changes itself once, where its values are large: in a forward of a variant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.seen = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.abs().max() > 2.5:
            self.seen = 1
        return self.last(x)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_model_that_changes_itself_in_a_variant_alone_is_noticed(batches: int):
    """Also if it was on the last batch, after which nothing is recorded, or on the first of many."""
    torch.manual_seed(1)
    model = CountsLarge()
    data = numbers(7 * batches)
    assert all(float(model.first(x).detach().abs().max()) < 2.5 for x, _ in data)
    equal(model, variants_of(model), data, "reference")


def test_channels_last_is_computed_in_by_both_engines():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(32, WIDTH),
    )
    model = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
    x = torch.randn(14, 3, 7, 7).contiguous(memory_format=torch.channels_last)
    equal(model, each_layer(model, 2), [(x[i : i + 7], torch.arange(7) % WIDTH) for i in (0, 7)])


class Peeks(nn.Linear):
    """Multiplies by the first number of another layer's weight, which it reads without an operation."""

    def __init__(self, other: nn.Linear) -> None:
        super().__init__(WIDTH, WIDTH)
        self.others = [other]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * ctypes.c_float.from_address(self.others[0].weight.data_ptr()).value


def each_layer(model: nn.Module, draws: int) -> list[ls.Variant]:
    parts = ls.Partition.by_layer(model)
    return [ls.Variant.of(part, ls.Rerandomize(), draw=k, buffers="keep") for part in parts for k in range(draws)]


def test_a_place_that_first_comes_in_a_later_group_is_checked(monkeypatch):
    """Two variants are evaluated together, the last layer comes in the third pair: what was kept of the first is not right for
    it alone."""
    monkeypatch.setattr(replay, "TOGETHER", (2, 2))
    torch.manual_seed(0)
    last = nn.Linear(WIDTH, WIDTH)
    model = nn.Sequential(Peeks(last), nn.Linear(WIDTH, WIDTH), last)
    variants = each_layer(model, 2)
    fast, slow = (outputs_by(engine, model, variants, numbers(14))[0] for engine in ("replay", "reference"))
    assert fast.frame.drop(columns="engine").equals(slow.frame.drop(columns="engine"))
    why = "reference: with 2 changed, what was kept does not give the outputs of a whole forward"
    by_part = fast.frame.groupby("part")["engine"].unique()
    assert {part: list(names) for part, names in by_part.items()} == {"0": ["replay"], "1": ["replay"], "2": [why]}


HELD: list[Tensor] = []


class Leaves(nn.Linear):
    """Leaves its outputs outside of the model."""

    def forward(self, x: Tensor) -> Tensor:
        HELD[:] = [super().forward(x)]
        return HELD[0]


class Finds(nn.Linear):
    """Adds what was left there."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + HELD[0]


def test_what_another_variant_left_outside_of_the_model_is_noticed():
    """A whole forward before the replay would leave what is right."""
    torch.manual_seed(0)
    model = nn.Sequential(Leaves(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), Finds(WIDTH, WIDTH))
    equal(model, each_layer(model, 2), numbers(14), "reference")


@pytest.mark.parametrize("together", [1, 3, 100])
def test_each_place_is_checked_once(together: int, monkeypatch):
    """Forwards are: of each group one a batch and one more on the first, of each variant one a batch, of each place one whole."""
    monkeypatch.setattr(replay, "TOGETHER", (together, together))
    places, draws, batches = 4, 5, 3
    model, data, seen = chain(places), numbers(7 * batches), [0]

    def forward(network: nn.Module, batch: Any) -> Tensor:
        seen[0] += 1
        return outputs_of(network, batch)

    variants = each_layer(model, draws)
    subject, task = subject_of(model, history(model), None, 0, forward, None), Task(data, [ls.ErrorRate()])
    known = reference(subject, task)
    assert seen == [batches]
    rows = list(engine_of(ls.Plan())(subject, variants, task, known, None))
    assert {row["engine"] for each in rows for row in each} == {"replay"}
    groups = -(-len(variants) // together)
    assert seen[0] - batches == groups * (batches + 1) + len(variants) * batches + places


@pytest.mark.parametrize(("took", "groups"), [(0.001, 1), (1.0, 2), (1e6, 3)])
def test_how_many_are_evaluated_together_follows_from_the_time_of_the_unmodified_network(took, groups):
    """As many as take `AWHILE`, within `TOGETHER`."""
    model, data, seen = chain(4), numbers(7), [0]

    def forward(network: nn.Module, batch: Any) -> Tensor:
        seen[0] += 1
        return outputs_of(network, batch)

    variants = each_layer(model, 10)
    subject, task = subject_of(model, history(model), None, 0, forward, None), Task(data, [ls.ErrorRate()])
    known = dataclasses.replace(reference(subject, task), seconds=took)
    seen[0] = 0
    list(engine_of(ls.Plan())(subject, variants, task, known, None))
    assert seen[0] == 2 * groups + len(variants) + 4


class Fails(nn.Module):
    """Raises where its values are large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.abs().max() > 2.5:
            raise ArithmeticError("too large")
        return self.last(x)


def test_a_variant_that_fails_is_the_same_row():
    torch.manual_seed(1)
    model = Fails()
    fast, slow = (
        outputs_by(engine, model, variants_of(model), numbers(21))[0].frame for engine in ("replay", "reference")
    )
    assert set(fast["status"]) == {"ok", "failed"}
    assert fast.drop(columns="engine").equals(slow.drop(columns="engine"))


def test_another_order_of_calls_is_noticed():
    model, order = chain(3), [0, 1, 2]
    x = numbers(7)[0][0]

    def forward() -> Tensor:
        out = x
        for i in order:
            out = model[i](out)
        return out

    tape = Tape(model)
    with torch.no_grad(), tape.listening():
        tape.record(forward, [storage_of(p) for p in model.parameters()])
        order.reverse()
        with pytest.raises(Unsplittable, match="in place of"):
            tape.replay(forward, tape.first_use[storage_of(model[2].weight)])


def test_an_engine_that_there_is_not():
    model = chain(2)
    with pytest.raises(ls.UseError, match="unknown engine 'fast'; known: reference, replay"):
        ls.evaluate(model, history(model), [ls.Variant()], numbers(7), plan=ls.Plan(engine="fast"))


def test_recalibrated_networks_share_what_comes_before_too():
    """Statistics that are computed again are those of all layers: what variants share is then the network with its own
    statistics computed again."""
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True))]
    model, data = nn.Sequential(*layers), numbers(28)
    parts = list(ls.Partition.by_layer(model))
    variants = [ls.Variant(), *(ls.Variant.of(part, ls.Rewind()) for part in parts)]
    subject_of(model, history(model), None, 0, outputs_of, data)
    tables = [
        ls.evaluate(model, history(model), variants, data, calibration=data, plan=ls.Plan(engine=engine))
        for engine in ("replay", "reference")
    ]
    a, b = (table.frame.drop(columns="engine") for table in tables)
    assert a.equals(b)
    assert set(tables[0].frame["engine"]) == {"replay"}
