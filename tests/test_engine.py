"""The reference engine against networks worked out by hand, and the promise that the user's model is never changed."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import layerscope as ls
from layerscope.errors import UseError
from layerscope.perturb import Patch

from .networks import Scale, signs


@pytest.fixture
def case():
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    return model, trajectory, data, ls.Partition.by_layer(model)


def errors(table: ls.Table) -> list[float]:
    return list(table.where(metric="error")["value"])


def test_by_hand(case):
    model, trajectory, data, parts = case
    a, b = (ls.Variant.of(parts[name], ls.Rewind(ls.INIT)) for name in "ab")
    both = ls.Variant((*a.edits, *b.edits))
    table = ls.evaluate(model, trajectory, [ls.Variant(), a, b, both], data)
    assert errors(table) == [1 / 5, 4 / 5, 1 / 5, 4 / 5]
    assert list(table.where(metric="error_delta")["value"]) == pytest.approx([0, 3 / 5, 0, 3 / 5])
    assert set(table.where(metric="error")["n"]) == {5}
    losses = table.where(metric="cross_entropy")["value"]
    x, right = np.array([1, 2, 3, -4, 5.0]), np.array([1, 1, 1, -1, -1.0])
    by_hand = [np.log1p(np.exp(-2 * z * x * right)).mean() for z in (1, -1, 2, -2)]
    assert list(losses) == pytest.approx(by_hand, rel=1e-6)


def test_the_order_asked_is_the_order_given(case):
    model, trajectory, data, parts = case
    variants = [ls.Variant.of(parts[name], ls.Rewind(step)) for step in trajectory.steps for name in "ba"]
    table = ls.evaluate(model, trajectory, variants, data)
    assert list(table.where(metric="error")["variant"]) == [variant.id for variant in variants]
    assert list(table.where(metric="error")["step"]) == [0, 0, 1, 1]


def test_values_come_from_the_trajectory_not_the_model(case):
    model, trajectory, data, _ = case
    with torch.no_grad():
        model.a.factor.fill_(-7.0)
    assert errors(ls.evaluate(model, trajectory, [ls.Variant()], data)) == [1 / 5]


def test_batch_size_changes_nothing(case):
    model, trajectory, data, parts = case
    joined = [tuple(torch.cat(column) for column in zip(*data, strict=True))]
    variants = [ls.Variant.of(parts["a"], ls.Rewind())]
    one, other = (ls.evaluate(model, trajectory, variants, d) for d in (data, joined))
    assert one.frame.drop(columns=["value", "low", "high"]).equals(other.frame.drop(columns=["value", "low", "high"]))
    assert np.allclose(one.frame["value"], other.frame["value"], rtol=1e-6)


class Watched(Scale):
    """Raises at a given call, like a model that runs out of memory half-way."""

    fail_at = -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Watched.fail_at -= 1
        if Watched.fail_at == 0:
            raise RuntimeError("out of memory")
        return super().forward(x)


def fingerprint_of(model: nn.Module) -> list[object]:
    grads = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    values = [t.clone() for t in (*model.parameters(), *model.buffers())]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    state = [torch.get_rng_state(), np.random.get_state()[1].tolist()]  # type: ignore[index]
    return [grads, values, hooks, modes, state]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Lengths:
    """Gives fewer or more batches from some pass on."""

    def __init__(self, data: list, *lengths: int) -> None:
        self.data, self.lengths = data, list(lengths)

    def __iter__(self):
        return iter(self.data[: self.lengths.pop(0) if len(self.lengths) > 1 else self.lengths[0]])


def test_data_in_another_order_on_each_pass_are_refused(case):
    model, trajectory, data, _ = case
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    shuffled = DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UseError, match=r"other batches on each pass.*shuffle=False"):
        ls.evaluate(model, trajectory, [ls.Variant()] * 20, shuffled)

    with pytest.raises(UseError, match="other batches on each pass"):
        ls.evaluate(model, trajectory, [ls.Variant()], Lengths(data, 3, 3, 3, 3, 3, 2))
    with pytest.raises(UseError, match="other batches on each pass"):
        ls.evaluate(model, trajectory, [ls.Variant()], Lengths(data, 2, 2, 2, 2, 2, 3))


def test_a_data_loader_leaves_the_random_state_alone(case):
    model, trajectory, data, _ = case
    x, y = (torch.cat(column) for column in zip(*data, strict=True))
    before = torch.get_rng_state()
    ls.evaluate(model, trajectory, [ls.Variant()], DataLoader(TensorDataset(x, y), batch_size=2))
    assert torch.equal(before, torch.get_rng_state())


def test_a_part_that_names_a_tied_weight_by_its_second_name(tmp_path):
    model = Tied()
    trajectory = ls.Trajectory.of(initial={k: -v for k, v in ls.state_of(model).items()}, final=ls.state_of(model))
    second = ls.Part("second", ("b.weight",))
    made = ls.materialize(model, trajectory, ls.Variant.of(second, ls.Rewind()))
    assert (made.a.weight.item(), made.b.weight.item()) == (-1.0, -1.0)


@pytest.mark.parametrize("fail_at", [-1, 1, 4, 7])
@pytest.mark.parametrize("use", ["evaluate", "robustness", "materialize"])
def test_the_model_is_untouched(use, fail_at):
    model = nn.Sequential(Watched(1.0), nn.Sequential(Scale(1.0), nn.Dropout(0.5)), signs()[0].both_signs)
    model[1].eval()
    model(torch.ones(2, 1)).sum().backward()
    trajectory = ls.Trajectory.of(initial=ls.state_of(model), final=ls.state_of(model))
    variants = [ls.Variant.of(part, ls.Rewind()) for part in ls.Partition.by_layer(model)]
    parts = copy.deepcopy(trajectory[ls.INIT])
    before = fingerprint_of(model)
    Watched.fail_at = fail_at
    try:
        if use == "evaluate":
            ls.evaluate(model, trajectory, variants, signs()[2])
        elif use == "robustness":
            ls.robustness(model, trajectory, signs()[2])
        else:
            ls.materialize(model, trajectory, variants[0])
        assert fail_at < 0 or use == "materialize"
    except RuntimeError as problem:
        assert (fail_at > 0, str(problem)) == (True, "out of memory")  # noqa: PT017
    finally:
        Watched.fail_at = -1
    after = fingerprint_of(model)
    for name, a, b in zip(("grads", "values", "hooks", "modes", "random"), before, after, strict=True):
        assert same(a, b), name
    assert all(torch.equal(parts[name], trajectory[ls.INIT][name]) for name in parts)


PYTHONS_RANDOM = """
import random, torch, layerscope as ls
class Noisy(torch.nn.Linear):
    def forward(self, x):
        random.random()
        return super().forward(x)
model = Noisy(2, 2)
trajectory = ls.Trajectory.of(initial=ls.state_of(model), final=ls.state_of(model))
before = random.getstate()
ls.evaluate(model, trajectory, [ls.Variant()], [(torch.ones(2, 2), torch.zeros(2, dtype=torch.long))])
print(random.getstate() == before)
"""


def test_pythons_random_state_is_untouched():
    """In a process of its own: the checks of annotations in this one draw from Python's generator themselves."""
    out = subprocess.run([sys.executable, "-c", PYTHONS_RANDOM], capture_output=True, text=True, check=True).stdout
    assert out == "True\n"


def test_buffers_that_count_calls_do_not_leak_between_variants(case):
    model, trajectory, _, _ = case
    bound = ls.bind(model, trajectory[ls.FINAL], Patch())
    bound(torch.ones(1, 1))
    assert int(model.a.calls) == 0


def test_bind_is_differentiable(case):
    model, trajectory, _, _ = case
    factor = torch.tensor(3.0, requires_grad=True)
    out = ls.bind(model, trajectory[ls.FINAL], Patch({"a.factor": factor}))(torch.tensor([[2.0]]))
    out[0, 0].backward()
    assert factor.grad == torch.tensor(2.0)
    assert model.a.factor.grad is None


def test_edits_that_collide_are_refused(case):
    model, trajectory, data, parts = case
    edit = ls.Edit(parts["a"], ls.Rewind())
    with pytest.raises(UseError, match=r"two edits of one variant change the same tensor: a\.factor"):
        ls.evaluate(model, trajectory, [ls.Variant((edit, edit))], data)


def test_data_that_can_be_read_once_is_refused(case):
    model, trajectory, data, _ = case
    with pytest.raises(UseError, match="gone through only once"):
        ls.evaluate(model, trajectory, [ls.Variant()], iter(data))
    with pytest.raises(UseError, match="no batch"):
        ls.evaluate(model, trajectory, [ls.Variant()], [])


def test_materialize_gives_the_network_of_the_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    initial = ls.state_of(model)
    trained = {name: t + torch.randn_like(t) for name, t in initial.items()}
    trajectory = ls.Trajectory.of(initial=initial, final=trained)
    x, y = torch.randn(200, 4), torch.randint(3, (200,))
    part = ls.Partition.by_layer(model)["2"]
    for variant in (ls.Variant.of(part, ls.Rewind()), ls.Variant.of(part, ls.Rerandomize(), draw=3)):
        made = ls.materialize(model, trajectory, variant, seed=5)
        by_hand = (made(x).argmax(1) != y).double().mean().item()
        assert errors(ls.evaluate(model, trajectory, [variant], [(x, y)], seed=5)) == [pytest.approx(by_hand)]
        assert torch.equal(made[0].weight, trained["0.weight"])
    assert not torch.equal(made[2].weight, trained["2.weight"])


def test_an_overflowing_network_is_a_row_with_a_status(case):
    model, _, data, parts = case
    broken = {**ls.state_of(model), "a.factor": torch.tensor(3e38)}
    trajectory = ls.Trajectory.of(initial=broken, final=ls.state_of(model))
    table = ls.evaluate(model, trajectory, [ls.Variant.of(parts["a"], ls.Rewind())], data)
    loss = table.where(metric="cross_entropy").iloc[0]
    assert loss["status"] == "not finite"
    assert "overflow" in loss["reason"]
    assert errors(table) == [1 / 5]


def test_ties_are_errors():
    from layerscope.metrics.error import is_error

    outputs = torch.tensor([[1.0, 1.0], [0.0, 2.0], [float("nan"), 1.0], [float("inf"), 0.0], [1.0, float("nan")]])
    targets = torch.tensor([0, 1, 1, 0, 0])
    assert is_error(outputs, targets).tolist() == [True, False, True, False, True]


class Tied(nn.Module):
    """z = w * (w * x): the same weight twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.b.weight = self.a.weight
        self.both_signs = signs()[0].both_signs
        with torch.no_grad():
            self.a.weight.fill_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both_signs(self.b(self.a(x)))


def test_tied_weights_change_together_and_survive_a_file(tmp_path):
    from layerscope.store import Folder
    from layerscope.trajectory import save_state

    model, data = Tied(), signs()[2]
    start = {name: torch.full((1, 1), -3.0) for name in ("a.weight", "b.weight")}
    for step, state in ((ls.Step(0), start), (ls.Step(1), model.state_dict())):
        save_state(Folder(tmp_path), step, state)
    trajectory = ls.Trajectory.open(tmp_path)
    (part,) = ls.Partition.by_layer(model)
    assert part.tensors == ("a.weight", "b.weight")
    table = ls.evaluate(model, trajectory, [ls.Variant(), ls.Variant.of(part, ls.Rewind())], data)
    assert errors(table) == [1 / 5, 1 / 5]  # (-3) * (-3) keeps the sign: one of the two alone would turn it
    drawn = ls.Variant.of(part, ls.Rerandomize())
    assert errors(ls.evaluate(model, trajectory, [drawn], data)) == [1 / 5]
    made = ls.materialize(model, trajectory, drawn)
    assert made.a.weight is made.b.weight
