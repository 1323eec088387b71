"""Whatever the network: every way to make Parts accounts for every tensor, exactly once."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from layerscope.partition import BY, Partition, every_tensor, rows

from .trees import trees

WAYS = BY | {
    "modules at depth 2": lambda model: Partition.by_module(model, 2),
    "modules at depth 3": lambda model: Partition.by_module(model, 3),
    "by two patterns": lambda model: Partition.by_pattern(model, _patterns(model)),
    "joint layers": lambda model: _every_other_joined(Partition.by_layer(model)),
    "joint heads": lambda model: _every_other_joined(Partition.by_head(model)),
}
slow_trees = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _patterns(model: nn.Module) -> dict[str, str]:
    """The tensors that are first and last in the state dict, if they are not the same tensor."""
    state = model.state_dict(keep_vars=True)
    ends = list(state)[:: max(1, len(state) - 1)][:2]
    return dict(zip("ab", ends[: len({id(state[name]) for name in ends})], strict=False))


def _every_other_joined(partition: Partition) -> Partition:
    names = [part.name for part in partition]
    return partition.joined({"joint": names[::2]} if names else {})


def painted(model: nn.Module, partition: Partition) -> dict[str, torch.Tensor]:
    """How many Parts each scalar is in: the oracle, index by index."""
    counts = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}
    for part in partition:
        for where in part.slices:
            for start, stop in where.ranges or [(0, None)]:
                if where.ranges:
                    counts[where.tensor].transpose(0, where.axis)[start:stop] += 1
                else:
                    counts[where.tensor] += 1
    return counts


def all_names(model: nn.Module) -> set[str]:
    """The names of all tensors, found by looking into every module."""
    names = set()
    for path, module in model.named_modules(remove_duplicate=False):
        for store in (module._parameters, module._buffers, vars(module)):
            names |= {f"{path}.{name}".lstrip(".") for name, value in store.items() if isinstance(value, torch.Tensor)}
    return names


@pytest.mark.parametrize("way", WAYS)
@slow_trees
@given(model=trees())
def test_every_tensor_is_accounted_for_exactly_once(way, model):
    partition = WAYS[way](model)
    partition.check(model)
    counts = painted(model, partition)
    for name in every_tensor(model):
        if name in partition.left_out:
            assert partition.left_out[name]
            assert name not in counts or not counts[name].any()
        else:
            assert (counts[name] == 1).all(), name
    assert set(partition.left_out) <= set(every_tensor(model))


@slow_trees
@given(trees())
def test_all_tensors_are_found(model):
    found = every_tensor(model)
    assert set(found) == all_names(model)
    assert len(set(found)) == len(found)
    assert found[: len(model.state_dict())] == list(model.state_dict())


@pytest.mark.parametrize("way", WAYS)
@slow_trees
@given(model=trees())
def test_tied_tensors_are_changed_together(way, model):
    homes: dict[int, set[frozenset[object]]] = {}
    partition = WAYS[way](model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        slices = {
            (part.name, each.axis, each.ranges) for part in partition for each in part.slices if each.tensor == name
        }
        homes.setdefault(id(tensor), set()).add(frozenset(slices))
    assert all(len(places) == 1 for places in homes.values())


@pytest.mark.parametrize("way", BY)
@slow_trees
@given(model=trees())
def test_counts_add_up(way, model):
    found = rows(model, BY[way](model))
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert sum(row["parameters"] for row in found["parts"]) == found["parameters"]
    assert all(row["parameters"] for row in found["parts"])
    kept = {name for name, _ in model.named_buffers()} & model.state_dict().keys()
    dropped = {row["tensor"] for row in found["left_out"]}
    buffers = sum(model.get_buffer(name).numel() for name in kept - dropped)
    assert sum(row["buffers"] for row in found["parts"]) == buffers
    assert sum(row["share"] for row in found["parts"]) == pytest.approx(1 if found["parameters"] else 0)


@slow_trees
@given(trees(), st.sampled_from(sorted(BY)))
def test_the_model_stays_as_it_is_and_the_answer_the_same(model, way):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert BY[way](model) == BY[way](model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
