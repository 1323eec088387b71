"""The contract for any network: everything is accounted for, nothing of the user's is touched, and numbers are those of a
network whose values were written in place by hand."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layerscope as ls
from layerscope.errors import UseError

from .test_zoo_itself import built, outputs_of, tensor_of
from .zoo import FAULTY, UNFAITHFUL, ZOO, Case, Fault

REFUSED = {"scripted": "compiled to TorchScript", "overlapping": "lie in the same memory but are different parameters"}
"""Networks whose code takes no other values, or of which nobody can say what changes together: refused with the reason."""
HIDDEN = {"partial_state_dict": 1}
"""Layers that no checkpoint can hold are left out: name of the network -> the layers that remain."""
CASES = [case for case in ZOO if case.name not in REFUSED]
METRICS = {
    "classes": ("error", "cross_entropy", "disagreement"),
    "tokens": ("token_error:same_place", "token_cross_entropy", "perplexity"),
    "dense": ("error", "cross_entropy"),
    "regression": ("squared_error", "absolute_error"),
}

PLAN = ls.Plan()

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def floating(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point() or tensor.is_complex()}


def shaken(model: nn.Module) -> dict[str, Tensor]:
    """Other values for a network, a fifth away from its own; tied tensors stay tied, variances stay positive."""
    random = torch.Generator().manual_seed(7)
    state, moved, seen = ls.state_of(model), {}, {}
    ids = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    for name, tensor in state.items():
        if ids[name] not in seen:
            factor = 1 + 0.2 * torch.rand(tensor.shape, generator=random)
            dense = tensor.is_floating_point() and tensor.layout == torch.strided
            seen[ids[name]] = (tensor * factor.to(tensor)).to(tensor) if dense else tensor
        moved[name] = seen[ids[name]]
    return moved


def analysed(case: Case, model: nn.Module, trajectory: ls.Trajectory, plan: ls.Plan = PLAN, **more: Any) -> ls.Table:
    spec = ls.RobustnessSpec(**{"draws": 1, "metrics": METRICS[case.task], **more})
    hooks: dict[str, Any] = {"plan": plan}
    if case.forward is not None:
        hooks["forward"] = lambda network, batch: tensor_of(case.forward(network, batch))
    if case.targets is not None:
        hooks["targets"] = case.targets
    return ls.robustness(model, trajectory, case.batches(), spec, calibration=case.batches(), **hooks)


def everything(model: nn.Module) -> dict[str, Any]:
    """All that must be bit for bit what it was."""
    seen: dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()[1].tolist()}
    for path, module in model.named_modules(remove_duplicate=False):
        for registry in (module._parameters, module._buffers):
            for name, tensor in registry.items():
                if tensor is not None:
                    seen[f"{path}.{name}"] = (
                        id(tensor),
                        type(tensor),
                        tensor.detach().clone().to_dense(),
                        tensor.requires_grad,
                    )
                    seen[f"{path}.{name}.grad"] = None if tensor.grad is None else tensor.grad.clone()
        seen[f"{path} hooks"] = (list(module._forward_hooks), list(module._forward_pre_hooks), module.training)
        own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        seen[f"{path} attributes"] = {
            name: value.detach().clone() if isinstance(value, Tensor) else repr(value) for name, value in own.items()
        }
    return seen


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@cases
def test_contract(case: Case):
    model, trained = built(case.model).train(), built(case.model)
    trajectory = ls.Trajectory.of(initial=shaken(trained), final=ls.state_of(trained))
    states = {step: {k: v.clone() for k, v in trajectory[step].items()} for step in trajectory.steps}

    partition = ls.Partition.by_layer(model)
    partition.check(model)
    if case.parts is not None:
        assert len(partition) == HIDDEN.get(case.name, case.parts)
    before = everything(model)
    table = analysed(case, model, trajectory)
    assert same(before, everything(model))
    for step, state in states.items():
        assert all(same(trajectory[step][name].to_dense(), tensor.to_dense()) for name, tensor in state.items()), step

    assert set(table.frame["part"]) >= {part.name for part in partition}
    assert not set(table.frame["status"]) - {"ok", "not finite", "not applicable"}, table.frame[["status", "reason"]]
    assert table.provenance["probe"]["identical"]
    again = analysed(case, model, trajectory, plan=ls.Plan(engine="reference"))
    assert table.frame.drop(columns="engine").equals(again.frame.drop(columns="engine"))
    for key, plain in table.variants.items():
        variant = ls.Variant.from_dict(json.loads(json.dumps(plain)))
        assert (variant.id, variant.to_dict()) == (key, plain)


@cases
def test_the_numbers_are_those_of_values_written_in_place(case: Case):
    """An oracle that shares nothing with putting values in by name: a second network, changed in place."""
    model, by_hand = built(case.model), built(case.model)
    start = shaken(model)
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    partition = ls.Partition.by_layer(model)
    part = partition.parts[len(partition) // 2]
    with torch.no_grad():
        for name, tensor in by_hand.state_dict(keep_vars=True).items():
            if name in part.tensors and isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                tensor.copy_(start[name])
    forward = None if case.forward is None else lambda network, batch: tensor_of(case.forward(network, batch))
    outputs = lambda network: [outputs_of(network, batch, forward) for batch in case.batches()]  # noqa: E731
    expected, unmodified = outputs(by_hand), outputs(model)
    hooks = {} if forward is None else {"forward": forward}
    mine = ls.Function("sum", lambda found, _targets: found.double().reshape(len(found), -1).sum(1))
    variants = [ls.Variant(), ls.Variant.of(part, ls.Rewind(), buffers="rewind")]
    hooks["targets"] = case.targets or (lambda batch: None)
    table = ls.evaluate(model, trajectory, variants, case.batches(), [mine], **hooks)
    values = table.where(metric="sum")["value"].tolist()
    for value, found in zip(values, (unmodified, expected), strict=True):
        total = torch.cat([each.double().reshape(len(each), -1).sum(1) for each in found]).mean().item()
        assert value == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert part.name in table.where(metric="sum")["part"].tolist()


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_take_no_values_are_refused_with_the_reason(name):
    (case,) = (case for case in ZOO if case.name == name)
    model = built(case.model)
    with pytest.raises(UseError, match=REFUSED[name]):
        analysed(case, model, ls.Trajectory.of(final=ls.state_of(model)))


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTY if fault.name != "inputs_spoiled"], ids=lambda fault: fault.name
)
def test_the_probe_refuses_what_gives_something_else_the_second_time(fault: Fault):
    model = built(fault.model)
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    before = everything(model)
    with pytest.raises(UseError) as told:
        ls.robustness(model, trajectory, fault.batches(), ls.RobustnessSpec(draws=1))
    print(told.value)
    assert same(before, everything(model))


@pytest.mark.parametrize("fault", UNFAITHFUL, ids=lambda fault: fault.name)
def test_networks_that_do_not_follow_the_values_put_into_them(fault: Fault):
    """Refused, or said to be without effect: never numbers of another network than the one that is named."""
    model = built(fault.model)
    for batch in fault.batches():
        outputs_of(model, batch)  # a cache is filled by now
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    analyse = lambda: ls.robustness(model, trajectory, fault.batches(), ls.RobustnessSpec(draws=1))  # noqa: E731
    if fault.name != "cached_weights":
        with pytest.raises(UseError, match=r"a reference of its own to .*\.weight"):
            analyse()
        return
    table = analyse()
    deltas = table.where(metric="cross_entropy_delta", step=0)
    ineffective = set(deltas.loc[deltas["value"] == 0, "part"]) - {"whole network"}
    assert ineffective == set(table.provenance["unused"]) != set()


def test_a_forward_that_writes_to_its_inputs_is_given_copies():
    (fault,) = (fault for fault in FAULTY if fault.name == "inputs_spoiled")
    model, batches = built(fault.model), fault.batches()
    before = [x.clone() for x, _ in batches]
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    table = ls.robustness(model, trajectory, batches, ls.RobustnessSpec(draws=1))
    assert all(torch.equal(x, old) for (x, _), old in zip(batches, before, strict=True))
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(x), y, reduction="none") for x, y in fault.batches()]
    unmodified = table.where(perturbation="none", metric="cross_entropy")["value"].item()
    assert unmodified == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
