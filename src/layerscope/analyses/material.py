"""What an analysis works on: a network with its states and data, of a training of the lab or of anyone's model."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerscope import rng
from layerscope.analyses.spec import ModelSpec, RobustnessSpec
from layerscope.data import FORMS, DataSet, Split, load
from layerscope.engine.batches import First, Forward, Targets, mark, outputs_of, targets_of
from layerscope.errors import UseError
from layerscope.imported import imported, is_path, made, source_of
from layerscope.metrics import METRICS
from layerscope.models import build
from layerscope.models.initialisers import Laws, laws_of
from layerscope.models.sources import is_source, open_model
from layerscope.recording.folder import tidy
from layerscope.recording.spec import RecordSpec, notes, warnings
from layerscope.run import Run, fields_of
from layerscope.spec import fingerprint
from layerscope.state import tensors_of
from layerscope.step import INIT
from layerscope.training.spec import TrainSpec
from layerscope.trajectory import Trajectory


@dataclass(frozen=True)
class Material:
    """What an analysis works on. `inputs` is a fingerprint of states and data; `facts` is what the provenance says of them."""

    model: nn.Module
    trajectory: Trajectory
    splits: Mapping[str, Iterable[Any]]
    calibration: Iterable[Any] | None
    laws: Laws | None
    inputs: str
    facts: dict[str, Any]
    forward: Forward = outputs_of
    targets: Targets = targets_of
    nbytes: int = 0
    """Memory that the data take, where that is known."""
    warnings: tuple[str, ...] = ()
    """What has to be known of the states before anything else."""


Asked = TrainSpec | ModelSpec | RecordSpec
NO_SOURCE = ModelSpec()


def asked_of(run: Run) -> Asked:
    """What a run was asked: a finished training, somebody's model, or the recording of somebody's training."""
    kinds: dict[str, type[Asked]] = {kind.KIND: kind for kind in (TrainSpec, ModelSpec, RecordSpec)}
    fields = fields_of(run.spec)
    if (kind := fields.get("kind")) not in kinds:
        raise UseError(f"{run.path} has no network: it holds a {kind}")
    asked = kinds[kind].from_dict(fields)
    if isinstance(asked, TrainSpec) and not run.trained:
        raise UseError(f"the training of {run.path} is not finished; go on with: layerscope train --out {run.path}")
    return asked


def material_of(
    run: Run, spec: RobustnessSpec, data_dir: str | Path | None = None, source: ModelSpec = NO_SOURCE
) -> Material:
    """The network, states and data of a run; `source` says of a recording how its model and data are made."""
    asked = asked_of(run)
    if isinstance(asked, RecordSpec):
        return _of_recording(run, source_of_recording(run, source), spec, data_dir)
    check_data(run, asked, source.data)
    if source != NO_SOURCE:
        raise UseError(f"{run.path} is no recording: its model and data are known, and cannot be said otherwise")
    return of_model(asked, spec, data_dir) if isinstance(asked, ModelSpec) else _of_training(run, asked, spec, data_dir)


def check_data(run: Run, asked: Asked, data: str = "") -> None:
    """Refuse to change layers in the folder of a model that was looked at without data; the error has the command that does."""
    if not isinstance(asked, ModelSpec) or asked.data:
        return
    checkpoints = ["--checkpoints", *asked.checkpoints] if asked.checkpoints else []
    words = ["--model", asked.model, *checkpoints, "--data", data or "package.module:NAME", "--out", f"{run.path}-data"]
    raise UseError(
        f"{run.path} was made without data, and to change layers takes some; that needs a folder of its own: layerscope analyze "
        f"{shlex.join(words)}"
    )


def known_inputs(run: Run) -> str | None:
    """The fingerprint of a training's states and data, without reading either; None where that takes reading them."""
    asked = asked_of(run)
    return _inputs(run, asked) if isinstance(asked, TrainSpec) else None


def of_model(asked: ModelSpec, spec: RobustnessSpec, data_dir: str | Path | None = None) -> Material:
    """Somebody's model with its data."""
    return _with_data(asked, *states_of(asked), spec, data_dir)


def states_of(asked: ModelSpec) -> tuple[nn.Module, Trajectory]:
    """Somebody's model and its states. Its own values are the trained ones if no checkpoints are named."""
    _check_source(asked)
    model = open_model(asked.model, pretrained=not asked.checkpoints)
    trajectory = Trajectory.read(asked.checkpoints) if asked.checkpoints else Trajectory.of(final=tensors_of(model))
    return model, trajectory.fitted(model)


def source_of_recording(run: Run, given: ModelSpec) -> ModelSpec:
    """How the model and the data of a recording are made: what is `given`, and the rest as was said before."""
    if given.checkpoints:
        raise UseError(f"{run.path} has its own checkpoints: --checkpoints cannot be said beside it")
    asked = ModelSpec(
        **run.recording.get("source", {}) | {name: value for name, value in asdict(given).items() if value}
    )
    if missing := [f"--{field} package.module:NAME" for field in ("model", "data") if not getattr(asked, field)]:
        words = ["--model", asked.model or "package.module:NAME", "--checkpoints", str(run.checkpoints.path)]
        alone = f"layerscope analyze {shlex.join([*words, '--out', f'{run.path}-weights'])}"
        raise UseError(
            f"{run.path} was recorded without saying how its model and data are made: add {' and '.join(missing)}; it is kept"
            + ("" if asked.data else f". Without data, its values alone can be looked at: {alone}")
        )
    return asked


def _of_recording(run: Run, asked: ModelSpec, spec: RobustnessSpec, data_dir: str | Path | None) -> Material:
    _check_source(asked)
    facts = run.recording
    if not facts.get("finished"):
        with run.folder.lock():  # nobody is at it
            tidy(run.checkpoints)
    trajectory = Trajectory.open(run.checkpoints.path)
    if trajectory.steps == (INIT,):
        raise UseError(f"{run.path} has no trained network: nothing but the start was recorded")
    model = open_model(asked.model, pretrained=False)
    found = _with_data(asked, model, trajectory.fitted(model), spec, data_dir)
    said = [*notes(facts, trajectory.has_start), *found.facts.get("checkpoints", [])]
    about = {"checkpoints": said, "checkpoints_digest": run.checkpoints.digest()}
    return replace(found, facts=found.facts | about, warnings=tuple(warnings(facts)))


def _check_source(asked: ModelSpec) -> None:
    if not is_source(asked.model):
        raise UseError(
            f"{asked.model!r} is not the source of a model; write package.module:NAME, torchvision:NAME, timm:NAME or hf:PATH"
        )


def _with_data(
    asked: ModelSpec, model: nn.Module, trajectory: Trajectory, spec: RobustnessSpec, data_dir: str | Path | None
) -> Material:
    """A model and its states, with the data that are asked for."""
    forward = imported(asked.forward, "a forward function") if asked.forward else outputs_of
    targets = imported(asked.targets, "a targets function") if asked.targets else targets_of
    if not asked.data:
        raise UseError("to change layers and measure what that does takes data: name them with --data")
    if is_path(asked.data) and asked.data.partition(":")[0] not in FORMS:
        splits = _splits(asked.data)
        about: dict[str, Any] = {
            "name": asked.data,
            "fingerprint": fingerprint({k: _marks(v) for k, v in splits.items()}),
        }
        calibration = First(splits["train"], spec.calibrate) if "train" in splits else None
    else:
        data = load(asked.data, data_dir)
        splits, calibration, about = _all(data), _some(data.train, spec), data.describe()
    trajectory.check(tensors_of(model))  # reads each checkpoint once, for the fingerprint and all later checks too
    inputs = fingerprint([asked.fingerprint, trajectory.fingerprint, about["fingerprint"], _code(model, asked, spec)])
    facts = {"model": asked.model, "data": about, **trajectory.facts()}
    return Material(model, trajectory, _evaluated(splits, spec), calibration, None, inputs, facts, forward, targets)


def _code(model: nn.Module, asked: ModelSpec, spec: RobustnessSpec) -> list[str]:
    """Fingerprints of the code that decides the numbers: the model's classes and settings, and functions of the user's own.
    PyTorch's own classes are covered by their printed form; versions of libraries are in the provenance."""
    kinds = {type(module) for module in model.modules()}
    own = sorted(source_of(kind) for kind in kinds if not kind.__module__.startswith("torch."))
    config: Any = getattr(model, "config", None)
    settings = repr(config.to_dict()) if hasattr(config, "to_dict") else ""
    metrics = [name for name in spec.metrics if is_path(name) and name.partition(":")[0] not in METRICS]
    functions = [source_of(imported(name, "code")) for name in (asked.forward, asked.targets, *metrics) if name]
    return [fingerprint([repr(model), settings]), *own, *functions]


def planned(asked: TrainSpec, spec: RobustnessSpec, data_dir: str | Path | None = None) -> Material:
    """What the analysis of a training would work on, were it done: a network that is not trained stands for it."""
    data = load(asked.data, data_dir)
    with torch.random.fork_rng():
        model = build(asked.model, data.input_shape, data.classes)
    return Material(
        model,
        Trajectory.of(final=tensors_of(model)),
        _evaluated(_all(data), spec),
        _some(data.train, spec),
        laws_of(model, asked.initialiser),
        "",
        {"training_spec": asked.fingerprint, "data": data.describe()},
        nbytes=data.nbytes,
    )


def code_of(model: str, data: str, data_dir: str | Path | None = None) -> nn.Module:
    """A network by its name, without anybody's weights: one of the lab is built for a data set."""
    if is_source(model):
        return open_model(model, pretrained=False)
    found = load(data, data_dir)
    return build(model, found.input_shape, found.classes)


def _of_training(run: Run, asked: TrainSpec, spec: RobustnessSpec, data_dir: str | Path | None) -> Material:
    trajectory = _complete(run, asked)
    material = planned(asked, spec, data_dir)
    if material.facts["data"]["fingerprint"] != run.provenance["training"]["data"]["fingerprint"]:
        raise UseError(
            f"{asked.data} in this folder is not the data that {run.path} was trained on (fingerprints differ)"
        )
    return replace(material, trajectory=trajectory, inputs=_inputs(run, asked))


def _inputs(run: Run, asked: TrainSpec) -> str:
    data = run.provenance["training"]["data"]["fingerprint"]
    return fingerprint([asked.fingerprint, data, run.checkpoints.digest()])


def _complete(run: Run, asked: TrainSpec) -> Trajectory:
    """A run's checkpoints. Refused if one is missing: the last one there would be taken for the trained network."""
    trajectory = Trajectory.open(run.checkpoints.path)
    there = {step.epoch for step in trajectory.steps}
    last = run.ending.get("epoch")
    if last == 0:
        raise UseError(f"{run.path} has no trained network: training ended, but {run.ending['reason']}")
    if missing := [epoch for epoch in asked.kept(last) if epoch not in there]:
        raise UseError(f"{run.checkpoints.path} lacks the checkpoint of epoch {missing[0]}, which the run's spec keeps")
    return trajectory


def _evaluated(splits: Mapping[str, Iterable[Any]], spec: RobustnessSpec) -> dict[str, Iterable[Any]]:
    """The splits that are evaluated: training data only where that is asked."""
    return {name: batches for name, batches in splits.items() if spec.train or name != "train"}


def _all(data: DataSet) -> dict[str, Iterable[Any]]:
    return {"test": data.test.batches(), "train": data.train.batches()}


def _some(train: Split, spec: RobustnessSpec) -> Iterable[Any]:
    """Samples to recalibrate with: chosen at random, because a data set may be sorted by class."""
    order = torch.randperm(len(train), generator=rng.generator(spec.seed, "calibration"))[: spec.calibrate]
    return train.select(order).batches()


def _splits(name: str) -> dict[str, Iterable[Any]]:
    """The splits that a user's loader gives; data without the name of a split are test data."""
    found = imported(name, "data")
    if callable(found):
        found = made(name, "data")
    splits = dict(found) if isinstance(found, Mapping) else {"test": found}
    if "test" not in splits or splits.keys() - {"test", "train"}:
        raise UseError(f"{name} gives splits {', '.join(map(str, splits))}; there must be test, and there may be train")
    for split, batches in splits.items():
        if not isinstance(batches, Iterable):
            raise UseError(
                f"{name} gives a {type(batches).__name__} as {split} data, not something that yields batches"
            )
    return splits


def _marks(batches: Iterable[Any]) -> list[str]:
    return [repr(mark(batch)) for batch in batches]
