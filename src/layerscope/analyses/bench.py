"""How much an engine saves on a model, and whether it gives the same numbers: on a slice of a map, beside the reference
engine."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
from statistics import median
from typing import Any

import torch

from layerscope.analyses.material import Material
from layerscope.analyses.robustness import PLAN, Engine, engine_of, map_of, partition_of, steady, subject_of
from layerscope.analyses.spec import Plan, RobustnessSpec
from layerscope.engine.batches import First, samples_of
from layerscope.engine.flops import Work, counted
from layerscope.engine.precision import FULL, Precision
from layerscope.engine.probe import check_calibration, probe
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Reference, Row, Task
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.memory import peak
from layerscope.metrics import as_metrics, named
from layerscope.perturb import Rewind, Variant, World
from layerscope.runtime import Progress
from layerscope.step import FINAL

SLOW = "reference"
BATCHES = 4
"""At least so many are tried."""
HOW = ("engine", "rechecked")
"""What rows say of how they were computed: it may differ."""


@dataclass(frozen=True)
class Slice:
    """Some Variants on some data, which are gone through in so many `passes`: what both engines are given."""

    subject: Subject
    variants: Sequence[Variant]
    task: Task
    known: Reference
    passes: int = 1

    @classmethod
    def of(cls, subject: Subject, variants: Sequence[Variant], task: Task) -> "Slice":
        """Few batches are gone through several times: else what is done once, on the first batch, would count for much."""
        known = reference(subject, task)
        passes = -(-BATCHES // len(known.kept))
        if passes > 1:
            task = replace(task, data=list(task.data) * passes, batches=len(known.kept) * passes)
            known = replace(known, kept=known.kept * passes, marks=known.marks * passes)
        return cls(subject, variants, task, known, passes)

    @property
    def first(self) -> "Slice":
        """The first batch alone."""
        task = replace(self.task, data=First(self.task.data, 1), batches=1)
        return replace(self, task=task, known=self.known.between(0, 1))

    @property
    def samples(self) -> int:
        """Those of all passes."""
        return samples_of(self.task.data)

    @property
    def work(self) -> Work:
        return Work.of(self.subject, self.variants, self.task.data)

    def run(self, compute: Engine) -> list[list[Row]]:
        """The rows of each Variant."""
        return list(compute(self.subject, self.variants, self.task, self.known, None))


@dataclass(frozen=True)
class Map:
    """What a Slice is of: so many `variants`, of which some are `unchanged` networks; samples of each split; seconds that batch
    norm's statistics of a Variant take."""

    variants: int
    unchanged: int
    samples: dict[str, int]
    statistics_seconds: float


@dataclass(frozen=True)
class Tried:
    """What an engine did with a Slice: seconds, by repeat, and FLOPs, of the first batch and of all; peak bytes; rows."""

    seconds: list[tuple[float, float]]
    flops: tuple[int, int]
    peak: int | None
    rows: list[list[Row]]

    @property
    def whole(self) -> list[float]:
        """Seconds on all batches."""
        return [whole for _, whole in self.seconds]

    def map_seconds(self, some: Slice, all_: Map, changed_alone: bool) -> float:
        """About what the map takes, rather more: what is done once is counted for each Variant, though those of one place share
        some of it. With `changed_alone` unchanged networks take nothing."""
        count, each = all_.variants - (all_.unchanged if changed_alone else 0), all_.statistics_seconds
        engine = sum(self._estimate(some, samples) for samples in all_.samples.values()) * count / len(some.variants)
        return engine + each * (all_.variants - all_.unchanged) * len(all_.samples)

    def _estimate(self, some: Slice, samples: int) -> float:
        """About what the Variants of the Slice take on so many samples."""
        first, count = some.first.samples, some.samples
        each = median(whole - began for began, whole in self.seconds) / (count - first)
        if each <= 0:  # all noise
            return samples * median(self.whole) / count
        return max(0.0, median(began for began, _ in self.seconds) - each * first) + samples * each


def bench(
    material: Material,
    spec: RobustnessSpec,
    *,
    samples: int = 512,
    variants: int = 24,
    repeats: int = 3,
    plan: Plan = PLAN,
    anyway: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What the engine of a `plan` saves of the map that `robustness` makes, and whether its rows are those of the reference
    engine, bit for bit.

    Tried on the first batches of test data with at least so many `samples`, and at most so many `variants` that change
    something, spread evenly over kinds of change and over Parts. Times are of the engines alone. Left out are what is done
    once for a map, and batch norm's statistics that are computed again, which takes both engines the same: that is measured
    apart (`statistics_seconds` for each variant), and counted in the time of the whole map.

    Of each of the `engines`: `seconds` (the median of the `repeats`, the lowest, the highest); `share` of the FLOPs of all
    variants whole that were executed, and `further_share`, the same without the first batch, on which an engine checks itself;
    `peak_bytes` (see `memory.peak`; None where nobody can say); `map_seconds`, about what the whole map would take. `bound` is
    how many times less there is to compute from the first use of the changed places on (see `engine.flops`); it and the shares
    are None where nothing is counted. `elsewhere` has the variants that went to the reference engine, by the reason;
    `different` the rows that are not the `same`.

    Raises `UseError` as `evaluate` does, and if there is nothing to compare.
    """
    _check(spec, plan, {"samples": samples, "variants": variants, "repeats": repeats})
    some, all_ = _prepared(material, spec, samples, variants, plan, anyway)
    engines = {SLOW: engine_of(replace(plan, engine=SLOW, precision=FULL)), plan.engine: engine_of(plan)}
    tried = _tried(some, engines, repeats, progress)
    whole = some.first.work.whole, some.work.whole
    found = {
        name: {
            "seconds": {"median": median(one.whole), "low": min(one.whole), "high": max(one.whole)},
            "share": one.flops[1] / whole[1] if whole[1] else None,
            "further_share": further_share(one.flops, whole),
            "peak_bytes": one.peak,
            "map_seconds": one.map_seconds(some, all_, name != SLOW),
        }
        for name, one in tried.items()
    }
    slow, fast = (tried[name] for name in engines)
    reasons = Counter(str(rows[0]["engine"]).partition(f"{SLOW}: ")[2] for rows in fast.rows)
    different = _different(slow.rows, fast.rows, plan.engine)
    about = {
        "engine": plan.engine,
        "device": str(some.subject.device),
        "threads": torch.get_num_threads(),
        "variants": len(some.variants),
        "samples": some.samples // some.passes,
        "passes": some.passes,
        "repeats": repeats,
        "map": asdict(all_),
        "engines": found,
        "elsewhere": {reason: count for reason, count in reasons.items() if reason},
        "same": not different,
        "different": different,
        "faster": median(slow.whole) / median(fast.whole),
        "map_faster": found[SLOW]["map_seconds"] / found[plan.engine]["map_seconds"],
        "bound": some.work.bound,
    }
    return about | {"conclusion": conclusion(about)}


def conclusion(found: Mapping[str, Any]) -> str:
    """What a bench found, in one sentence."""
    engine, count, faster = found["engine"], found["variants"], found["faster"]
    speed = f"{faster:.1f}x faster" if faster >= 1 else f"{1 / faster:.1f}x slower"
    bound = "" if found["bound"] is None else f" (bound {found['bound']:.1f}x)"
    whole = f"about {found['map_faster']:.1f}x on the whole map"
    others = len({row["variant"] for row in found["different"]})
    same = (
        f"same numbers in all {count} variants" if found["same"] else f"other numbers in {others} of {count} variants"
    )
    if elsewhere := sum(found["elsewhere"].values()):
        same += f", of which {elsewhere} went to the reference engine"
    return f"{engine} is {speed} here{bound}, {whole}, {same}"


def changes(variant: Variant, world: World) -> bool:
    """Whether a Variant is another network than the unmodified one: not where Parts are put back to the last step."""
    last = world.trajectory.resolve(FINAL)
    return any(
        not isinstance(edit.perturbation, Rewind) or world.trajectory.resolve(edit.perturbation.to) != last
        for edit in variant.edits
    )


def spread(variants: Sequence[Variant], count: int) -> list[Variant]:
    """At most so many, in order: of each kind of change as many as of others, where there are, and these at even distances, so
    that they are spread over Parts."""
    kinds: dict[str, list[int]] = {}
    for i, variant in enumerate(variants):
        kinds.setdefault(" + ".join(edit.perturbation.KIND for edit in variant.edits), []).append(i)
    chosen: list[int] = []
    for left, places in zip(range(len(kinds), 0, -1), sorted(kinds.values(), key=len), strict=True):
        share = min(len(places), (count - len(chosen)) // left)
        chosen += [places[(2 * i + 1) * len(places) // (2 * share)] for i in range(share)]
    return [variants[i] for i in sorted(chosen)]


def further_share(executed: Sequence[int], whole: Sequence[int]) -> float | None:
    """Of FLOPs of the first batch and of all: what was executed after the first of what there is; None where nothing is."""
    return (executed[1] - executed[0]) / (whole[1] - whole[0]) if whole[1] > whole[0] else None


def _check(spec: RobustnessSpec, plan: Plan, numbers: Mapping[str, int]) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UseError(f"{name} must be at least 1, but is {value}")
    if spec.within is not None or spec.decide or spec.budget is not None:
        raise UseError("bench compares engines on all samples of a slice; leave out within, decide and budget")
    if plan.engine == SLOW:
        raise UseError(f"bench compares an engine with the {SLOW} engine; choose another than that")


def _prepared(
    material: Material, spec: RobustnessSpec, samples: int, variants: int, plan: Plan, anyway: bool
) -> tuple[Slice, Map]:
    """The slice, after the checks of model and data that each analysis makes; and the map that it is of."""
    model, few = material.model, None if material.calibration is None else First(material.calibration, samples)
    subject = subject_of(
        model, material.trajectory, material.laws, spec.seed, material.forward, few, device=plan.device
    )
    everything = map_of(model, subject.world, partition_of(model, spec), spec)
    changing = [variant for variant in everything if changes(variant, subject.world)]
    if not changing:
        raise UseError("this map changes nothing: there is no step but the last, and no Part that can be drawn afresh")
    chosen = spread(changing, variants)
    metrics = as_metrics([named(name, spec.level) for name in spec.metrics])
    Precision.of(plan.precision, subject.device, metrics)
    subject.check(chosen)
    check_calibration(subject, chosen, anyway)
    task = Task(First(material.splits["test"], samples), metrics, material.targets)
    task = steady(task, probe(subject, task.data, task.targets, anyway))
    sizes = {split: samples_of(batches) for split, batches in material.splits.items()}
    each = _statistics(subject, chosen) * samples_of(material.calibration) / (samples_of(few) or 1)
    return Slice.of(subject, chosen, task), Map(len(everything), len(everything) - len(changing), sizes, each)


def _statistics(subject: Subject, variants: Sequence[Variant]) -> float:
    """Seconds that it takes to compute batch norm's statistics of a Variant again. They are kept: the engines find them."""
    subject.recalibrations = {}
    if not subject.recalibrates(variants):
        return 0.0
    with untouched(subject.model), torch.no_grad():
        subject.recalibrated()
        return median(_seconds(partial(subject.values, variant)) for variant in variants)


def _tried(some: Slice, engines: Mapping[str, Engine], repeats: int, progress: Progress | None) -> dict[str, Tried]:
    """What each engine does with a slice. Repeats alternate, after those that count FLOPs and bytes."""
    done, total, first = 0, len(engines) * (3 + 2 * repeats), some.first

    def told(work: Callable[[], Any]) -> Any:
        nonlocal done
        found, done = work(), done + 1
        if progress is not None:
            progress("bench", done, total)
        return found

    tried: dict[str, Tried] = {}
    for name, compute in engines.items():
        _, began = told(partial(counted, partial(first.run, compute)))
        rows, whole = told(partial(counted, partial(some.run, compute)))
        _, most = told(partial(peak, partial(some.run, compute), some.subject.device))
        tried[name] = Tried([], (began, whole), most, rows)
    for _ in range(repeats):
        for name, compute in engines.items():
            began, whole = (told(partial(_seconds, partial(one.run, compute))) for one in (first, some))
            tried[name].seconds.append((began, whole))
    return tried


def _different(slow: list[list[Row]], fast: list[list[Row]], engine: str) -> list[Row]:
    """The rows that are not equal bit for bit, with both values."""
    shown = ("variant", "part", "perturbation", "metric")
    pairs = [pair for both in zip(slow, fast, strict=True) for pair in zip_longest(*both, fillvalue={})]
    return [
        {name: (a or b).get(name) for name in shown} | {SLOW: a.get("value"), engine: b.get("value")}
        for a, b in pairs
        if _bits(a) != _bits(b)
    ]


def _bits(row: Row) -> str:
    """A row as text that differs wherever a bit of a number does; a NaN is itself."""
    return repr({name: value for name, value in row.items() if name not in HOW})


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
