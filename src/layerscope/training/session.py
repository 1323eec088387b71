"""A training on disk: the run folder with its spec, checkpoints, losses and provenance."""

import time
from pathlib import Path

import torch

from layerscope.data import load
from layerscope.run import TRAINING, Run, environment
from layerscope.runtime import Progress
from layerscope.step import Step
from layerscope.table import Table
from layerscope.training.loop import moments
from layerscope.training.spec import TrainSpec
from layerscope.trajectory import save_state


def train(
    spec: TrainSpec, out: str | Path, *, data_dir: str | Path | None = None, progress: Progress | None = None
) -> Run:
    """Train a network and keep its trajectory in the run folder `out`.

    A checkpoint is written before any data is seen and after each epoch that the spec keeps; `training.parquet` has
    losses and errors per epoch. A run of the same spec that is complete is left as it is; a folder that holds anything
    else is an error, and never changed. Raises `UseError` if the loss is no longer finite.
    """
    data = load(spec.data, data_dir)
    run = Run(out)
    with run.claim(spec):
        if run.trained:
            return run
        began, rows = time.perf_counter(), []
        for moment in moments(spec, data):
            if spec.keeps(moment.epoch):
                save_state(run.checkpoints, Step(moment.epoch), moment.model.state_dict())
            rows += moment.rows
            if progress is not None and moment.epoch:
                progress("train", moment.epoch, spec.epochs)
        facts = environment() | {
            "spec": spec.fingerprint,
            "data": data.describe(),
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "seconds": round(time.perf_counter() - began, 2),
        }
        run.record("training", facts)
        run.folder.write(TRAINING, Table.of([{"run": run.name, **row} for row in rows], facts).save)
    return run
