"""The states a network went through, read lazily."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.checkpoints import SUFFIX, Fit, Memory, Source, Wanted, find
from layerscope.checkpoints.notes import listed, notes
from layerscope.checkpoints.repeats import LARGE, repeats
from layerscope.errors import UseError
from layerscope.spec import fingerprint
from layerscope.state import State, check_dtypes, check_finite, check_shapes, check_tied, content_hash, dense, shapes_of
from layerscope.step import FINAL, INIT, PRETRAINED, Step, parsed, unit_of
from layerscope.store import Folder, write_file

Version = Any


class Trajectory:
    """Step -> State of one training run. Nothing is in memory until it is asked for.

    `trajectory[step]` is the whole state, `trajectory.tensors(step, names)` some of it; `FINAL` means the last step,
    `INIT` the start, which may be absent (`has_start`), or a `pretrained` network. Steps are counted in `unit`: epoch,
    iteration, or checkpoint where nobody knows what their numbers count.
    """

    def __init__(
        self,
        sources: Mapping[Step, Source],
        unit: str = "",
        notes: Sequence[str] = (),
        wanted: Wanted | None = None,
        pretrained: bool = False,
    ) -> None:
        if not sources:
            raise UseError("a trajectory needs at least one state")
        self._sources = dict(sorted(sources.items()))
        self._notes, self._wanted = tuple(notes), wanted
        if pretrained and len(sources) == 1:
            raise UseError(
                "a pretrained network is where a fine-tuning began; the fine-tuned one is missing: final=..."
            )
        self.pretrained = pretrained
        self._fits: dict[Step, Fit] = {}
        self._lacking: dict[str, tuple[int, ...] | None] | None = None
        self._passed: dict[Step, tuple[Version, str]] = {}
        self._hashed: dict[Step, tuple[Version, dict[str, str]]] = {}
        self.steps: tuple[Step, ...] = tuple(self._sources)
        self.unit = unit or unit_of(self.steps)

    def ends(self) -> "Trajectory":
        """The start, where there is one, and the trained values, held in memory: for whoever asks for them in every draw."""
        found = {"final": self.tensors(FINAL, None)}
        if self.has_start:
            found["pretrained" if self.pretrained else "initial"] = self.tensors(INIT, None)
        return Trajectory.of(**found)

    def fitted(self, model: nn.Module) -> "Trajectory":
        """The same trajectory by the names that tensors have in a model. Prefixes of wrappers such as `module.` are taken off
        where the names of a checkpoint fit the model without them; that of a base model such as `transformer.`, which its own
        checkpoint does not have, is put before them; and a checkpoint that has a tied tensor under one of its names has it
        under all."""
        wanted = Wanted.of(model)
        if wanted == self._wanted:
            return self
        return Trajectory(self._sources, self.unit, self._notes, wanted, self.pretrained)

    @classmethod
    def of(cls, initial: State | None = None, final: State | None = None, **at: State) -> "Trajectory":
        """A trajectory of states in memory: start and end, and any others by the names of their steps.

        With only `initial` and `final` the end is called epoch 1. Examples: `Trajectory.of(initial=a, final=b)`,
        `Trajectory.of(initial=a, step_500=b, step_1000=c)`. A fine-tuning starts from a pretrained network, which may lack
        tensors of the model, or have them in other shapes: `Trajectory.of(pretrained=a, final=b)`.
        """
        named = {name: parsed(name.replace("_", "-")) for name in at}
        states = {step: at[name] for name, (step, _) in named.items()}
        units = {unit for _, unit in named.values() if unit}
        if len(units) > 1:
            raise UseError(f"the steps of a trajectory are counted in one thing, not in {' and '.join(sorted(units))}s")
        unit = next(iter(units), "")
        if initial is not None:
            if INIT in states:
                raise UseError("a trajectory has one start: either initial values or those of a pretrained network")
            states[INIT] = initial
        if final is not None:
            last = max(states, default=INIT)
            states[Step.of(last.number(unit) + 1, unit)] = final
        sources = {step: Memory(state) for step, state in states.items()}
        return cls(sources, unit, pretrained=PRETRAINED in at)

    @classmethod
    def open(cls, path: str | Path) -> "Trajectory":
        """The checkpoints of a folder, named after their steps: `epoch-00000.safetensors`, ... (a run's `checkpoints/`).

        A file that layerscope never finished is not taken for a checkpoint: it is an error that names it.
        """
        if not Path(path).is_dir():
            raise UseError(f"there is no folder {path}")
        return cls.read([str(path)])

    @classmethod
    def read(cls, checkpoints: Sequence[str]) -> "Trajectory":
        """The trajectory of what a user names: folders, files or globs of checkpoints named after their steps, and STEP=FILE
        with STEP init, final, epoch-12 or step-500. One file alone, whatever its name, is the trained network.

        Formats: safetensors, files of `torch.save` (a state dict, alone or under a key such as `state_dict`; Lightning's
        `.ckpt`), folders of Hugging Face, in one file or in shards. Nothing of a file is ever executed. A start that says itself
        how many steps of the optimizer were done (`global_step`) is none: epochs that count from 0 are counted from 1 then.
        """
        found = find(checkpoints)
        return cls(found.sources, found.unit, found.notes, pretrained=found.pretrained)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any value of any step."""
        return fingerprint({step.name: fingerprint(self._hashes(step)) for step in self.steps})

    @property
    def has_start(self) -> bool:
        """Whether the values before training are there: random ones, or those of a pretrained network."""
        return self.steps[0] == INIT

    def at(self, number: int) -> Step:
        """The step of a number in this trajectory's unit."""
        return self.resolve(Step.of(number, self.unit))

    def number(self, step: Step) -> int:
        """A step as a number in this trajectory's unit."""
        return self.resolve(step).number(self.unit)

    def coordinates(self, step: Step) -> dict[str, int]:
        """How a table places a step."""
        step = self.resolve(step)
        within = {"iteration": step.iteration} if step.iteration and self.unit != "iteration" else {}
        return {"step": step.number(self.unit)} | within

    def resolve(self, step: Step) -> Step:
        """The step of this trajectory that is meant; an absent one is an error that names those there are."""
        step = self.steps[-1] if step == FINAL else step
        if step not in self._sources:
            if step == INIT:
                raise UseError(
                    "this trajectory has no initial state; re-initialisation needs the values before training"
                )
            there = ", ".join(map(self.called, self.steps[:12]))
            raise UseError(f"no checkpoint at {self.called(step)}; there are {there} ...")
        return step

    def __getitem__(self, step: Step) -> dict[str, Tensor]:
        return self.tensors(step, None)

    def tensors(self, step: Step, names: Iterable[str] | None) -> dict[str, Tensor]:
        """Some of the tensors of a step (all, with None)."""
        step = self.resolve(step)
        source = self._sources[step]
        if self._wanted is None:
            return source.read(names)
        held = self._fit(step).held
        lacking = self.lacking(step)
        wanted = [name for name in self._wanted.firsts if name not in lacking] if names is None else list(names)
        if absent := [name for name in wanted if name in lacking]:
            raise UseError(f"{self.where(step)} does not have the model's {absent[0]}")
        found = source.read({held.get(name, name) for name in wanted})
        return {name: found[held.get(name, name)] for name in wanted}

    def lacking(self, step: Step) -> dict[str, tuple[int, ...] | None]:
        """The model's tensors that a pretrained network does not have -> their shape there, where they have another one. Of any
        other step there are none: there it is an error."""
        step = self.resolve(step)
        if self._wanted is None or not (self.pretrained and step == INIT):
            return {}
        if self._lacking is None:
            there, wanted = self._fit(step).shapes(self._sources[step].shapes()), self._wanted.shapes
            self._lacking = {name: there.get(name) for name, shape in wanted.items() if there.get(name) != shape}
        return self._lacking

    def _fit(self, step: Step) -> Fit:
        """Under which names a step has the tensors of the model; looked up once."""
        assert self._wanted is not None
        if step not in self._fits:
            self._fits[step] = self._wanted.fit(self._sources[step].shapes(), self.where(step))
        return self._fits[step]

    def in_memory(self, step: Step) -> bool:
        """Whether a step's tensors are those that somebody holds, and not read afresh each time."""
        return isinstance(self._sources[self.resolve(step)], Memory)

    def called(self, step: Step) -> str:
        """The name of a step in this trajectory, as a user may write it too."""
        if self.pretrained and step == INIT:
            return PRETRAINED
        if self.unit == "epoch" or step in (INIT, FINAL) or (self.unit == "iteration" and step.epoch):
            return str(step)
        return f"{self.unit}-{step.number(self.unit)}"

    def where(self, step: Step) -> str:
        """How to call a step in a message: its name, and its file if it has one."""
        step = self.resolve(step)
        if self.pretrained and step == INIT:
            return f"the pretrained network {self._sources[step].where}".strip()
        name = "" if self.unit == "checkpoint" and step != INIT else "checkpoint "
        return f"{name}{self.called(step)} {self._sources[step].where}".strip()

    def check_end(self) -> None:
        """Refuse a trajectory that has nothing but a start: it would be taken for the trained network."""
        if self.steps == (INIT,):
            raise UseError("there is nothing but the start: the trained network is missing (final=...)")

    def check(self, model_state: State) -> None:
        """Refuse, before anything runs, a step that does not fit the model or holds a NaN; the error says which tensor.

        A pretrained network may lack tensors, but not all. Tensors that are one in the model must be equal in every step. Each
        file is read once, for as long as it stays the same; what is needed to say whether two are equal is kept of that reading.
        """
        if self._wanted is None:
            wanted = Wanted({name: name for name in model_state}, shapes=shapes_of(model_state))
            Trajectory(self._sources, self.unit, wanted=wanted, pretrained=self.pretrained).check(model_state)
            return
        expected, model = shapes_of(model_state), _signature(model_state, self._wanted)
        versions = {step: source.version() for step, source in self._sources.items()}
        new = [s for s, version in versions.items() if version is None or self._passed.get(s) != (version, model)]
        for step in new:
            self._fits.pop(step, None)
            self._lacking = None
            self._check_shapes(step, expected)
        for step in new:
            self._examine(step, model_state, versions[step])
            self._passed[step] = versions[step], model

    def _check_shapes(self, step: Step, expected: Mapping[str, tuple[int, ...]]) -> None:
        if not (self.pretrained and step == INIT):
            check_shapes(self._fit(step).shapes(self._sources[step].shapes()), expected, self.where(step))
        elif len(self.lacking(step)) == len(expected):
            names, ours = ", ".join(list(self._sources[step].shapes())[:3]), ", ".join(list(expected)[:3])
            raise UseError(
                f"{self.where(step)} has no tensor of the model, by name and shape: it has {names}, ..., the model {ours}, ..."
            )

    def _examine(self, step: Step, model_state: State, version: Version) -> None:
        """Read a step once, see whether it may be the model's, and keep the hashes of its tensors."""
        assert self._wanted is not None
        state, where = self.tensors(step, None), self.where(step)
        check_dtypes(state, model_state, where)
        check_finite(state, model_state, where)
        check_tied(state, self._wanted.firsts, where)
        if version is not None:
            self._hashed[step] = version, _hashes(state)

    def _hashes(self, step: Step) -> dict[str, str]:
        """Tensor -> hash of its name and values; of a file, found once for as long as it stays the same."""
        version = self._sources[step].version()
        if version is None:
            return _hashes(self.tensors(step, None))
        if self._hashed.get(step, (None, {}))[0] != version:
            self._hashed[step] = version, _hashes(self.tensors(step, None))
        return self._hashed[step][1]

    def warnings(self) -> list[str]:
        """What is odd about the checkpoints: those that hold the same values, as published ones have been found to. The
        trajectory is that of a model (`fitted`)."""
        if len(self.steps) == 1:
            return []
        shapes = self._fit(self.steps[0]).shapes(self._sources[self.steps[0]].shapes())
        hashes = {self.called(step): self._hashes(step) for step in self.steps}
        shared = set.intersection(*(set(each) for each in hashes.values()))
        large = [name for name, shape in shapes.items() if math.prod(shape) >= LARGE and name in shared]
        said = repeats(hashes, large)
        first, last = (hashes[self.called(step)] for step in (self.steps[0], self.steps[-1]))
        if self.has_start and first == last:
            said.append(
                "the first checkpoint holds the values of the last: nothing changes where a part is put back to it"
            )
        return said

    def facts(self) -> dict[str, Any]:
        """What the provenance of a table says: what steps are counted in, and what was decided to read the checkpoints, after
        they were checked."""
        told = [*self._notes]
        if self._wanted is not None:
            unders = {self.called(step): source.under for step, source in self._sources.items()}
            told += notes(unders, {self.called(step): self._fit(step) for step in self.steps})
            told += self._differing()
        start = {"start": PRETRAINED} if self.pretrained else {}
        return {"step_unit": self.unit, **start, **({"checkpoints": told} if told else {})}

    def _differing(self) -> list[str]:
        """What a pretrained network has that the model does not have, and the other way round."""
        if not self.pretrained:
            return []
        used = set(self._fit(INIT).held.values())
        surplus = [name for name in self._sources[INIT].shapes() if name not in used]
        absent = [name for name, shape in self.lacking(INIT).items() if shape is None]
        other = [name for name, shape in self.lacking(INIT).items() if shape is not None]
        what = {
            "has tensors that this one does not have": surplus,
            "does not have tensors of this one": absent,
            "has tensors of this one in other shapes": other,
        }
        return [f"the pretrained network {text}: {listed(names)}" for text, names in what.items() if names]


def _signature(state: State, wanted: Wanted) -> str:
    """What decides whether a checkpoint passes: names, shapes and dtypes, and where the model itself has values that are not
    finite."""
    about = {name: [list(tensor.shape), str(tensor.dtype), wanted.firsts.get(name)] for name, tensor in state.items()}
    held = {name: dense(tensor) for name, tensor in state.items() if tensor.is_floating_point() and not tensor.is_meta}
    finite = {name: torch.isfinite(tensor) for name, tensor in held.items()}
    return fingerprint([about, content_hash({name: where for name, where in finite.items() if not where.all()})])


def _hashes(state: State) -> dict[str, str]:
    return {name: content_hash({name: tensor}) for name, tensor in state.items()}


def save_state(folder: Folder, step: Step, state: State) -> None:
    """Write the checkpoint of a step."""
    write_tensors(folder, step.name + SUFFIX, state)


def write_tensors(folder: Folder, name: str, tensors: State, about: dict[str, str] | None = None) -> None:
    """Write a safetensors file of a folder whole or not at all, with texts in its header."""
    folder.write(name, _writer(tensors, about))


def export_tensors(path: Path, tensors: State, about: dict[str, str] | None = None) -> None:
    """Write a safetensors file anywhere, whole or not at all."""
    write_file(path, _writer(tensors, about))


def _writer(tensors: State, about: dict[str, str] | None) -> Callable[[Path], None]:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _separate({key: dense(tensor.detach()).cpu().contiguous() for key, tensor in tensors.items()})

    def write(path: Path) -> None:
        try:
            save_file(plain, path, about)
        except SafetensorError as problem:  # a full disk, for one
            raise OSError(str(problem)) from None

    return write


def _separate(tensors: State) -> dict[str, Tensor]:
    """The same values without shared memory, which the format refuses: tied tensors are written under each name."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return separate
