"""An analysis on disk: a run's network, states and data in, one table in its folder out."""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.analyses.kinds import How, kind_of, needed
from layerscope.analyses.material import (
    NO_SOURCE,
    Material,
    asked_of,
    check_data,
    known_inputs,
    material_of,
    of_model,
    source_of_recording,
    states_of,
)
from layerscope.analyses.materialize import materialize
from layerscope.analyses.robustness import PLAN, evaluate, number_of_variants, partition_of, subject_of
from layerscope.analyses.spec import ModelSpec, Plan, RobustnessSpec, WeightsSpec
from layerscope.analyses.weights import weights
from layerscope.device import device_of
from layerscope.engine.batches import samples_in, samples_of
from layerscope.engine.probe import probe
from layerscope.engine.reference import reference
from layerscope.engine.replay import TOGETHER
from layerscope.engine.subject import with_statistics
from layerscope.engine.task import Task
from layerscope.errors import UseError, unknown
from layerscope.metrics import named
from layerscope.partition import whole
from layerscope.perturb import Edit, Rerandomize, Rewind, Variant
from layerscope.query import in_words, number_of_bytes, seconds_of
from layerscope.run import Run, environment, fields_of
from layerscope.runtime import Kept, Progress
from layerscope.spec import Spec, canonical_json, fingerprint
from layerscope.state import nbytes_of, state_of, tensors_of
from layerscope.step import Step
from layerscope.table import Table
from layerscope.trajectory import SUFFIX, Trajectory, export_tensors


def claim(
    asked: ModelSpec,
    out: str | Path,
    spec: RobustnessSpec,
    data_dir: str | Path | None = None,
    *,
    anyway: bool = False,
) -> tuple[Run, Material]:
    """The folder of the analyses of somebody's model, a run that was not trained here; and the model with its states and
    data. What was asked is tried first on a batch: where it cannot be done, nothing is left behind."""
    for field in ("model", "data"):
        if not getattr(asked, field):
            raise UseError(f"analysing a model that was not trained here needs --{field} too")
    material = of_model(asked, spec, data_dir)
    partition_of(material.model, spec)
    task = Task([], [named(name, spec.level) for name in spec.metrics], material.targets)
    run = Run(out)
    if not run.analyses():
        subject = subject_of(
            material.model, material.trajectory, None, spec.seed, material.forward, material.calibration
        )
        for batches in material.splits.values():
            probe(subject, batches, material.targets, anyway)
            reference(subject, replace(task, data=list(islice(batches, 1))))
    with run.claim(asked):
        return run, material


def opened(
    run: Path | None, source: ModelSpec, out: Path | None, spec: RobustnessSpec, data_dir: Path | None, anyway: bool
) -> tuple[Run, Material | None]:
    """The run of a folder, or that of a model of the user's own: new, or the same as before."""
    if run is not None:
        if out is not None:
            raise UseError("--out is for a model of your own; the analyses of a run are kept in its folder")
        found = Run.open(run)
        return found, None if source == NO_SOURCE else sourced(found, source, spec, data_dir)
    return claim(source, out or folder_of(source), spec, data_dir, anyway=anyway)


def folder_of(source: ModelSpec, ending: str = "") -> Path:
    """Where the analyses of a model of the user's own are kept, if nobody says otherwise."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", source.model) + ending)


def weigh(asked: ModelSpec, out: str | Path, spec: WeightsSpec, name: str) -> tuple[Run, Table]:
    """What the values of somebody's model say without data: the table of `weights`, kept as the analysis `name` of a folder."""
    model, trajectory = states_of(asked)
    partition_of(model, spec)
    trajectory.check(tensors_of(model))
    run, inputs = Run(out), fingerprint([asked.fingerprint, trajectory.fingerprint])
    with run.claim(asked):
        if (done := run.finished_analysis(name, spec, inputs)) is not None:
            return run, done
        began = time.perf_counter()
        table = weights(model, trajectory, spec, run=run.name)
        facts = environment() | {"spec": spec.fingerprint, "model": asked.model}
        facts |= {"seconds": round(time.perf_counter() - began, 2)}
        table = table.with_facts(**facts)
        run.save_analysis(name, table, spec, inputs)
        run.record(f"analysis {name}", facts)
    return run, table


def sourced(run: Run, source: ModelSpec, spec: RobustnessSpec, data_dir: str | Path | None = None) -> Material:
    """The material of a recording whose model and data are named now, in whole or in part. What is named is kept with the run,
    if the states fit and the data are there."""
    material = material_of(run, spec, data_dir, source)
    made = {name: text for name, text in asdict(source_of_recording(run, source)).items() if text}
    if run.recording.get("source") != made:
        with run.folder.lock():
            run.record("recording", {**run.recording, "source": made})
    return material


def find_variant(run: Run, variant_id: str, name: str | None = None) -> tuple[Variant, RobustnessSpec]:
    """The Variant of this id (or the beginning of one) in the run's analyses, or in that of a `name`; and what that analysis
    was asked, which decides its draws and its statistics."""
    check_data(run, asked_of(run))
    found: dict[tuple[str, str], tuple[Variant, RobustnessSpec, str]] = {}
    for analysis in [name] if name else run.analyses():
        spec = RobustnessSpec.from_dict(fields_of(run.analysis_spec(analysis)))
        decides = fingerprint([spec.seed, spec.calibrate])
        of_id = {k: plain for k, plain in run.analysis(analysis).variants.items() if k.startswith(variant_id)}
        found |= {(key, decides): (Variant.from_dict(plain), spec, analysis) for key, plain in of_id.items()}
    if not found:
        raise UseError(f"{run.path} has no variant whose id begins with {variant_id!r}; ids are in its tables")
    if len(found) > 1:
        where = ", ".join(sorted({f"{key} in {analysis}" for (key, _), (*_, analysis) in found.items()}))
        raise UseError(
            f"{variant_id!r} means several variants ({where}); write the whole id, and --name for the analysis"
        )
    variant, spec, _ = next(iter(found.values()))
    return variant, spec


def variant_of(
    model: nn.Module, spec: RobustnessSpec, parts: Sequence[str], to: str, rerandomize: bool, draw: int
) -> Variant:
    """The Variant of Parts of a network that are put to a step together, or re-randomised."""
    partition = partition_of(model, spec)
    try:
        step = Step.parse(to)
    except ValueError as problem:
        raise UseError(f"--to: {problem}") from None
    known = {part.name: part for part in (*partition, whole(model))}
    if draw < 0:
        raise UseError(f"--draw is a number from 0, not {draw}")
    if wrong := [name for name in parts if name not in known]:
        raise unknown("Part", wrong[0], known)
    what = Rerandomize() if rerandomize else Rewind(step)
    return Variant(tuple(Edit(known[name], what) for name in parts), draw, spec.buffers)


def export(run: Run, material: Material, variant: Variant, path: Path, spec: RobustnessSpec) -> None:
    """Write the values of a Variant of a run's network as a safetensors file, which says in its header what it is; `material`
    is what `material_of(run, spec)` gives. A file that exists is never overwritten."""
    if path.suffix != SUFFIX:
        raise UseError(f"--out must end in {SUFFIX}, not {path.name!r}")
    if path.exists():
        raise UseError(f"{path} exists; choose another --out")
    network = materialize(
        material.model,
        material.trajectory,
        variant,
        laws=material.laws,
        seed=spec.seed,
        forward=material.forward,
        calibration=material.calibration,
    )
    about = {"layerscope": environment()["layerscope"], "run": run.name, "seed": str(spec.seed)}
    export_tensors(path, tensors_of(network), about | {"variant": canonical_json(variant.to_dict())})


def analyze(
    run: Run,
    spec: Spec,
    *,
    name: str = "robustness",
    data_dir: str | Path | None = None,
    anyway: bool = False,
    plan: Plan = PLAN,
    material: Material | None = None,
    progress: Progress | None = None,
) -> Table:
    """What an analysis of the kind that `spec` asks for (see `kinds`) finds of a run's network: its table, kept as the run's
    analysis `name`.

    An analysis of the same spec that is complete is read, not computed again; one of another spec is an error. One that was
    stopped goes on from what it has, where its kind can. `anyway`: go on where model or data give something else the second
    time; `plan`: as in `robustness`.
    `material` is what `material_of(run, needed(spec))` gives, if somebody has it already.
    """
    inputs = known_inputs(run) if material is None else material.inputs
    if inputs is None:
        material = material_of(run, needed(spec), data_dir)
        inputs = material.inputs
    if (done := run.finished_analysis(name, spec, inputs)) is not None:
        return done
    material = material or material_of(run, needed(spec), data_dir)
    began = time.perf_counter()
    key = fingerprint([spec.fingerprint, inputs])
    with run.folder.lock():
        with Kept(run.partial(name, key), lambda rows: run.save_partial(name, key, rows)) as kept:
            table = kind_of(spec).compute(material, spec, How(anyway, plan, run.name, kept, progress))
        facts = environment() | {
            "spec": spec.fingerprint,
            "spec_kind": spec.KIND,
            **material.facts,
            "device": plan.device or str(device_of(material.model)),
            "threads": torch.get_num_threads(),
            "engine": sorted({str(name) for name in table.frame["engine"].dropna() if name}),
            "memory": plan.memory,
            "seconds": round(time.perf_counter() - began, 2),
        }
        warnings = [*material.warnings, *table.provenance["warnings"]]
        table = table.with_facts(**facts | {"spec": spec.to_dict(), "warnings": warnings})
        run.save_analysis(name, table, spec, inputs)
        run.record(f"analysis {name}", facts)
    return table


def cost(material: Material, epochs: Sequence[int], spec: RobustnessSpec) -> dict[str, Any]:
    """What the analysis of a trajectory with these epochs would take, from a few timed passes over some of the test data:
    variants, forwards, seconds, bytes."""
    partition = partition_of(material.model, spec)
    steps = len(epochs if spec.steps is None else {epochs[0], epochs[-1], *spec.steps}) if len(epochs) > 1 else 0
    variants = number_of_variants(material.model, material.trajectory, material.laws, partition, steps, spec)
    samples = sum(samples_of(batches) for batches in material.splits.values())
    forwards = variants * samples
    if with_statistics(material.model) and spec.buffers == "recalibrate":
        forwards += (variants - 1) * len(material.splits) * samples_of(material.calibration)
    return {
        "parts": len(partition),
        "variants": variants,
        "forwards": forwards,
        **_time(_seconds_a_sample(material) * forwards, spec),
        "memory_bytes": 3 * nbytes_of(material.model) + material.nbytes + _together(material, len(partition), variants),
    }


def _time(seconds: float, spec: RobustnessSpec) -> dict[str, Any]:
    """How long it takes, of that what the spec allows."""
    if spec.budget is None:
        return {"seconds": round(seconds, 1)}
    allowed = seconds_of("budget", spec.budget)
    enough = "enough for all" if seconds <= allowed else f"all would take about {seconds / allowed:.2g} times as long"
    told = f"best answer within {in_words(spec.budget)}: samples in random order, more where intervals are widest ({enough})"
    return {"seconds": allowed if allowed < seconds else round(seconds, 1), "budget": told}


def _together(material: Material, parts: int, variants: int) -> int:
    """About what the exact engine holds of changed values: an average Part of each variant that is evaluated together."""
    held = min(variants, TOGETHER[1]) * nbytes_of(material.model) // max(parts, 1)
    return min(held, number_of_bytes("memory", PLAN.memory))


def _seconds_a_sample(material: Material) -> float:
    """Of a whole forward, at most what one takes: from the difference of six variants and two, so that what is done once does
    not count."""
    some = list(islice(material.splits["test"], 16))
    trajectory = Trajectory.of(final=state_of(material.model))

    def seconds(variants: int) -> float:
        began = time.perf_counter()
        evaluate(
            material.model,
            trajectory,
            [Variant()] * variants,
            some,
            [_nothing],
            forward=material.forward,
            targets=material.targets,
            anyway=True,
            plan=Plan(engine="reference"),  # the exact engine has nothing to do for an unmodified network
        )
        return time.perf_counter() - began

    seconds(1)
    return max(0.0, seconds(6) - seconds(2)) / 4 / samples_of(some)


def _nothing(outputs: Any, _targets: Any) -> Tensor:
    """A metric that costs nothing, and asks nothing of outputs and targets."""
    return torch.zeros(samples_in(outputs))
