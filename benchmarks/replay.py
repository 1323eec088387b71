"""The exact engine against the tuned loop that one would write by hand (B1), on maps of several networks; same error counts.

Both have the same batches. Ours has its probe and its checks in it, which count for much on as few samples as these.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import layerscope as ls
from benchmarks.data import cifar_or_like
from benchmarks.frame import Result, ratio
from layerscope.engine.batches import outputs_of
from layerscope.models import build
from layerscope.models.initialisers import Laws, initialise
from layerscope.perturb import World

GOAL = 1.7
NETWORKS = {
    "fcn-3x256": (400, 80),
    "vgg-16?width=0.125&hidden=128": (160, 4),
    "resnet-v1-18?width=0.125": (160, 4),
    "resnet-v1-56?width=0.25": (80, 3),
    "transformer-6x64": (200, 4),
}
"""Network -> test images, draws of each layer. Narrow and few, as 2 cores ask for."""
BATCHES = 4


def run() -> Iterator[Result]:
    data, name = cifar_or_like()
    for network, (n, draws) in NETWORKS.items():
        yield measured(network, data.test.inputs[:n], data.test.targets[:n], draws, name)


def measured(name: str, inputs: Tensor, targets: Tensor, draws: int, data: str) -> Result:
    model = build(name, tuple(inputs.shape[1:]), 10).eval()
    laws = ls.laws_of(model, "he")
    initialise(model, laws, seed=0)
    world = World.of(model, ls.Trajectory.of(final=ls.state_of(model)), laws)
    parts = [part for part in ls.Partition.by_layer(model) if not world.is_constant(part)]
    variants = [ls.Variant.of(part, ls.Rerandomize(), draw=k, buffers="keep") for part in parts for k in range(draws)]
    size = len(inputs) // BATCHES
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    found: dict[str, list[int]] = {}

    def ours() -> None:
        table = ls.evaluate(model, trajectory, variants, batches, [ls.ErrorRate()], laws=laws)
        found["ours"] = [round(value * len(targets)) for value in table.where(metric="error")["value"]]

    values = [{where.tensor: new for where, new in variant.patch(world).slices.items()} for variant in variants]

    def loop() -> None:
        found["loop"] = tuned_loop(model, values, batches)

    a, b, _ = ratio(ours, loop)
    assert found["ours"] == found["loop"]
    executed, bound = work(model, trajectory, laws, variants, batches, parts)
    return Result(
        f"map of {name} on {data}: {len(parts)} layers x {draws} draws, n = {len(targets)}, batches of {size}",
        f"{a:.2f} s, {b / a:.2f}x; executed FLOPs {100 * executed:.0f} % of all, bound {bound:.2f}x; same counts",
        f"tuned loop {b:.2f} s",
        f">= {min(GOAL, 0.85 * bound):.2f}x",
        b / a >= min(GOAL, 0.85 * bound),
    )


@torch.inference_mode()
def tuned_loop(model: nn.Module, values: list[dict[str, Tensor]], batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Data in memory, values copied in place and back, errors counted once a batch: what one writes by hand."""
    own = dict(model.state_dict())
    counts = []
    for changed in values:
        before = {name: own[name].clone() for name in changed}
        for name, value in changed.items():
            own[name].copy_(value)
        counts.append(sum(int(wrong(model(x), y)) for x, y in batches))
        for name, value in before.items():
            own[name].copy_(value)
    return counts


def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs < outputs.gather(1, targets[:, None])).sum(1) < outputs.shape[1] - 1).sum()


def work(
    model: nn.Module,
    trajectory: ls.Trajectory,
    laws: Laws,
    variants: list[ls.Variant],
    batches: list[tuple[Tensor, Tensor]],
    parts: list[ls.Part],
) -> tuple[float, float]:
    """FLOPs executed as a share of those of all variants whole; and how many times less there could be, were nothing executed
    but what comes from the changed layer on."""
    batches = batches[:1]
    with FlopCounterMode(display=False) as counter:
        outputs_of(model, batches[0])
    whole = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        ls.evaluate(model, trajectory, variants, batches, [ls.ErrorRate()], laws=laws)
    with FlopCounterMode(display=False) as probing:
        ls.evaluate(model, trajectory, [], batches, [ls.ErrorRate()], laws=laws)
    executed = counter.get_total_flops() - probing.get_total_flops()
    after = from_first_use(model, batches[0], whole)
    needed = sum(after[min(part.modules, key=lambda path: -after[path])] for part in parts)
    checks = len(parts) * whole  # of the first batch alone: with one batch they would count for all
    return (executed - checks) / (len(variants) * whole), len(parts) * whole / needed


def from_first_use(model: nn.Module, batch: tuple[Tensor, Tensor], whole: int) -> dict[str, int]:
    """Module -> FLOPs of a forward from its first call on."""
    found: dict[str, int] = {}
    with FlopCounterMode(display=False) as counter:
        handles = [
            module.register_forward_pre_hook(
                lambda _m, _i, path=path: found.setdefault(path, whole - counter.get_total_flops()) and None
            )
            for path, module in model.named_modules()
        ]
        with torch.no_grad():
            outputs_of(model, batch)
    for handle in handles:
        handle.remove()
    return {path: found.get(path, whole) for path, _ in model.named_modules()}
