"""The tensors of a network that is in training: under the names that its own code gives them, whatever wraps it."""

import os

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from layerscope.errors import UseError
from layerscope.state import State, dense, tensors_of

COMPILED = "_orig_mod"
"""Where `torch.compile` keeps the module that it wraps; a part of the names of tensors."""


def plain(model: nn.Module) -> nn.Module:
    """The model without what wraps it for several devices or compiles it."""
    while isinstance(model, nn.DataParallel | DistributedDataParallel) or hasattr(model, COMPILED):
        model = model.get_submodule(COMPILED if hasattr(model, COMPILED) else "module")
    return model


def values(model: nn.Module) -> dict[str, Tensor]:
    """The values that a model has now, not copied, by the names of its code.

    Raises `UseError` where a tensor has no values, or only some of them in this process.
    """
    for name, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise _spread(name or type(model).__name__)
    for name, tensor in model.named_parameters():
        if hasattr(tensor, "device_mesh") or hasattr(tensor, "ds_id"):  # of DTensor, of ZeRO's third stage
            raise _spread(name)
    found = {name.replace(COMPILED + ".", ""): tensor for name, tensor in tensors_of(model).items()}
    for name, tensor in found.items():
        if is_lazy(tensor) or tensor.is_meta:
            raise UseError(f"{name} has no values yet: record the model after it has seen one batch, on a real device")
    if not found:
        raise UseError(f"{type(model).__name__} has no tensors: there is nothing to record")
    return found


def not_finite(state: State) -> list[str]:
    """The names of tensors with NaN or infinity."""
    floats = {name: dense(tensor) for name, tensor in state.items() if tensor.is_floating_point()}
    return [name for name, tensor in floats.items() if not torch.isfinite(tensor).all()]


def rank() -> int:
    """The number of this process among those that train together; 0 where there is one.

    Raises `UseError` where a launcher began several, of which this is not the first, and they do not know each other yet:
    whether they train one network together cannot be seen then.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    number, among = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if number != "0" and among != "1":
        raise UseError(
            f"the environment says that this is process {number} of {among} (RANK, WORLD_SIZE), but torch.distributed is not "
            "initialised: make the Recorder after init_process_group; or, if each process trains a network of its own, unset "
            "RANK and give each a folder of its own"
        )
    return 0


def _spread(where: str) -> UseError:
    return UseError(
        f"{where} is spread over several processes (FSDP, tensor parallel, ZeRO 3), so that none has its values: record a "
        "training that has the whole model in each process, or write its full checkpoints and name them with --checkpoints"
    )
