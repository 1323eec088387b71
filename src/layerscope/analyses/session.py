"""An analysis on disk: a run's checkpoints in, one table in its folder out."""

import time
from pathlib import Path

import torch

from layerscope.analyses.robustness import robustness
from layerscope.analyses.spec import RobustnessSpec
from layerscope.data import load
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.models.initialisers import laws_of
from layerscope.run import Run, environment
from layerscope.runtime import Kept, Progress
from layerscope.spec import fingerprint
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
    asked = TrainSpec.from_dict({k: v for k, v in run.spec.items() if k != "fingerprint"})
    if not run.trained:
        raise UseError(f"the training of {run.path} is not finished; go on with: layerscope train --out {run.path}")
    done = run.finished_analysis(name, spec)
    if done is not None:
        return done
    data = load(asked.data, data_dir)
    before = run.provenance["training"]["data"]
    if data.fingerprint != before["fingerprint"]:
        raise UseError(
            f"{asked.data} in this folder is not the data that {run.path} was trained on (fingerprints differ)"
        )
    model = build(asked.model, data.input_shape, data.classes)
    began = time.perf_counter()
    key = fingerprint([spec.fingerprint, asked.fingerprint, data.fingerprint])
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
        run.save_analysis(name, table, spec)
        run.record(f"analysis {name}", facts)
    return table
