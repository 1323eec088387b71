"""The network that is evaluated: the user's code with other values."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from layerscope.engine.batches import Forward, device_of, mark
from layerscope.errors import UseError
from layerscope.partition import first_names
from layerscope.perturb import Patch, Variant, World
from layerscope.perturb.patch import changed, take
from layerscope.perturb.swap import arranged, within
from layerscope.state import State, dense
from layerscope.step import FINAL

R = TypeVar("R")

NO_DATA = (
    "the network has batch norm, whose statistics no longer fit once a layer is changed: to recalibrate them pass training "
    "data (calibration=, or a train split of the data), or keep those of the trained network with buffers='keep' (--buffers keep)"
)


class Subject:
    """A model with the values of its trajectory's last step, and what Variants make of them.

    Holds one copy of the values (none, where the trajectory's last step is in memory). `forward` and `calibration` (batches
    of training data) are needed only to recalibrate. `written` are parameters that a forward writes to: each run has copies
    of its own of them.
    """

    def __init__(
        self, model: nn.Module, world: World, forward: Forward, calibration: Iterable[Any] | None = None
    ) -> None:
        self.model, self.world, self.device = model, world, device_of(model)
        check_code(model)
        self.written: frozenset[str] = frozenset()
        self._forward, self._calibration = forward, calibration
        self._firsts = first_names(model)
        self._has_statistics = any(_has_statistics(module) for module in model.modules())
        self.private = not world.trajectory.in_memory(FINAL)
        self.reload()

    def reload(self) -> None:
        """Take the values of the trajectory's last step: a `private` copy, unless the trajectory is in memory."""
        self._final = {name: tensor.to(self.device) for name, tensor in self.world.trajectory[FINAL].items()}

    def values(self, variant: Variant) -> State:
        """All values of a Variant. Its rule for buffers is carried out here."""
        patch = variant.patch(self.world)
        values = changed(self._final, patch, self._firsts)
        if variant.buffers == "recalibrate" and self._has_statistics and self._differs(patch):
            values |= self._recalibrated(values)
        return values

    def check(self, variants: Sequence[Variant]) -> None:
        """Refuse, before anything runs, Variants that need data to recalibrate with, where there are none."""
        recalibrated = any(variant.edits and variant.buffers == "recalibrate" for variant in variants)
        if recalibrated and self._has_statistics and self._calibration is None:
            raise UseError(NO_DATA)

    def _differs(self, patch: Patch) -> bool:
        """Whether a patch changes anything: put back to the last step, a network is the unmodified one, statistics too."""
        return any(
            not torch.equal(dense(take(self._final[s.tensor], s)), dense(new).to(self.device))
            for s, new in patch.slices.items()
        )

    def unmodified(self) -> State:
        return changed(self._final, Patch(), self._firsts)

    def run(self, values: State, work: Callable[[nn.Module], R]) -> R:
        """What `work` gives for the model with these values. The model has its own again afterwards."""
        return within(self.model, arranged(self.model, values, self._parameter), work)

    def _parameter(self, name: str, own: Tensor, value: Tensor) -> Tensor:
        """The value itself, not copied; it asks for gradients as the model's own does, for that decides how products are
        computed, and so the last bits."""
        value = value.detach().clone() if name in self.written else value.detach()
        return value.requires_grad_(own.requires_grad)

    def checksum(self) -> tuple[Any, ...]:
        """What changes if somebody writes to the values of the unmodified network."""
        return mark(self._final)

    def _recalibrated(self, values: State) -> dict[str, Tensor]:
        """The statistics of all batch norms for these values, over the calibration data: plain means over all batches."""
        if self._calibration is None:
            raise UseError(NO_DATA)

        def work(network: nn.Module) -> dict[str, Tensor]:
            norms = {path: module for path, module in network.named_modules() if _has_statistics(module)}
            modes = {path: (norm.training, norm.momentum) for path, norm in norms.items()}
            for norm in norms.values():
                norm.reset_running_stats()  # type: ignore[operator]
                norm.training, norm.momentum = True, None  # type: ignore[assignment]  # momentum None: a plain mean
            given = False
            for batch in self._calibration or ():
                self._forward(network, batch)
                given = True
            if not given:
                raise UseError(f"{NO_DATA}; what was given has no batch")
            for path, norm in norms.items():
                norm.training, norm.momentum = modes[path]  # type: ignore[assignment]
            return {
                f"{path}.{name}" if path else name: buffer.clone()
                for path, norm in norms.items()
                for name, buffer in norm.named_buffers(recurse=False)
            }

        found = self.run(values, work)
        return {name: found[first] for name, first in self._firsts.items() if first in found}


def check_code(model: nn.Module) -> None:
    """Refuse a model that other values cannot be put into."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its module {path}" if path else "it"
            raise UseError(
                f"values cannot be put into this model: {what} is compiled to TorchScript ({module.original_name}); pass the "
                "plain module that it was made from"
            )
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name)
        for name, tensor in model.named_parameters()
        if tensor.layout == torch.strided and tensor.is_contiguous() and tensor.numel()
    )
    for (_, end, one), (start, _, other) in pairwise(spans):
        if start < end:
            raise UseError(
                f"{one} and {other} lie in the same memory but are different parameters, so that nobody can say whether they "
                "change together; let both modules have one Parameter"
            )


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._NormBase) and isinstance(module.running_mean, Tensor)
