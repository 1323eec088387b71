"""The states a network went through, read lazily."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from layerscope.errors import UseError
from layerscope.spec import fingerprint
from layerscope.state import State, check_dtypes, check_finite, check_shapes, check_tied, content_hash, shapes_of
from layerscope.step import FINAL, INIT, Step
from layerscope.store import SUMS, Folder, write_file

SUFFIX = ".safetensors"


class Trajectory:
    """Step -> State of one training run. Nothing is in memory until it is asked for.

    `trajectory[step]` is the whole state, `trajectory.tensors(step, names)` some of it; `FINAL` means the last step,
    `INIT` the start, which may be absent (`has_start`).
    """

    def __init__(self, sources: Mapping[Step, "Source"], firsts: Mapping[str, str] | None = None) -> None:
        if not sources:
            raise UseError("a trajectory needs at least one state")
        self._sources = dict(sorted(sources.items()))
        firsts = firsts or {}
        # Without tied tensors names need no looking up, which would open each file once more.
        self._firsts = firsts if any(name != first for name, first in firsts.items()) else {}
        self._held: dict[Step, dict[str, str]] = {}
        self.steps: tuple[Step, ...] = tuple(self._sources)

    def tied(self, firsts: Mapping[str, str]) -> "Trajectory":
        """The same trajectory for a model with tied tensors (`firsts` are its `first_names`): a checkpoint that has such a
        tensor under one of its names has it under all."""
        return Trajectory(self._sources, firsts)

    @classmethod
    def of(cls, initial: State | None = None, final: State | None = None, **at: State) -> "Trajectory":
        """A trajectory of states in memory: start and end, and any others by the names of their steps.

        With only `initial` and `final` the end is called epoch 1. Example: `Trajectory.of(initial=a, final=b)`.
        """
        states = {Step.parse(name.replace("_", "-")): state for name, state in at.items()}
        if initial is not None:
            states[INIT] = initial
        if final is not None:
            last = max(states, default=INIT)
            states[Step(last.epoch + 1)] = final
        return cls({step: Memory(state) for step, state in states.items()})

    @classmethod
    def open(cls, path: str | Path) -> "Trajectory":
        """The checkpoints of a folder that layerscope wrote: `epoch-00000.safetensors`, ... (a run's `checkpoints/`).

        A file that was never finished is not taken for a checkpoint: it is an error that names it.
        """
        folder = Folder(path)
        if not folder.path.is_dir():
            raise UseError(f"there is no folder {folder.path}")
        names = folder.names("*" + SUFFIX)
        if not names:
            raise UseError(f"{folder.path} holds no checkpoint (*{SUFFIX})")
        if absent := sorted(set(folder.listed()) - set(names)):
            raise UseError(
                f"{folder.path / absent[0]} is listed in {SUMS} but missing: it was deleted, or never finished"
            )
        return cls({_step_of(folder.path / name): File(folder, name) for name in names})

    @classmethod
    def read(cls, checkpoints: Sequence[str]) -> "Trajectory":
        """The trajectory of what a user names: a folder (see `open`), or files, each `STEP=FILE` with STEP init, final or
        epoch-N, or named after its step. One file alone, whatever its name, is the trained network."""
        if len(checkpoints) == 1 and Path(checkpoints[0]).is_dir():
            return Trajectory.open(checkpoints[0])
        named: dict[Step, Path] = {}
        for text in checkpoints:
            before, equals, after = text.partition("=")
            path = Path(after if equals else text)
            if path.suffix != SUFFIX:
                raise UseError(
                    f"{path} is not a {SUFFIX} file; write one with safetensors.torch.save_file(state, path)"
                )
            step = FINAL if len(checkpoints) == 1 and not equals else _step(before if equals else path.stem, text)
            if step in named:
                raise UseError(f"{named[step]} and {path} are both said to be the checkpoint {step}")
            named[step] = path
        if FINAL in named:  # the end of a trajectory is a step like the others: that after the last known one
            last = max((step.epoch for step in named if step != FINAL), default=0)
            named[Step(last + 1)] = named.pop(FINAL)
        return cls({step: File(Folder(path.parent), path.name) for step, path in named.items()})

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any value of any step."""
        hashes = {step.name: content_hash(source.read(None)) for step, source in self._sources.items()}
        return fingerprint(hashes)

    @property
    def has_start(self) -> bool:
        """Whether the values before any training are there."""
        return self.steps[0] == INIT

    def resolve(self, step: Step) -> Step:
        """The step of this trajectory that is meant; an absent one is an error that names those there are."""
        step = self.steps[-1] if step == FINAL else step
        if step not in self._sources:
            if step == INIT:
                raise UseError(
                    "this trajectory has no initial state; re-initialisation needs the values before training"
                )
            raise UseError(f"no checkpoint at {step}; there are {', '.join(map(str, self.steps[:12]))} ...")
        return step

    def __getitem__(self, step: Step) -> dict[str, Tensor]:
        return self.tensors(step, None)

    def tensors(self, step: Step, names: Iterable[str] | None) -> dict[str, Tensor]:
        """Some of the tensors of a step (all, with None)."""
        step = self.resolve(step)
        source = self._sources[step]
        if not self._firsts:
            return source.read(names)
        there = self._names(step)
        wanted = list(self._firsts) if names is None else list(names)
        found = source.read({there.get(name, name) for name in wanted})
        return {name: found[there.get(name, name)] for name in wanted}

    def _names(self, step: Step) -> dict[str, str]:
        """Name of a tensor of the model -> the name under which a step has it, if it has it; looked up once."""
        if step not in self._held:
            firsts, there = self._firsts, set(self._sources[step].shapes())
            held = {firsts[name]: name for name in reversed(list(firsts)) if name in there}
            self._held[step] = {
                name: name if name in there else held[first] for name, first in firsts.items() if first in held
            }
        return self._held[step]

    def in_memory(self, step: Step) -> bool:
        """Whether a step's tensors are those that somebody holds, and not read afresh each time."""
        return isinstance(self._sources[self.resolve(step)], Memory)

    def where(self, step: Step) -> str:
        """How to call a step in a message: its name, and its file if it has one."""
        step = self.resolve(step)
        return f"checkpoint {step} {self._sources[step].where}".strip()

    def check(self, model_state: State) -> None:
        """Refuse, before anything runs, a step that does not fit the model or holds a NaN; the error says which tensor.

        Tensors that are one in the model must be equal in every step.
        """
        expected = shapes_of(model_state)
        for step, source in self._sources.items():
            there = source.shapes()
            tied = {name: there[held] for name, held in self._names(step).items()} if self._firsts else {}
            check_shapes({**there, **tied}, expected, self.where(step))
        for step, source in self._sources.items():
            state = {name: tensor for name, tensor in source.read(None).items() if name in expected}
            check_dtypes(state, model_state, self.where(step))
            check_finite(state, model_state, self.where(step))
            check_tied(state, self._firsts, self.where(step))


class Memory:
    """A state in memory."""

    where = ""

    def __init__(self, state: State) -> None:
        self._state = {name: tensor.detach() for name, tensor in state.items()}

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        return dict(self._state) if names is None else {name: self._state[name] for name in names}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes_of(self._state)


class File:
    """A state in a safetensors file; its checksum is verified if the folder lists checksums."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self.where = f"({folder.path / name})"

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        wanted = None if names is None else list(names)
        return self._with_file(
            lambda file: {n: file.get_tensor(n) for n in (file.keys() if wanted is None else wanted)}
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._with_file(lambda file: {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()})  # noqa: SIM118

    def _with_file(self, use: Callable[[Any], Any]) -> Any:
        from safetensors import SafetensorError, safe_open

        listed = (self._folder.path / SUMS).exists()
        path = self._folder.file(self._name) if listed else self._folder.path / self._name
        try:
            with safe_open(path, framework="pt") as file:
                return use(file)
        except (SafetensorError, OSError) as problem:
            raise UseError(f"cannot read {path}: {problem}") from None


Source = Memory | File


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

    plain = _separate({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})

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
        separate[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return separate


def _step(name: str, text: str) -> Step:
    try:
        return Step.parse(name)
    except ValueError:
        raise UseError(
            f"which step is {text!r}? Write STEP=FILE with STEP init, final or epoch-00012, such as init={text}"
        ) from None


def _step_of(path: Path) -> Step:
    try:
        return Step.parse(path.stem)
    except ValueError:
        raise UseError(f"{path} is not named after a step; expected a name like epoch-00012{SUFFIX}") from None
