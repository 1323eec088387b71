"""The module calls of one forward, with what each returned, so that another forward need not make them again."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from layerscope.engine.batches import with_each
from layerscope.engine.task import Unsplittable
from layerscope.engine.untouched import Kept

NEVER = 1 << 62
"""The moment of what does not happen."""
ABSENT = object()
"""Stands for an output that was not kept."""


@dataclass
class Call:
    """One call of a module: `size` calls with those inside it, from the moment `entered` to `ended`.

    `output` is what it returned, if that was kept, and `nbytes` what that takes; `versions` tell whether something wrote to it
    since. `overwritten` says that something does, so that copies are kept and given; `writes` that the call writes to what is
    older than itself, and `plain` that its output can be given twice.
    """

    module: nn.Module
    entered: int
    ended: int = NEVER
    size: int = 1
    seconds: float = 0.0
    nbytes: int = 0
    output: Any = ABSENT
    versions: list[int] = field(default_factory=list)
    overwritten: bool = False
    writes: bool = False
    plain: bool = False

    def intact(self) -> bool:
        """Whether the output is there, as it was when the call ended."""
        return self.output is not ABSENT and _versions(self.output) == self.versions


@dataclass(frozen=True)
class Wanted:
    """What to keep of further forwards: the numbers of calls whose outputs are needed, and of those that are overwritten; and
    how many bytes there are for them."""

    kept: frozenset[int] = frozenset()
    overwritten: frozenset[int] = frozenset()
    memory: int = 0


NOTHING = Wanted()


class Tape:
    """Listens to the calls of a model's modules: `record` makes a forward and keeps what calls returned; `replay` makes one
    in which calls that ended before a moment return what was kept.

    Moments count calls entered, calls ended, and first uses of tensors, which `first_use` gives by storage.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.first_use: dict[int, int] = {}
        self._clock = 0
        self._born: dict[int, int] = {}
        self._returned: dict[int, list[Call]] = {}
        self._open: list[Call] = []
        self._hear: Callable[[nn.Module, Callable[..., Any], Any, Any], Any] | None = None
        self._before: _State = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the model's modules can be recorded and replayed."""
        before = [(module, vars(module).get("forward")) for module in self.model.modules()]
        for module, _ in before:
            module.forward = self._heard(module, module.forward)
        try:
            yield
        finally:
            self._before = {}  # it has the functions above, which have this: a circle would live on with all outputs
            for module, own in before:
                if own is None:
                    vars(module).pop("forward", None)
                else:
                    module.forward = own  # type: ignore[method-assign]

    def _heard(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def heard(*args: Any, **kwargs: Any) -> Any:
            hear = self._hear
            return forward(*args, **kwargs) if hear is None else hear(module, forward, args, kwargs)

        return heard

    def record(self, forward: Callable[[], Any], storages: Iterable[int], wanted: Wanted = NOTHING) -> Any:
        """What a forward gives. Notes when it first uses tensors of these storages, and what its calls take; the wanted outputs
        are kept, as far as there is room. Checks as `check` does."""
        self.calls, self.first_use, self._clock, self._open = [], {}, 0, []
        self._born, self._returned = {}, {}
        self._before = self._before or _state(self.model)
        with _Watch(self, frozenset(storages)), self._hearing(self._recording(wanted)):
            outputs = forward()
        self.check()
        for call in self.calls:
            if call.output is not ABSENT and not call.intact():
                call.output, call.overwritten = ABSENT, True
        return outputs

    def replay(self, forward: Callable[[], Any], until: int) -> Any:
        """What a forward gives whose changed values are first used at the moment `until`: calls that ended before return what
        was kept of them. Raises `Unsplittable` if it calls other modules than it did."""
        given: list[Call] = []
        with self._hearing(self._replaying(until, given)):
            outputs = forward()
        for call in given:
            spoilt = not call.overwritten and not call.intact()
            if spoilt:  # this forward wrote to it: it is right here, and nowhere else
                call.output, call.overwritten = ABSENT, True
        return outputs

    def check(self) -> None:
        """Raises `Unsplittable` if modules have changed themselves since the first record: what they would do to each other is
        not on the tape."""
        if changed := _changed(self._before):
            raise Unsplittable(f"{changed} changes itself in its forward")

    def wanted(self, moments: Iterable[int], memory: int) -> Wanted:
        """What replays until these moments need of the calls on the tape: the largest calls that ended before. Where that is
        more than `memory` bytes, those that save the least time a byte are left out, and made again each time."""
        needed = {number for until in set(moments) for number in self._ended_before(until)}
        overwritten = frozenset(number for number, call in enumerate(self.calls) if call.overwritten)
        kept: set[int] = set()
        room = memory
        for number in sorted(needed, key=lambda number: -self.calls[number].seconds / (self.calls[number].nbytes + 1)):
            if self.calls[number].nbytes <= room:
                room -= self.calls[number].nbytes
                kept.add(number)
        return Wanted(frozenset(kept), overwritten, memory)

    def nbytes(self, wanted: Wanted) -> int:
        """What the wanted outputs take."""
        return sum(call.nbytes for number, call in enumerate(self.calls) if number in wanted.kept)

    def _ended_before(self, until: int) -> Iterator[int]:
        number = 0
        while number < len(self.calls) and self.calls[number].entered < until:
            call = self.calls[number]
            if call.ended < until and call.plain and not call.writes:
                yield number
                number += call.size
            else:
                number += 1

    @contextmanager
    def _hearing(self, hear: Callable[[nn.Module, Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
        self._hear = hear
        try:
            yield
        finally:
            self._hear = None

    def tick(self) -> int:
        """The next moment."""
        self._clock += 1
        return self._clock

    def made(self, storage: int) -> None:
        """There are new values; what was at this place before is gone."""
        self._born[storage] = self.tick()
        self._returned.pop(storage, None)

    def wrote(self, storage: int) -> None:
        """Something was written to: a call that goes on and is younger must be made each time, and of one that returned it a
        copy be kept."""
        for call in self._open:
            call.writes |= call.entered > self._born.get(storage, 0)
        for call in self._returned.get(storage, ()):
            if not call.overwritten:
                call.output, call.overwritten = ABSENT, True

    def _recording(self, wanted: Wanted) -> Callable[[nn.Module, Callable[..., Any], Any, Any], Any]:
        room = wanted.memory

        def hear(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            nonlocal room
            number, call = len(self.calls), Call(module, self.tick())
            self.calls.append(call)
            self._open.append(call)
            began = time.perf_counter()
            outputs = forward(*args, **kwargs)
            call.seconds = time.perf_counter() - began
            self._open.pop()
            call.ended, call.size = self.tick(), len(self.calls) - number
            call.overwritten = number in wanted.overwritten
            held = _held(outputs)
            call.nbytes, call.plain = sum(held.values()), _plain(outputs)
            for storage in held:
                self._returned.setdefault(storage, []).append(call)
            if number in wanted.kept and call.nbytes <= room and not call.writes and call.plain:
                room -= call.nbytes
                call.output = with_each(outputs, _copied) if call.overwritten else outputs
                call.versions = _versions(call.output)
            return outputs

        return hear

    def _replaying(self, until: int, given: list[Call]) -> Callable[[nn.Module, Callable[..., Any], Any, Any], Any]:
        place = 0

        def hear(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            nonlocal place
            if place >= len(self.calls) or self.calls[place].entered > until:
                self._hear = None  # nothing that comes now ended before
                return forward(*args, **kwargs)
            call = self.calls[place]
            if call.module is not module:
                raise Unsplittable(
                    f"its forward calls {type(module).__name__} in place of {type(call.module).__name__}"
                )
            if call.ended < until and call.output is not ABSENT:
                place += call.size
                given.append(call)
                return with_each(call.output, _copied if call.overwritten else _itself)
            place += 1
            return forward(*args, **kwargs)

        return hear


class _Watch(TorchDispatchMode):
    """Notes the moment at which an operation is first given a tensor of some storages; and which of the calls that are going
    on write to what is older than they: to give their output again would leave that undone."""

    def __init__(self, tape: "Tape", storages: frozenset[int]) -> None:
        super().__init__()
        self._tape, self._storages = tape, storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {storage_of(tensor) for tensor in _tensors((args, kwargs))}
        for storage in given & self._storages:
            self._tape.first_use.setdefault(storage, self._tape.tick())
        if func._schema.is_mutable:
            self._written(func, args, kwargs)
        outputs = func(*args, **kwargs)
        for storage in map(storage_of, _tensors(outputs)):
            if storage not in given:
                self._tape.made(storage)
        return outputs

    def _written(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        for at, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            for tensor in _tensors(args[at] if at < len(args) else kwargs.get(argument.name)):
                self._tape.wrote(storage_of(tensor))


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in what an operation is given, or gives."""
    if isinstance(value, Tensor):
        return [value]
    inner = value if isinstance(value, tuple | list) else value.values() if isinstance(value, dict) else ()
    return [tensor for each in inner for tensor in _tensors(each)]


def storage_of(tensor: Tensor) -> int:
    """Where a tensor's values lie; 0 for those that lie nowhere (sparse ones, fakes)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def _held(outputs: Any) -> dict[int, int]:
    """Storage -> bytes of all in which an output lies: to keep a view is to keep all that it is a view of."""
    tensors = [leaf for leaf in tree_iter(outputs) if isinstance(leaf, Tensor)]
    places = [(storage_of(tensor), tensor) for tensor in tensors]
    return {place: tensor.untyped_storage().nbytes() if place else tensor.nbytes for place, tensor in places}


def _plain(outputs: Any) -> bool:
    """Whether an output is tensors and plain values in tuples, lists and dictionaries: what can be given twice."""
    if type(outputs) in (tuple, list, torch.Size) or hasattr(outputs, "_fields"):
        return all(map(_plain, outputs))
    if type(outputs) is dict:
        return all(map(_plain, outputs.values()))
    return outputs is None or type(outputs) in (Tensor, int, float, bool, str)


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _itself(leaf: Any) -> Any:
    return leaf


def _versions(outputs: Any) -> list[int]:
    return [leaf._version for leaf in tree_iter(outputs) if isinstance(leaf, Tensor)]


_State = dict[str, tuple[nn.Module, Kept, list[int]]]


def _state(model: nn.Module) -> _State:
    """Of each module what a forward might write to: its attributes, and how often its buffers and parameters were written."""
    return {path: (module, Kept(module), _written(module)) for path, module in model.named_modules()}


def _written(module: nn.Module) -> list[int]:
    held = (*module._buffers.values(), *module._parameters.values())
    return [tensor._version for tensor in held if tensor is not None]


def _changed(before: _State) -> str:
    """The first module that is not what it was; nothing if all are."""
    for path, (module, kept, written) in before.items():
        if not kept.same(module) or written != _written(module):
            return f"{path or 'the model'} ({type(module).__name__})"
    return ""
