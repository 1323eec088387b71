"""An analysis on disk: a run's checkpoints in, one table in its folder out."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerscope.analyses.robustness import evaluate, robustness
from layerscope.analyses.spec import RobustnessSpec
from layerscope.data import Split, load
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.models.initialisers import laws_of
from layerscope.partition import Partition
from layerscope.perturb import Variant
from layerscope.run import Run, environment
from layerscope.runtime import Kept, Progress
from layerscope.spec import fingerprint
from layerscope.state import nbytes_of, state_of
from layerscope.table import Table
from layerscope.training.spec import TrainSpec
from layerscope.trajectory import Trajectory


def analyze(
    run: Run,
    spec: RobustnessSpec,
    *,
    name: str = "robustness",
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Table:
    """Which layers of a run's network matter: the table of `robustness`, kept as the run's analysis `name`.

    An analysis of the same spec that is complete is read, not computed again; one of another spec is an error. One that was
    stopped goes on from the variants it has.
    """
    asked = training_of(run)
    _check_complete(run, asked)
    before = run.provenance["training"]["data"]["fingerprint"]
    inputs = fingerprint([asked.fingerprint, before, run.checkpoints.digest()])
    done = run.finished_analysis(name, spec, inputs)
    if done is not None:
        return done
    data = load(asked.data, data_dir)
    if data.fingerprint != before:
        raise UseError(
            f"{asked.data} in this folder is not the data that {run.path} was trained on (fingerprints differ)"
        )
    model = build(asked.model, data.input_shape, data.classes)
    began = time.perf_counter()
    key = fingerprint([spec.fingerprint, inputs])
    with run.folder.lock():
        table = robustness(
            model,
            Trajectory.open(run.checkpoints.path),
            {"test": data.test.batches()} | ({"train": data.train.batches()} if spec.train else {}),
            spec,
            laws=laws_of(model, asked.initialiser),
            run=run.name,
            done=Kept(run.partial(name, key), lambda rows: run.save_partial(name, key, rows)),
            progress=progress,
        )
        facts = environment() | {
            "spec": spec.fingerprint,
            "training_spec": asked.fingerprint,
            "data": data.describe(),
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "engine": "reference",
            "seconds": round(time.perf_counter() - began, 2),
        }
        table = Table(table.frame, {**table.provenance, **facts}, table.variants)
        run.save_analysis(name, table, spec, inputs)
        run.record(f"analysis {name}", facts)
    return table


def plan(asked: TrainSpec, spec: RobustnessSpec, *, data_dir: str | Path | None = None) -> dict[str, Any]:
    """What the analysis of such a training would take, from a few timed passes over some of the test data: variants,
    forwards, seconds, bytes."""
    data = load(asked.data, data_dir)
    model = build(asked.model, data.input_shape, data.classes)
    kept = asked.kept
    parts, steps = len(Partition.by_layer(model)), len(kept if spec.steps is None else {kept[0], kept[-1], *spec.steps})
    variants = 1 + parts * spec.draws + (parts + 1) * steps
    samples = len(data.test) + (len(data.train) if spec.train else 0)
    return {
        "variants": variants,
        "forwards": variants * samples,
        "seconds": round(_seconds_a_sample(model, data.test) * variants * samples, 1),
        "memory_bytes": 3 * nbytes_of(model) + data.nbytes,
    }


def _seconds_a_sample(model: nn.Module, split: Split) -> float:
    """From the difference of six variants and two, so that what is done once does not count."""
    some = list(islice(split.batches(), 16))
    trajectory = Trajectory.of(final=state_of(model))

    def seconds(variants: int) -> float:
        began = time.perf_counter()
        evaluate(model, trajectory, [Variant()] * variants, some)
        return time.perf_counter() - began

    seconds(1)
    return max(0.0, seconds(6) - seconds(2)) / 4 / sum(len(targets) for _, targets in some)


def _check_complete(run: Run, asked: TrainSpec) -> None:
    """Refuse a run with checkpoints missing: the last one there would be taken for the trained network."""
    there = {step.epoch for step in Trajectory.open(run.checkpoints.path).steps}
    if missing := [epoch for epoch in asked.kept if epoch not in there]:
        raise UseError(f"{run.checkpoints.path} lacks the checkpoint of epoch {missing[0]}, which the run's spec keeps")


def training_of(run: Run) -> TrainSpec:
    """What a finished training was asked."""
    asked = TrainSpec.from_dict({k: v for k, v in run.spec.items() if k != "fingerprint"})
    if not run.trained:
        raise UseError(f"the training of {run.path} is not finished; go on with: layerscope train --out {run.path}")
    return asked
