"""Analyses on another device than the model's: everything a forward needs is put there, and the model stays."""

import pytest
import torch
from torch import Tensor, nn

import layerscope as ls
from layerscope.analyses.robustness import subject_of
from layerscope.engine.batches import leaves, outputs_of
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError

from .test_zoo import CASES, analysed, everything, same, shaken
from .test_zoo_itself import built
from .zoo import Case


@pytest.mark.parametrize("case", [c for c in CASES if c.forward is None], ids=lambda case: case.name)
def test_values_and_batches_are_on_the_device(case: Case):
    """PyTorch's device without values takes the place of a second one: a forward that mixes it with the CPU raises, and one
    that uses nothing of it gives outputs with values."""
    model = built(case.model)
    subject = subject_of(model, ls.Trajectory.of(final=ls.state_of(model)), None, 0, outputs_of, None)
    before = everything(model)
    subject.device = torch.device("meta")
    subject.reload()
    batch = next(iter(case.batches()))
    try:
        with untouched(model), torch.no_grad():
            found = subject.run(subject.unmodified(), lambda network: subject.outputs(network, batch))
    except (
        NotImplementedError,
        RuntimeError,
    ) as problem:  # what depends on values, or makes tensors of its own on the CPU
        pytest.skip(f"cannot run without values: {str(problem).partition(chr(10))[0][:150]}")
    assert same(before, everything(model))
    assert {leaf.device.type for leaf in leaves(found) if isinstance(leaf, Tensor)} == {"meta"}


def test_a_buffer_that_no_state_has_is_there_too():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("mask", torch.ones(3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x * self.mask)

    model = Masked()
    subject = subject_of(model, ls.Trajectory.of(final=ls.state_of(model)), None, 0, outputs_of, None)
    subject.device = torch.device("meta")
    subject.reload()
    inside = subject.inside(subject.unmodified())
    assert {place: tensor.device.type for place, tensor in inside.items()} == dict.fromkeys(inside, "meta")
    assert set(inside) == {"linear.weight", "linear.bias", "mask"}


@pytest.mark.parametrize("name", ["meta", "nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(name: str):
    model = nn.Linear(3, 2)
    data = [(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(UseError, match=r"device|nothing can be computed"):
        ls.evaluate(model, ls.Trajectory.of(final=ls.state_of(model)), [ls.Variant()], data, plan=ls.Plan(device=name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_engines_agree_on_cuda_and_with_the_cpu(case: Case):
    model = built(case.model)
    trajectory = ls.Trajectory.of(initial=shaken(model), final=ls.state_of(model))
    before = everything(model)
    fast, slow = (analysed(case, model, trajectory, ls.Plan(engine=e, device="cuda")) for e in ("replay", "reference"))
    assert same(before, everything(model))
    assert fast.frame.drop(columns="engine").equals(slow.frame.drop(columns="engine"))
    here = analysed(case, model, trajectory)
    assert list(here.frame["part"]) == list(fast.frame["part"])
    assert (here.frame["value"] - fast.frame["value"]).abs().max() < 0.2
