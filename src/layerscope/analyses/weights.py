"""What the values of a network say without any data: how far its Parts moved, how large they are, and their spectra."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from layerscope.analyses.distances import parameters_of, values_of
from layerscope.analyses.robustness import checked, partition_of
from layerscope.analyses.spec import WeightsSpec
from layerscope.analyses.tiers import without_data
from layerscope.measures.distance import METRICS, UNIT, distances
from layerscope.measures.norm import norms
from layerscope.measures.spectrum import spectrum
from layerscope.partition import Part, Partition, Slice
from layerscope.perturb import World
from layerscope.step import INIT
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]


def weights(
    model: nn.Module,
    trajectory: Trajectory,
    spec: WeightsSpec | None = None,
    *,
    partition: Partition | None = None,
    run: str = "",
) -> Table:
    """What can be said of a network's Parts without data: nothing of which matter.

    Rows, by `metric`: `norm_frobenius` and `norm_rms` of each Part's parameters at each `step`; where there is a start, how far
    they are from it (`distance_l2`, `distance_max`, with `to` = start); and of each matrix (`tensor`) at the first step and
    the last `spectrum_largest`, `spectrum_stable_rank` and `spectrum_effective`. Convolutions are matrices of outputs x
    (inputs x kernel): see `measures.spectrum`. All numbers are computed from all values, so that none has an interval.

    Raises `UseError` if the trajectory does not fit the model or holds a NaN.
    """
    spec, trajectory = spec or WeightsSpec(), checked(trajectory, model)
    partition = partition or partition_of(model, spec)
    partition.check(model)
    world = World.of(model, trajectory, {})
    rows = [{"run": run, **row} for part in partition for row in _about(world, parameters_of(world, part))]
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "left_out": partition.left_out,
        "tier": without_data(trajectory.has_start).to_dict(),
        "warnings": trajectory.warnings(),
        **trajectory.facts(),
    }
    return Table.of(rows, facts)


def _about(world: World, part: Part) -> list[Row]:
    """All rows of one Part, whose values at two steps are in memory at a time."""
    trajectory, rows = world.trajectory, []
    lacking = world.lacking(part, INIT) if trajectory.has_start else ""
    start = values_of(world, INIT, part) if trajectory.has_start and not lacking else None
    for step in trajectory.steps:
        place = {"part": part.name, "status": "ok", **trajectory.coordinates(step)}
        none = {"status": "not applicable", "reason": lacking, "unit": UNIT}
        if lacking:
            rows += [place | none | {"metric": name, "to": "start"} for name in METRICS]
        if lacking and step == INIT:
            rows += [place | none | {"metric": row["metric"]} for row in norms({})]
            continue
        values = values_of(world, step, part)
        rows += [place | row for row in norms(values)]
        if start is not None:
            rows += [place | {"to": "start"} | row for row in distances(values, start)]
        if step in (trajectory.steps[0], trajectory.steps[-1]):
            rows += _spectra(values, place)
    return rows


def _spectra(values: Mapping[Slice, Tensor], place: Row) -> list[Row]:
    return [place | {"tensor": str(where)} | row for where, tensor in values.items() for row in spectrum(tensor)]
