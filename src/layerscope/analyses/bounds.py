"""What can be said for sure of the error on new data: the bounds of chatterji2020 as numbers, and the conjecture they need."""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from layerscope import runtime
from layerscope.analyses.conjecture import ONE_EACH, Block, apart, blocks_of, tested
from layerscope.analyses.distances import parameters_of, values_of
from layerscope.analyses.joint import Joint, Moved, Point
from layerscope.analyses.margin import Unfit, margin_bound
from layerscope.analyses.noisy import own_of
from layerscope.analyses.robustness import PLAN, Data, checked, divided, room_of, steady
from layerscope.analyses.spec import BoundsSpec, Plan
from layerscope.engine.batches import Forward, Targets, outputs_of, targets_of
from layerscope.engine.probe import Probe, probe
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task, reason_of
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.measures import bounds as formulas
from layerscope.measures.bounds import Module
from layerscope.measures.distance import distances
from layerscope.metrics import ErrorRate
from layerscope.partition import WHOLE, Part, Partition, Slice
from layerscope.perturb import Noise, World
from layerscope.perturb.patch import put, take
from layerscope.runtime import Progress
from layerscope.state import dense
from layerscope.step import FINAL, GIVE_START, INIT
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]
OK, VACUOUS, UNSURE = "ok", "vacuous", "unsure"
NONE, FAILED, LACKING = "infeasible", "failed", "not applicable"
"""What a status says: a bound of 1 or more; a point whose draws do not show that its error is at most eps; no point was
found; a forward raised; a condition does not hold."""
UNDER_NOISE = ("theorem_3.2", "pac_bayes_kl", "corollary_3.3", "corollary_3.3_log")
"""Bounds that rest on a point of the joint search."""
NEARLY = 0.99995
"""A bound above this reads as 100.00 %, and is as vacuous."""
FOUND = "the least that a search found"
"""What a joint criticality is: no search goes through all points."""
CONJECTURE = "only if noise on the way back does not improve the error on new data: the paper's conjecture"


def bounds(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data | Mapping[str, Data],
    spec: BoundsSpec | None = None,
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
    """What the error on new data is at most, with probability `level`: upper bounds from the training data alone.

    All modules (Parts that training moved) go back toward their start and get noise at once, as far as the expected training
    error stays at most eps: see `joint.Joint.best`. Its point is good, not best. Rows:

    - `joint_criticality`: alpha^2 D^2 / sigma^2 of each Part at that point, with its `alpha`, `sigma` and `distance` D; of the
      whole network the sum, with the expected `error` there, its `certificate` (an upper bound from `n` fresh draws) and
      `passes`. `joint_log_criticality` has k log(1 + alpha^2 D^2 / (k sigma^2)) instead, in nats.
    - bounds, in fractions: `theorem_3.2` and `pac_bayes_kl` of the expected error of the network under noise; of the trained
      network itself, if the conjecture holds, `corollary_3.3` and `corollary_3.3_log`; for certain kinds of network
      `theorem_b.2`; and `parameter_count` for comparison. `error` is the error on the training data that a bound starts from,
      `certificate` its upper bound, `complexity` the sum that grows with the way (nats; of `parameter_count`, bits times log 2),
      n the number m of training samples. A status `vacuous` says that the value is 1 or more, `not applicable` which condition
      of the theorem does not hold.
    - where `data` has a split `test`: `error` of the trained network, `expected_error` under noise, and `conjecture`, their
      difference: if its interval is below 0, the conjecture does not hold here. Every sample is used once, under a draw of
      its own with a few others, so that the intervals are `population`. `not applicable`, where samples cannot be taken out of
      the test batches.

    `data` is the training data, or a mapping with the split train. They must be independent samples that the start, the
    architecture and all that is done to inputs beforehand do not depend on; nobody can check that here (means and standard
    deviations of pixels from the same data break it, if only by a hair).

    `done` takes the rows of each eps as they come, and gives those of an earlier call with the same arguments.

    Risk: a bound holds but for 1 - level; half of this is that of the training data and half that of the draws, so that a bound
    without draws has it whole. Each row holds by itself. Raises `UseError` if there is no start.

    Source: chatterji2020, Theorem 3.2, Corollary 3.3, Theorem B.2, with the constants of `measures.bounds`. Differs from the
    paper: modules have their biases, and norm layers are modules; the minimum of Corollary 3.3 is not searched whole.
    """
    spec = spec or BoundsSpec()
    splits = data if isinstance(data, Mapping) else {"train": data}
    if "train" not in splits:
        raise UseError("bounds need the training data: pass them alone, or a mapping with the split train")
    room = room_of(plan)
    trajectory = checked(trajectory, model)
    if not trajectory.has_start:
        raise UseError(f"bounds need the values before training: priors lie around them; {GIVE_START}")
    partition = divided(model, partition, spec)
    subject = Subject(
        model, World.of(model, trajectory.ends().fitted(model), {}, spec.seed), forward, None, plan.device
    )
    seen = {split: _seen(subject, splits[split], targets, anyway) for split in ("train", "test") if split in splits}
    network = Network.of(subject, partition, seen["train"], spec)
    if network.m < 2:
        raise UseError(f"bounds need at least 2 training samples, and there is {network.m}")
    if not apart(seen["train"].task.data):
        raise UseError(f"bounds need training batches that samples can be taken out of: {ONE_EACH}")
    blocks = blocks_of(list(seen["test"].task.data), spec.block, spec.seed) if "test" in seen else None
    work = lambda asked: map(partial(_of_eps, network, blocks, room), asked)  # noqa: E731
    rows = [_itself(split, one) for split, one in seen.items()]
    for found in runtime.run(spec.eps, str, work, {} if done is None else done, "bounds", progress):
        rows += found
    margins, about = _margin(network)
    rows += [margins, _counted(network)]
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "buffers": "keep" if subject.world.buffers else "",
        "left_out": partition.left_out,
        "error": network.own,
        "chance": network.seen.known.chance[0],
        "conditions": network.conditions,
        "theorem_b.2": about,
        "probe": seen["train"].probe.to_dict(),
        "warnings": trajectory.warnings(),
        **trajectory.facts(),
    }
    return Table.of([{"run": run, "split": "train", **row} for row in rows], facts)


@dataclass(frozen=True)
class Seen:
    """Data of one split, and what the trained network makes of them."""

    task: Task
    known: Reference
    probe: Probe

    @property
    def wrong(self) -> torch.Tensor:
        """Of each sample whether it is wrong `[n]`."""
        return torch.cat([kept[0] for kept in self.known.kept])


@dataclass(frozen=True)
class Network:
    """What bounds are about: a network, its modules, its training data; and the `conditions` of PAC-Bayes that do not hold."""

    subject: Subject
    parts: Sequence[Part]
    modules: Sequence[Moved]
    seen: Seen
    spec: BoundsSpec
    conditions: Sequence[str]
    refused: str

    @classmethod
    def of(cls, subject: Subject, partition: Partition, seen: Seen, spec: BoundsSpec) -> "Network":
        world = subject.world
        reasons = {part.name: Noise(0.0, 0.0).refused(part, world) for part in partition}
        refused = "; ".join(f"{name} cannot have noise: {reason}" for name, reason in reasons.items() if reason)
        able = [part for part in partition if not reasons[part.name]]
        modules = [one for one in (_distance(world, part) for part in able) if one.distance]
        return cls(subject, able, modules, seen, spec, _broken(world, able, refused, spec), refused)

    @property
    def own(self) -> float:
        """Training error of the trained network."""
        return own_of(self.seen.known)

    @property
    def m(self) -> int:
        return len(self.seen.wrong)

    @property
    def delta(self) -> float:
        return 1 - self.spec.level

    @property
    def choice(self) -> float:
        """Nats that it costs not to know beforehand which Parts training moves, and so which are modules: there are 2^Parts such
        sets. Nothing where it moved all of them."""
        return len(self.parts) * math.log(2) if len(self.modules) < len(self.parts) else 0.0


def _seen(subject: Subject, data: Data, targets: Targets, anyway: bool) -> Seen:
    task = Task(data, [ErrorRate()], targets)
    found = probe(subject, data, targets, anyway)
    task = steady(task, found)
    return Seen(task, reference(subject, task), found)


def _distance(world: World, part: Part) -> Moved:
    measured = parameters_of(world, part)
    row = distances(values_of(world, FINAL, measured), values_of(world, INIT, measured))[0]
    return Moved(part, row["n"], row["value"] * row["n"] ** 0.5 if row["n"] else 0.0)


def _broken(world: World, parts: Sequence[Part], refused: str, spec: BoundsSpec) -> list[str]:
    """The conditions of PAC-Bayes that do not hold, so far as this can be seen."""
    found = [refused] if refused else []
    if world.trajectory.pretrained and not spec.independent:
        found.append(
            "the start must not depend on the training data, and this one is a pretrained network: if it has seen none of them, "
            "say so with independent=True"
        )
    elif changed := _changed(world, parts):
        found.append(
            f"all that training changed must be in modules that get noise, and this is not: {', '.join(changed[:4])}"
            + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
        )
    return found


def _changed(world: World, parts: Sequence[Part]) -> list[str]:
    """Tensors, buffers too, of which training changed something that gets no noise."""
    covered = [where for part in parts for where in parameters_of(world, part).slices]
    final, found = world.trajectory.tensors(FINAL, None), []
    there = world.trajectory.lacking(INIT)
    for name in dict.fromkeys(world.firsts.values()):
        if name in world.computed or name not in final:
            continue
        mine = [where for where in covered if world.firsts[where.tensor] == name]
        if any(not where.ranges for where in mine):
            continue
        if name in there or not torch.equal(*_bare(world, name, mine)):
            found.append(name)
    return found


def _bare(world: World, name: str, covered: Sequence[Slice]) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor at the start and trained, with what gets noise as at the start in both."""
    start, end = (dense(world.trajectory.tensors(step, [name])[name]) for step in (INIT, FINAL))
    for where in covered:
        end = put(end, where, take(start, where))
    return start, end


def _of_eps(network: Network, blocks: Sequence[Block] | None, room: int, eps: float) -> list[Row]:
    """All rows of one eps. `blocks` are of the test data, None without any."""
    seen, spec = network.seen, network.spec
    joint = Joint(network.subject, network.modules, seen.task, seen.known, spec, room)
    place = {"eps": eps}
    names = ("joint_criticality", "joint_log_criticality", *UNDER_NOISE)
    whole: Row = place | {"part": WHOLE, "perturbation": Noise.KIND}
    try:
        with untouched(network.subject.model), torch.no_grad():
            point = joint.best(eps)
            errors = joint.fresh(point) if point is not None else np.zeros(0)
            on_test = [] if point is None or blocks is None else tested(joint, point, blocks, spec)
    except UseError:
        raise
    except Exception as problem:
        return [whole | {"metric": name, "status": FAILED, "reason": reason_of(problem)} for name in names]
    if point is None:
        reason = f"no point was found whose expected error is surely at most {eps:g}: the trained network has {network.own:.4g}"
        rows = [whole | {"metric": name, "status": NONE, "reason": reason} for name in names[:2]]
        return rows + [_bound(name, status=NONE, reason=reason, **place) for name in names[2:]]
    modules = [one.under(cell) for one, cell in zip(network.modules, point, strict=True)]
    limit = formulas.sampled(errors, network.delta / 2)
    rows = _joint(network, point, modules, errors, limit, whole, joint.passes)
    pieces = {"error": float(errors.mean()), "certificate": limit, **place}
    rows += [_under_noise(name, network, modules, limit, eps) | pieces for name in UNDER_NOISE]
    return rows + [row | whole for row in on_test]


def _joint(
    network: Network,
    point: Point,
    modules: Sequence[Module],
    errors: np.ndarray,
    limit: float,
    whole: Row,
    passes: int,
) -> list[Row]:
    """The point of a joint search: what each module has there, and all of them together."""
    rows: list[Row] = []
    eps, at = (
        whole["eps"],
        dict(zip([one.part.name for one in network.modules], zip(point, modules, strict=True), strict=True)),
    )
    sure = limit <= eps
    unsure = f"if its expected error is at most {eps:g}, of which its draws do not make sure"
    why = f"{FOUND}: an upper bound of the smallest there is{'' if sure else f', {unsure}'}"
    total = {
        "error": float(errors.mean()),
        "certificate": limit,
        "n": len(errors),
        "passes": passes,
        "level": network.spec.level,
    }
    for metric, of, unit in (
        ("joint_criticality", formulas.OBJECTIVES["ratio"], ""),
        ("joint_log_criticality", formulas.OBJECTIVES["log"], "nats"),
    ):
        for part in network.parts:
            row = {
                "metric": metric,
                "part": part.name,
                "perturbation": Noise.KIND,
                "eps": eps,
                "unit": unit,
                "status": OK,
            }
            if part.name in at:
                cell, one = at[part.name]
                row |= {"value": of(one), "distance": one.distance, "n": one.k, **cell._asdict()}
            else:
                row |= {
                    "value": 0.0,
                    "distance": 0.0,
                    "reason": "training did not move it: it is no module, and gets no noise",
                }
            rows.append(row)
        value = sum(map(of, modules))
        rows.append(
            whole
            | total
            | {"metric": metric, "unit": unit, "value": value, "interval": "draws"}
            | {"status": OK if sure else UNSURE, "reason": why}
        )
    return rows


def _under_noise(name: str, network: Network, modules: Sequence[Module], limit: float, eps: float) -> Row:
    """A bound that rests on a point."""
    if network.conditions:
        return _bound(name, status=LACKING, reason="; ".join(network.conditions))
    choice = network.choice
    known: dict[str, tuple[Callable[..., float], float, str]] = {
        "theorem_3.2": (formulas.theorem_3_2, limit, "log"),
        "pac_bayes_kl": (formulas.pac_bayes_kl, limit, "log"),
        "corollary_3.3": (formulas.corollary_3_3, max(eps, limit), "ratio"),
        "corollary_3.3_log": (partial(formulas.corollary_3_3, objective="log"), max(eps, limit), "log"),
    }
    compute, error, sum_ = known[name]
    value = compute(error, modules, network.m, network.delta / 2, choice=choice)
    said = [CONJECTURE] if name.startswith("corollary") else []
    if choice:
        said.append(
            f"with {choice:.4g} nats for not knowing beforehand which of the {len(network.parts)} Parts training moves, "
            "and so which are modules"
        )
    if name.startswith("corollary") and limit > eps:
        said.append(f"with {limit:.4g} in the place of eps, for its draws do not make sure of {eps:g}")
    complexity = sum(map(formulas.OBJECTIVES[sum_], modules))
    return _bound(
        name, value=value, complexity=complexity, reason="; ".join(said), n=network.m, level=network.spec.level
    )


def _bound(name: str, **fields: Any) -> Row:
    status = VACUOUS if fields.get("value", 0.0) > NEARLY else OK
    return {"metric": name, "part": WHOLE, "unit": "fraction", "status": status, **fields}


def _margin(network: Network) -> tuple[Row, dict[str, Any]]:
    """The row of Theorem B.2, and what it rests on."""
    pretrained = network.subject.world.trajectory.pretrained and not network.spec.independent
    try:
        if pretrained:
            raise Unfit(network.conditions[-1])
        row, about = margin_bound(network.subject, network.seen.task, network.spec, network.delta)
    except Unfit as why:
        return _bound("theorem_b.2", status=LACKING, reason=str(why)), {}
    return _bound("theorem_b.2", level=network.spec.level, **row), about


def _counted(network: Network) -> Row:
    """The row of the bound that counts parameters: all tensors of the network, as many bits as they take."""
    final, firsts = network.subject.world.trajectory.tensors(FINAL, None), network.subject.world.firsts
    bits = sum(8 * final[name].numel() * final[name].element_size() for name in set(firsts.values()) if name in final)
    value = formulas.parameter_count(network.own, bits, network.m, network.delta)
    complexity = float(bits * np.log(2))
    return _bound(
        "parameter_count", value=value, error=network.own, complexity=complexity, n=network.m, level=network.spec.level
    )


def _itself(split: str, seen: Seen) -> Row:
    """The error of the trained network."""
    metric = seen.task.metrics[0]
    row = metric.compute([(kept[0], kept[0]) for kept in seen.known.kept])[0]
    return {"split": split, "perturbation": "none", "status": OK, **row}
