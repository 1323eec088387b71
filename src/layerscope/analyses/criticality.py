"""How critical each module is: the measure of chatterji2020 on any trajectory."""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import nn

from layerscope import runtime
from layerscope.analyses.distances import parameters_of, values_of
from layerscope.analyses.noisy import Cell, Cells, Grid, Sequential, blocks_of, enough, own_of
from layerscope.analyses.robustness import PLAN, Data, checked, divided, engine_of, room_of, steady
from layerscope.analyses.spec import CriticalitySpec, Plan
from layerscope.engine.batches import Forward, Targets, outputs_of, targets_of
from layerscope.engine.probe import probe
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task, reason_of
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.measures.distance import distances
from layerscope.metrics import ErrorRate
from layerscope.partition import WHOLE, Part, Partition
from layerscope.perturb import Noise, World
from layerscope.runtime import Progress
from layerscope.stats import bounded_mean, capital
from layerscope.step import FINAL, GIVE_START, INIT
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]
OK, EDGE, ZERO = "ok", "on the edge", "zero"
NONE, FAILED, LACKING = "infeasible", "failed", "not applicable"
"""What a status says: the minimum lies inside the region, on its edge, or is 0; no cell is feasible; a forward raised; the
module has no start."""
AT_TRAINED = "alpha = 1 is best: the trained values, where the way ends"
"""Why a best cell lies on the edge, where it is that of least way."""
FALL = 0.2
"""A fall of the error that pairs of cells are counted by, whose draws would show it."""
Asked = tuple[Subject, Part, Task, Reference, CriticalitySpec]


def criticality(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data,
    eps: float | Sequence[float] | None = None,
    spec: CriticalitySpec | None = None,
    *,
    partition: Partition | None = None,
    forward: Forward = outputs_of,
    targets: Targets = targets_of,
    anyway: bool = False,
    plan: Plan = PLAN,
    run: str = "",
    done: MutableMapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Table:
    """How far each module can go toward its start, and how much noise it then bears: the smaller the number, the less it matters.

    The criticality of a module is the minimum of alpha^2 D^2 / sigma^2 over the cells (alpha, sigma) of the spec's grid whose
    expected error is at most `eps` (of the spec, if not given). D is the 2-norm of what its parameters moved; the expected
    error is the 0-1 error on `data` (the training data; ties are errors) of the network whose module has the values
    (1 - alpha) start + alpha trained + u, in the mean over u ~ N(0, sigma^2 I). Other modules and all buffers stay trained.

    Rows: `criticality` of each Part and each eps, with its `alpha`, `sigma` and `distance` D, the estimated `error` there and its
    `certificate` (the upper end of its interval, which holds at the spec's `level` for all cells of the Part at once), `n`
    draws; `low` and `high`, between which the value surely lies by the draws, at that level and as far as errors grow with sigma
    (no `high`: no cell is surely feasible); and the `passes` of samples that this answer took beside those for smaller eps.
    `status` is `zero` if alpha = 0 is feasible (or the Part never moved), `on the edge` if alpha is 1 (nothing is gained by going
    back) or alpha or sigma an end of its grid, `infeasible` (no value) if no cell of the grid is feasible. The network (Part
    `whole network`) has the sum. `expected_error` is a row for each cell that was looked at. `monotonicity` in the provenance
    says where along an alpha the error falls as sigma grows.

    Batches, `forward`, `targets`, `anyway` and `plan` are as in `evaluate`. With the plan's engine `replay` what comes
    before a Part is kept for samples that come again, within half of its memory.
    `done` takes what was found of each Part as it comes (plain values), and gives that of an earlier call with the same
    arguments. Raises `UseError` if there is no start.

    Source: chatterji2020, Definition 3.1: Eq. 1 (modules) and 2 (the network). Differs from the paper: a module is all
    parameters of a Part, so that a layer's bias goes with its weights, and norm layers are modules too; for weights alone say
    which with the spec's `groups`.
    """
    spec = spec or CriticalitySpec()
    spec = spec if eps is None else replace(spec, eps=(eps,) if isinstance(eps, int | float) else tuple(eps))
    if isinstance(data, Mapping):
        if "train" not in data:
            raise UseError("criticality takes training data, alone or as 'train' among the splits")
        data = data["train"]
    compute = engine_of(plan)
    trajectory = checked(trajectory, model)
    if not trajectory.has_start:
        raise UseError(f"criticality needs the values before training: the way begins there; {GIVE_START}")
    partition = divided(model, partition, spec)
    subject = Subject(
        model, World.of(model, trajectory.ends().fitted(model), {}, spec.seed), forward, None, plan.device
    )
    task = Task(data, [ErrorRate(spec.level)], targets)
    seen = probe(subject, data, targets, anyway)
    task = steady(task, seen)
    known = reference(subject, task)

    def work(parts: Sequence[Part]) -> Any:
        cells_of = partial(Grid, compute)
        if spec.search == "sequential":
            cells_of = partial(Sequential, blocks_of(list(task.data), known, spec.seed), room_of(plan))
        for part in parts:
            yield _of(part, cells_of, (subject, part, task, known, spec))

    found = runtime.run(
        list(partition), lambda part: part.name, work, {} if done is None else done, "criticality", progress
    )
    checks = [check for _, check in found]
    rows = [row for rows, _ in found for row in rows]
    total = [_network(eps, [row for row in rows if row.get("eps") == eps], partition) for eps in spec.eps]
    rows = [{"run": run, "split": "train", **row} for row in [*rows, *total]]
    falls = [fall for check in checks for fall in check["falls"]]
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "buffers": "keep" if subject.world.buffers else "",
        "left_out": partition.left_out,
        "error": own_of(known),
        "probe": seen.to_dict(),
        "monotonicity": {
            "pairs": sum(check["pairs"] for check in checks),
            "able": sum(check["able"] for check in checks),
            "fall": FALL,
            "falls": falls,
        },
        "warnings": trajectory.warnings()
        + _cautions(spec, own_of(known))
        + [_warning(fall, spec.search) for fall in falls],
        **trajectory.facts(),
    }
    return Table.of(rows, facts)


def _of(part: Part, cells_of: Callable[..., Cells], asked: Asked) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a Part, and what came of the check whether its errors grow with sigma."""
    subject, _, _, _, spec = asked
    world, place = subject.world, {"part": part.name, "perturbation": Noise.KIND}
    none: Row = place | {"metric": "criticality", "engine": spec.search}
    unchecked = {"pairs": 0, "able": 0, "falls": []}
    if reason := Noise(0.0, 0.0).refused(part, world):
        return [none | {"eps": eps, "status": LACKING, "reason": reason} for eps in spec.eps], unchecked
    measured = parameters_of(world, part)
    distance = _distance(values_of(world, FINAL, measured), values_of(world, INIT, measured))
    rows: list[Row] = []
    try:
        with untouched(subject.model), torch.no_grad():
            cells = cells_of(*asked)
            before = 0
            for eps in spec.eps:
                answer = _answer(distance, eps, cells, spec)
                rows.append(none | {"eps": eps, "distance": distance, "passes": cells.passes - before} | answer)
                before = cells.passes
    except UseError:
        raise
    except Exception as problem:
        return [none | {"eps": eps, "status": FAILED, "reason": reason_of(problem)} for eps in spec.eps], unchecked
    bounds = {cell: _error(cell, cells, spec) for cell in sorted(cells.seen)}
    rows += [
        place
        | {"metric": "expected_error", "unit": "fraction", "status": OK, "engine": spec.search, **cell._asdict(), **b}
        for cell, b in bounds.items()
    ]
    return rows, _falls(part, cells, spec.level)


def _distance(final: Mapping[Any, torch.Tensor], start: Mapping[Any, torch.Tensor]) -> float:
    """2-norm of the difference of all values together."""
    row = distances(final, start)[0]
    return row["value"] * math.sqrt(row["n"]) if row["n"] else 0.0


def _cautions(spec: CriticalitySpec, own: float) -> list[str]:
    """What an eps cannot be asked for."""
    said = [
        f"eps = {eps:g} is below the trained network's own error of {own:.4g}: a value there needs noise, or a way back, that "
        "makes the network better, and 'infeasible' says only that none was found"
        for eps in spec.eps
        if eps < own
    ]
    name, draws = ("most", spec.most) if spec.search == "sequential" else ("draws", spec.draws)
    return said + [
        f"at eps = {eps:g} no value has an upper end: {draws} draws without a wrong sample do not make sure of an expected error "
        f"so small; {name}={more} would, where almost none is wrong"
        for eps in spec.eps
        if (more := enough(spec, eps)) > draws
    ]


def _answer(distance: float, eps: float, cells: Cells, spec: CriticalitySpec) -> Row:
    """What is said of a Part at one eps."""
    best = cells.best(eps)
    low, high = (math.nan, math.inf) if best is None else cells.interval(eps, best)
    unsure = cells.unsure(eps)
    if best is None:
        sure = "" if not unsure else f"; {len(unsure)} of {len(cells.seen)} cells looked at are not sure"
        return {
            "status": NONE,
            "reason": f"no cell has an expected error of at most {eps:g}: the trained network has {cells.own:.4g}, and the "
            f"smallest sigma is {spec.sigmas[0]:g}{sure}",
        }
    bounds = _error(best, cells, spec)
    value = (best.ratio * distance) ** 2
    edges = _edges(best, spec)
    status = ZERO if value == 0 else EDGE if edges else OK
    reasons = edges if status == EDGE else []
    if eps < cells.own:
        reasons.append(f"eps is below the trained network's error of {cells.own:.4g}")
    if best in unsure:
        reasons.append(f"its draws do not make sure that its expected error is at most {eps:g}")
    return {
        "value": value,
        "low": (low * distance) ** 2,
        **({"high": (high * distance) ** 2} if math.isfinite(high) else {}),
        **best._asdict(),
        "error": bounds["value"],
        "certificate": bounds["high"],
        "n": bounds["n"],
        "interval": "draws",
        "level": spec.level,
        "status": status,
        "reason": "; ".join(reasons),
    }


def _edges(best: Cell, spec: CriticalitySpec) -> list[str]:
    """At which edges of the region a cell lies."""
    found = [AT_TRAINED] if best.alpha == 1 else []
    if 0 < best.alpha < 1 and best.alpha in (spec.alphas[0], spec.alphas[-1]):
        found.append(f"alpha = {best.alpha:g} is an end of the grid: beyond it the value might be another")
    if best.sigma == 1:
        found.append("sigma = 1 is best: by definition there is no more noise")
    elif best.sigma in (spec.sigmas[0], spec.sigmas[-1]):
        found.append(f"sigma = {best.sigma:g} is an end of the grid: beyond it the value might be another")
    return found


def _error(cell: Cell, cells: Cells, spec: CriticalitySpec) -> Row:
    """A cell's expected error, with bounds that hold for all cells of the grid at once."""
    seen = np.asarray(cells.seen[cell])
    low, high = bounded_mean(seen, 1 - (1 - spec.level) / (len(spec.alphas) * len(spec.sigmas)))
    bounds = {"low": low, "high": high, "interval": "draws", "level": spec.level}
    return {"value": min(max(cells.error(cell), low), high), "n": len(seen), **bounds}


def _falls(part: Part, cells: Cells, level: float) -> dict[str, Any]:
    """Of all pairs of cells along an alpha, how many there are, and those where the error falls as sigma grows: surely so by
    the draws that both saw (each pair at this level): the same normal numbers, and mostly the same samples. `able` counts the
    pairs with draws enough to be sure of a fall of `FALL` in each."""
    pairs = [(a, b) for a, b in combinations(sorted(cells.seen), 2) if a.alpha == b.alpha]
    falls, able, price = [], 0, -math.log(1 - level)
    for a, b in pairs:
        shared = min(len(cells.seen[a]), len(cells.seen[b]))
        before, after = (np.asarray(cells.seen[cell][:shared]) for cell in (a, b))
        able += capital(np.full(shared, (1 + FALL) / 2), 0.5).high >= price
        if capital((1 + before - after) / 2, 0.5).high >= price:
            means = [float(before.mean()), float(after.mean())]
            falls.append({"part": part.name, "alpha": a.alpha, "sigma": [a.sigma, b.sigma], "error": means})
    return {"pairs": len(pairs), "able": able, "falls": falls}


def _warning(fall: Mapping[str, Any], search: str) -> str:
    (a, b), (before, after) = fall["sigma"], fall["error"]
    missed = "where errors are near eps, bisection may miss the best cell, and search='grid' does not"
    return (
        f"{fall['part']}: at alpha = {fall['alpha']:g} the expected error falls from {before:.3g} to {after:.3g} as sigma grows "
        f"from {a:g} to {b:g}: {missed if search == 'sequential' else 'all cells were asked, so that no answer rests on it'}"
    )


def _network(eps: float, rows: Sequence[Row], partition: Partition) -> Row:
    """The sum over all Parts, if all have a value."""
    row = {"part": WHOLE, "perturbation": Noise.KIND, "metric": "criticality", "eps": eps, "n": len(partition)}
    row |= {"passes": sum(each.get("passes", 0) for each in rows), "engine": rows[0]["engine"]}
    if without := [each for each in rows if "value" not in each]:
        names = ", ".join(f"{each['part']} ({each['status']})" for each in without)
        return row | {"status": without[0]["status"], "reason": f"without a criticality: {names}"}
    edge = [each["part"] for each in rows if each["status"] == EDGE]
    value = sum(each["value"] for each in rows)
    status = EDGE if edge else ZERO if value == 0 else OK
    reasons = [f"on the edge: {', '.join(edge)}"] if edge else []
    open_ = sum("high" not in each for each in rows)
    ends = f"between a low and a high, which {open_} of them lack" if open_ else "each between a low and a high"
    reasons += [f"{said}, {ends}" for said in estimates(rows)]
    return row | {"value": value, "status": status, "reason": "; ".join(reasons)}


def estimates(rows: Sequence[Row]) -> list[str]:
    """What is to be said of a sum: how many of its values draws leave in doubt; nothing, if none."""
    unsure = sum(not row.get("low") == row["value"] == row.get("high") for row in rows)
    return [f"{unsure} of {len(rows)} values are the estimates of draws"] if unsure else []
