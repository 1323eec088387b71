"""Interpolation and noise: against values written by hand, laws of normal numbers, and each engine against the other."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn

import layerscope as ls
from layerscope.errors import UseError

from .test_replay import STEPS, Program, equal, numbers
from .test_zoo import CASES, everything, same, shaken
from .test_zoo_itself import built, tensor_of
from .zoo import Case

WAYS = [ls.Interpolate(0.3), ls.Noise(0.1), ls.Noise(0.1, 0.5)]


def world_of(values: Tensor, start: Tensor | None = None) -> tuple[ls.Part, ls.World]:
    net = nn.Module()
    net.weight = nn.Parameter(values)
    initial = None if start is None else {"weight": start}
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(net))
    return ls.Part("all", ("weight",)), ls.World.of(net, trajectory, {})


def patched(what: Any, part: ls.Part, world: ls.World, draw: int = 0) -> Tensor:
    (values,) = what.patch(part, world, draw).slices.values()
    return values


@given(st.floats(0, 1), st.lists(st.integers(1, 4), max_size=3), st.integers(0, 3))
def test_the_way_is_straight_and_exact_at_its_ends(alpha, shape, seed):
    random = np.random.default_rng(seed)
    start, end = (random.normal(size=shape).astype(np.float32) for _ in "ab")
    part, world = world_of(torch.from_numpy(end), torch.from_numpy(start))
    np.testing.assert_allclose(
        patched(ls.Interpolate(alpha), part, world), (1 - alpha) * start + alpha * end, atol=1e-6
    )
    assert torch.equal(patched(ls.Interpolate(0), part, world), torch.from_numpy(start))
    assert torch.equal(patched(ls.Interpolate(1), part, world), torch.from_numpy(end))


def test_noise_is_normal_and_sigma_is_its_standard_deviation():
    part, world = world_of(torch.full((100, 300), 2.0), torch.zeros(100, 300))
    for alpha in (1.0, 0.25):
        noise = (patched(ls.Noise(0.5, alpha), part, world) - 2 * alpha).flatten()
        assert kstest(noise.numpy(), "norm", args=(0, 0.5)).pvalue > 1e-3
        assert abs(float(torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1])) < 6 / 30_000**0.5


def test_noise_is_addressed():
    """The same numbers at every sigma and alpha, others in another draw, tensor or study."""
    part, world = world_of(torch.zeros(50), torch.zeros(50))
    once = patched(ls.Noise(1.0), part, world)
    assert torch.equal(once, patched(ls.Noise(1.0), part, world))
    assert torch.equal(0.25 * once, patched(ls.Noise(0.25, 0.5), part, world))
    assert torch.equal(torch.zeros(50), patched(ls.Noise(0.0), part, world))
    other = ls.World.of(nn.Module(), world.trajectory, {}, seed=1)
    for found in (patched(ls.Noise(1.0), part, world, draw=1), patched(ls.Noise(1.0), part, other)):
        assert abs(float(torch.corrcoef(torch.stack([once, found]))[0, 1])) < 0.6
    net = nn.Sequential(nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False))
    world = ls.World.of(net, ls.Trajectory.of(final={k: torch.zeros(7, 7) for k in net.state_dict()}), {})
    one, two = ls.Noise(1.0).patch(ls.Part("both", ("0.weight", "1.weight")), world, 0).slices.values()
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1])) < 0.6


def test_tied_tensors_have_one_noise_and_slices_only_their_own():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    before = ls.state_of(net)
    trajectory = ls.Trajectory.of(final=before)
    for part in (ls.Part("all", ("0.weight", "1.weight")), ls.Part("one", (ls.Slice("1.weight", 0, ((1, 2),)),))):
        made = ls.materialize(net, trajectory, ls.Variant.of(part, ls.Noise(1.0))).state_dict()
        assert torch.equal(made["0.weight"], made["1.weight"])
        changed = (made["0.weight"] != before["0.weight"]).all(1).tolist()
        assert changed == ([True] * 3 if part.name == "all" else [False, True, False])


@pytest.mark.parametrize("what", WAYS)
def test_buffers_stay_and_spectral_norm_follows_the_weight(what):
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), nn.BatchNorm1d(4))
    final = ls.state_of(net)
    initial = {name: value + 1 if value.is_floating_point() else value for name, value in final.items()}
    part = ls.Part("all", tuple(net.state_dict()))
    trajectory = ls.Trajectory.of(initial=initial, final=final)
    made = ls.materialize(net, trajectory, ls.Variant.of(part, what, buffers="rewind")).state_dict()
    assert torch.equal(made["1.running_mean"], final["1.running_mean"])
    values = {name.rsplit(".", 1)[-1]: tensor.double().numpy() for name, tensor in made.items()}
    sigma = np.linalg.svd(values["original"], compute_uv=False)[0]
    assert values["_u"] @ values["original"] @ values["_v"] == pytest.approx(sigma, rel=1e-5)


def test_what_cannot_be_is_refused_with_the_reason():
    part, world = world_of(torch.ones(2))
    assert torch.equal(patched(ls.Noise(0.0), part, world), torch.ones(2))  # needs no start
    for what in (ls.Interpolate(0.5), ls.Noise(0.1, 0.5)):
        with pytest.raises(
            UseError, match=r"all cannot .*: the way begins at the start, which is missing: give initial="
        ):
            what.patch(part, world, 0)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(UseError, match=r"between the start \(0\) and the trained values \(1\)"):
            ls.Interpolate(alpha)
        with pytest.raises(UseError, match=r"between the start \(0\)"):
            ls.Noise(0.1, alpha)
    for sigma in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UseError, match="standard deviation"):
            ls.Noise(sigma)


def test_a_pretrained_network_has_no_way_for_what_it_lacks():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    final = ls.state_of(net)
    trajectory = ls.Trajectory.of(pretrained={k: v for k, v in final.items() if k[0] == "0"}, final=final).fitted(net)
    world = ls.World.of(net, trajectory, {})
    old, new = ls.Partition.by_layer(net)
    assert not ls.Noise(0.1, 0.5).refused(old, world)
    refused = ls.Noise(0.1, 0.5).refused(new, world)
    assert "1.weight" in refused
    assert "pretrained network" in refused


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6))
def test_both_engines_give_the_same(steps):
    torch.manual_seed(0)
    model = Program(tuple(steps))
    variants = [ls.Variant.of(p, what, 1, buffers="keep") for p in ls.Partition.by_layer(model) for what in WAYS]
    equal(model, [ls.Variant(), *variants], numbers(17))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_network(case: Case):
    """Both engines give the numbers of a network whose values were written in place; nothing of the user's is touched."""
    model, by_hand = built(case.model), built(case.model)
    start, final = shaken(model), ls.state_of(model)
    partition = ls.Partition.by_layer(model)
    part = partition.parts[len(partition) // 2]
    names = [name for name in part.tensors if name in dict(model.named_parameters(remove_duplicate=False))]
    trajectory = ls.Trajectory.of(initial=start, final=final)
    hooks: dict[str, Any] = {"targets": case.targets or (lambda batch: None)}
    if case.forward is not None:
        hooks["forward"] = lambda network, batch: tensor_of(case.forward(network, batch))
    mine = ls.Function("sum", lambda found, _targets: found.double().reshape(len(found), -1).sum(1))
    evaluate = lambda which, variants, **more: ls.evaluate(  # noqa: E731
        which, trajectory if which is model else ls.Trajectory.of(final=ls.state_of(which)), variants, case.batches(),
        [mine], **hooks, **more,
    )  # fmt: skip
    variants = [ls.Variant.of(part, what, buffers="keep") for what in WAYS]
    before = everything(model)
    if any(not final[name].is_floating_point() for name in names):
        with pytest.raises(UseError, match="real numbers, not torch"):
            evaluate(model, variants)
        return
    table = evaluate(model, variants)
    assert same(before, everything(model))
    slow = evaluate(model, variants, plan=ls.Plan(engine="reference"))
    assert table.frame.drop(columns="engine").equals(slow.frame.drop(columns="engine"))
    assert [ls.Variant.from_dict(json.loads(json.dumps(plain))) for plain in table.variants.values()] == variants
    values = by_hand.state_dict(keep_vars=True)
    with torch.no_grad():
        for name in {id(values[name]): name for name in names}.values():
            values[name].copy_(0.7 * start[name] + 0.3 * final[name])
    near = 1e-4 if all(final[name].dtype.itemsize > 2 for name in names) else 1e-2
    if not any("_u" in name or "original0" in name for name in part.tensors):  # no vectors that follow the weight
        (expected,) = evaluate(by_hand, [ls.Variant()]).where(metric="sum")["value"]
        assert table.where(metric="sum", perturbation="interpolate")["value"].item() == pytest.approx(
            expected, rel=near, abs=near
        )
