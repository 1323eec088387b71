"""What a split can do, whatever its inputs come from."""

import pytest
import torch

import layerscope as ls
from layerscope.data import Split
from layerscope.errors import UseError


@pytest.fixture
def split() -> Split:
    return Split(
        torch.arange(24.0).reshape(6, 1, 2, 2), torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([0, 1, 2, 0, 1, 2])
    )


def test_batches_in_order_any_number_of_times(split):
    batches = split.batches(4)
    for _ in range(2):
        inputs, targets = (torch.cat(column) for column in zip(*batches, strict=True))
        assert torch.equal(inputs, split.inputs)
        assert torch.equal(targets, split.targets)
    assert [len(y) for _, y in batches] == [4, 2]
    assert len(batches) == 2


def test_in_any_order(split):
    order = torch.tensor([5, 0, 3, 3, 1])
    batches = list(split.ordered(order, 2))
    assert [len(y) for _, y in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([x for x, _ in batches]), split.inputs[order])
    assert torch.cat([y for _, y in batches]).tolist() == [2, 0, 1, 1, 1]
    assert split.cropped(batches[0][0]) is batches[0][0]


def test_select(split):
    some = split.select(torch.tensor([4, 1]))
    assert torch.equal(some.inputs, split.inputs[[4, 1]])
    assert (some.targets.tolist(), some.true.tolist(), len(some)) == ([0, 1], [1, 1], 2)
    assert Split(split.inputs, split.targets).select(torch.tensor([0])).true is None


def test_true_labels(split):
    assert split.recovered().targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert split.recovered().inputs is split.inputs
    corrupted = split.corrupted()
    assert corrupted.targets.tolist() == [0, 1]
    assert torch.equal(corrupted.inputs, split.inputs[[3, 4]])
    plain = Split(split.inputs, split.targets)
    for asked in (plain.recovered, plain.corrupted, split.recovered().corrupted):
        with pytest.raises(UseError, match="this split has no label noise"):
            asked()
    with pytest.raises(UseError, match="label noise changed no label"):
        Split(split.inputs, split.targets, split.targets).corrupted()


def test_on_a_device(split):
    moved = split.to("meta")
    assert {moved.inputs.device.type, moved.targets.device.type, moved.true.device.type} == {"meta"}
    assert Split(split.inputs, split.targets).to("cpu").true is None


def test_facts(split):
    assert (split.shape, split.nbytes) == ((1, 2, 2), 24 * 4 + 2 * 6 * 8)


def test_black():
    data = ls.data.load("digits")
    assert data.black == pytest.approx(data.train.inputs.min().item())
