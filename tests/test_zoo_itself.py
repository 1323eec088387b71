"""The zoo keeps its own promises: each case runs by the default rule, always gives the same, and the same in any batch."""

import copy
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import ParametrizationList

from .zoo import FAULTY, IGNORED, UNFAITHFUL, ZOO, Case, Fault, joined

cases = pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)


def built(make: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def by_the_rule(network: Callable[..., Any], batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return network(**{name: value for name, value in batch.items() if name != "labels"})
    inputs, _ = batch
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple | list) else network(inputs)


def tensor_of(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    if hasattr(outputs, "logits"):
        return outputs.logits
    if isinstance(outputs, Mapping):
        if "logits" in outputs:
            return outputs["logits"]
        (value,) = outputs.values()
        return value
    return outputs[0]


def outputs_of(network: Callable[..., Any], batch: Any, forward: Callable[..., Any] | None = None) -> Tensor:
    with torch.no_grad():
        return tensor_of((forward or by_the_rule)(network, batch)).clone()


def targets_of(case: Case, batch: Any) -> Tensor:
    if case.targets is not None:
        return case.targets(batch)
    return batch["labels"] if isinstance(batch, Mapping) else batch[1]


def a_pass(network: Callable[..., Any], batches: Iterable[Any], seed: int, forward: Any = None) -> list[Tensor]:
    """The outputs for all batches, from random states of its own."""
    states = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            return [outputs_of(network, batch, forward) for batch in batches]
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def by_sample(outputs: Tensor) -> Tensor:
    """One number of each sample's outputs."""
    return outputs.double().reshape(len(outputs), -1).sum(dim=1)


def all_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def test_names():
    names = [case.name for case in ZOO]
    faults = [fault.name for fault in (*FAULTY, *UNFAITHFUL)]
    assert len(set(names)) == len(names) >= 30
    assert len(set(faults)) == len(faults)
    assert {case.task for case in ZOO} == {"classes", "tokens", "dense", "regression"}


@cases
def test_shapes(case: Case):
    model, batches = built(case.model), case.batches()
    assert sum(tensor.numel() for tensor in model.parameters()) < 10_000
    sizes = []
    for batch in batches:
        outputs, targets = outputs_of(model, batch, case.forward), targets_of(case, batch)
        sizes.append(len(targets))
        assert torch.isfinite(outputs).all()
        assert outputs.is_floating_point()
        if case.task == "regression":
            assert outputs.shape == targets.shape
            continue
        classes = outputs.shape[-1 if case.task == "tokens" else 1]
        assert outputs.dim() == {"classes": 2, "tokens": 3, "dense": 4}[case.task]
        assert outputs.select(-1 if case.task == "tokens" else 1, 0).shape == targets.shape
        assert targets.dtype == torch.long
        counted = targets != IGNORED
        assert counted.any()
        assert counted.all() == (case.task != "tokens")
        assert ((targets[counted] >= 0) & (targets[counted] < classes)).all()
    assert len(batches) in (2, 3)
    assert len(set(sizes)) > 1


@cases
def test_outcomes_differ(case: Case):
    """No network gives the same for all samples: a comparison of such outputs would say nothing."""
    model = built(case.model)
    sums = torch.cat([by_sample(outputs_of(model, batch, case.forward)) for batch in case.batches()])
    assert len(sums.unique()) == len(sums)


@cases
def test_a_factory_draws_from_the_random_state_and_nothing_else(case: Case):
    one, same, other = (built(case.model, seed) for seed in (1, 1, 2))
    first, second, third = (list(model.parameters()) for model in (one, same, other))
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, third))
    before = torch.get_rng_state()
    batches = case.batches()
    assert torch.equal(before, torch.get_rng_state())
    again = case.batches()
    for a, b in zip(batches, again, strict=True):
        assert torch.equal(targets_of(case, a), targets_of(case, b))
        assert targets_of(case, a) is not targets_of(case, b)


@cases
def test_the_same_each_time(case: Case):
    model, batches = built(case.model), case.batches()
    first = a_pass(model, batches, 1, case.forward)
    second = a_pass(model, batches[::-1], 2, case.forward)[::-1]
    assert all_equal(first, second)


@cases
def test_the_same_in_any_batch(case: Case):
    if case.apart:
        pytest.skip(case.apart)
    model, batches = built(case.model), case.batches()
    apart = torch.cat(a_pass(model, batches, 1, case.forward))
    together = outputs_of(model, (case.join or joined)(case.batches()), case.forward)
    formats = [tensor.dtype for tensor in (apart, *model.parameters()) if tensor.is_floating_point()]
    bound = max(1e-5, *(4 * torch.finfo(dtype).eps for dtype in formats))  # half precision has only three digits
    assert apart.shape == together.shape
    assert (apart - together).abs().max() <= bound * apart.abs().max()


@cases
def test_layers_counted_by_hand(case: Case):
    """Against a count by machine: modules with parameters not seen before, a parametrisation with its layer."""
    assert case.parts is None or case.parts > 0
    if case.parts is None:
        return
    model = built(case.model)
    layers: dict[str, int] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        own = {id(parameter) for parameter in module.parameters(recurse=False)} - seen
        seen |= own
        layer = path.split(".parametrizations.")[0].removeprefix("parametrizations.")
        if own:
            layers[layer] = max(layers.get(layer, 0), getattr(module, "num_layers", 1))
        assert not isinstance(module, ParametrizationList) or ".parametrizations." in f".{path}"
    assert case.parts == sum(layers.values())


@pytest.mark.parametrize("fault", FAULTY, ids=lambda fault: fault.name)
def test_faults(fault: Fault):
    """Two passes do not give the same."""
    model, data = built(fault.model), fault.batches()
    assert not all_equal(a_pass(model, data, 1), a_pass(model, data, 2))


def test_data_of_faults_are_seen_by_inputs_alone():
    """Augmented data keep order and targets: who compares targets only does not see it."""
    data = next(fault for fault in FAULTY if fault.name == "augmented_data").batches()
    one, other = ([batch[1] for batch in data] for _ in range(2))
    assert all_equal(one, other)


@pytest.mark.parametrize("fault", UNFAITHFUL, ids=lambda fault: fault.name)
def test_unfaithful(fault: Fault):
    """The same each time, but not the network whose values were asked for."""
    model, data = built(fault.model), fault.batches()
    first = a_pass(model, data, 1)
    assert all_equal(first, a_pass(model, data, 2))
    values = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    by_name = a_pass(lambda *args: functional_call(model, values, args), data, 1)
    fresh = built(fault.model)
    fresh.load_state_dict(values)
    assert not all_equal(by_name, a_pass(fresh, data, 1))


def test_joining_keeps_structure():
    for case in ZOO:
        if not case.apart and case.join is None:
            batches = case.batches()
            whole = joined(copy.copy(batches))
            assert type(whole) is type(batches[0])
            assert len(targets_of(case, whole)) == sum(len(targets_of(case, batch)) for batch in batches)
