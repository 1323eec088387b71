"""A training on disk: the run folder with its spec, checkpoints, losses and provenance."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from layerscope.data import DataSet, load
from layerscope.device import device_named
from layerscope.errors import UseError
from layerscope.run import TRAINING, Run, environment
from layerscope.runtime import Progress
from layerscope.state import nbytes_of
from layerscope.step import Step
from layerscope.table import Table
from layerscope.training.ending import Ending, Epoch, Past, ending
from layerscope.training.frozen import frozen_parts
from layerscope.training.loop import Moment, Stopped, measure, moments, start
from layerscope.training.spec import TrainSpec
from layerscope.trajectory import SUFFIX, save_state, write_tensors

RESUME = "resume/training.safetensors"
EVERY = 5.0
"""Seconds between two saves of all that the rest of a training depends on. Epochs after the last save
are trained again, with the same bits."""


def train(
    spec: TrainSpec,
    out: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Train a network and keep its trajectory in the run folder `out`.

    A checkpoint is written before any data is seen and after each epoch that the spec keeps; `training.parquet` has
    losses and errors per epoch. The last checkpoint is the trained network: that of the epoch where training ended, of the
    lowest validation error with `until="validation"`, and of the epoch before where an epoch diverged. `Run.ending` says which
    and why.

    A run of the same spec that is complete is left as it is, and one that was stopped goes on: on a CPU with the same bits, if
    threads and PyTorch are the same (the provenance has those of each session). A folder that holds anything else is an error,
    and never changed. Raises `UseError` for what cannot be trained, before anything is written.
    """
    device_named(device)
    data = load(spec.data, data_dir)
    model = start(spec, data)  # before the folder is claimed: a name that does not exist leaves nothing behind
    run = Run(out)
    with run.claim(spec):
        if run.trained:
            refuse_other_data(run, data, run.provenance["training"]["data"]["fingerprint"])
        else:
            _train(run, spec, model, data, device, progress)
    return run


def cost(spec: TrainSpec, *, data_dir: str | Path | None = None, device: str = "cpu") -> dict[str, Any]:
    """What a training would take, from 20 timed steps: steps, seconds, bytes of checkpoints and of memory. The most, if it may
    end before all epochs."""
    device_named(device)
    data = load(spec.data, data_dir)
    model = start(spec, data)
    size, kept = nbytes_of(model), len(spec.kept())
    steps = spec.epochs * -(-len(data.train) // spec.batch_size)
    few = data.train.select(torch.arange(min(len(data.train), 20 * spec.batch_size)))
    brief = dataclasses.replace(spec, epochs=2, checkpoints=None)
    brief_data = dataclasses.replace(data, train=few, validation=None)
    times = [time.perf_counter() for _ in moments(brief, model, brief_data, device=device)]
    if len(times) < 3:
        raise UseError(
            f"training diverges within its first {len(few)} samples; a smaller lr than {spec.lr:g} is the first try"
        )
    began = time.perf_counter()
    measure(model, data.test.to(device))
    tested = time.perf_counter() - began
    each = max(0.0, times[2] - times[1] - tested) / -(-len(few) // spec.batch_size)
    return {
        "steps": steps,
        "seconds": round(each * steps + tested * (spec.epochs + 1), 1),
        "checkpoints": kept,
        "disk_bytes": kept * size,
        "memory_bytes": 4 * size + data.nbytes,
    }


def _train(run: Run, spec: TrainSpec, model: nn.Module, data: DataSet, device: str, progress: Progress | None) -> None:
    began, saved = time.perf_counter(), time.monotonic()
    left_over(run)
    stopped, rows, sessions = _stopped(run, data)
    here = session(device, stopped.epoch if stopped else 0)
    past = Past(epochs_of(rows))
    end = ending(spec, past)
    for moment in () if end else moments(spec, model, data, stopped, device):
        rows += moment.rows
        for epoch in epochs_of(moment.rows):
            past.add(epoch)
        end = ending(spec, past)
        so_far = past.best if spec.until == "validation" else 0
        _keep(run, spec, moment, end, so_far)
        if progress is not None and moment.epoch:
            progress("train", moment.epoch, spec.epochs)
        if end is not None:
            break
        if time.monotonic() - saved > EVERY:
            _save(run, moment, rows, data, [*sessions, here])
            drop(run, {epoch for epoch in range(moment.epoch + 1) if spec.keeps(epoch)} | {so_far})
            saved = time.monotonic()
    assert end is not None  # after the last epoch at the latest
    facts = {
        "frozen": [part.name for part in frozen_parts(model, spec.freeze, spec.freeze_by)],
        "device": here["device"],
        "threads": here["threads"],
        "sessions": [*sessions, here],
        "seconds": round(time.perf_counter() - began, 2),
        "resumed_after_epoch": stopped.epoch if stopped else None,
    }
    finish(run, spec, data, rows, end, facts)
    run.folder.remove(RESUME)


def left_over(run: Run) -> None:
    """Remove what a killed process left of checkpoints that it was taking away."""
    for name in set(run.checkpoints.names("*" + SUFFIX)) - set(run.checkpoints.listed()):
        run.checkpoints.remove(name)


def finish(
    run: Run, spec: TrainSpec, data: DataSet, rows: list[dict[str, Any]], end: Ending, computed: dict[str, Any]
) -> None:
    """Write what a training came to; `computed` says where, and in what time. The run is complete with its last file."""
    drop(run, set(spec.kept(end.epoch)))
    _check_kept(run, end)
    facts = environment() | {
        "spec": spec.fingerprint,
        "data": data.describe(),
        "ending": dataclasses.asdict(end),
        **computed,
    }
    run.record("training", facts)
    run.folder.write(TRAINING, Table.of([{"run": run.name, **row} for row in rows], facts).save)


def session(device: str, after: int) -> dict[str, Any]:
    """What decides the last bits of what is computed after an epoch."""
    return {
        "after_epoch": after,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def epochs_of(rows: list[dict[str, Any]]) -> list[Epoch]:
    """What each epoch was like, from the rows of a training."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["step"] and (row["split"], row["metric"]) in (("train", "cross_entropy"), ("validation", "error")):
            entry = found.setdefault(row["step"], {})
            entry["train_loss" if row["split"] == "train" else "validation_error"] = row["value"]
            if row["status"] != "ok":
                entry["diverged"] = row["reason"]
    return [Epoch(**found[epoch]) for epoch in sorted(found)]


def _keep(run: Run, spec: TrainSpec, moment: Moment, end: Ending | None, so_far: int) -> None:
    """Write the checkpoint of a moment, if it is kept or may be that of the trained network: that of `so_far` is, if no better
    epoch comes."""
    epoch = moment.epoch - 1 if moment.diverged else moment.epoch
    last = end is not None and end.epoch == epoch
    if last or (not moment.diverged and (spec.keeps(epoch) or epoch == so_far)):
        save_state(run.checkpoints, Step(epoch), moment.model.state_dict())


def drop(run: Run, kept: set[int]) -> None:
    """Remove all checkpoints but these. Of those before a resume only after the resume file has passed them: the epochs that
    are trained again could be other ones there."""
    for name in run.checkpoints.listed():
        if Step.parse(name.removesuffix(SUFFIX)).epoch not in kept:
            run.checkpoints.remove(name)


def _check_kept(run: Run, end: Ending) -> None:
    if not run.checkpoints.has(Step(end.epoch).name + SUFFIX):
        raise UseError(
            f"{run.checkpoints.path} lacks the checkpoint of epoch {end.epoch}, the trained network: the epochs after the stop "
            "came out otherwise than before it; delete the run and train it again"
        )


def _save(run: Run, moment: Moment, rows: list[dict[str, Any]], data: DataSet, sessions: list[dict[str, Any]]) -> None:
    """One file for all that the rest depends on, so that its parts can never be of different moments."""
    about = {
        "epoch": str(moment.epoch),
        "rows": json.dumps(rows),
        "data": data.fingerprint,
        "sessions": json.dumps(sessions),
    }
    write_tensors(run.folder, RESUME, moment.state(), about)


def _stopped(run: Run, data: DataSet) -> tuple[Stopped | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """Where the training of a run was stopped, the losses so far, and the sessions that computed them; nothing if it never
    came to the first save."""
    if not run.folder.has(RESUME):
        return None, [], []
    with safe_open(run.folder.file(RESUME), framework="pt") as file:
        about = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    refuse_other_data(run, data, about["data"])
    sessions = json.loads(about.get("sessions", "[]"))
    return Stopped(int(about["epoch"]), state), json.loads(about["rows"]), sessions


def refuse_other_data(run: Run, data: DataSet, before: str) -> None:
    if data.fingerprint != before:
        raise UseError(
            f"{run.path} was trained on other data than {data.name} is here (fingerprints differ); choose another --out"
        )
