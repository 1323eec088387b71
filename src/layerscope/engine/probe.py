"""Whether a model on some data gives the same twice: asked before anything runs, because nothing else could be trusted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.engine.batches import Targets, copied, leaves, mark
from layerscope.engine.reach import reach
from layerscope.engine.subject import Subject
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.perturb import Variant
from layerscope.perturb.swap import parameters
from layerscope.state import State

BATCHES = 2
"""How many batches are looked at closely."""
TOLERANCE = 1e-5
"""The largest difference of outputs, as a share of the largest output, that is taken for rounding: kernels of some devices
add in an order of their own. Where randomness or a changed value is the cause, no difference passes."""

OTHER_BATCHES = "data gives other batches on each pass, so that nothing can be compared; pass shuffle=False"
INSTEAD = (
    "Mend it, or go on all the same with anyway=True (--anyway): then differences between variants may be its noise"
)


@dataclass(frozen=True)
class Probe:
    """What the probe saw: how many batches there are, whether outputs are `identical` bit for bit, the largest difference
    of outputs, a note where they differ, the tensors that the network's forward does not use on these data, and whether the
    data are `held`: kept in memory from one pass, because each pass gives others."""

    batches: int
    identical: bool
    max_difference: float
    note: str = ""
    unused: tuple[str, ...] = ()
    held: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe(subject: Subject, data: Iterable[Any], targets: Targets, anyway: bool = False) -> Probe:
    """Go through the first batches twice, and evaluate the unmodified network twice on each.

    Raises `UseError` with the reason if data come in another order or changed (shuffling, augmentation), or if the network
    in evaluation mode gives other outputs (dropout that is always on, noise, a value that it changes itself); with
    `anyway`, the reason is the note of what is returned. Raises it too if values that are put into the model would not
    reach its outputs (see `reach`). An exception of the model's own forward passes through.
    """
    check_batches(data)
    with untouched(subject.model):
        note, batches = _data(data, targets)
    _check_forgets(subject, data)  # before any other forward: who looks later finds the cache filled each time
    with untouched(subject.model), torch.no_grad():
        unused = _unused(subject, data)
    with untouched(subject.model), torch.no_grad():
        seen = [_network(subject, batch) for batch in islice(data, BATCHES)]
        subject.spoils = any(spoilt for *_, spoilt in seen)
    if not seen:
        raise UseError("data gives no batch")
    difference = max(found for found, *_ in seen)
    held = bool(note)
    note = ". ".join(dict.fromkeys(text for text in (note, *(why for _, why, _ in seen)) if text))
    if note and not anyway:
        raise UseError(f"{note}. {INSTEAD}")
    return Probe(batches, not note and difference == 0, difference, note, tuple(sorted(unused)), held)


def check_batches(data: Iterable[Any]) -> None:
    """Refuse data that do not yield batches, or can be gone through only once."""
    if isinstance(data, Tensor) or (isinstance(data, tuple) and any(isinstance(each, Tensor) for each in data)):
        what = "is a tensor" if isinstance(data, Tensor) else "is a tuple with tensors in it, as one batch is"
        raise UseError(f"data must yield batches, but {what}: wrap it in a list, [(x, y)] or [x], or pass a DataLoader")
    if isinstance(data, Iterator):
        raise UseError(
            "data can be gone through only once, but each variant needs it; pass a DataLoader or a list of batches"
        )


def check_calibration(subject: Subject, variants: Sequence[Variant], anyway: bool = False) -> None:
    """Refuse data to recalibrate with that are not the same each time, where any of the Variants needs them."""
    if subject.calibration is None or not subject.recalibrates(variants):
        return
    check_batches(subject.calibration)
    with untouched(subject.model):
        note, _ = _data(subject.calibration, lambda batch: batch)
    if note and not anyway:
        raise UseError(f"calibration {note}. {INSTEAD}")


def _unused(subject: Subject, data: Iterable[Any]) -> frozenset[str]:
    """The parameters that no operation of the forward is given on any data."""
    found = reach(subject, islice(data, BATCHES))
    subject.written |= found.written
    unused = parameters(subject.model) - found.used
    if unused:
        further = reach(subject, data)  # what the first batches do not use, others may
        subject.written |= further.written
        unused -= further.used
    return unused


def _check_forgets(subject: Subject, data: Iterable[Any]) -> None:
    """Refuse a model that keeps what it computed from its parameters beyond a forward, outside of its own attributes, which
    are put back: a variant would be evaluated with what was computed for another."""
    used: list[frozenset[str]] = []
    for _ in range(2):
        with untouched(subject.model), torch.no_grad():
            used.append(reach(subject, islice(data, 1)).used)
    if kept := sorted(used[0] - used[1]):
        raise UseError(
            f"the model keeps what it computes from {', '.join(kept[:5])} from one forward to the next (a cache), so that other "
            "values would not reach its outputs; turn the cache off"
        )


def _data(data: Iterable[Any], targets: Targets) -> tuple[str, int]:
    """Why the first batches of two passes are not the same (nothing if they are), and how many batches there are."""
    first, others = _begun(iter(data), targets)
    batches = len(first) + sum(1 for _ in others)
    second, _ = _begun(iter(data), targets)
    if len(first) != len(second) or any(a[0] != b[0] for a, b in zip(first, second, strict=True)):
        return OTHER_BATCHES, batches
    if any(a[1] != b[1] for a, b in zip(first, second, strict=True)):
        why = "random augmentation; use the transforms of testing"
        return f"data gives other inputs on each pass, with the same targets: {why}", batches
    return "", batches


def _begun(batches: Iterator[Any], targets: Targets) -> tuple[list[tuple[Any, Any]], Iterator[Any]]:
    """Marks of the first batches (targets, all), and the others."""
    return [(mark(targets(batch)), mark(batch)) for batch in islice(batches, BATCHES)], batches


def _network(subject: Subject, batch: Any) -> tuple[float, str, bool]:
    """The largest difference of outputs between two evaluations of a batch, why they differ, and whether the forward
    writes to its inputs."""
    mine = copied(batch)
    before = mark(mine)

    def twice(network: nn.Module) -> tuple[Any, Any]:
        subject.spoils = False
        first = subject.outputs(network, mine)
        subject.spoils = True
        return first, subject.outputs(network, batch)

    first, second = subject.run(subject.unmodified(), twice)
    spoilt = mark(mine) != before
    difference, size = _difference(first, second)
    if not difference:
        return 0.0, "", spoilt
    if culprit := _random(subject, batch):
        what = "draws random numbers in evaluation mode, and gives other outputs each time"
        return difference, f"the network {what}: {culprit}", spoilt
    if changed := _changed(subject, batch):
        what = "changes itself in evaluation mode, and then gives other outputs"
        return difference, f"the network {what}: {changed}", spoilt
    if difference <= TOLERANCE * size:
        return difference, "", spoilt
    return (
        difference,
        f"two evaluations of a batch differ by up to {difference:.3g} (largest output {size:.3g})",
        spoilt,
    )


def _difference(a: Any, b: Any) -> tuple[float, float]:
    """The largest difference between two structures of outputs, and the largest value; infinite where they are not alike."""
    ours, theirs = list(leaves(a)), list(leaves(b))
    if mark(ours) == mark(theirs):
        return 0.0, 1.0
    if len(ours) != len(theirs):
        return float("inf"), 1.0
    largest, size = 0.0, 0.0
    for x, y in zip(ours, theirs, strict=True):
        if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.shape != y.shape:
            if mark(x) != mark(y):
                return float("inf"), 1.0
        elif x.numel():
            apart = (x.double() - y.double()).abs().nan_to_num(nan=float("inf"))
            largest, size = max(largest, float(apart[~(x.isnan() & y.isnan())].max())), max(size, float(x.abs().max()))
    return largest, size


def _random(subject: Subject, batch: Any) -> str:
    """The first module whose outputs depend on the state of PyTorch's random generator; nothing if none does."""

    def seen(seed: int) -> list[tuple[str, Any]]:
        torch.manual_seed(seed)
        return _calls(subject, batch)

    one, other = seen(1), seen(2)
    if one == seen(1) != other:
        return next((f"{a[0]}" for a, b in zip(one, other, strict=False) if a != b), "its forward")
    return ""


def _calls(subject: Subject, batch: Any) -> list[tuple[str, Any]]:
    """The outputs of all module calls of one forward, in the order in which they end."""
    names = {id(module): name or "the model itself" for name, module in subject.model.named_modules()}
    calls: list[tuple[str, Any]] = []

    def note(module: nn.Module, _inputs: Any, outputs: Any) -> None:
        if id(module) in names:
            calls.append((f"{names[id(module)]} ({type(module).__name__})", mark(outputs)))

    with _watching(note):
        subject.run(subject.unmodified(), lambda network: subject.outputs(network, batch))
    return calls


@contextmanager
def _watching(note: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    """Calls `note` after each module call. A hook for all modules, so that none is put on the user's."""
    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


def _changed(subject: Subject, batch: Any) -> str:
    """What is not the same after a forward: names of buffers and parameters, and of attributes of modules."""

    def work(network: nn.Module) -> list[str]:
        before = _values(network)
        attributes = _attributes(network)
        subject.outputs(network, batch)
        after = _values(network)
        names = [name for name in before if not torch.equal(before[name], after[name])]
        return names + [name for name, value in _attributes(network).items() if attributes.get(name) != value]

    return ", ".join(subject.run(subject.unmodified(), work)[:5])


def _values(network: nn.Module) -> State:
    named = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.clone() for name, tensor in named}


def _attributes(network: nn.Module) -> dict[str, Any]:
    """Plain attributes of all modules, as marks."""
    return {
        f"{path}.{name}" if path else name: mark(value)
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and isinstance(value, int | float | Tensor | list | dict)
    }
