"""The network that is evaluated: the user's code with other values."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from layerscope.device import device_named, device_of
from layerscope.engine.batches import Forward, copied, samples_in
from layerscope.engine.precision import FULL, products
from layerscope.errors import UseError, unknown
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

    Holds one copy of the values (none, where the trajectory's last step is in memory). `calibration` are batches of training
    data, needed only to recalibrate. On another `device` than the model's, the values are there and the model stays.
    `written` are parameters that a forward writes to: each run has copies of its own of them. `spoils` says that a forward
    may write to its inputs: it is given copies. `recalibrations` keeps the statistics that were computed again, by Variant, for
    who asks for one many times; None does not.
    """

    def __init__(
        self,
        model: nn.Module,
        world: World,
        forward: Forward,
        calibration: Iterable[Any] | None = None,
        device: str | None = None,
    ) -> None:
        own = device_of(model)
        self.model, self.world, self.device = model, world, own if device is None else device_named(device)
        check_code(model)
        self.written = frozenset(_renormalised(model))
        self.spoils = True
        self._forward, self.calibration = forward, calibration
        self._firsts = first_names(model)
        self._has_statistics = bool(with_statistics(model))
        self._own_statistics: dict[str, Tensor] | None = None
        self.recalibrations: dict[Variant, dict[str, Tensor]] | None = None
        self.private = not world.trajectory.in_memory(FINAL)
        self.reload()

    def reload(self) -> None:
        """Take the values of the trajectory's last step: a `private` copy, unless the trajectory is in memory."""
        final = self.world.trajectory.tensors(FINAL, self._firsts)
        self._final = {name: tensor.to(self.device) for name, tensor in final.items()}

    def outputs(self, network: nn.Module, batch: Any) -> Any:
        """What the forward gives for a batch, which stays as it is."""
        return self._forward(network, copied(batch) if self.spoils else batch)

    def values(self, variant: Variant) -> State:
        """All values of a Variant. Its rule for buffers is carried out here."""
        patch = variant.patch(self.world)
        if not self.private:  # a forward may write to what it is given, which is the user's here
            patch = Patch({where: values.clone() for where, values in patch.slices.items()})
        values = changed(self._final, patch, self._firsts)
        if variant.buffers == "recalibrate" and self._has_statistics and self._differs(patch):
            values |= self._statistics_of(variant, values)
        return values

    def _statistics_of(self, variant: Variant, values: State) -> dict[str, Tensor]:
        """The statistics of a Variant with these values, computed again, or kept from when it was asked for before."""
        if self.recalibrations is None:
            return self._recalibrated(values)
        if variant not in self.recalibrations:
            self.recalibrations[variant] = self._recalibrated(values)
        return {name: tensor.clone() for name, tensor in self.recalibrations[variant].items()}

    def check(self, variants: Sequence[Variant]) -> None:
        """Refuse, before anything runs, Variants of tensors or steps that there are not, and those that need data to
        recalibrate with, where there are none."""
        known = {name: tensor.shape for name, tensor in self._final.items()}
        for where in {where for variant in variants for edit in variant.edits for where in edit.part.slices}:
            if where.tensor not in known:
                raise unknown("tensor", where.tensor, known)
            size = known[where.tensor][where.axis] if where.axis < len(known[where.tensor]) else 0
            if where.ranges and where.ranges[-1][1] > size:
                raise UseError(f"{where}: {where.tensor} has shape {list(known[where.tensor])}")
        for variant in variants:
            variant.row(self.world)  # its steps are there
        if self.recalibrates(variants) and self.calibration is None:
            raise UseError(NO_DATA)

    def recalibrates(self, variants: Sequence[Variant]) -> bool:
        """Whether any of these Variants has statistics that are computed again."""
        asked = any(variant.edits and variant.buffers == "recalibrate" for variant in variants)
        return asked and self._has_statistics

    def _differs(self, patch: Patch) -> bool:
        """Whether a patch changes anything: put back to the last step, a network is the unmodified one, statistics too."""
        return any(
            not torch.equal(dense(take(self._final[s.tensor], s)), dense(new).to(self.device))
            for s, new in patch.slices.items()
        )

    def unmodified(self) -> State:
        return changed(self._final, Patch(), self._firsts)

    def is_recalibrated(self, variant: Variant, values: State) -> bool:
        """Whether the statistics of a Variant's values were computed again."""
        return self.recalibrates([variant]) and any(values[n] is not self._final[n] for n in self._statistics)

    def recalibrated(self) -> State:
        """The values of the unmodified network with statistics computed again: what a Variant whose are is a change of."""
        if self._own_statistics is None:
            self._own_statistics = self._recalibrated(self.unmodified())
        return {**self.unmodified(), **self._own_statistics}

    @property
    def _statistics(self) -> list[str]:
        """The names of the running statistics of all batch norms."""
        paths = with_statistics(self.model)
        return [
            f"{path}.{n}" if path else n for path, norm in paths.items() for n, _ in norm.named_buffers(recurse=False)
        ]

    def inside(self, values: State) -> dict[str, Tensor]:
        """Place in the model -> what is put there for these values."""
        found = arranged(self.model, values, self._parameter)
        return {place: tensor.to(self.device) for place, tensor in found.items()}  # buffers that no state has, too

    def run(self, values: State, work: Callable[[nn.Module], R]) -> R:
        """What `work` gives for the model with these values. The model has its own again afterwards."""
        return self.run_inside(self.inside(values), work)

    def run_inside(self, inside: State, work: Callable[[nn.Module], R]) -> R:
        """The same with what is put in its places, as `inside` gives it."""
        with products(FULL, self.device):
            return within(self.model, inside, work)

    def _parameter(self, name: str, own: Tensor, value: Tensor) -> Tensor:
        """The value itself, not copied; it asks for gradients as the model's own does, for that decides how products are
        computed, and so the last bits."""
        value = value.detach().clone() if name in self.written else value.detach()
        return value.requires_grad_(own.requires_grad)

    def _recalibrated(self, values: State) -> dict[str, Tensor]:
        """The statistics of all batch norms for these values, over the calibration data: plain means over all batches."""
        if self.calibration is None:
            raise UseError(NO_DATA)

        def work(network: nn.Module) -> dict[str, Tensor]:
            norms = with_statistics(network)
            before = {path: _Statistics(norm) for path, norm in norms.items()}
            for norm in norms.values():
                norm.reset_running_stats()  # type: ignore[operator]
                norm.training = True
            for number, batch in enumerate(_of_several(self.calibration), start=1):
                for norm in norms.values():
                    # A plain mean over batches. PyTorch counts for itself where momentum is None, but not in instance norm.
                    norm.momentum = None if isinstance(norm, nn.modules.batchnorm._BatchNorm) else 1 / number  # type: ignore[assignment]
                self.outputs(network, batch)
            for path, norm in norms.items():
                before[path].end(norm)
            return {
                f"{path}.{name}" if path else name: buffer.clone()
                for path, norm in norms.items()
                for name, buffer in norm.named_buffers(recurse=False)
            }

        found = self.run(values, work)
        return {name: found[first] for name, first in self._firsts.items() if first in found}


class _Statistics:
    """Mode and statistics of a norm layer before it is recalibrated."""

    def __init__(self, norm: nn.Module) -> None:
        self._mode = norm.training, norm.momentum
        self._values = {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}

    def end(self, norm: nn.Module) -> None:
        """Gives back the mode; and the statistics, if the data never came through this layer."""
        norm.training, norm.momentum = self._mode  # type: ignore[assignment]
        if not norm.running_mean.any() and bool((norm.running_var == 1).all()):  # type: ignore[union-attr]
            for name, buffer in norm.named_buffers(recurse=False):
                buffer.copy_(self._values[name])


def _of_several(calibration: Iterable[Any] | None) -> Iterator[Any]:
    """The batches without those of one sample, from which no batch norm can tell a variance."""
    given, several = False, False
    for batch in calibration or ():
        given = True
        if samples_in(batch) > 1:
            several = True
            yield batch
    if not several:
        raise UseError(f"{NO_DATA}; what was given has {'batches of one sample only' if given else 'no batch'}")


def _renormalised(model: nn.Module) -> Iterator[str]:
    """The weights that a forward writes to when a row is too long, which may be in any batch."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            yield f"{path}.weight" if path else "weight"


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


def with_statistics(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> norm layer with running statistics."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and isinstance(module.running_mean, Tensor)
    }
