"""Short products, close calls again in float32: the same counts as in float32 throughout."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import layerscope as ls
from layerscope.engine.precision import BEYOND, BOTH, Changed, Close, products, some
from layerscope.errors import UseError
from layerscope.metrics.error import margin

from .test_zoo import CASES, analysed, shaken
from .test_zoo_itself import built
from .zoo import Case

CLASSES = [case for case in CASES if case.task == "classes"]


def counted(model: nn.Module, data: list, plan: ls.Plan, n: int = 12) -> ls.Table:
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    parts = ls.Partition.by_layer(model)
    variants = [ls.Variant.of(part, ls.Rerandomize(), draw=k, buffers="keep") for part in parts for k in range(n)]
    return ls.evaluate(model, trajectory, [ls.Variant(), *variants], data, [ls.ErrorRate()], plan=plan)


def same_counts(short: ls.Table, full: ls.Table) -> bool:
    columns = ["variant", "metric", "value", "n", "low", "high", "status"]
    return short.frame[columns].equals(full.frame[columns])


def deep(width: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(width, width), nn.ReLU())), nn.Linear(width, 4))


def samples(n: int = 1500, width: int = 24, batch: int = 300) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, width, generator=random), torch.randint(4, (n,), generator=random)
    return list(zip(x.split(batch), y.split(batch), strict=True))


@pytest.mark.parametrize("engine", ["replay", "reference"])
def test_no_decision_changes_where_short_products_alone_change_many(engine: str):
    """A network that nobody trained, whose margins are all small."""
    model, data = deep(), samples()
    full = counted(model, data, ls.Plan(engine="reference"))
    short = counted(model, data, ls.Plan(engine=engine, precision="bf16"))
    assert same_counts(short, full)
    again = short.where(metric="error")["rechecked"]
    assert (again >= 600).all()  # the first two batches
    assert again.median() < 700
    assert "rechecked" not in full.frame

    flips = 0
    with torch.no_grad():
        for x, y in data:
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(x).float()
            flips += int(((margin(rounded, y) > 0) != (margin(model(x), y) > 0)).sum())
    assert flips > 0


@pytest.mark.parametrize("case", CLASSES, ids=lambda case: case.name)
def test_the_zoo(case: Case):
    model = built(case.model)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    plans = ls.Plan(precision="bf16"), ls.Plan(engine="reference")
    short, full = (analysed(case, model, trajectory, plan, metrics=("error",)) for plan in plans)
    assert same_counts(short, full)
    assert short.frame["verdict"].equals(full.frame["verdict"])


class Routed(nn.Module):
    """Which of two layers a sample goes through depends on its values: rounding sends some to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.a, self.b = (nn.Linear(24, k) for k in (2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.gate(x).argmax(1, keepdim=True) == 0
        return torch.where(first, self.a(x), self.b(x))


class Floats(nn.Module):
    """Insists on float32 within."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.linear(x)
        if found.dtype != torch.float32:
            raise TypeError("float32 only")
        return found


@pytest.mark.parametrize(("kind", "why"), [(Routed, "its forward decides by argmax"), (Floats, "raises TypeError")])
def test_networks_of_which_short_products_say_nothing_are_computed_in_float32(kind: type[nn.Module], why: str):
    torch.manual_seed(0)
    model, data = kind(), samples()
    for engine in ("replay", "reference"):
        short = counted(model, data, ls.Plan(engine=engine, precision="bf16"), n=3)
        assert same_counts(short, counted(model, data, ls.Plan(), n=3))
        assert all(text.startswith(f"{engine} in float32") and why in text for text in short.frame["engine"])


@pytest.mark.parametrize("engine", ["replay", "reference"])
def test_a_batch_that_is_worse_than_the_first(engine: str):
    """Later samples for which the sums cancel, so that bfloat16 is far off: what was let pass before is looked at again."""

    class Cancels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            far = 300 * nn.functional.relu(x[:, :1] - 5)
            return self.linear(x + far) - self.linear(torch.zeros_like(x) + far)

    torch.manual_seed(0)
    model, data = Cancels(), samples()
    for x, _ in data[2:]:
        x[:, 0] = 6
    full = counted(model, data, ls.Plan(engine="reference"), n=4)
    short = counted(model, data, ls.Plan(engine=engine, precision="bf16"), n=4)
    assert same_counts(short, full)


def test_samples_that_cannot_be_taken_out_of_a_batch():
    """An input that all samples share: whole batches are computed again."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = deep()

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.own(x * scale)

    model, data = Shared(), [((x, torch.ones(24)), y) for x, y in samples()]
    assert some(data[0], torch.tensor([1, 2])) is None
    full, short = (counted(model, data, plan, n=2) for plan in (ls.Plan(), ls.Plan(precision="bf16")))
    assert same_counts(short, full)
    assert (short.where(metric="error")["rechecked"] == 1500).any()


@given(st.integers(0, 10_000), st.floats(1e-4, 0.2), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_close_calls_by_hand(seed: int, noise: float, k: int):
    """Outputs whose difference is known: decisions are those of the right ones, or the Variant is measured again. Exact for
    noise whose largest value may come in any batch."""
    random = torch.Generator().manual_seed(seed)
    right, y = torch.randn(12, 80, 5, generator=random), torch.randint(5, (12, 80), generator=random)
    off = noise * torch.rand(right.shape, generator=random) * torch.rand(12, 1, 1, generator=random)
    metric = ls.TopKError(k) if k > 1 else ls.ErrorRate()
    close = Close([metric])
    try:
        for at in range(12):
            given = (right[at] + off[at]).clone()
            found = close.outputs(
                given, lambda rows, at=at: right[at][slice(None) if rows is None else rows], y[at], 80
            )
            wrong, expected = (metric.per_sample(values, y[at]) for values in (found, right[at]))
            missed = (wrong != expected).nonzero()[:, 0]
            # What is let pass wrongly is off by more than BEYOND times all that was seen; noise of this kind never is, but in
            # the first batch's favour.
            assert not len(missed) or at * 80 >= BOTH
            if len(missed):
                apart = (off[at].amax(1) - off[at].amin(1))[missed]
                assert (apart > BEYOND * close._apart / 2).all()
    except Changed:
        assert close._apart * BEYOND > close._closest


class Plain(ls.ErrorRate):
    """A decision whose margin is the difference of two outputs."""

    def margin(self, outputs: Tensor, targets: object) -> Tensor:
        return outputs[:, :1] - outputs[:, 1:2]


def test_a_last_batch_that_shows_more_than_was_thought():
    """Whatever way a difference is seen, what was let pass before is looked at again."""

    def outputs(*margins: float) -> Tensor:
        return torch.stack([torch.tensor(margins), torch.zeros(len(margins))], 1)

    close = Close([Plain()])
    first = outputs(*[1.0] * BOTH)
    close.outputs(first, lambda rows: first + outputs(*[0.001] * BOTH), None, BOTH)
    close.outputs(outputs(0.5, 1.0), lambda rows: outputs(-0.5, 1.0), None, 2)
    with pytest.raises(Changed):  # no samples can be taken out of this batch
        close.outputs(outputs(0.001, 1.0), lambda rows: outputs(1.2, 1.0) if rows is None else None, None, 2)


def test_margin_is_how_far_from_another_decision():
    outputs = torch.tensor([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0], [math.nan, 0.0, 1.0]])
    targets = torch.tensor([0, 0, 1])
    assert margin(outputs, targets)[:2].tolist() == [[0.5], [0.0]]
    assert not (margin(outputs, targets).abs() > 1)[2]
    assert margin(outputs[:2], targets[:2], k=2).tolist() == [[2.0], [1.0]]
    pixels = torch.randn(2, 3, 4)
    assert margin(pixels, torch.zeros(2, 4, dtype=torch.long)).shape == (2, 4)


def test_what_is_refused():
    model, data = deep(), samples()
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    with pytest.raises(UseError, match="cross_entropy would change"):
        ls.evaluate(model, trajectory, [ls.Variant()], data, plan=ls.Plan(precision="bf16"))
    with pytest.raises(UseError, match="NVIDIA"):
        ls.evaluate(model, trajectory, [ls.Variant()], data, [ls.ErrorRate()], plan=ls.Plan(precision="tf32"))
    with pytest.raises(UseError, match="bf16"):
        ls.evaluate(model, trajectory, [ls.Variant()], data, [ls.ErrorRate()], plan=ls.Plan(precision="bf6"))


def test_pytorchs_settings_are_put_back():
    def seen() -> list[str]:
        cudnn = torch.backends.cudnn
        return [s.fp32_precision for s in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)]  # type: ignore[attr-defined]

    before = seen()
    for name, inside in (("fp32", "ieee"), ("tf32", "tf32")):
        with products(name, torch.device("cuda")):
            assert seen() == [inside] * 3
        assert seen() == before
        with pytest.raises(ZeroDivisionError), products(name, torch.device("cuda")):
            raise ZeroDivisionError
        assert seen() == before


def test_certified_answers_with_short_products():
    model, data = deep(), samples()
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    spec = ls.RobustnessSpec(draws=2, within=0.05)
    tables = [ls.robustness(model, trajectory, data, spec, plan=p) for p in (ls.Plan(), ls.Plan(precision="bf16"))]
    assert same_counts(tables[1], tables[0])
