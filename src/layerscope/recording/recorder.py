"""A training that is not ours, recorded from within its own loop."""

import operator
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self, SupportsFloat

from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.imported import FORM, is_path
from layerscope.models.sources import is_source
from layerscope.recording.curves import rows_of
from layerscope.recording.folder import Recording
from layerscope.recording.network import plain, rank, values
from layerscope.recording.spec import RecordSpec
from layerscope.run import Run
from layerscope.spec import fingerprint
from layerscope.state import State, check_shapes, shapes_of
from layerscope.step import INIT, Step, unit_of


class Recorder:
    """The start, chosen checkpoints and the end of a training of your own, in a run folder that `layerscope analyze` reads.

        recorder = ls.Recorder("runs/mine", model)      # before training: the values there are now are the start
        for epoch in range(epochs):
            ...
            recorder.save(epoch=epoch + 1)              # so many epochs are done
        recorder.finish()

    Checkpoints have the names that the model's own code gives to tensors, whether it is wrapped for several devices or
    compiled. Where several processes train it together, the first one writes. Model, gradients and random state are not
    changed; values are copied to the CPU only while they are written. Every file is whole or not there, whenever the process
    dies. As a context manager it finishes at the end; after an exception the folder says that the recording is not finished.

    `every` and `at` say which of the moments that `save` is told of are kept: multiples of a number, and those named; all, if
    neither is given. `initial=False`: the model has been trained before, so its values now are no start and are not kept.

    With `resume` a recording of this network that was stopped goes on, if there is one: make the Recorder after loading the
    checkpoint of your own. What was recorded of moments that are now trained again is replaced. A model whose values are none
    of those recorded after the start is refused, as a new one would be; `loaded=True` says that they are of this training all
    the same, of a moment that was not kept. A finished recording goes on only from the values of its last checkpoint. Without
    `resume` nothing that is there is changed, but for a recording of this very start and nothing else: it goes on.

    `source` and `data` say how the model and the data are made, as `--model` and `--data` of `layerscope analyze` do (`forward`
    and `targets` too): then that command needs only the folder. They may be given to it later as well.

    Raises `UseError` for a folder with anything else in it, and where the model's values are spread over several processes or
    there are none yet.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        *,
        every: int | None = None,
        at: Collection[int] = (),
        resume: bool = False,
        loaded: bool = False,
        initial: bool = True,
        source: str = "",
        data: str = "",
        forward: str = "",
        targets: str = "",
    ) -> None:
        if every is not None and every < 1:
            raise UseError(f"every is a number from 1, not {every}")
        if loaded and not resume:
            raise UseError("loaded=True is for going on with a recording: say resume=True too")
        _check_names(source, forward, targets)
        made = {"model": source, "data": data, "forward": forward, "targets": targets}
        self.run, self._model, self._every, self._at = Run(path), plain(model), every, frozenset(at)
        self._seen: Step | None = None
        self._unit, self._over, self._recording = "", "", None
        state = values(self._model)
        self._shapes = shapes_of(state)
        if rank() == 0:
            spec = _described(self._model, state)
            self._recording = Recording(self.run, spec, state, made, resume=resume, loaded=loaded, initial=initial)
            self._unit = "" if self.steps in ((), (INIT,)) else unit_of(self.steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The moments that are recorded so far; none in a process that does not write."""
        return tuple(self._recording.steps) if self._recording else ()

    def save(self, *, epoch: int | None = None, iteration: int | None = None) -> None:
        """Say that so many whole epochs, or so many iterations (steps of the optimizer), are done: if that is one of the moments
        to keep, the values are written.

        One of the two, always the same, and from 1: 0 is the start. Moments go forward. Values that are not finite (the
        training diverged) are not written: no analysis could use them.
        """
        step = self._moment(epoch, iteration)
        if self._seen is not None and step <= self._seen:
            raise UseError(f"{self._called(step)} is told after {self._called(self._seen)}: moments go forward")
        self._see(step)
        if self._recording and self._keeps(step.number(self._unit)):
            self._recording.keep(step, self._state())

    def log(
        self,
        *,
        split: str,
        epoch: int | None = None,
        iteration: int | None = None,
        error: SupportsFloat | None = None,
        loss: SupportsFloat | None = None,
        n: int | None = None,
    ) -> None:
        """Keep an error (a fraction) or a loss, or both, of some data (such as train, validation, test) at some moment, measured
        on `n` samples: the curves of the report. Moment 0 is before training."""
        step = self._moment(epoch, iteration)
        rows = rows_of(step.number(self._unit), split, error, loss, n)
        if self._recording:
            self._recording.add(rows)

    def finish(self, *, epoch: int | None = None, iteration: int | None = None) -> Run:
        """Say that training is over, after so many epochs or iterations if `save` was not told: the values that the model has
        now are those of the trained network.

        They are the last checkpoint: of the last moment told, or of one after it, where that one was written with other values
        (now weights are averaged, or the best ones put back). Gives the run, which is free for analyses then.
        """
        if self._is_over() == "finished":
            return self.run
        if epoch is not None or iteration is not None:
            step = self._moment(epoch, iteration)
            if self._seen is None or step > self._seen:
                self._see(step)
        self._check_open()
        if self._recording:
            self._recording.finish(self._state(), self._seen, self._unit or "epoch")
        self._over = "finished"
        return self.run

    def close(self) -> None:
        """Stop recording; the folder says that the recording is not finished."""
        if self._recording:
            self._recording.close()
        self._over = self._over or "closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._is_over():
            self.finish()
        else:
            self.close()

    def _moment(self, epoch: int | None, iteration: int | None) -> Step:
        """The step that a user means by one of the two."""
        self._check_open()
        said = {"epoch": epoch, "iteration": iteration}
        given = [(unit, _whole(unit, number)) for unit, number in said.items() if number is not None]
        if len(given) != 1:
            raise UseError("say either epoch=, the whole epochs done, or iteration=, the steps of the optimizer done")
        unit, number = given[0]
        if self._unit not in ("", unit):
            raise UseError(f"this recording counts {self._unit}s: say {self._unit}=, not {unit}=")
        self._unit = unit
        return Step.of(number, unit)

    def _see(self, step: Step) -> None:
        """Training has come to a moment: what is recorded of it and later ones was of a session before, and is trained again."""
        if step == INIT:
            raise UseError(
                f"{self._unit} 0 is before training; count what is done, as in save({self._unit}={self._unit} + 1)"
            )
        if self._recording and self._seen is None:
            self._recording.drop(step)
        self._seen = step

    def _keeps(self, number: int) -> bool:
        """Whether a moment is one of those to keep."""
        all_of_them = self._every is None and not self._at
        return all_of_them or number in self._at or (self._every is not None and number % self._every == 0)

    def _state(self) -> State:
        """The values now; an error if the model is another one than at the beginning."""
        state = values(self._model)
        check_shapes(shapes_of(state), self._shapes, "what the model is now")
        return state

    def _called(self, step: Step) -> str:
        return f"{self._unit} {step.number(self._unit)}"

    def _is_over(self) -> str:
        """Whether it was finished or closed; the latter by another Recorder of this process too, in the same folder."""
        return self._over or (self._recording.over if self._recording else "")

    def _check_open(self) -> None:
        if over := self._is_over():
            raise UseError(
                f"the recording in {self.run.path} was {over}; it goes on with another Recorder, resume=True"
            )


def _whole(unit: str, number: Any) -> int:
    try:
        found = operator.index(number)
    except TypeError:
        found = -1
    if found < 0:
        raise UseError(f"{unit}={number!r}: moments are whole numbers, counted from 1")
    return found


def _described(model: nn.Module, state: dict[str, Tensor]) -> RecordSpec:
    about = {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in state.items()}
    return RecordSpec(type(model).__qualname__, sum(tensor.numel() for tensor in state.values()), fingerprint(about))


def _check_names(source: str, *functions: str) -> None:
    """Refuse at once what could not be found when training is over."""
    if source and not is_source(source):
        raise UseError(f"source={source!r} does not say how the model is made; write {FORM}")
    for name in functions:
        if name and not is_path(name):
            raise UseError(f"{name!r} is not the name of a function; write {FORM}")
