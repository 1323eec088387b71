"""Every tensor is in one Part or left out with a reason."""

import pytest
import torch
from hypothesis import given
from torch import nn

from layerscope.partition import Part, Partition, whole

from .networks import module_trees


@given(module_trees())
def test_all_tensors_are_accounted_for(model):
    partition = Partition.by_layer(model)
    placed = [name for part in partition for name in part.tensors]
    assert sorted([*placed, *partition.left_out]) == sorted(model.state_dict())
    assert all(partition.left_out.values())


@given(module_trees())
def test_tied_tensors_are_changed_together(model):
    state = model.state_dict(keep_vars=True)
    homes: dict[int, set[str]] = {}
    for part in Partition.by_layer(model):
        for name in part.tensors:
            if isinstance(state[name], nn.Parameter):
                homes.setdefault(id(state[name]), set()).add(part.name)
    assert all(len(parts) == 1 for parts in homes.values())


def test_layers_of_a_small_network():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2, bias=False))
    partition = Partition.by_layer(model)
    assert [part.name for part in partition] == ["0", "1", "3"]
    assert partition["1"].tensors == (
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    )
    assert partition["3"].modules == ("3",)
    assert whole(model).tensors == tuple(model.state_dict())


def test_a_module_with_buffers_only_is_left_out_with_the_reason():
    partition = Partition.by_layer(nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2)))
    assert set(partition.left_out) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert set(partition.left_out.values()) == {"a buffer of a module without parameters"}


def test_parts_are_disjoint():
    with pytest.raises(ValueError, match="no tensor in common"):
        Partition((Part("a", ("w",)), Part("b", ("w",))))
    with pytest.raises(KeyError, match="no Part 'c'; there are: a"):
        Partition((Part("a", ("w",)),))["c"]


def test_bare_parameters_of_the_model_itself():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))
            self.layer = nn.Linear(1, 1)

    parts = Partition.by_layer(Bare())
    assert [part.tensors for part in parts] == [("w",), ("layer.weight", "layer.bias")]
    assert [part.name for part in parts] == ["(root)", "layer"]
