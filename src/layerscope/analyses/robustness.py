"""Which layers matter: the experiment of zhang2022 on any trajectory."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from layerscope import metrics as built_in
from layerscope import runtime
from layerscope.analyses.distances import moved_by
from layerscope.analyses.draws import over_draws
from layerscope.analyses.spec import Divided, Plan, RobustnessSpec
from layerscope.analyses.start import odd_start
from layerscope.analyses.tiers import Tier, tier_of
from layerscope.analyses.verdicts import Judge
from layerscope.engine.batches import First, Forward, Targets, outputs_of, targets_of
from layerscope.engine.budget import Cell, tally
from layerscope.engine.budget import used as seconds_used
from layerscope.engine.certified import Certify, cells, shuffled, unmodified
from layerscope.engine.pieces import Asked, best
from layerscope.engine.precision import Precision
from layerscope.engine.probe import Probe, check_calibration, probe
from layerscope.engine.reference import evaluate as reference_engine
from layerscope.engine.reference import reference
from layerscope.engine.replay import evaluate as replay_engine
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task
from layerscope.errors import UseError, unknown
from layerscope.metrics import CrossEntropy, ErrorRate, Metric, as_metrics
from layerscope.models.initialisers import Laws, settled
from layerscope.partition import BY, WHOLE, Part, Partition, whole
from layerscope.perturb import Moments, Permute, Rerandomize, Rewind, Variant, World
from layerscope.perturb.swap import parameters
from layerscope.query import in_words, number_of_bytes, seconds_of
from layerscope.runtime import Progress
from layerscope.sequential import Decide, Narrow, Within
from layerscope.state import tensors_of
from layerscope.step import INIT, Step
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Data = Iterable[Any]
Row = dict[str, Any]

Engine = Callable[[Subject, Sequence[Variant], Task, Reference, Certify | None], Iterable[list[Row]]]

ENGINES: dict[str, Callable[[int, str], Engine]] = {
    # half of the memory for values, half for outputs
    "replay": lambda memory, precision: partial(replay_engine, memory=memory // 2, precision=precision),
    "reference": lambda _, precision: partial(reference_engine, precision=precision),
}
"""What computes: both give the same numbers; the reference engine takes longer."""
PLAN = Plan()
Redraw = Rerandomize | Permute | Moments
REDRAWN: dict[str, Redraw] = {"law": Rerandomize(), "permutation": Permute(), "moments": Moments()}
"""What a spec may ask for as random values -> the Perturbation."""
CLOCK = time.monotonic
"""What a budget is measured by, in seconds."""


def evaluate(
    model: nn.Module,
    trajectory: Trajectory,
    variants: Sequence[Variant],
    data: Data,
    metrics: Sequence[Any] | None = None,
    *,
    laws: Laws | None = None,
    seed: int = 0,
    forward: Forward = outputs_of,
    targets: Targets = targets_of,
    calibration: Data | None = None,
    anyway: bool = False,
    split: str = "test",
    plan: Plan = PLAN,
    progress: Progress | None = None,
) -> Table:
    """What each Variant of a trained network scores on some data.

    The unmodified network has the values of the trajectory's last step; `model` gives the code and is left untouched.
    `data` yields batches any number of times: `(inputs, targets)`, or mappings with `labels`; for any other say what to do
    with `forward(model, batch)` (its outputs) and `targets(batch)`. Metrics default to error and cross-entropy; a plain
    function of (outputs, targets) that gives a number a sample is one too. Each gives a row for itself and one for the
    paired difference to the unmodified network, with 95 % intervals.

    `laws` are the initial laws that `Rerandomize` draws from; see `settled_laws` for those that are not given.
    `calibration` is training data for Variants with `buffers="recalibrate"`.

    `plan` says how it is computed. Its engine `replay` computes what comes before the changed place once a batch for all
    Variants, within about its `memory` beside the model and the data; `reference` computes every Variant whole. Both give the
    same bits; a model that cannot be taken apart goes to the reference engine, and its rows say why. On another `device` the
    model stays where it is: its values are put there.

    Raises `UseError`, before anything runs, if the trajectory does not fit the model or holds a NaN, and if model or data
    give something else the second time (see `probe`), unless `anyway`. A Variant whose forward raises is a row with a status.
    """
    compute = engine_of(plan)
    subject = subject_of(model, trajectory, laws, seed, forward, calibration, plan.device)
    if isinstance(data, Mapping):
        raise UseError("evaluate takes the data of one split; call it once for each, or use robustness")
    measured = as_metrics([ErrorRate(), CrossEntropy()] if metrics is None else metrics)
    task = Task(data, measured, targets)
    Precision.of(plan.precision, subject.device, measured)
    subject.check(variants)
    check_calibration(subject, variants, anyway)
    seen = probe(subject, data, targets, anyway)
    task = steady(task, seen)
    rows = _measured(subject, task, variants, split, reference(subject, task), {}, compute, progress)
    facts = {"seed": seed, "probe": seen.to_dict(), **subject.world.trajectory.facts(), **_better(measured[0])}
    return Table.of(rows, facts, variants=_described(variants))


def robustness(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data | Mapping[str, Data],
    spec: RobustnessSpec | None = None,
    *,
    metrics: Sequence[Any] | None = None,
    laws: Laws | None = None,
    partition: Partition | None = None,
    forward: Forward = outputs_of,
    targets: Targets = targets_of,
    calibration: Data | None = None,
    chance: float | None = None,
    anyway: bool = False,
    plan: Plan = PLAN,
    run: str = "",
    done: MutableMapping[str, list[Row]] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Which layers matter: each Part rewound to each checkpoint and re-randomised, and the whole network at each.

    `data` is the test data, or a mapping of split name (test, train) -> data; what batches may be, `forward`, `targets`,
    `laws`, `calibration`, `anyway` and `plan` are as in `evaluate`. `metrics` are by default those that the spec
    names; the first decides. Rows, by `perturbation`: `none` the unmodified network; `rewind` a Part (or the whole network)
    with its values of epoch `step`; `rerandomize` a Part drawn afresh, one row a draw, and one over all draws (no `draw`; its
    interval is over draws), or instead `permute` or `moments`, as the spec's `redraw` says. Where the trajectory starts from a
    pretrained network, epoch 0 is that network, and a Part that it does not have is not put back to it. Each metric has a row
    for itself and one for the paired difference to the unmodified network (`..._delta`); further rows are distances to the
    start and to the substituted values. `verdict` is set on the differences of the deciding metric on the test data; `chance`
    is its value for guessing, found from the outputs where it can be.
    `done` takes each variant's rows as they come, and gives those of an earlier call with the same arguments.

    Where the spec asks for samples in random order (`within`, `decide`, `budget`), rows have the intervals of changes that
    hold for all of them at once, and each its own n. With a `budget` n depends on the clock, and on nothing but n the numbers
    do; what there was no time for is a row with the status `not measured`.

    Source: zhang2022, Sec. 2 and 3, App. D. Differs from the paper: several draws, intervals, and a rule for verdicts.
    """
    compute = engine_of(plan)
    spec = spec or RobustnessSpec()
    splits = data if isinstance(data, Mapping) else {"test": data}
    if not splits:
        raise UseError("data is an empty mapping; give it at least the split test")
    if calibration is None and "train" in splits:
        calibration = First(splits["train"], spec.calibrate)
    subject = subject_of(model, trajectory, laws, spec.seed, forward, calibration, plan.device)
    world = subject.world
    partition = divided(model, partition, spec)
    if laws is not None and spec.redraw != "law":
        raise UseError(f"laws= are for redraw='law', and redraw={spec.redraw!r} draws from the trained values")
    everything, steps = whole(model), _steps(trajectory, spec.steps)
    redraw, refused = REDRAWN[spec.redraw], _refused(world, partition, spec)
    variants = _variants(world, partition, everything, steps, spec, refused)
    named = [built_in.named(name, spec.level) for name in spec.metrics] if metrics is None else metrics
    measured = as_metrics(named)
    deciding = measured[0]
    rows: list[Row] = []
    asked: dict[str, Asked] = {}
    found: list[Cell] = []
    done = {} if done is None else done
    tasks = {split: Task(batches, measured, targets) for split, batches in splits.items()}
    certifying = spec.within is not None or spec.decide or spec.budget is not None
    Precision.of(plan.precision, subject.device, measured[:1] if certifying else measured)
    subject.check(variants)
    check_calibration(subject, variants, anyway)
    probes = {split: probe(subject, task.data, targets, anyway) for split, task in tasks.items()}
    for split, task in ((split, steady(task, probes[split])) for split, task in tasks.items()):
        task = shuffled(replace(task, metrics=measured[:1]), spec.seed, split) if certifying else task
        known = reference(subject, task)
        chance = _finite(known.chance[0]) if chance is None else chance
        certify = _certified(known, deciding, spec, chance, cells(variants) * len(splits)) if certifying else None
        if certify is None or spec.budget is None:
            rows += _measured(subject, task, variants, split, known, done, compute, progress, certify)
        else:
            asked[split] = Asked(task, known, certify)
    if spec.budget is not None:
        changes, seconds = [variant for variant in variants if variant.edits], seconds_of("budget", spec.budget)
        found = best(subject, asked, changes, seconds, done, compute, CLOCK, progress)
        rows += _budgeted(world, asked, found, spec.budget)
    constant = {part.name for part in partition if spec.redraw == "law" and world.is_constant(part)}
    rows += over_draws(rows, spec.level, constant, bounded=certifying)
    rows += moved_by(world, partition, steps, redraw, lambda part: _draws(world, part, spec, refused))
    rows += _not_applicable(world, [*partition, everything], steps, redraw, refused, deciding)
    unused = _unused(model, partition, probes.values())
    rows = [
        row | {"reason": unused[row["part"]]}
        if row.get("part") in unused and (row["status"] == "ok" or not row.get("reason"))
        else row
        for row in rows
    ]
    judge = Judge(**_better(deciding), chance=chance, spec=spec)
    rows = judge.decided(rows)
    order = ["", *(part.name for part in partition), WHOLE]
    rows.sort(key=lambda row: order.index(row.get("part", "")))
    first = world.trajectory.where(world.trajectory.steps[0])
    random = not world.trajectory.pretrained  # a pretrained network has learned something already, as it should
    odd = odd_start(rows, **_better(deciding), chance=chance, where=first) if random else []
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "buffers": spec.buffers if world.buffers else "",
        "chance": chance,
        "chance_reason": ""
        if chance is not None
        else f"the value of guessing is not known for {deciding.name}; give chance=",
        "left_out": partition.left_out,
        "redraw": spec.redraw,
        "tier": _tier(world.trajectory, steps, spec).to_dict(),
        "laws": _laws_used(world, partition, spec, refused),
        "unused": unused,
        "probe": _worst(probes.values()).to_dict(),
        "certified": _about_certified(spec, measured, cells(variants) * len(splits), found) if certifying else None,
        "warnings": world.trajectory.warnings() + odd,
        **world.trajectory.facts(),
        **_better(deciding),
    }
    return Table.of([{"run": run, **row} for row in rows], facts, variants=_described(variants))


def engine_of(plan: Plan) -> Engine:
    """The engine of a plan."""
    room = number_of_bytes("memory", plan.memory)
    if plan.engine not in ENGINES:
        raise unknown("engine", plan.engine, ENGINES)
    return ENGINES[plan.engine](room, plan.precision)


def room_of(plan: Plan) -> int:
    """Bytes in which a plan keeps what forwards share, beside the values: none where they share nothing."""
    engine_of(plan)
    return number_of_bytes("memory", plan.memory) // 2 if plan.engine == "replay" else 0


def divided(model: nn.Module, given: Partition | None, spec: Divided) -> Partition:
    """The Partition that is given, or else that which a spec asks for, beside which there can be the Part of all tensors."""
    partition = given or partition_of(model, spec)
    partition.check(model)
    if WHOLE in (part.name for part in partition):
        raise UseError(f"no Part can be called {WHOLE!r}: that is the Part of all tensors")
    return partition


def partition_of(model: nn.Module, spec: Divided) -> Partition:
    """The Partition that a spec asks for."""
    if spec.groups:
        partition = Partition.by_pattern(model, _by_name(spec.groups, "groups"))
    elif spec.by in BY:
        partition = BY[spec.by](model)
    else:
        raise unknown("way to divide a network", spec.by, BY)
    return partition.joined({name: parts.split("|") for name, parts in _by_name(spec.join, "join").items()})


def settled_laws(model: nn.Module, trajectory: Trajectory, laws: Laws | None = None) -> Laws:
    """The laws that Parts are re-randomised by: those given, else those of PyTorch's own initialisation for the kinds of
    module where they are known. Where the trajectory has a start, a law that could not have given its values is replaced by
    one that is fitted to them (constant, uniform or normal, with their moments), and so is one that nobody knows. A pretrained
    network is no such start."""
    random = trajectory.has_start and not trajectory.pretrained
    start = (lambda names: trajectory.tensors(INIT, names)) if random else None
    return settled(model, start, laws)


def checked(trajectory: Trajectory, model: nn.Module) -> Trajectory:
    """The trajectory of a model, by its names; refused if it does not fit, holds a NaN, or is no trajectory of a training."""
    if not isinstance(trajectory, Trajectory):
        raise UseError(
            f"the trajectory is a {type(trajectory).__name__}; make one with ls.Trajectory.of(initial=..., final=...)"
        )
    trajectory.check_end()
    trajectory = trajectory.fitted(model)
    trajectory.check(tensors_of(model))
    return trajectory


def subject_of(
    model: nn.Module,
    trajectory: Trajectory,
    laws: Laws | None,
    seed: int,
    forward: Forward,
    calibration: Data | None,
    device: str | None = None,
) -> Subject:
    """The network that is evaluated, after the checks of its trajectory; on the model's own device, if none is said."""
    trajectory = checked(trajectory, model)
    world = World.of(model, trajectory, settled_laws(model, trajectory, laws), seed)
    return Subject(model, world, forward, calibration, device)


def _measured(
    subject: Subject,
    task: Task,
    variants: Sequence[Variant],
    split: str,
    known: Reference,
    done: MutableMapping[str, list[Row]],
    compute: Engine,
    progress: Progress | None,
    certify: Certify | None = None,
) -> list[Row]:
    """The rows of all variants on one split; those in `done` are not computed again."""

    def work(todo: Sequence[Variant]) -> Iterable[list[Row]]:
        if certify is None:
            yield from compute(subject, todo, task, known, None)
            return
        rest = iter(compute(subject, [variant for variant in todo if variant.edits], task, known, certify))
        for variant in todo:
            place = {"status": "ok", **variant.row(subject.world)}
            yield next(rest) if variant.edits else [place | row for row in unmodified(certify, known)]

    found = runtime.run(
        variants, lambda variant: f"{split} {variant.id}", work, done, f"evaluate on {split} data", progress
    )
    return [{"split": split, **row} for rows in found for row in rows]


def _certified(
    known: Reference, metric: Metric[Any], spec: RobustnessSpec, chance: float | None, cells: int
) -> Certify:
    """What is asked of each Variant: its change to within so much, its verdict, or what can be known in a time."""
    if spec.within is None and not spec.decide:
        return Certify.of(known, metric, Narrow(), cells, spec.level)
    if spec.within is not None:
        return Certify.of(known, metric, Within(spec.within), cells, spec.level)
    errors = Certify.of(known, metric, Within(0.5), cells, spec.level).question
    if chance is None:
        raise UseError(f"the value of guessing is not known for {metric.name}, so nothing can be decided; give chance=")
    gap = chance - errors.wrong / errors.n
    if gap <= 0:
        raise UseError(
            f"the unmodified network has {100 * errors.wrong / errors.n:.4g} % {metric.name}, guessing {100 * chance:.4g} %: a "
            "network that is no better than guessing has no layers to decide about"
        )
    return Certify.of(known, metric, Decide(gap, spec.ambient, spec.destroyed), cells, spec.level)


def _budgeted(world: World, asked: Mapping[str, Asked], found: Sequence[Cell], budget: str) -> list[Row]:
    """The rows of all variants on all splits, those that there was no time for too."""
    rows: list[Row] = []
    for split, one in asked.items():
        place = {"split": split, "status": "ok", **Variant().row(world)}
        rows += [place | row for row in unmodified(one.certify, one.known)]
        for cell in (cell for cell in found if cell.split == split):
            place = {"split": split, **cell.variant.row(world)}
            rows += [place | row for row in one.rows(cell, f"there was no time for it within {in_words(budget)}")]
    return rows


def _about_certified(
    spec: RobustnessSpec, measured: Sequence[Metric[Any]], answers: int, found: Sequence[Cell]
) -> dict[str, Any]:
    """What is asked of samples in random order, and of a budget what came of it."""
    asked = "verdicts" if spec.decide else f"within {spec.within}" if spec.within is not None else "the best in time"
    about = {
        "asked": asked,
        "answers": answers,
        "level": spec.level,
        "order": spec.seed,
        "not_measured": [metric.name for metric in measured[1:]],
    }
    if spec.budget is None:
        return about
    spent = {"seconds": seconds_of("budget", spec.budget), "used": round(seconds_used(found), 2), "cells": tally(found)}
    return about | {"budget": spent}


def steady(task: Task, seen: Probe) -> Task:
    """The task with data that are the same on each pass: those of one pass, if they are not by themselves."""
    return replace(task, data=list(task.data)) if seen.held else replace(task, batches=seen.batches)


def _better(metric: Metric[Any]) -> dict[str, Any]:
    return {"metric": metric.name, "better": getattr(metric, "better", "lower")}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _worst(probes: Iterable[Probe]) -> Probe:
    """What the probes of all splits saw, as one: that with the largest difference."""
    return max(probes, key=lambda seen: (bool(seen.note), seen.max_difference))


def _unused(model: nn.Module, partition: Partition, probes: Iterable[Probe]) -> dict[str, str]:
    """The Parts with parameters that the network's forward does not use on any data, with the reason to give."""
    trained = parameters(model)
    never = set.intersection(*(set(seen.unused) for seen in probes))
    own = {part.name: [name for name in part.tensors if name in trained] for part in partition}
    idle = {name: [tensor for tensor in tensors if tensor in never] for name, tensors in own.items()}
    what = {name: "it" if tensors == own[name] else ", ".join(tensors[:3]) for name, tensors in idle.items() if tensors}
    more = "a change of it has no effect (it is not needed, or the network works with values computed from it before)"
    return {
        name: f"the network's forward does not use {tensors} on these data: {more}" for name, tensors in what.items()
    }


def _by_name(texts: Sequence[str], field: str) -> dict[str, str]:
    """Texts of the form NAME=PATTERN as a mapping."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, pattern = text.partition("=")
        if not (name and pattern):
            raise UseError(f"{field}: {text!r} is not of the form NAME=PATTERN")
        if name in found:
            raise UseError(f"{field}: {name!r} is given twice; write one with {found[name]}|{pattern}")
        found[name] = pattern
    return found


def _steps(trajectory: Trajectory, numbers: Sequence[int] | None) -> list[Step]:
    """The steps to rewind to; without an initial state, those there are; none if there is only the trained network. A map
    has a column a number, so that there may be one step of each."""
    if within := [step for step in trajectory.steps if step != Step.of(trajectory.number(step), trajectory.unit)]:
        raise UseError(
            f"{trajectory.where(within[0])} lies within an epoch; a map has whole epochs only: use evaluate for it"
        )
    if len(trajectory.steps) == 1:
        return []
    if numbers is None:
        return list(trajectory.steps)
    ends = {trajectory.steps[0], trajectory.steps[-1]}
    return sorted(ends | {trajectory.at(number) for number in numbers})


def _tier(trajectory: Trajectory, steps: Sequence[Step], spec: RobustnessSpec) -> Tier:
    """What these inputs can answer."""
    numbers = [trajectory.number(step) for step in steps]
    redraw = spec.redraw if spec.draws else ""
    return tier_of(
        numbers,
        start=trajectory.has_start,
        pretrained=trajectory.pretrained,
        redraw=redraw,
        there=len(trajectory.steps),
    )


def _refused(world: World, partition: Partition, spec: RobustnessSpec) -> dict[str, str]:
    """The Parts that cannot be re-randomised, with the reason."""
    return {part.name: reason for part in partition if (reason := REDRAWN[spec.redraw].refused(part, world))}


def _draws(world: World, part: Part, spec: RobustnessSpec, refused: Mapping[str, str]) -> int:
    """How many draws of a Part there are to look at: none where it cannot be drawn, one if all are the same."""
    if part.name in refused:
        return 0
    return world.draws(part, spec.draws) if spec.redraw == "law" else spec.draws


def _laws_used(world: World, partition: Partition, spec: RobustnessSpec, refused: Mapping[str, str]) -> dict[str, str]:
    """Tensor (or some of it) -> what it is drawn from, as text; none where trained values are permuted."""
    if spec.redraw == "law":
        return {name: str(world.laws[name]) for part in partition for name in part.tensors if name in world.laws}
    if spec.redraw == "permutation":
        return {}
    parts = [part for part in partition if part.name not in refused]
    return {str(at): str(law) for part in parts for at, law in Moments().laws(part, world).items()}


def _variants(
    world: World,
    partition: Partition,
    everything: Part,
    steps: Sequence[Step],
    spec: RobustnessSpec,
    refused: Mapping[str, str],
) -> list[Variant]:
    """The unmodified network; each Part re-randomised and rewound; the whole network rewound; all where it can be done."""
    redraw = REDRAWN[spec.redraw]
    drawn = [(part, k) for part in partition for k in range(_draws(world, part, spec, refused))]
    put_back = [
        (part, Rewind(step)) for part in (*partition, everything) for step in steps if not world.lacking(part, step)
    ]
    return [
        Variant(),
        *(Variant.of(part, redraw, k, buffers=spec.buffers) for part, k in drawn),
        *(Variant.of(part, rewind, buffers=spec.buffers) for part, rewind in put_back),
    ]


def map_of(model: nn.Module, world: World, partition: Partition, spec: RobustnessSpec) -> list[Variant]:
    """All networks that `robustness` evaluates, the unmodified one first."""
    steps, refused = _steps(world.trajectory, spec.steps), _refused(world, partition, spec)
    return _variants(world, partition, whole(model), steps, spec, refused)


def number_of_variants(
    model: nn.Module, trajectory: Trajectory, laws: Laws | None, partition: Partition, steps: int, spec: RobustnessSpec
) -> int:
    """How many networks `robustness` evaluates, with Parts put back to so many `steps`."""
    trajectory = trajectory.fitted(model)
    world = World.of(model, trajectory, settled_laws(model, trajectory, laws))
    refused = _refused(world, partition, spec)
    drawn = sum(_draws(world, part, spec, refused) for part in partition)
    lacking = sum(bool(world.lacking(part, INIT)) for part in (*partition, whole(model))) if trajectory.has_start else 0
    return 1 + drawn + (len(partition) + 1) * steps - (lacking if steps else 0)


def _described(variants: Sequence[Variant]) -> dict[str, Any]:
    return {variant.id: variant.to_dict() for variant in variants}


def _not_applicable(
    world: World,
    parts: Sequence[Part],
    steps: Sequence[Step],
    redraw: Redraw,
    refused: Mapping[str, str],
    deciding: Metric[Any],
) -> list[Row]:
    """What could not be re-randomised, or put back to a pretrained network, is said, not skipped."""
    none = {"metric": deciding.name, "status": "not applicable"}
    drawn = [{"part": name, "perturbation": redraw.KIND, "reason": reason} for name, reason in refused.items()]
    back = [
        {"part": part.name, "perturbation": "rewind", "reason": reason, **world.trajectory.coordinates(step)}
        for part in parts
        for step in steps
        if (reason := world.lacking(part, step))
    ]
    return [none | row for row in (*drawn, *back)]
