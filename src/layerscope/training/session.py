"""A training on disk: the run folder with its spec, checkpoints, losses and provenance."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from layerscope.data import DataSet, Split, load
from layerscope.errors import UseError
from layerscope.run import TRAINING, Run, environment
from layerscope.runtime import Progress
from layerscope.state import nbytes_of
from layerscope.step import Step
from layerscope.table import Table
from layerscope.training.loop import Moment, Stopped, measure, moments, start
from layerscope.training.spec import TrainSpec
from layerscope.trajectory import save_state, write_tensors

RESUME = "resume/training.safetensors"
EVERY = 5.0
"""Seconds between two saves of all that the rest of a training depends on. Epochs after the last save
are trained again, with the same bits."""


def train(
    spec: TrainSpec, out: str | Path, *, data_dir: str | Path | None = None, progress: Progress | None = None
) -> Run:
    """Train a network and keep its trajectory in the run folder `out`.

    A checkpoint is written before any data is seen and after each epoch that the spec keeps; `training.parquet` has
    losses and errors per epoch. A run of the same spec that is complete is left as it is, and one that was stopped goes on
    with the same bits; a folder that holds anything else is an error, and never changed. Raises `UseError` if the loss is
    no longer finite.
    """
    data = load(spec.data, data_dir)
    model = start(spec, data)  # before the folder is claimed: a name that does not exist leaves nothing behind
    run = Run(out)
    with run.claim(spec):
        if run.trained:
            _refuse_other_data(run, data, run.provenance["training"]["data"]["fingerprint"])
        else:
            _train(run, spec, model, data, progress)
    return run


def plan(spec: TrainSpec, *, data_dir: str | Path | None = None) -> dict[str, Any]:
    """What a training would take, from 20 timed steps: steps, seconds, bytes of checkpoints and of memory."""
    data = load(spec.data, data_dir)
    model = start(spec, data)
    size, kept = nbytes_of(model), len(spec.kept)
    steps = spec.epochs * -(-len(data.train) // spec.batch_size)
    few = Split(data.train.inputs[: 20 * spec.batch_size], data.train.targets[: 20 * spec.batch_size])
    brief = dataclasses.replace(spec, epochs=2, checkpoints=None)
    times = [time.perf_counter() for _ in moments(brief, model, dataclasses.replace(data, train=few))]
    began = time.perf_counter()
    measure(model, data.test)
    tested = time.perf_counter() - began
    each = max(0.0, times[2] - times[1] - tested) / -(-len(few) // spec.batch_size)
    return {
        "steps": steps,
        "seconds": round(each * steps + tested * (spec.epochs + 1), 1),
        "checkpoints": kept,
        "disk_bytes": kept * size,
        "memory_bytes": 4 * size + data.nbytes,
    }


def _train(run: Run, spec: TrainSpec, model: nn.Module, data: DataSet, progress: Progress | None) -> None:
    began, saved = time.perf_counter(), time.monotonic()
    stopped, rows = _stopped(run, data)
    for moment in moments(spec, model, data, stopped):
        if spec.keeps(moment.epoch):
            save_state(run.checkpoints, Step(moment.epoch), moment.model.state_dict())
        rows += moment.rows
        if progress is not None and moment.epoch:
            progress("train", moment.epoch, spec.epochs)
        if time.monotonic() - saved > EVERY:
            _save(run, moment, rows, data)
            saved = time.monotonic()
    facts = environment() | {
        "spec": spec.fingerprint,
        "data": data.describe(),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 2),
        "resumed_after_epoch": stopped.epoch if stopped else None,
    }
    run.record("training", facts)
    run.folder.write(TRAINING, Table.of([{"run": run.name, **row} for row in rows], facts).save)
    run.folder.remove(RESUME)


def _save(run: Run, moment: Moment, rows: list[dict[str, Any]], data: DataSet) -> None:
    """One file for all that the rest depends on, so that its parts can never be of different moments."""
    about = {"epoch": str(moment.epoch), "rows": json.dumps(rows), "data": data.fingerprint}
    write_tensors(run.folder, RESUME, moment.state(), about)


def _stopped(run: Run, data: DataSet) -> tuple[Stopped | None, list[dict[str, Any]]]:
    """Where the training of a run was stopped, and the losses so far; nothing if it never came to the first save."""
    if not run.folder.has(RESUME):
        return None, []
    with safe_open(run.folder.file(RESUME), framework="pt") as file:
        about = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _refuse_other_data(run, data, about["data"])
    return Stopped(int(about["epoch"]), state), json.loads(about["rows"])


def _refuse_other_data(run: Run, data: DataSet, before: str) -> None:
    if data.fingerprint != before:
        raise UseError(
            f"{run.path} was trained on other data than {data.name} is here (fingerprints differ); choose another --out"
        )
