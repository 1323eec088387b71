"""Which layers matter: the experiment of zhang2022 on any trajectory."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from layerscope import runtime, stats
from layerscope.analyses.spec import RobustnessSpec
from layerscope.analyses.verdicts import verdict
from layerscope.engine.reference import Forward, first_of_pair
from layerscope.engine.reference import evaluate as reference_engine
from layerscope.engine.untouched import untouched
from layerscope.measures.distance import distances
from layerscope.metrics import CrossEntropy, ErrorRate, Metric
from layerscope.models.initialisers import Laws, laws_of
from layerscope.partition import WHOLE, Part, Partition, first_names, whole
from layerscope.perturb import Patch, Rerandomize, Rewind, Variant, World, bind
from layerscope.runtime import Progress
from layerscope.state import state_of
from layerscope.stats import Interval
from layerscope.step import FINAL, INIT, Step
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Data = Iterable[Any]
Row = dict[str, Any]


def evaluate(
    model: nn.Module,
    trajectory: Trajectory,
    variants: Sequence[Variant],
    data: Data,
    metrics: Sequence[Metric[Any]] | None = None,
    *,
    laws: Laws | None = None,
    seed: int = 0,
    forward: Forward = first_of_pair,
    split: str = "test",
    progress: Progress | None = None,
) -> Table:
    """What each Variant of a trained network scores on some data.

    The unmodified network has the values of the trajectory's last step; `model` gives the code and is left untouched.
    `data` yields batches any number of times, `(inputs, targets)` unless `forward(network, batch)` says otherwise.
    Metrics default to error and cross-entropy; each gives a row for itself and one for the paired difference to the
    unmodified network, with 95 % intervals. `laws` are the initial laws that `Rerandomize` draws from; by default those
    of PyTorch's own initialisation, for the modules where they are known.

    Raises `UseError` if the trajectory does not fit the model or holds a NaN, before anything runs.
    """
    trajectory.check(state_of(model))
    world = World(trajectory, laws_of(model) if laws is None else laws, seed)
    metrics = [ErrorRate(), CrossEntropy()] if metrics is None else metrics
    rows = _measured(model, world, variants, data, metrics, forward, split, {}, progress)
    return Table.of(rows, variants=_described(variants))


def robustness(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data | Mapping[str, Data],
    spec: RobustnessSpec | None = None,
    *,
    laws: Laws | None = None,
    partition: Partition | None = None,
    forward: Forward = first_of_pair,
    chance: float | None = None,
    run: str = "",
    done: MutableMapping[str, list[Row]] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Which layers matter: each Part rewound to each checkpoint and re-randomised, and the whole network at each.

    `data` is the test data, or a mapping of split name -> data. Rows, by `perturbation`: `none` the unmodified network;
    `rewind` a Part (or the whole network) with its values of epoch `step`; `rerandomize` a Part drawn afresh, one row a
    draw, and one over all draws (no `draw`; its interval is over draws). Metrics: error and cross-entropy, their paired
    differences to the unmodified network (`..._delta`), and distances to the start and to the substituted values.
    `verdict` is set on the rows of `error_delta` on the test data; `chance` is the error of guessing, 1 - 1/outputs if
    not given. `done` takes each variant's rows as they come, and gives those of an earlier call with the same arguments.
    Source: zhang2022, Sec. 2 and 3, App. D. Differs from the paper: several draws, intervals, and a rule for verdicts.
    """
    spec = spec or RobustnessSpec()
    trajectory.check(state_of(model))
    partition = partition or Partition.by_layer(model)
    world = World(trajectory, laws_of(model) if laws is None else laws, spec.seed)
    steps = _steps(trajectory, spec.steps)
    variants = _variants(world, partition, whole(model), steps, spec.draws)
    splits = data if isinstance(data, Mapping) else {"test": data}
    metrics = [ErrorRate(spec.level), CrossEntropy(spec.level)]
    rows: list[Row] = []
    done = {} if done is None else done
    for split, batches in splits.items():
        rows += _measured(model, world, variants, batches, metrics, forward, split, done, progress)
    rows += _over_draws(rows, spec.level)
    rows += _distances(world, partition, _parameters(model, partition), steps, spec.draws)
    rows += _without_law(world, partition)
    chance = _chance(model, world, splits, forward) if chance is None else chance
    rows = _decided(rows, chance, spec)
    order = ["", *(part.name for part in partition), WHOLE]
    rows.sort(key=lambda row: order.index(row.get("part", "")))
    laws_used = {name: str(world.laws[name]) for part in partition for name in part.tensors if name in world.laws}
    facts = {"spec": spec.to_dict(), "chance": chance, "left_out": partition.left_out, "laws": laws_used}
    return Table.of([{"run": run, **row} for row in rows], facts, variants=_described(variants))


def _measured(
    model: nn.Module,
    world: World,
    variants: Sequence[Variant],
    data: Data,
    metrics: Sequence[Metric[Any]],
    forward: Forward,
    split: str,
    done: MutableMapping[str, list[Row]],
    progress: Progress | None,
) -> list[Row]:
    """The rows of all variants on one split; those in `done` are not computed again."""

    def work(todo: Sequence[Variant]) -> Iterable[list[Row]]:
        return reference_engine(model, world, todo, data, metrics, forward=forward) if todo else []

    found = runtime.run(
        variants, lambda variant: f"{split} {variant.id}", work, done, f"evaluate on {split} data", progress
    )
    return [{"split": split, **row} for rows in found for row in rows]


def _steps(trajectory: Trajectory, epochs: Sequence[int] | None) -> list[Step]:
    """The steps to rewind to; without an initial state, those there are."""
    if epochs is None:
        return list(trajectory.steps)
    ends = {trajectory.steps[0], trajectory.steps[-1]}
    return sorted(ends | {trajectory.resolve(Step(epoch)) for epoch in epochs})


def _variants(world: World, partition: Partition, everything: Part, steps: Sequence[Step], draws: int) -> list[Variant]:
    """The unmodified network; each Part re-randomised (where its law is known) and rewound; the whole network rewound."""
    return [
        Variant(),
        *(Variant.of(part, Rerandomize(), k) for part in partition if _has_law(world, part) for k in range(draws)),
        *(Variant.of(part, Rewind(step)) for part in (*partition, everything) for step in steps),
    ]


def _described(variants: Sequence[Variant]) -> dict[str, Any]:
    return {variant.id: variant.to_dict() for variant in variants}


def _has_law(world: World, part: Part) -> bool:
    return set(part.tensors) <= set(world.laws)


def _without_law(world: World, partition: Partition) -> list[Row]:
    """What could not be re-randomised is said, not skipped."""
    reason = "no initial law is known for {}; give one in laws="
    return [
        {
            "part": part.name,
            "perturbation": "rerandomize",
            "metric": "error",
            "status": "not applicable",
            "reason": reason.format(", ".join(name for name in part.tensors if name not in world.laws)),
        }
        for part in partition
        if not _has_law(world, part)
    ]


def _over_draws(rows: Sequence[Row], level: float) -> list[Row]:
    """The mean over the draws of each Part, split and metric, with Student's t interval over draws."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if "draw" in row:
            groups.setdefault((row["part"], row["split"], row["metric"]), []).append(row)
    return [_mean_row(group, level) for group in groups.values()]


def _mean_row(group: Sequence[Row], level: float) -> Row:
    values = np.array([row["value"] for row in group])
    kept = ("part", "perturbation", "metric", "unit", "split", "engine")
    mean: Row = {name: group[0][name] for name in kept} | {"value": float(values.mean()), "n": len(values)}
    if not np.isfinite(values).all():
        return mean | {
            "status": "not finite",
            "reason": "at least one draw gives outputs that overflow or are not numbers",
        }
    if len(values) < 2:
        return mean | {"status": "ok", "reason": "one draw has no interval over draws"}
    low, high = stats.mean(values, level)
    return mean | {"status": "ok", "low": low, "high": high, "interval": "draws", "level": level}


def _parameters(model: nn.Module, partition: Partition) -> dict[str, list[str]]:
    """Part -> the names of its parameters, a tied one once: what a distance is measured over."""
    firsts = first_names(model)
    owned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {
        part.name: list({firsts[name]: name for name in reversed(part.tensors) if name in owned}.values())
        for part in partition
    }


def _distances(
    world: World, partition: Partition, names: Mapping[str, Sequence[str]], steps: Sequence[Step], draws: int
) -> list[Row]:
    """How far each Part's checkpoints are from its start, and the trained values from those put in their place."""
    final = world.trajectory[FINAL]
    start = world.trajectory[INIT] if world.trajectory.has_start else None
    rows: list[Row] = []
    for step in steps:
        state = world.trajectory[step]
        for part in partition:
            place = {"part": part.name, "perturbation": "rewind", "step": step.epoch, "status": "ok"}
            if start is not None:
                rows += [place | {"to": "start"} | row for row in distances(state, start, names[part.name])]
            rows += [place | {"to": "substituted"} | row for row in distances(final, state, names[part.name])]
    for part in partition:
        for draw in range(draws if _has_law(world, part) else 0):
            drawn = Variant.of(part, Rerandomize(), draw).patch(world).tensors
            place = {"part": part.name, "perturbation": "rerandomize", "draw": draw, "status": "ok"}
            rows += [place | {"to": "substituted"} | row for row in distances(final, drawn, names[part.name])]
    return rows


def _chance(model: nn.Module, world: World, splits: Mapping[str, Data], forward: Forward) -> float:
    """The error of guessing evenly among the classes that the network has outputs for."""
    with untouched(model), torch.inference_mode():
        outputs = forward(bind(model, world.trajectory[FINAL], Patch()), next(iter(next(iter(splits.values())))))
    return 1 - 1 / outputs.shape[-1]


def _decided(rows: Sequence[Row], chance: float, spec: RobustnessSpec) -> list[Row]:
    """The rows, with a verdict on each change of a Part's test error."""
    asked = {"perturbation": "none", "metric": "error", "split": "test"}
    unmodified = next((row["value"] for row in rows if asked.items() <= row.items()), None)
    if unmodified is None:  # no test data, no verdicts
        return list(rows)
    return [row | {"verdict": _verdict(row, chance - unmodified, spec)} if _asks(row) else row for row in rows]


def _asks(row: Row) -> bool:
    deciding = row["metric"] == "error_delta" and row.get("split") == "test"
    return deciding and row["perturbation"] != "none" and row["part"] != WHOLE


def _verdict(row: Row, gap: float, spec: RobustnessSpec) -> str:
    if "low" not in row:
        return "undecided"
    return verdict(Interval(row["low"], row["high"]), gap, spec.ambient, spec.destroyed)
