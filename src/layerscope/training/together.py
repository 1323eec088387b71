"""A stack of trainings on disk: each member a run of its own, and one file to go on from."""

import json
import math
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from layerscope.data import DataSet
from layerscope.device import device_named
from layerscope.errors import UseError
from layerscope.run import Run
from layerscope.runtime import Progress
from layerscope.step import Step
from layerscope.store import Folder
from layerscope.training.blocks import loaded
from layerscope.training.ending import Ending, Epoch, Past, ending
from layerscope.training.frozen import frozen_parts
from layerscope.training.loop import failure, rows_of, start
from layerscope.training.session import EVERY, drop, finish, left_over, refuse_other_data, session
from layerscope.training.spec import TrainSpec
from layerscope.training.stacked import Lap, Pair, Stacked
from layerscope.trajectory import save_state, write_tensors

NONE = (math.nan, math.nan)
"""Where nothing was measured: in training, before the first epoch."""
FORM = "1"
"""Of the file that a stack goes on from."""
SHARE = 0.05
"""Of the time that may go into saves: where one takes long, they are further apart than in a training alone."""


@dataclass
class Member:
    """One training of a stack: its run, and what is known of it."""

    run: Run
    spec: TrainSpec
    data: DataSet
    frozen: list[str]
    claim: ExitStack
    curve: array = field(default_factory=lambda: array("d"))
    """Cross-entropy and error of each split after each epoch, from 0; 10,000 epochs are little as numbers."""
    diverged: str = ""
    past: Past = field(default_factory=Past)
    end: Ending | None = None
    seconds: float = 0.0

    @property
    def splits(self) -> list[str]:
        """Those that the curve has, in its order."""
        return [name for name in ("train", "validation", "test") if name in self.data.splits]

    @property
    def epochs(self) -> int:
        """How many are over, one that diverged too."""
        return len(self.curve) // (2 * len(self.splits)) - 1

    def add(self, lap: Lap) -> None:
        """Another epoch is over; the first lap is the network before any data is seen."""
        pairs = {"train": lap.train or NONE} | lap.others
        for split in self.splits:
            self.curve.extend(pairs[split])
        self.diverged = lap.diverged
        if lap.train is not None:
            self.past.add(Epoch(lap.train[0], lap.others.get("validation", NONE)[1], lap.diverged))
        self.end = ending(self.spec, self.past)

    def go_on(self, curve: Sequence[float]) -> None:
        """Know again all epochs of a training that was stopped."""
        self.curve = array("d", curve)
        for epoch, pairs in enumerate(self.laps()):
            if epoch:
                self.past.add(Epoch(pairs["train"][0], pairs.get("validation", NONE)[1]))

    def laps(self) -> Iterator[dict[str, Pair]]:
        """Of each epoch so far the cross-entropy and error of each split."""
        numbers = iter(self.curve)
        for _ in range(self.epochs + 1):
            yield {split: (next(numbers), next(numbers)) for split in self.splits}

    @property
    def so_far(self) -> int:
        """The epoch whose network is the trained one, if no better comes."""
        return self.past.best if self.spec.until == "validation" else 0

    def kept(self) -> int | None:
        """The epoch whose network a checkpoint is to be written of, now; None if there is none."""
        epoch = self.epochs - bool(self.diverged)
        last = self.end is not None and self.end.epoch == epoch
        if self.diverged:
            return epoch if last else None
        return epoch if last or self.spec.keeps(epoch) or epoch == self.so_far else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The losses, as a training alone writes them."""
        for epoch, pairs in enumerate(self.laps()):
            if self.diverged and epoch == self.epochs:
                yield failure(epoch, len(self.data.train), self.diverged)
                return
            for split, (loss, error) in pairs.items():
                if epoch or split != "train":
                    yield from rows_of(epoch, split, loss, error, len(self.data.splits[split]))


def train_together(
    specs: Sequence[TrainSpec],
    outs: Sequence[str | Path],
    resume: Folder,
    name: str,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Run]:
    """Train networks of one form as one stack, and keep the trajectory of each in a run folder of its own, as `train` would.

    The members are those of a `Block`. `resume` is the folder with the file that all go on from after a stop, named `name`. Runs
    that are complete are left as they are. Values differ from those of separate trainings by rounding only; stopped and gone on
    with, a stack gives the same bits as without a stop (on a CPU, with as many threads).
    """
    device_named(device)
    sets = loaded([spec.data for spec in specs], data_dir)
    models = [start(spec, sets[spec.data]) for spec in specs]
    runs = [Run(out) for out in outs]
    with ExitStack() as held:
        claims = [held.enter_context(ExitStack()) for _ in runs]
        for claim, run, spec in zip(claims, runs, specs, strict=True):
            claim.enter_context(run.claim(spec))
            if run.trained:
                refuse_other_data(run, sets[spec.data], run.provenance["training"]["data"]["fingerprint"])
        members = [
            Member(
                run,
                spec,
                sets[spec.data],
                [part.name for part in frozen_parts(model, spec.freeze, spec.freeze_by)],
                claim,
            )
            for run, spec, model, claim in zip(runs, specs, models, claims, strict=True)
        ]
        if not all(run.trained for run in runs):
            stack = Stacked(specs, models, [member.data for member in members], device)
            _Session(members, stack, resume, name, device, progress).train()
        resume.remove(_file(name))
    return runs


class _Session:
    """Epochs of a stack, one after the other, and what is written after each."""

    def __init__(
        self, members: list[Member], stack: Stacked, resume: Folder, name: str, device: str, progress: Progress | None
    ) -> None:
        self._members, self._stack, self._progress = members, stack, progress
        self._resume, self._name, self._device = resume, name, device
        self._sessions: list[dict[str, Any]] = []
        self._resumed: int | None = None

    def train(self) -> None:
        for member in self._members:
            left_over(member.run)
        epoch = self._restored()
        self._sessions.append(session(self._device, epoch or 0))
        self._resumed = epoch
        if epoch is None:
            epoch = 0
            self._take(self._stack.measured(), 0.0)
        saved = time.monotonic()
        wait = EVERY
        while self._stack.members:
            epoch += 1
            began = time.perf_counter()
            laps = self._stack.epoch(epoch)
            self._take(laps, (time.perf_counter() - began) / len(laps))
            self._tell()
            if time.monotonic() - saved > wait and self._stack.members:
                began = time.monotonic()
                self._save(epoch)
                saved = time.monotonic()
                wait = max(EVERY, (saved - began) / SHARE)

    def _take(self, laps: dict[int, Lap], seconds: float) -> None:
        """What an epoch brought: checkpoints, and the members whose training has ended leave."""
        for i, lap in laps.items():
            member = self._members[i]
            member.add(lap)
            member.seconds += seconds
            if not member.run.trained and (epoch := member.kept()) is not None:
                save_state(member.run.checkpoints, Step(epoch), self._stack.values(i))
        for i in laps:
            member = self._members[i]
            if member.end is not None and not member.run.trained:
                finish(member.run, member.spec, member.data, list(member.rows()), member.end, self._facts(member))
                member.claim.close()  # it can be analysed, while the others go on
        self._stack.leave([i for i in laps if self._members[i].end is not None])

    def _facts(self, member: Member) -> dict[str, Any]:
        here = self._sessions[-1]
        return {
            "frozen": member.frozen,
            "device": here["device"],
            "threads": here["threads"],
            "sessions": self._sessions,
            "seconds": round(member.seconds, 2),
            "resumed_after_epoch": self._resumed,
            "stack": {"name": self._name, "members": len(self._members)},
        }

    def _tell(self) -> None:
        if self._progress is not None:
            most = self._members[0].spec.epochs
            done = sum(most if member.end is not None else member.epochs for member in self._members)
            self._progress("train", done, most * len(self._members))

    def _save(self, epoch: int) -> None:
        """One file for all that the rest depends on, so that its parts can never be of different moments."""
        alive = self._stack.members
        tensors = self._stack.state()
        for i in alive:
            tensors[f"curve.{i}"] = torch.tensor(self._members[i].curve, dtype=torch.float64)
        about = {
            "form": FORM,
            "epoch": str(epoch),
            "members": json.dumps(alive),
            "seconds": json.dumps([self._members[i].seconds for i in alive]),
            "data": json.dumps([member.data.fingerprint for member in self._members]),
            "sessions": json.dumps(self._sessions),
        }
        write_tensors(self._resume, _file(self._name), tensors, about)
        spec = self._members[0].spec
        kept = {k for k in range(epoch + 1) if spec.keeps(k)}
        for member in (self._members[i] for i in alive):
            if not member.run.trained:  # one that had ended before a stop has all that it keeps
                drop(member.run, kept | {member.so_far})

    def _restored(self) -> int | None:
        """The epoch that the stack goes on from; None if it never came to the first save. A member that ended after the save is
        trained again with the others, to the same bits, and written only once."""
        if not self._resume.has(_file(self._name)):
            return None
        with safe_open(self._resume.file(_file(self._name)), framework="pt") as file:
            about = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.get("form") != FORM:
            raise UseError(f"{self._resume.path / _file(self._name)} is of another version; delete it to begin again")
        for member, before in zip(self._members, json.loads(about["data"]), strict=True):
            refuse_other_data(member.run, member.data, before)
        self._sessions = json.loads(about["sessions"])
        alive = json.loads(about["members"])
        for i, seconds in zip(alive, json.loads(about["seconds"]), strict=True):
            member = self._members[i]
            member.go_on(state.pop(f"curve.{i}").tolist())
            member.seconds = seconds
        for member in (self._members[i] for i in set(range(len(self._members))) - set(alive)):
            if not member.run.trained:
                raise UseError(
                    f"{member.run.path} was complete and is gone; to train it again, and the rest of its stack from the start, "
                    f"delete {self._resume.path / _file(self._name)}"
                )
            member.end = Ending(member.run.ending["epoch"], "", 0)
        self._stack.restore(alive, state)
        return int(about["epoch"])


def _file(name: str) -> str:
    return f"resume/{name}.safetensors"
