"""Both engines on a slice of a map: what is counted is what can be worked out on paper, and another number is noticed."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import layerscope as ls
from layerscope import memory
from layerscope.analyses import robustness
from layerscope.analyses.bench import Map, Slice, Tried, bench, changes, further_share, spread
from layerscope.analyses.material import Material
from layerscope.cli import main
from layerscope.console import bench_table
from layerscope.engine.batches import outputs_of
from layerscope.engine.flops import Work, counted, from_first_use
from layerscope.engine.replay import evaluate as replay_engine
from layerscope.engine.task import Task
from layerscope.perturb import World

WIDTH, DEPTH = 6, 12
SPEC = ls.RobustnessSpec(draws=1)


def chain(*more: nn.Module, bias: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(DEPTH)), *more).eval()


def numbers(n: int, batch: int = 7) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, WIDTH, generator=random), torch.randint(WIDTH, (n,), generator=random)
    return list(zip(x.split(batch), y.split(batch), strict=True))


def material(model: nn.Module, data: Any, calibration: Any = None) -> Material:
    final = ls.state_of(model)
    start = {name: 1.5 * value if value.is_floating_point() else value for name, value in final.items()}
    trajectory = ls.Trajectory.of(initial=start, final=final)
    return Material(model, trajectory, {"test": data}, calibration, None, "", {})


def subject_of(model: nn.Module) -> robustness.Subject:
    return robustness.subject_of(model, ls.Trajectory.of(final=ls.state_of(model)), None, 0, outputs_of, None)


def shown(found: dict[str, Any]) -> str:
    console = Console(width=200)
    with console.capture() as text:
        console.print(bench_table(found))
    return text.get()


def test_what_is_counted_is_what_the_structure_says():
    """D equal layers, one variant of each: a forward of D layers whole, (D + 1) / 2 of them needed on average; and one forward
    that they share is made of each batch beside."""
    model = chain()
    before = ls.state_of(model)
    found = bench(material(model, numbers(7 * 5)), SPEC, samples=7 * 5, variants=12, repeats=1)
    reference, replay = found["engines"]["reference"], found["engines"]["replay"]
    chosen = [i for i in range(DEPTH) if i % 2] * 2  # of each of two kinds of change every other layer
    needed = sum(DEPTH - i for i in chosen) / DEPTH
    assert reference["share"] == reference["further_share"] == 1
    assert found["bound"] == pytest.approx(12 / needed)
    assert replay["further_share"] == pytest.approx((needed + 1) / 12)
    assert replay["further_share"] < replay["share"] < 1
    assert (found["variants"], found["samples"], found["passes"]) == (12, 35, 1)
    assert found["map"] == {
        "variants": 1 + DEPTH + 2 * (DEPTH + 1),
        "unchanged": 1 + DEPTH + 1,  # the unmodified network, and each Part and the whole put back to the last step
        "samples": {"test": 35},
        "statistics_seconds": 0.0,
    }
    assert found["same"]
    assert found["different"] == []
    assert found["elsewhere"] == {}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "same numbers in all 12 variants" in shown(found)
    assert "same: yes" in shown(found)


@dataclass
class Answer:
    """What nobody knows how to give twice."""

    values: Tensor


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = chain()

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.layers(x))


class Outer(nn.Module):
    """As models of transformers are: a body that returns an object, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Inner(), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.head(self.body(x).values))


def test_what_cannot_be_given_twice_is_looked_into():
    """A change of the head needs nothing of the body, though what the body returns cannot be kept."""
    model, data = Outer().eval(), numbers(28)
    trajectory = ls.Trajectory.of(initial={k: 2 * v for k, v in ls.state_of(model).items()}, final=ls.state_of(model))
    subject = robustness.subject_of(model, trajectory, None, 0, lambda network, batch: network(batch[0]).values, None)
    head = ls.Partition.by_layer(model)["head"]
    some = Slice.of(subject, [ls.Variant.of(head, ls.Rewind())], Task(data, [ls.ErrorRate()]))
    engine = robustness.engine_of(ls.Plan())
    executed = [counted(partial(part.run, engine))[1] for part in (some.first, some)]
    assert some.work.bound == DEPTH + 1
    assert further_share(executed, [some.first.work.whole, some.work.whole]) == 1 + 1 / (DEPTH + 1)  # and the record


class Borrowed(nn.Module):
    """Uses the weight of a layer that it never calls first, then one of its own, twice; and has one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.never_called, self.own, self.idle = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.tied = nn.Linear(WIDTH, WIDTH, bias=False)
        self.tied.weight = self.own.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.never_called.weight)
        return self.tied(self.own(x).relu())


def test_the_first_use_of_a_tensor_not_the_first_call_of_its_module():
    model, data = Borrowed(), numbers(10, 5)
    whole, after = from_first_use(subject_of(model), data)
    product = 2 * 10 * WIDTH * WIDTH
    assert whole == 3 * product
    assert after == {
        "never_called.weight": 3 * product,
        "own.weight": 2 * product,
        "tied.weight": 2 * product,
        "idle.weight": 0,
    }
    parts = ls.Partition.by_layer(model)
    variants = [ls.Variant.of(parts[name], ls.Rewind()) for name in ("never_called", "idle")]
    both = ls.Variant(tuple(ls.Edit(parts[name], ls.Rewind()) for name in ("own = tied", "idle")))
    work = Work.of(subject_of(model), [*variants, both], data)
    assert work == Work(9 * product, 5 * product)
    assert Work(0, 0).bound is None


@pytest.mark.parametrize("kind", ["attention", "encoder"])
def test_attention_in_one_operation_counts_as_its_products(kind: str):
    """PyTorch's counter alone passes over it."""
    n, tokens, width, heads, hidden = 3, 7, 8, 2, 20
    x = torch.randn(n, tokens, width)
    if kind == "attention":
        module: nn.Module = nn.MultiheadAttention(width, heads, batch_first=True).eval()
    else:
        module = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True).eval()
    given = (x, x, x) if kind == "attention" else (x,)
    with torch.no_grad():
        _, found = counted(lambda: module(*given))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            _, in_parts = counted(lambda: module(*given))
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as plain:
                module(*given)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert found == in_parts == plain.get_total_flops() > 0


def test_one_batch_is_gone_through_several_times():
    found = bench(material(chain(), numbers(7)), SPEC, variants=3, repeats=2)
    assert (found["samples"], found["passes"]) == (7, 4)
    assert found["same"]
    assert "7 test samples of its 7 samples, 4 times" in shown(found)


def lying(subject: Any, variants: Any, *rest: Any, **more: Any) -> Iterator[list[dict[str, Any]]]:
    """Nearly the exact engine: one number has another last bit, and one row is not there."""
    for i, rows in enumerate(replay_engine(subject, variants, *rest, **more)):
        if i == 1:
            rows[0] |= {"value": math.nextafter(rows[0]["value"], 9)}
        yield rows[:-1] if i == 2 else rows


@pytest.fixture
def liar(monkeypatch):
    made = lambda memory, precision: lambda *given: lying(*given, memory=memory)  # noqa: E731
    monkeypatch.setitem(robustness.ENGINES, "replay", made)


def test_another_bit_is_noticed(liar):
    found = bench(material(chain(), numbers(14)), SPEC, variants=5, repeats=1)
    assert not found["same"]
    first, missing = found["different"]
    assert first["metric"] == "error"
    assert 0 < first["replay"] - first["reference"] < 1e-15
    assert (missing["metric"], missing["replay"]) == ("cross_entropy_delta", None)
    assert "other numbers in 2 of 5 variants" in found["conclusion"]
    assert f"error {first['reference']!r}, with replay {first['replay']!r}" in shown(found)


class Counts(nn.Module):
    """Changes itself, without effect."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = chain(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.inner(x)


def test_a_network_that_cannot_be_taken_apart_is_said():
    found = bench(material(Counts(), numbers(28)), SPEC, variants=6, repeats=1)
    assert found["elsewhere"] == {"the model (Counts) changes itself in its forward": 6}
    assert found["engines"]["replay"]["further_share"] == 1
    assert found["same"]
    assert "6 went to the reference engine: the model (Counts) changes itself" in shown(found)


def test_without_products_nothing_is_counted():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x

    found = bench(material(Scaled(), numbers(14)), SPEC, variants=2, repeats=1)
    assert found["bound"] is found["engines"]["replay"]["share"] is found["engines"]["replay"]["further_share"] is None
    assert "bound: not known" in shown(found)
    assert "(bound" not in found["conclusion"]


def test_statistics_are_measured_apart():
    """They take both engines the same, and are no work of theirs."""
    data = numbers(28)
    found = bench(material(chain(nn.BatchNorm1d(WIDTH)), data, data), SPEC, variants=6, repeats=1)
    each = found["map"]["statistics_seconds"]
    assert each > 0
    assert found["same"]
    assert found["engines"]["reference"]["share"] == 1
    changing = found["map"]["variants"] - found["map"]["unchanged"]
    assert found["engines"]["replay"]["map_seconds"] > changing * each
    assert "batch norm's statistics" in shown(found)


def test_shorter_products_are_compared_with_float32():
    model = chain()
    found = bench(
        material(model, numbers(28)),
        replace(SPEC, metrics=("error",)),
        variants=4,
        repeats=1,
        plan=ls.Plan(precision="bf16"),
    )
    assert found["same"]
    with pytest.raises(ls.UseError, match="ask for the error alone"):
        bench(material(model, numbers(28)), SPEC, plan=ls.Plan(precision="bf16"))


def test_the_whole_map_is_estimated_from_what_is_done_once_and_what_is_not():
    """2 s once and 3 s a batch of 10; the map has 50 and 100 samples and four times as many variants."""
    model = chain()
    some = Slice.of(subject_of(model), [ls.Variant()] * 5, Task(numbers(40, 10), [ls.ErrorRate()]))
    tried = Tried([(5.0, 14.0)] * 3, (0, 0), None, [])
    whole = Map(22, 2, {"test": 50, "train": 100}, 0.5)
    once, sample = 2, 0.3
    engine = (once + 50 * sample) + (once + 100 * sample)
    assert tried.map_seconds(some, whole, False) == pytest.approx(engine * 22 / 5 + 20 * 2 * 0.5)
    assert tried.map_seconds(some, whole, True) == pytest.approx(engine * 20 / 5 + 20 * 2 * 0.5)
    noise = replace(tried, seconds=[(5.0, 4.0)])
    assert noise.map_seconds(some, replace(whole, statistics_seconds=0.0), True) == pytest.approx(150 * 4 / 40 * 20 / 5)


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 4), st.integers(1, 60))
def test_variants_are_spread_evenly(parts: int, draws: int, steps: int, count: int):
    made = [ls.Part(str(i), (f"{i}.weight",)) for i in range(parts)]
    drawn = [ls.Variant.of(part, ls.Rerandomize(), draw=k) for part in made for k in range(draws)]
    back = [ls.Variant.of(part, ls.Rewind(ls.Step(k))) for part in made for k in range(steps)]
    chosen = spread([*drawn, *back], count)
    assert len(set(chosen)) == len(chosen) == min(count, len(drawn) + len(back))
    assert chosen == [variant for variant in (*drawn, *back) if variant in chosen]
    kinds = [[v for v in chosen if v in group] for group in (drawn, back)]
    few, many = sorted(map(len, kinds))
    assert many - few <= 1 or few in (len(drawn), len(back))
    for some in kinds:
        used = [sum(variant.edits[0].part is part for variant in some) for part in made]
        assert max(used) - min(used) <= 1


def test_what_changes_nothing_is_not_tried():
    model = chain()
    final = ls.state_of(model)
    trajectory = ls.Trajectory.of(initial=final, final=final)
    world = World.of(model, trajectory, {})
    part = next(iter(ls.Partition.by_layer(model)))
    last = trajectory.steps[-1]
    assert not changes(ls.Variant(), world)
    assert not changes(ls.Variant.of(part, ls.Rewind(ls.FINAL)), world)
    assert not changes(ls.Variant.of(part, ls.Rewind(last)), world)
    assert changes(ls.Variant.of(part, ls.Rewind(ls.INIT)), world)
    assert changes(ls.Variant((ls.Edit(part, ls.Rewind(last)), ls.Edit(part, ls.Rerandomize()))), world)
    alone = replace(material(model, numbers(7)), trajectory=ls.Trajectory.of(final=final))
    with pytest.raises(ls.UseError, match="this map changes nothing"):
        bench(alone, replace(SPEC, draws=0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 0}, "samples must be at least 1, but is 0"),
        ({"variants": -2}, "variants must be at least 1"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"plan": ls.Plan(engine="reference")}, "compares an engine with the reference engine"),
        ({"plan": ls.Plan(engine="fast")}, "unknown engine 'fast'"),
        ({"spec": ls.RobustnessSpec(within=0.1)}, "leave out within"),
        ({"spec": ls.RobustnessSpec(budget="1m")}, "leave out within, decide and budget"),
    ],
)
def test_what_cannot_be_asked(wrong: dict[str, Any], said: str):
    with pytest.raises(ls.UseError, match=said):
        bench(material(chain(), numbers(7)), **{"spec": SPEC} | wrong)


def test_memory_that_nobody_knows(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "none")
    found = bench(material(chain(), numbers(7)), SPEC, variants=2, repeats=1)
    assert found["engines"]["replay"]["peak_bytes"] is None
    assert "not known here" in shown(found)


def test_shares_of_nothing():
    assert further_share((3, 5), (4, 8)) == 0.5
    assert further_share((0, 0), (0, 0)) is None


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    out = str(tmp_path_factory.mktemp("bench") / "run")
    assert main(["train", "--model", "fcn-2x8", "--epochs", "1", "--out", out]) == 0
    return out


def test_the_command(made, capsys):
    words = ["bench", made, "--variants", "4", "--repeats", "1", "--draws", "2"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "bench: 10 of 10" in said.err
    assert "same numbers in all 4 variants" in " ".join(said.out.split())
    assert main([*words, "--json", "--memory", "1MB", "--by", "module", "--no-train"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    assert list(found["engines"]) == ["reference", "replay"]
    assert list(found["map"]["samples"]) == ["test"]


def test_other_numbers_are_exit_code_1(made, capsys, liar):
    assert main(["bench", made, "--variants", "4", "--repeats", "1"]) == 1
    assert "other numbers in 2 of 4 variants" in " ".join(capsys.readouterr().out.split())


def test_wrong_use_is_exit_code_2(made, capsys):
    for words in (["bench"], ["bench", made, "--engine", "reference"], ["bench", made, "--samples", "0"]):
        assert main(words) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
