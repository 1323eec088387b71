"""The values of a network at one moment: tensor name -> tensor."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from layerscope.errors import UseError

State = Mapping[str, Tensor]
"""Parameters and buffers of a network at one moment, by the names of `state_dict()`."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The values a model has, not copied: what `state_dict()` holds of tensors (some modules put other things there)."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the values a model has now, which later training does not change."""
    return {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def nbytes_of(model: nn.Module) -> int:
    """Bytes of a model's values."""
    return sum(tensor.nbytes for tensor in tensors_of(model).values())


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuse values that do not fit the model: the error names `where` and every tensor at fault."""
    faults = [f"{name} is missing" for name in expected if name not in shapes]
    faults += [f"{name} is not in the model" for name in shapes if name not in expected]
    faults += [
        f"{name} has shape {list(shapes[name])}, the model has {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != tuple(shape)
    ]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise UseError(f"{where} does not fit the model: {'; '.join(faults[:5])}{more}")


def check_dtypes(state: State, expected: State, where: str) -> None:
    """Refuse values of another number format than the model's: the error names `where` and the first tensor at fault."""
    for name, tensor in state.items():
        if tensor.dtype != expected[name].dtype:
            raise UseError(
                f"{where}: tensor {name} is {tensor.dtype}, the model has {expected[name].dtype}; make the model in the "
                f"checkpoint's format, as with model.to({tensor.dtype}), or save the checkpoint in the model's"
            )


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or a sparse one as a dense one, with which everything can be done."""
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def check_finite(state: State, expected: State, where: str) -> None:
    """Refuse values with NaN or infinity: the error names `where` and the first tensor at fault. Where the model itself has
    such values (a mask of -inf), they are meant."""
    for name, tensor in ((name, dense(tensor)) for name, tensor in state.items()):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            if torch.equal(torch.isfinite(tensor).cpu(), torch.isfinite(dense(expected[name])).cpu()):
                continue
            what = "NaN" if torch.isnan(tensor).any() else "an infinite value"
            raise UseError(f"{where}: tensor {name} holds {what}; the run diverged or the file is damaged")


def check_tied(state: State, firsts: Mapping[str, str], where: str) -> None:
    """Refuse different values under names that mean one tensor of the model: the error names `where` and both."""
    for name, first in firsts.items():
        if name != first and {name, first} <= state.keys() and not torch.equal(dense(state[name]), dense(state[first])):
            raise UseError(f"{where}: {first} and {name} are one tensor in the model, but have different values")


def content_hash(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits that change with any name, dtype, shape or value."""
    digest = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(dense(tensor.detach()).cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
