"""How far each Part moved in training, and how far the values that take its place are from the trained ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from layerscope.measures.distance import METRICS, UNIT, distances
from layerscope.partition import Part, Partition, Slice
from layerscope.perturb import Patch, Perturbation, Variant, World
from layerscope.step import FINAL, INIT, Step

Row = dict[str, Any]
Draws = Callable[[Part], int]
"""How many draws there are of a Part."""


def moved_by(
    world: World, partition: Partition, steps: Sequence[Step], redraw: Perturbation, draws: Draws
) -> list[Row]:
    """Distances over each Part's parameters: of every step's values to the start, and of the trained values to those of every
    step and of every draw (`to` is `start` or `substituted`). One Part is in memory at a time. A Part of which a pretrained
    network lacks parameters has no distance to it."""
    rows: list[Row] = []
    for part in partition:
        measured = parameters_of(world, part)
        final = values_of(world, FINAL, measured)
        lacking = world.lacking(measured, INIT) if world.trajectory.has_start else ""
        start = values_of(world, INIT, measured) if world.trajectory.has_start and not lacking else None
        for step in steps:
            place = {"part": part.name, "perturbation": "rewind", "step": world.trajectory.number(step), "status": "ok"}
            if lacking:
                none = place | {"status": "not applicable", "reason": lacking}
                rows += [none | {"to": "start", "metric": name, "unit": UNIT} for name in METRICS]
                if step == INIT:
                    rows += [none | {"to": "substituted", "metric": name, "unit": UNIT} for name in METRICS]
                    continue
            state = values_of(world, step, measured)
            if start is not None:
                rows += [place | {"to": "start"} | row for row in distances(state, start)]
            rows += [place | {"to": "substituted"} | row for row in distances(final, state)]
        for draw in range(draws(part)):
            drawn = Variant.of(measured, redraw, draw).patch(world).slices
            place = {"part": part.name, "perturbation": redraw.KIND, "draw": draw, "status": "ok"}
            rows += [place | {"to": "substituted"} | row for row in distances(final, drawn)]
    return rows


def parameters_of(world: World, part: Part) -> Part:
    """The Part without its buffers, and with a tied tensor under its first name only."""
    own = [where for where in part.slices if where.tensor not in world.buffers]
    once = {(world.firsts[where.tensor], where.axis, where.ranges): where for where in reversed(own)}
    return Part(part.name, tuple(reversed(once.values())), part.modules)


def values_of(world: World, step: Step, part: Part) -> Mapping[Slice, Tensor]:
    return Patch.of(part, world.trajectory.tensors(step, part.tensors)).slices
