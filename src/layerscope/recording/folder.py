"""A recording on disk, held by the process that writes it."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakValueDictionary

import torch

from layerscope.checkpoints.safetensors_file import SafetensorsFile
from layerscope.errors import UseError
from layerscope.recording.curves import Row, merged, without_run
from layerscope.recording.network import not_finite
from layerscope.recording.spec import RecordSpec
from layerscope.run import REPORT, TRAINING, Run, environment
from layerscope.runtime import EVERY
from layerscope.state import State, dense
from layerscope.step import INIT, Step
from layerscope.store import Folder
from layerscope.table import Table
from layerscope.trajectory import SUFFIX, save_state

ROWS = "resume/recording.json"
_OPEN: "WeakValueDictionary[str, Recording]" = WeakValueDictionary()
"""Folder -> what this process records there: a notebook's cell that is run again begins another one."""


class Recording:
    """The run folder of a recording: its checkpoints so far, the rows of its curves, and what its provenance says of it.

    Held from the beginning until `finish` or `close`. A folder that has anything but this recording is refused; see `Recorder`.
    """

    def __init__(
        self,
        run: Run,
        spec: RecordSpec,
        state: State,
        made: dict[str, str],
        *,
        resume: bool,
        loaded: bool,
        initial: bool,
    ) -> None:
        self.run, self.over, self._rows, self._written = run, "", list[Row](), time.monotonic()
        place = str(run.path.resolve())
        if former := _OPEN.get(place):
            former.close()
        with ExitStack() as held:
            held.enter_context(run.claim(spec, "choose another folder"))
            self._begin(state, resume, loaded, initial)
            source = {name: text for name, text in made.items() if text}
            self._record(spec=spec.fingerprint, source=self._facts.get("source", {}) | source)
            self._lock = held.pop_all()
        _OPEN[place] = self

    def keep(self, step: Step, state: State) -> bool:
        """Write a checkpoint, but for one with values that are not finite any more; whether it was written."""
        if wrong := self._turned(state):
            self._record(diverged=f"{wrong[0]} was not finite at {step}")
            return False
        self._outdate()
        save_state(self.run.checkpoints, step, state)
        self.steps.append(step)
        if self._facts.get("diverged"):
            self._record(diverged="")
        self.flush()
        return True

    def drop(self, step: Step) -> None:
        """Take away what was recorded of a moment and all later ones; the last first, so that what is left is always the
        beginning of one training. What was logged at that moment stays, until it is logged again. An error if the model had the
        values of a later moment when this session began: then it is not trained again."""
        if self._held is not None and step < self._held:
            raise UseError(
                f"{step} is told, but when the Recorder was made the model had the values of {self._held}: count on from there, "
                "or load an earlier checkpoint of yours before making the Recorder"
            )
        if self.steps and self.steps[-1] >= step:
            self._outdate()
            self._record(end="")
        while self.steps and self.steps[-1] >= step:
            self.run.checkpoints.remove(self.steps.pop().name + SUFFIX)
        self._before = [row for row in self._before if row["step"] <= (step.epoch or step.iteration)]

    def add(self, rows: Sequence[Row]) -> None:
        """Rows of `training.parquet`."""
        self._rows += rows
        if time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Write the rows so far."""
        self.run.folder.write(ROWS, json.dumps(merged(self._before, self._rows)).encode())
        self._written = time.monotonic()

    def finish(self, state: State, seen: Step | None, unit: str) -> None:
        """Write the values at the end, and that they are the end; and let go."""
        self._keep_end(state, seen, unit)
        if rows := merged(self._before, self._rows):
            named = [{"run": self.run.name, **row} for row in rows]
            self.run.folder.write(TRAINING, Table.of(named, environment() | {"step_unit": unit}).save)
        self._record(finished=True)
        self.run.folder.remove(ROWS)
        self._let_go("finished")

    def close(self) -> None:
        """Write what is not written yet, and let go."""
        if not self.over:
            self.flush()
            self._let_go("closed")

    def _outdate(self) -> None:
        """Take away a report of other checkpoints than there are soon. One that is made anew says which analyses are of those."""
        self.run.folder.remove(REPORT)

    def _let_go(self, over: str) -> None:
        self._lock.close()
        self.over = over

    def _begin(self, state: State, resume: bool, loaded: bool, initial: bool) -> None:
        checkpoints = self.run.checkpoints
        tidy(checkpoints)
        self.steps = [step for step, _ in _listed(checkpoints)]
        self._facts = dict(self.run.recording)
        after = self.steps[-1] if self.steps else None
        self._held = held = next((step for step in reversed(self.steps) if self._holds(step, state)), None)
        if after is not None:
            self._check(after, held, resume, loaded)
        elif initial:
            save_state(checkpoints, INIT, state)
            self.steps, self._held, held = [INIT], INIT, INIT
        self._before = self._recorded()
        self.flush()
        session = {"after": _name(after), "held": _name(held), **environment()}
        self._record(finished=False, sessions=[*self._facts.get("sessions", []), session])
        self.run.folder.remove(TRAINING)

    def _check(self, last: Step, held: Step | None, resume: bool, loaded: bool) -> None:
        """Refuse to go on with a recording where that was not asked, or where it could not be the same one."""
        if self._facts.get("finished") and not (resume and held == last):
            raise UseError(
                f"{self.run.path} has a finished recording; choose another folder. It goes on only with resume=True and a model "
                f"that has the values of its last checkpoint, {last}"
            )
        if not resume and not last == held == INIT:
            raise UseError(
                f"{self.run.path} has a recording until {last}; choose another folder, or go on with it: load the checkpoint of "
                "yours that the training goes on from, then make the Recorder with resume=True"
            )
        if not loaded and held != last and held in (None, INIT):
            whose = "those of the start" if held == INIT else "those of none of its checkpoints"
            raise UseError(
                f"{self.run.path} has a recording until {last}, but the model's values are {whose}, as if it were new: load the "
                "checkpoint of yours that the training goes on from before making the Recorder; if you did, and no checkpoint "
                "was recorded at that moment, say loaded=True; for another training choose another folder"
            )

    def _keep_end(self, state: State, seen: Step | None, unit: str) -> None:
        """The end is the last moment told; or one after it, where that one was written with other values."""
        last = self.steps[-1] if self.steps else INIT
        if seen is not None and seen > last:
            self.keep(seen, state)
        elif not self.steps or not self._holds(last, state):
            end = Step.of(last.number(unit) + 1, unit)
            if self.keep(end, state):
                where = f"which are not those of {last}: it is one {unit} later only for the order"
                self._record(end=f"{end} has the values at the end of training, {where}")

    def _record(self, **facts: Any) -> None:
        if self._facts | facts != self._facts:
            self._facts |= facts
            self.run.record("recording", self._facts)

    def _recorded(self) -> list[Row]:
        """The rows of former sessions; of a finished recording too."""
        if self.run.folder.has(ROWS):
            return self.run.folder.read_json(ROWS)
        return without_run(self.run.training()) if self.run.trained else []

    def _turned(self, state: State) -> list[str]:
        """The tensors that are not finite and were, when the recording began: a mask may be meant to have infinity."""
        wrong = not_finite(state)
        meant = not_finite(self._file(self.steps[0]).read(wrong)) if wrong and self.steps else wrong
        return [name for name in wrong if name not in meant]

    def _holds(self, step: Step, state: State) -> bool:
        """Whether a checkpoint has these values. One tensor at a time is read, until one differs."""
        there = self._file(step)
        return all(torch.equal(there.read([name])[name], dense(tensor).cpu()) for name, tensor in state.items())

    def _file(self, step: Step) -> SafetensorsFile:
        return SafetensorsFile(self.run.checkpoints.path / (step.name + SUFFIX))


def tidy(checkpoints: Folder) -> None:
    """Drop what a killed process left: a file that it was taking away, and the entry of one that it had not yet written."""
    for name in set(checkpoints.names("*" + SUFFIX)) - set(checkpoints.listed()):
        checkpoints.remove(name)
    if (listed := _listed(checkpoints)) and not (checkpoints.path / listed[-1][1]).exists():
        checkpoints.remove(listed[-1][1])


def _listed(checkpoints: Folder) -> list[tuple[Step, str]]:
    """The steps whose checkpoints should be there, and the names of their files, in order."""
    return sorted((Step.parse(name.removesuffix(SUFFIX)), name) for name in checkpoints.listed())


def _name(step: Step | None) -> str:
    return "" if step is None else step.name
