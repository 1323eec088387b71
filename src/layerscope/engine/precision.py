"""Products in a shorter number format, with every close call made again in float32: no 0-1 decision changes.

How far the shorter format is from float32 is measured, for each variant, by the margins of samples that were computed in
both: a sample whose margin is not far beyond the largest difference seen is computed again.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from layerscope.engine.batches import samples_in, with_each
from layerscope.errors import UseError, unknown
from layerscope.metrics import Metric

FULL = "fp32"
PRECISIONS = (FULL, "tf32", "bf16")
"""Of products of float32: as they are, or shorter."""
BEYOND = 4.0
"""A margin this many times the largest difference seen is taken for safe: see docs/decisions/0012-precision.md."""
BOTH = 512
"""So many samples are computed in both formats before the shorter one is trusted."""
ROUNDING = 1e-4
"""A margin below this share of the largest output may depend on how many samples are computed together; then all are."""

Exact = Callable[[Tensor | None], Any]
"""The outputs in float32: of some samples of a batch by their numbers, or of all."""


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, products of float32 are computed so; PyTorch's settings are put back. Its own default for convolutions on a
    GPU is TF32: fp32 means float32 here."""
    with _tf32(precision == "tf32", device):
        if precision == "bf16":
            # Weights are exchanged between forwards: a cache of them in bfloat16 would give those of another variant.
            with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
                yield
        else:
            yield


@contextmanager
def _tf32(wanted: bool, device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    settings: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "tf32" if wanted else "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class Close:
    """Which samples of a Variant are computed again in float32.

    The first batches are computed in both formats. Of each later one the samples whose margin is within `BEYOND` times the
    largest difference of margins seen so far; each of them tells more of it. `Changed` says that an earlier batch would now
    be looked at again.
    """

    def __init__(self, metrics: Sequence[Metric[Any]]) -> None:
        self._metrics: Sequence[Any] = metrics
        self._apart, self._closest, self._seen = 0.0, math.inf, 0
        self.again = 0

    def outputs(self, short: Any, exact: Exact, targets: Any, n: int) -> Any:
        """The outputs of a batch of `n` samples, of which `short` are those in the shorter format: of all samples whose
        decisions could be others, those in float32."""
        if self._seen < BOTH:
            return self._both(short, exact(None), targets, n)
        short = short.float()
        margins = self._margins(short, targets)
        done = torch.zeros(n, dtype=torch.bool, device=short.device)
        while bool((now := self._close(margins) & ~done).any()):
            rows = now.nonzero()[:, 0]
            found = exact(rows)
            if found is None:  # no samples can be taken out of this batch
                return self._both(short, exact(None), targets, n)
            right = self._margins(found.float(), targets[rows])
            if not bool((right.abs() > ROUNDING * found.float().abs().max()).all()):
                return self._both(short, exact(None), targets, n)
            self._see(margins[rows], right)
            short[rows] = found.to(short)
            done |= now
            self.again += len(rows)
        kept = margins[~done].abs()
        self._closest = min(self._closest, float(kept.min()) if kept.numel() else math.inf)
        self._check()
        return short

    def _both(self, short: Any, whole: Any, targets: Any, n: int) -> Any:
        self._see(self._margins(short.float(), targets), self._margins(whole.float(), targets))
        self.again += n
        self._check()
        return whole

    def _check(self) -> None:
        if self._bound > self._closest:
            raise Changed

    @property
    def _bound(self) -> float:
        return BEYOND * self._apart

    def _close(self, margins: Tensor) -> Tensor:
        return ~(margins.abs() > self._bound).all(1)  # a NaN is close

    def _see(self, short: Tensor, right: Tensor) -> None:
        apart = (short - right).abs()
        apart = apart[apart.isfinite()]
        self._apart = max(self._apart, float(apart.max()) if apart.numel() else 0.0)
        self._seen += len(right)

    def _margins(self, outputs: Tensor, targets: Any) -> Tensor:
        """How far each sample is from other decisions [n, decisions]."""
        return torch.cat([metric.margin(outputs, targets) for metric in self._metrics], dim=1)


class Changed(Exception):  # noqa: N818 (not an error: the Variant is measured again in float32)
    """The shorter format is further from float32 than was thought when earlier batches were let pass."""


@dataclass(frozen=True)
class Precision:
    """The format of products, checked: on this device, and for these metrics. `why` it is float32, where that was not asked."""

    name: str
    device: torch.device
    why: str = ""

    @classmethod
    def of(cls, name: str, device: torch.device, metrics: Sequence[Metric[Any]]) -> "Precision":
        if name not in PRECISIONS:
            raise unknown("precision", name, PRECISIONS)
        if name == "tf32" and device.type != "cuda":
            raise UseError(f"tf32 is a format of NVIDIA GPUs; on {device.type} take fp32 or bf16")
        if name != FULL and (others := [metric.name for metric in metrics if not hasattr(metric, "margin")]):
            raise UseError(
                f"precision {name} is for metrics that count right and wrong, whose close calls are computed again in float32; "
                f"{', '.join(others)} would change in its digits: ask for the error alone (--metrics error), or take fp32"
            )
        return cls(name, device)

    def tried(self, forward: Callable[[], Any]) -> "Precision":
        """This, or float32 and the reason: if a forward raises in the shorter format, or decides something on its way (which
        expert, which token) that rounding may decide otherwise, so that outputs are no longer near."""
        if not self.short:
            return self
        try:
            with _Decides() as seen:
                self.forward(forward)()
        except Exception as problem:
            return Precision(FULL, self.device, f"in {self.name} it raises {type(problem).__name__}")
        return Precision(FULL, self.device, f"its forward decides by {seen.by}") if seen.by else self

    @property
    def short(self) -> bool:
        """Whether it is another format than float32."""
        return self.name != FULL

    def forward(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        """A forward with its products in this format."""

        def short() -> Any:
            with products(self.name, self.device):
                return forward()

        return short if self.short else forward


class _Decides(TorchDispatchMode):
    """Notes the first operation that makes integers or truth values of real numbers, but for those that are known to use them
    in a continuous way."""

    CONTINUOUS = ("max_pool", "dropout", "rrelu", "native_", "isfinite", "isnan", "isinf", "is_")

    def __init__(self) -> None:
        super().__init__()
        self.by = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not self.by and not any(known in name for known in self.CONTINUOUS):
            given = any(isinstance(v, Tensor) and v.is_floating_point() for v in tree_iter((args, kwargs or {})))
            if given and any(_whole(value) for value in tree_iter(found)):
                self.by = name
        return found


def _whole(value: Any) -> bool:
    """Whether something is integers or truth values (or a plain number read from a tensor, which code may branch by)."""
    return (
        isinstance(value, bool | int | float)
        if not isinstance(value, Tensor)
        else not (value.is_floating_point() or value.is_complex())
    )


def some(batch: Any, rows: Tensor) -> Any:
    """These samples of a batch; None if they cannot be taken out of it: some of its tensors are not one entry a sample."""
    n, whole = samples_in(batch), True

    def of(leaf: Any) -> Any:
        nonlocal whole
        if not isinstance(leaf, Tensor):
            return leaf
        if not leaf.ndim or len(leaf) != n:
            whole = False
            return leaf
        return leaf[rows.to(leaf.device)]

    found = with_each(batch, of)
    return found if whole else None
