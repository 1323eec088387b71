"""Many networks trained as one stack: each moves as it would alone."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import layerscope as ls
from layerscope.data import DataSet, Split
from layerscope.models import build
from layerscope.training.loop import moments, start
from layerscope.training.stack import Stack, why_not
from layerscope.training.stacked import Stacked

SPEC = ls.TrainSpec(model="fcn-2x7", epochs=2, batch_size=32, lr=0.05, checkpoints=(0,))


def digits(n: int = 75, noise: float = 0.0, shape: tuple[int, ...] = (1, 6, 6), double: bool = True) -> DataSet:
    """Inputs that do not depend on the noise, 10 classes; the last batch is smaller."""
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, *shape, generator=draw)
    targets = torch.randint(10, (n,), generator=draw)
    noisy = torch.where(torch.rand(n, generator=draw) < noise, torch.randint(10, (n,), generator=draw), targets)
    inputs = inputs.double() if double else inputs
    test = Split(inputs[:41] * 0.9, targets[:41])
    return DataSet(f"noise {noise}", Split(inputs, noisy), test, 10, 0.0, 1.0, str(noise))


def alone(spec: ls.TrainSpec, data: DataSet, double: bool = True) -> list[tuple[dict[str, Tensor], list[dict]]]:
    """Values and rows after each epoch of a training alone."""
    model = start(spec, as_single(data))
    found = []
    for moment in moments(spec, model.double() if double else model, data):
        values = {name: value.clone() for name, value in moment.model.state_dict().items()}
        found.append((values, moment.rows))
    return found


def as_single(data: DataSet) -> DataSet:
    """The networks are drawn, and tried, in float32."""
    halves = {name: Split(split.inputs.float(), split.targets) for name, split in data.splits.items()}
    return dataclasses.replace(data, **halves)


def stacked(specs: list[ls.TrainSpec], data: list[DataSet], double: bool = True) -> Stacked:
    models = [start(spec, as_single(each)) for spec, each in zip(specs, data, strict=True)]
    return Stacked(specs, [model.double() if double else model for model in models], data)


def far(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of a tensor."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max()) for name in a)


MODELS = {
    "fcn-2x7": (1, 6, 6),
    "fcn-5-3-4": (9,),
    "alexnet-small?width=0.03": (3, 8, 8),
    "alexnet-small?width=0.03&lrn=no": (1, 8, 8),
    "vgg-11?width=0.05&hidden=40": (3, 8, 8),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_each_member_moves_as_alone(model, optimizer):
    """float64, 200 steps: seeds and noise in an order that is not the stack's, so that feeds are of 3, 2 and 1 members."""
    steps = 200 if optimizer == "sgd" else 20
    lr = 0.02 if optimizer == "sgd" else 0.002
    spec = dataclasses.replace(SPEC, model=model, optimizer=optimizer, lr=lr, epochs=steps // 4, batch_size=20)
    spec = dataclasses.replace(spec, schedule="cosine", weight_decay=1e-3)
    sets = [digits(noise=noise, shape=MODELS[model]) for noise in (0, 0.3, 0.6)]
    pairs = [(1, 0), (0, 1), (2, 2), (1, 2), (0, 0), (1, 1)]
    specs = [dataclasses.replace(spec, seed=seed) for seed, _ in pairs]
    data = [sets[which] for _, which in pairs]
    together = stacked(specs, data)
    laps = [together.measured(), *(together.epoch(number) for number in range(1, spec.epochs + 1))]
    for member, (one, its) in enumerate(zip(specs, data, strict=True)):
        by_itself = alone(one, its)
        assert far(dict(together.values(member)), by_itself[-1][0]) < 1e-9
        for lap, (_, rows) in zip(laps, by_itself, strict=True):
            found = {(row["split"], row["metric"]): row["value"] for row in rows}
            train = lap[member].train
            pairs_of = lap[member].others | ({} if train is None else {"train": train})
            assert {split for split, _ in found} == set(pairs_of)
            for split, (loss, error) in pairs_of.items():
                assert loss == pytest.approx(found[split, "cross_entropy"], rel=1e-9)
                assert error == found[split, "error"]


def test_members_that_leave_change_nothing_for_the_others():
    specs = [dataclasses.replace(SPEC, epochs=4, seed=seed) for seed in (0, 0, 1, 1, 2)]
    data = [digits(), digits(noise=0.5), digits(), digits(noise=0.5), digits()]
    together = stacked(specs, data)
    together.epoch(1)
    together.leave([1, 4])
    assert together.epoch(2).keys() == {0, 2, 3}
    together.leave([0])
    together.epoch(3)
    together.leave([])
    together.epoch(4)
    for member in (2, 3):
        assert far(dict(together.values(member)), alone(specs[member], data[member])[-1][0]) < 1e-12
    together.leave([2, 3])
    assert not together.members


def test_it_goes_on_from_its_state_with_the_same_bits():
    specs = [dataclasses.replace(SPEC, epochs=3, seed=seed, optimizer="adam") for seed in (1, 0, 2)]
    data = [digits(double=False)] * 3
    whole, before = stacked(specs, data, False), stacked(specs, data, False)
    for each in (whole, before):
        each.epoch(1)
        each.leave([0])
        each.epoch(2)
    after = stacked(specs, data, False)
    after.restore(before.members, {name: value.clone() for name, value in before.state().items()})
    whole.epoch(3)
    after.epoch(3)
    for member in (1, 2):
        assert all(torch.equal(value, whole.values(member)[name]) for name, value in after.values(member).items())


def test_one_that_diverges_spoils_no_other():
    """Inputs of one data set are so large that its cross-entropy overflows."""
    good, bad = digits(double=False), digits(double=False)
    bad = dataclasses.replace(bad, train=Split(good.train.inputs * 1e30, good.train.targets))
    specs = [dataclasses.replace(SPEC, seed=seed) for seed in (0, 0, 1)]
    together = stacked(specs, [good, bad, good], False)
    before = dict(together.values(1))
    laps = together.epoch(1)
    assert [bool(laps[member].diverged) for member in range(3)] == [False, True, False]
    assert "not finite" in laps[1].diverged
    assert all(torch.equal(value, before[name]) for name, value in together.values(1).items())
    for member in (0, 2):
        assert far(dict(together.values(member)), alone(specs[member], good, False)[1][0]) < 1e-4


def test_a_stack_is_measured_in_batches_for_which_there_is_room(monkeypatch):
    specs = [dataclasses.replace(SPEC, seed=seed) for seed in range(3)]
    data, sizes = [digits()] * 3, []
    together = stacked(specs, data)
    before = together.measured()
    outputs = Stack.outputs

    def counted(self, feeds, counts):
        sizes.append(feeds.shape[1])
        return outputs(self, feeds, counts)

    monkeypatch.setattr(Stack, "outputs", counted)
    each = 36 + 4 * 7 + 10  # flattened inputs, two layers with their ReLU, the last layer
    monkeypatch.setattr("layerscope.training.stacked.OUTPUTS", 3 * each * 10)
    after = together.measured()
    assert sizes == [10, 10, 10, 10, 1]
    for member in range(3):
        assert after[member].others["test"] == pytest.approx(before[member].others["test"], rel=1e-12)


def test_frozen_layers_stay():
    spec = dataclasses.replace(SPEC, freeze=("layer2",))
    together = stacked([spec, dataclasses.replace(spec, seed=1)], [digits()] * 2)
    start_of = dict(together.values(1))
    together.epoch(1)
    after = together.values(1)
    assert torch.equal(after["layer2.weight"], start_of["layer2.weight"])
    assert not torch.equal(after["layer1.weight"], start_of["layer1.weight"])
    assert far(dict(after), alone(dataclasses.replace(spec, seed=1), digits())[1][0]) < 1e-12


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stack_computes_what_its_networks_do(data):
    """Random forms, feeds and members."""
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3), label="members of each feed")
    layers, channels, side = [], data.draw(st.integers(1, 3), label="channels"), 7
    shape = (channels, side, side)
    for _ in range(data.draw(st.integers(0, 2), label="convolutions")):
        out = data.draw(st.integers(1, 4))
        bias, stride = data.draw(st.booleans()), data.draw(st.integers(1, 2))
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=bias), data.draw(st.sampled_from(EACH))()]
        channels, side = out, -(-side // stride)
    layers.append(nn.Flatten())
    width = channels * side * side
    for _ in range(data.draw(st.integers(1, 3), label="linear layers")):
        out = data.draw(st.integers(1, 5))
        layers += [nn.Linear(width, out, bias=data.draw(st.booleans())), nn.ReLU()]
        width = out
    form = [nn.Sequential(*layers)]
    models = form + [clone(form[0]) for _ in range(sum(counts) - 1)]
    assert not why_not(models[0])
    feeds = torch.randn(len(counts), 5, *shape, dtype=torch.float64)
    found = Stack.of([model.double() for model in models]).outputs(feeds, counts)
    at = 0
    for feed, count in zip(feeds, counts, strict=True):
        for model in models[at : at + count]:
            assert torch.allclose(found[at].T, model(feed), rtol=1e-10, atol=1e-12)
            at += 1


EACH = [nn.ReLU, nn.Tanh, lambda: nn.LocalResponseNorm(2), lambda: nn.MaxPool2d(3, 1, 1), nn.Identity]


def clone(model: nn.Module) -> nn.Module:
    """The same form with other values."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_(0, 0.3)
    return other


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        ("resnet-v1-20?width=0.2", (3, 32, 32), "layer of a kind that is not stacked"),
        ("fcn-2x4?norm=batch", (4,), "layer of a kind that is not stacked, BatchNorm1d"),
        ("fcn-2x4?dropout=0.5", (4,), "dropout1 drops units at random"),
        ("lstm-4", (1, 8, 8), "layer of a kind that is not stacked"),
        ("fcn-2x4", (4,), ""),
        ("vgg-11?width=0.05", (3, 32, 32), ""),
    ],
)
def test_what_can_be_stacked(model, shape, why):
    found = why_not(build(model, shape, 10))
    assert found.startswith(why) if not why else why in found


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Conv2d(2, 2, 3, groups=2), "has groups"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "does not pad with zeros"),
        (nn.Flatten(2), "does not flatten all but the samples"),
        (nn.Softmax(1), "not stacked, Softmax"),
    ],
)
def test_layers_that_are_not_stacked(layer, why):
    assert why in why_not(nn.Sequential(layer, nn.Flatten(), nn.Linear(3, 2)))
    assert "no linear layer" in why_not(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten()))
