"""What lies around the way from start to trained: path curves and the valley, of chatterji2020, on any trajectory."""

import copy
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

import numpy as np
from torch import nn

from layerscope import metrics as built_in
from layerscope import runtime, stats
from layerscope.analyses.draws import of_draws, over_draws
from layerscope.analyses.robustness import PLAN, Data, checked, divided, engine_of, steady
from layerscope.analyses.spec import LandscapeSpec, Plan
from layerscope.engine.batches import Forward, Targets, outputs_of, targets_of
from layerscope.engine.precision import Precision
from layerscope.engine.probe import probe
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Task
from layerscope.errors import UseError, unknown
from layerscope.metrics import Metric, SampleMean, TokenMean, as_metrics
from layerscope.partition import WHOLE, Part, Partition
from layerscope.perturb import Interpolate, Noise, Variant, World
from layerscope.plots.names import SHARE, WORSENING
from layerscope.runtime import Progress
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A place on the way of a Part or beside it, and the Variants that are measured there; or why there are none."""

    change: Interpolate | Noise
    variants: tuple[Variant, ...] = ()
    refused: str = ""

    @property
    def curve(self) -> tuple[float, int]:
        """The curve that it is a point of: its noise and side, 0 where it has none."""
        return (self.change.sigma, self.change.side) if isinstance(self.change, Noise) else (0.0, 0)


class Remembered:
    """A metric whose first row has its state too, under `state`: what two places are paired by."""

    def __init__(self, metric: Metric[Any]) -> None:
        self.metric, self.name = metric, metric.name
        self.keep, self.init, self.update = metric.keep, metric.init, metric.update
        if hasattr(metric, "margin"):
            self.margin = metric.margin  # pyright: ignore[reportAttributeAccessIssue]

    def compute(self, state: Any) -> list[Row]:
        first, *others = self.metric.compute(state)
        return [first | {"state": state}, *others]


def landscape(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data | Mapping[str, Data],
    spec: LandscapeSpec | None = None,
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
    """How error and loss change on the straight way from each Part's start to its trained values, and how wide the way is.

    A place on the way (`alpha`) gives a Part the values (1 - alpha) start + alpha trained; other Parts and all buffers stay
    trained. The Part `whole network` is all Parts at once (not what no Part has). `data` is the test data, or a mapping of split
    name (test, train) -> data; batches, `forward`, `targets`, `anyway` and `plan` are as in `evaluate`.

    Rows, by `perturbation`: `none` the unmodified network; `interpolate` a Part at a place; `noise` with N(0, sigma^2) added
    there to each of the Part's parameters, one row a `draw` and one over all draws (no `draw`; interval over draws). With the
    spec's `valley` a draw is measured on both sides (`side`) of the way: u where its inner product with the start has that
    sign, else -u, which has the same law. The start and the two sides are the picture; they are not a plane: each draw has
    a direction of its own. Each metric has a row for itself and one for the paired difference to the unmodified network
    (`..._delta`).

    `done` takes the rows of each Part as they come, and gives those of an earlier call with the same arguments.

    `..._worsening` is by how much worse a metric is at `alpha` than at `alpha_b`, nearer the trained values: below 0 where it
    falls toward the start. Without noise it is paired by samples (interval `population`, as that of the differences), with noise
    by draws, which are the same at all places (interval `draws`, for these data): Student's t, and where draws agree, as small
    counts do, no narrower than the samples of a draw make it (`stats.over_draws`). There are all pairs of places of each
    curve without sides; their intervals hold for all pairs of all curves, metrics and splits at once, by Bonferroni, as far as
    each one holds: Bonett and Price's and Student's are approximations. `plots.landscape` finds where a curve surely falls
    (`falls`), and how much noise a place bears (`widths`).

    What cannot be put on a way (a Part's start is not known) or beside it is a row with the status `not applicable`; a Variant
    whose forward raises, one with `failed`. Raises `UseError` as `evaluate` does, and if that leaves no place of any Part.

    Source: chatterji2020, Sec. 3, Figs. 1, 4 and 10. Differs from the paper: a module is all parameters of a Part, several
    draws, intervals; Fig. 1 does not say how far its noise reaches: here sigma is a coordinate.
    """
    compute, spec = engine_of(plan), spec or LandscapeSpec()
    splits = data if isinstance(data, Mapping) else {"test": data}
    if not splits:
        raise UseError("data is an empty mapping; give it at least the split test")
    trajectory = checked(trajectory, model)
    partition = divided(model, partition, spec)
    world = World.of(model, trajectory.ends().fitted(model), {}, spec.seed)
    subject = Subject(model, world, forward, None, plan.device)
    parts = _chosen(partition, spec)
    measured = as_metrics([built_in.named(name, spec.level) for name in spec.metrics])
    Precision.of(plan.precision, subject.device, measured)
    places = {part.name: _places(part, world, spec) for part in parts}
    variants = [variant for part in parts for place in places[part.name] for variant in place.variants]
    if not variants:
        reasons = dict.fromkeys(place.refused for part in parts for place in places[part.name])
        raise UseError(f"landscape has no place to look at: {'; '.join(reasons)}")
    subject.check(variants)
    answers = len(splits) * len(measured) * len(parts) * _pairs(spec)
    paired = [_Worsening(metric, spec.level, answers) for metric in measured]

    done = {} if done is None else done
    rows: list[Row] = []
    probes = {split: probe(subject, batches, targets, anyway) for split, batches in splits.items()}
    for split, batches in splits.items():
        task = steady(Task(batches, [Remembered(metric) for metric in measured], targets), probes[split])
        known = reference(subject, task)
        (own,) = compute(subject, [Variant()], task, known, None)

        def work(
            todo: Sequence[Part], task: Task = task, known: Reference = known, split: str = split
        ) -> Iterator[list[Row]]:
            asked = [variant for part in todo for place in places[part.name] for variant in place.variants]
            found = iter(compute(subject, asked, task, known, None))
            for part in todo:
                yield _of(part, places[part.name], found, split, spec, paired)

        key = lambda part, split=split: f"{split} {part.name}"  # noqa: E731
        about = runtime.run(parts, key, work, done, f"landscape on {split} data", progress)
        rows += [{"split": split, **row} for row in [*own, *(row for rows in about for row in rows)]]
    order = ["", *(part.name for part in parts)]
    rows.sort(key=lambda row: order.index(row.get("part", "")))
    deciding = measured[0]
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "buffers": "keep" if world.buffers else "",
        "metric": deciding.name,
        "better": getattr(deciding, "better", "lower"),
        "left_out": partition.left_out,
        "simultaneous": {"answers": answers, "level": spec.level},
        "probe": max(probes.values(), key=lambda seen: (bool(seen.note), seen.max_difference)).to_dict(),
        "warnings": trajectory.warnings(),
        **trajectory.facts(),
    }
    kept = [{"run": run, **{name: value for name, value in row.items() if name != "state"}} for row in rows]
    return Table.of(kept, facts, variants={variant.id: variant.to_dict() for variant in [Variant(), *variants]})


def _chosen(partition: Partition, spec: LandscapeSpec) -> list[Part]:
    """The Parts to look at: each, and the one of all of them; or those that the spec names."""
    every = Part(
        WHOLE,
        tuple(where for part in partition for where in part.slices),
        tuple(dict.fromkeys(module for part in partition for module in part.modules)),
    )
    there = {part.name: part for part in partition} | {WHOLE: every}
    if lost := [pattern for pattern in spec.parts if not any(fnmatchcase(name, pattern) for name in there)]:
        raise unknown("Part", lost[0], there)
    patterns = spec.parts or ("*",)
    return [part for name, part in there.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _places(part: Part, world: World, spec: LandscapeSpec) -> list[Place]:
    """All places of a Part, curve by curve: the way itself, and then each standard deviation (and side)."""
    sides = (-1, 1) if spec.valley else (0,)
    noises = [Noise(sigma, alpha, side) for sigma in spec.sigmas for side in sides for alpha in spec.alphas]
    ways = [Interpolate(alpha) for alpha in spec.alphas]
    return [_place(change, part, world, n) for changes, n in ((ways, 1), (noises, spec.draws)) for change in changes]


def _place(change: Interpolate | Noise, part: Part, world: World, draws: int) -> Place:
    if reason := change.refused(part, world):
        return Place(change, refused=reason)
    return Place(change, tuple(Variant.of(part, change, draw, buffers="keep") for draw in range(draws)))


def _pairs(spec: LandscapeSpec) -> int:
    """How many pairs of places of a Part are compared."""
    places = len(spec.alphas)
    return places * (places - 1) // 2 * (1 if spec.valley else 1 + len(spec.sigmas))


def _of(
    part: Part,
    places: Sequence[Place],
    found: Iterator[list[Row]],
    split: str,
    spec: LandscapeSpec,
    paired: Sequence["_Worsening"],
) -> list[Row]:
    """The rows of a Part on one split, from those of its Variants as they come."""
    rows: list[Row] = []
    curves: dict[tuple[float, int], list[tuple[float, list[list[Row]]]]] = {}
    for place in places:
        drawn = [next(found) for _ in place.variants]
        at = _coordinates(place.change)
        if place.refused:
            none = {"part": part.name, "perturbation": place.change.KIND, "status": "not applicable", **at}
            rows += [none | {"metric": one.metric.name, "reason": place.refused} for one in paired]
            continue
        rows += [row for each in drawn for row in each]
        if isinstance(place.change, Noise):
            of_split = [row | {"split": split} for each in drawn for row in each]
            rows += [mean | at for mean in over_draws(of_split, spec.level)]
        if not place.curve[1]:
            curves.setdefault(place.curve, []).append((place.change.alpha, drawn))
    for (sigma, _), ends in curves.items():
        pairs = combinations(ends, 2)
        about = {"part": part.name, "perturbation": Noise.KIND if sigma else Interpolate.KIND}
        about |= {"sigma": sigma} if sigma else {}
        rows += [
            about | {"alpha": a, "alpha_b": b} | one.row(here, there)
            for (a, here), (b, there) in pairs
            for one in paired
        ]
    for row in rows:  # as large as the data, and of no further use
        row.pop("state", None)
    return rows


def _coordinates(change: Interpolate | Noise) -> Row:
    if isinstance(change, Interpolate):
        return {"alpha": change.alpha}
    return {"alpha": change.alpha, "sigma": change.sigma, **({"side": change.side} if change.side else {})}


class _Worsening:
    """By how much worse a metric is at one place than at another, with intervals that hold for so many `answers` at once."""

    def __init__(self, metric: Metric[Any], level: float, answers: int) -> None:
        self.metric, self.level, self.name = metric, level, f"{metric.name}{WORSENING}"
        self._all = 1 - (1 - level) / max(answers, 1)
        self._paired = isinstance(metric, SampleMean | TokenMean)
        self._sign = -1 if getattr(metric, "better", "lower") == "higher" else 1
        self._strict: Any = copy.copy(metric)
        self._strict.level = self._all

    def row(self, here: Sequence[list[Row]], there: Sequence[list[Row]]) -> Row:
        """From the rows of all draws at both places (one where there is no noise)."""
        ends = [next(row for row in rows if row["metric"] == self.metric.name) for rows in (*here, *there)]
        if bad := next((row for row in ends if row["status"] != "ok"), None):
            return {"metric": self.name, "status": bad["status"], "reason": bad.get("reason", "")}
        row = {"metric": self.name, "unit": ends[0].get("unit", ""), "status": "ok", "engine": ends[0]["engine"]}
        if "draw" in ends[0]:
            return row | self._by_draws(ends[: len(here)], ends[len(here) :], row["unit"])
        if not self._paired:
            reason = f"{self.metric.name} is no mean over samples, so that two places cannot be paired"
            return row | {"status": "not applicable", "reason": reason}
        return row | self._by_samples(*ends)

    def _by_draws(self, here: Sequence[Row], there: Sequence[Row], unit: str) -> Row:
        draws = list(zip(here, there, strict=True))
        changes = self._sign * np.array([own["value"] - other["value"] for own, other in draws])
        row = {"value": float(changes.mean()), "n": len(changes)}
        found = of_draws(changes, (self._of_one(*draw) for draw in draws), self._all)
        if "low" not in found:
            return row | found
        if unit == SHARE:  # few draws say less than that
            found |= {"low": max(found["low"], -1.0), "high": min(found["high"], 1.0)}
        return row | found | {"level": self.level}

    def _of_one(self, here: Row, there: Row) -> stats.Interval:
        """The interval of one draw, over samples; NaN where samples cannot be paired."""
        row = self._by_samples(here, there) if self._paired else {"low": math.nan, "high": math.nan}
        return stats.Interval(row["low"], row["high"])

    def _by_samples(self, here: Row, there: Row) -> Row:
        both = [(own, other) for (own, _), (other, _) in zip(here["state"], there["state"], strict=True)]
        (row,) = [row for row in self._strict.compute(both) if row["metric"] == f"{self.metric.name}_delta"]
        ends = [self._sign * row[name] for name in ("value", "low", "high")]
        low, high = sorted(ends[1:])
        return {
            "value": ends[0],
            "n": row["n"],
            "low": low,
            "high": high,
            "interval": "population",
            "level": self.level,
        }
