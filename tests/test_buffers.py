"""The rule for buffers, against PyTorch's own recalibration and networks worked out by hand."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import layerscope as ls
from layerscope.errors import UseError


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8, momentum=0.3), nn.Linear(8, 3)
    )


@pytest.fixture
def case():
    model = net()
    start = ls.state_of(model)
    torch.manual_seed(1)
    x = 2 + 3 * torch.randn(640, 4)
    y = torch.randint(3, (640,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for chosen in torch.randperm(640).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    training = list(zip(x.split(100), y.split(100), strict=True))
    return model, ls.Trajectory.of(initial=start, final=ls.state_of(model)), training, [(x[:200], y[:200])]


def made(case, part: str, buffers: str, **more) -> dict[str, torch.Tensor]:
    model, trajectory, training, _ = case
    variant = ls.Variant.of(ls.Partition.by_layer(model)[part], ls.Rewind(), buffers=buffers)
    return ls.materialize(model, trajectory, variant, calibration=training, **more).state_dict()


def test_rewind_and_keep(case):
    _, trajectory, _, _ = case
    start, final = trajectory[ls.INIT], trajectory[ls.FINAL]
    statistics = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    rewound, kept = made(case, "1", "rewind"), made(case, "1", "keep")
    for name in statistics:
        assert torch.equal(rewound[name], start[name])
        assert torch.equal(kept[name], final[name])
    for state in (rewound, kept):
        assert torch.equal(state["1.weight"], start["1.weight"])
        assert torch.equal(state["4.running_mean"], final["4.running_mean"])


@pytest.mark.parametrize("part", ["0", "1", "3", "5"])
def test_recalibrate_against_pytorch(case, part):
    """`update_bn` of PyTorch, on a network whose values were loaded by hand."""
    model, trajectory, training, test = case
    recalibrated = made(case, part, "recalibrate")
    by_hand = net()
    start = {name: value for name, value in trajectory[ls.INIT].items() if name.startswith(f"{part}.")}
    by_hand.load_state_dict(
        trajectory[ls.FINAL] | {n: v for n, v in start.items() if "running" not in n and "num" not in n}
    )
    update_bn(training, by_hand)
    for name, value in by_hand.state_dict().items():
        assert torch.equal(recalibrated[name], value), name
    by_hand.eval()
    variant = ls.Variant.of(ls.Partition.by_layer(model)[part], ls.Rewind(), buffers="recalibrate")
    found = ls.evaluate(model, trajectory, [variant], test, calibration=training).where(metric="error")["value"].item()
    with torch.no_grad():
        assert found == (by_hand(test[0][0]).argmax(1) != test[0][1]).double().mean().item()


def test_recalibration_leaves_the_model_and_its_modes_alone(case):
    model, trajectory, training, test = case
    model.train()
    model[1].eval()
    before = ls.state_of(model)
    variants = [ls.Variant.of(part, ls.Rewind(), buffers="recalibrate") for part in ls.Partition.by_layer(model)]
    ls.evaluate(model, trajectory, variants, test, calibration=training)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert [model[1].momentum, model[4].momentum] == [0.1, 0.3]


def test_putting_back_to_the_last_step_changes_nothing_under_any_rule(case):
    model, trajectory, training, test = case
    for rule in ("rewind", "keep", "recalibrate"):
        variants = [ls.Variant.of(part, ls.Rewind(ls.FINAL), buffers=rule) for part in ls.Partition.by_layer(model)]
        table = ls.evaluate(model, trajectory, [ls.Variant(), *variants], test, calibration=training)
        assert table.where(metric="cross_entropy")["value"].nunique() == 1


def test_recalibration_needs_data_where_there_is_something_to_recalibrate(case):
    model, trajectory, _, test = case
    variant = ls.Variant.of(ls.Partition.by_layer(model)["0"], ls.Rewind(), buffers="recalibrate")
    for calibration in (None, []):
        with pytest.raises(UseError, match="to recalibrate them pass training data"):
            ls.evaluate(model, trajectory, [variant], test, calibration=calibration)
    plain = nn.Linear(4, 3)
    part = ls.Partition.by_layer(plain).parts[0]
    without = ls.Trajectory.of(initial=ls.state_of(nn.Linear(4, 3)), final=ls.state_of(plain))
    ls.evaluate(plain, without, [ls.Variant.of(part, ls.Rewind(), buffers="recalibrate")], test)


def test_an_unknown_rule_is_refused():
    with pytest.raises(UseError, match="unknown rule for buffers 'reset'"):
        ls.Variant(buffers="reset")  # type: ignore[arg-type]


class Sides(nn.Module):
    """A norm that the data go through, one they never go through, and an instance norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.idle = nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.instance, self.head = nn.InstanceNorm1d(4, track_running_stats=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.instance(self.norm(self.first(x)).relu()).mean(2))


def test_instance_norm_and_norms_that_see_no_data():
    torch.manual_seed(0)
    model = Sides()
    final = ls.state_of(model) | {"idle.running_mean": torch.full((4,), 5.0)}
    x, y = torch.randn(40, 2, 9), torch.randint(3, (40,))
    training = [(x[:20], y[:20]), (x[20:], y[20:]), (x[:1], y[:1])]  # from one sample no variance can be told
    trajectory = ls.Trajectory.of(
        initial={k: v + 0.1 if v.is_floating_point() else v for k, v in final.items()}, final=final
    )
    part = ls.Partition.by_layer(model)["head"]
    made = ls.materialize(model, trajectory, ls.Variant.of(part, ls.Rewind()), calibration=training)
    assert torch.equal(made.idle.running_mean, final["idle.running_mean"])
    made.eval()
    with torch.no_grad():
        seen = [made.norm(made.first(batch)).relu() for batch, _ in training[:2]]
    by_hand = torch.stack([each.mean((0, 2)) for each in seen]).mean(0)
    assert torch.allclose(made.instance.running_mean, by_hand, atol=0.02)
    assert made.instance.running_mean.abs().min() > 0
    assert made.instance.momentum == 0.1


def test_data_to_recalibrate_with_must_be_the_same_each_time(case):
    model, trajectory, training, test = case
    data = torch.utils.data.TensorDataset(*(torch.cat(column) for column in zip(*training, strict=True)))
    shuffled = torch.utils.data.DataLoader(data, batch_size=100, shuffle=True)
    variant = ls.Variant.of(ls.Partition.by_layer(model)["0"], ls.Rewind())
    with pytest.raises(UseError, match="calibration data gives other batches"):
        ls.evaluate(model, trajectory, [variant], test, calibration=shuffled)
