"""What networks compute, counted: products (linear, convolution, attention), in FLOPs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from layerscope.engine.subject import Subject
from layerscope.engine.tape import storage_of
from layerscope.engine.untouched import untouched
from layerscope.perturb import Variant

R = TypeVar("R")
Shape = tuple[int, ...]

FIRST_LINEAR = 13
"""Which of the arguments after the first of a fused encoder layer is its first linear map `[hidden, d]`."""


def _attention(given: Shape, *_: Any, **__: Any) -> int:
    """Of `[n, t, d]` on themselves in one operation: four linear maps, scores, and means."""
    n, t, d = given
    return 4 * n * t * d * (2 * d + t)


def _encoder(given: Shape, *rest: Any, **_: Any) -> int:
    """Of a whole encoder layer in one operation: attention and two linear maps."""
    hidden = rest[FIRST_LINEAR][0]
    return _attention(given) + 4 * math.prod(given) * hidden


def _sdpa(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


FUSED = {
    torch.ops.aten._native_multi_head_attention: _attention,
    torch.ops.aten._transformer_encoder_layer_fwd: _encoder,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
}
"""Operations of evaluation mode that PyTorch's counter passes over -> their FLOPs, from the shapes they are given."""


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=FUSED)


def counted(work: Callable[[], R]) -> tuple[R, int]:
    """What some work gives, and the FLOPs that were executed for it."""
    with _counter() as counter:
        found = work()
    return found, counter.get_total_flops()


@dataclass(frozen=True)
class Work:
    """FLOPs of Variants on some data: if each is computed `whole`, and what is `needed`: from the first use of what it
    changes on."""

    whole: int
    needed: int

    @classmethod
    def of(cls, subject: Subject, variants: Sequence[Variant], batches: Iterable[Any]) -> "Work":
        whole, after = from_first_use(subject, batches)
        places = [[name for edit in variant.edits for name in edit.part.tensors] for variant in variants]
        return cls(
            whole * len(variants), sum(max((after.get(name, 0) for name in names), default=0) for names in places)
        )

    @property
    def bound(self) -> float | None:
        """How many times less there is to do, if nothing is done twice that comes before a change; None where nothing is."""
        return self.whole / self.needed if self.needed else None


def from_first_use(subject: Subject, batches: Iterable[Any]) -> tuple[int, dict[str, int]]:
    """The FLOPs of forwards of the unmodified network; and of each tensor in it, by the places where it lies, those from the
    operation on that is first given it (none, where no operation is)."""
    inside = subject.inside(subject.unmodified())
    places = {place: storage_of(tensor) for place, tensor in inside.items()}
    after = dict.fromkeys(places, 0)

    def forward(network: nn.Module, batch: Any) -> int:
        with _counter() as counter, _Uses(counter) as uses:
            subject.outputs(network, batch)
        for place, storage in places.items():
            before = uses.before.get(storage) if storage else 0
            after[place] += 0 if before is None else counter.get_total_flops() - before
        return counter.get_total_flops()

    def work(network: nn.Module) -> int:
        return sum(forward(network, batch) for batch in batches)

    with untouched(subject.model), torch.no_grad():
        return subject.run_inside(inside, work), after


class _Uses(TorchDispatchMode):
    """Notes what was counted before an operation is first given a tensor of a storage."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self._counter = counter
        self.before: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs or {})):
            if isinstance(value, Tensor):
                self.before.setdefault(storage_of(value), self._counter.get_total_flops())
        return func(*args, **(kwargs or {}))
