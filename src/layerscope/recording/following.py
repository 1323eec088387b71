"""What the callbacks of training libraries have in common: a Recorder that follows a training counted in steps."""

from pathlib import Path
from typing import Any, SupportsFloat

from torch import nn

from layerscope.errors import UseError
from layerscope.recording.recorder import Recorder
from layerscope.run import Run


class Following:
    """A recording of a training that somebody else's loop runs. Moments are iterations, steps of the optimizer: libraries count
    them through, also where an epoch is not whole or has no end.

    What is kept: the start, each `every_n_epochs` epochs, each `every_n_steps` steps, the end; with neither, each epoch. `made`
    are the arguments of the Recorder that say how model and data are made.
    """

    def __init__(self, path: str | Path, every_n_epochs: int | None, every_n_steps: int | None, **made: Any) -> None:
        for name, every in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if every is not None and every < 1:
                raise UseError(f"{name} is a number from 1, not {every}")
        if every_n_epochs is None and every_n_steps is None:
            every_n_epochs = 1
        self.run, self._made = Run(path), made
        self._epochs, self._steps = every_n_epochs, every_n_steps
        self._recorder: Recorder | None = None
        self._step = self._epoch = 0

    def begin(self, model: nn.Module, step: int, epoch: int) -> None:
        """Training begins after so many steps and whole epochs. With any, it goes on from a checkpoint: the values are no start,
        and are those of that step, where recorded ones of that and later steps are replaced."""
        self._step, self._epoch = step, epoch
        on = step > 0  # from a checkpoint that the library has loaded
        self._recorder = Recorder(self.run.path, model, resume=on, loaded=on, initial=not on, **self._made)
        if step:
            self._recorder.save(iteration=step)

    def step(self, step: int) -> None:
        """So many steps are done."""
        if self._steps is not None and step % self._steps == 0:
            self._save(step)

    def epoch(self, step: int) -> None:
        """One more epoch is done, after so many steps."""
        self._epoch += 1
        if self._epochs is not None and self._epoch % self._epochs == 0:
            self._save(step)

    def log(self, step: int, split: str, loss: SupportsFloat | None = None, error: SupportsFloat | None = None) -> None:
        """What the library's loop measured; what it measures before or after training is no part of it."""
        if self._recorder is not None and (loss is not None or error is not None):
            self._recorder.log(iteration=step, split=split, loss=loss, error=error)

    def end(self, step: int) -> None:
        """Training is over after so many steps."""
        if self._recorder is not None:
            self._recorder.finish(iteration=step)
        self._recorder = None

    def close(self) -> None:
        """Training was broken off."""
        if self._recorder is not None:
            self._recorder.close()
        self._recorder = None

    def _save(self, step: int) -> None:
        if self._recorder is not None and step > self._step:
            self._recorder.save(iteration=step)
            self._step = step
