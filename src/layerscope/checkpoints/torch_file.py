"""Files that `torch.save` wrote, with a state dict as it is or in what a training loop keeps: Lightning's `.ckpt` too."""

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerscope.checkpoints.source import version_of
from layerscope.errors import UseError
from layerscope.store import begins

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
"""Keys under which training loops keep the state dict, beside the optimiser's and much else."""
ZIP = b"PK\x03\x04"
"""How files of torch.save begin since torch 1.6."""
STEPS = "global_step"
"""Where Lightning, and loops that follow it, keep how many steps of the optimizer were done."""
_ASKED = re.compile(r"GLOBAL ([\w.]+)")
_ADVICE = re.compile(r" (?:In PyTorch 2|This file can still)")


class TorchFile:
    """A state in a file of `torch.save`. No code of the file is ever run (`weights_only`), whatever it asks for.

    The file is mapped into memory and only what is asked for is read; one in the format before torch 1.6 is read whole. The
    checksums in it are compared when it is first read, and whenever it was written to since; that format has none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where, self.under = f"({path})", ""
        self._intact: Any = None

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        state = self._state()
        wanted = list(state if names is None else names)
        if missing := [name for name in wanted if name not in state]:
            raise UseError(f"{self._path} has no tensor {missing[0]}")
        return {name: _copy(state[name], f"{name} of {self._path}") for name in wanted}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._state().items()}

    def iterations(self) -> int:
        content = self._content()
        said = content.get(STEPS) if isinstance(content, Mapping) else None
        return said if isinstance(said, int) else 0

    def version(self) -> Any:
        return version_of(self._path)

    def _state(self) -> dict[str, Tensor]:
        """The tensors of the state dict, which lie in the file until they are used. What is no tensor there belongs to modules
        (their extra state), as in a model's own state dict."""
        self.under, found = _state_dict(self._content(), self._path)
        return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}

    def _content(self) -> Any:
        """All that is in the file."""
        if self._intact != (now := self.version()):
            _check(self._path)
            self._intact = now
        return _loaded(self._path)


def _check(path: Path) -> None:
    """Refuse a file whose records are not what their checksums say. PyTorch itself does not look at them."""
    if not begins(path, ZIP):
        return
    try:
        with zipfile.ZipFile(path) as file:
            summed = any(record.CRC for record in file.infolist())  # torch can be told to write none
            bad = file.testzip() if summed else None
    except Exception as problem:
        raise UseError(f"cannot read {path}: it is damaged ({type(problem).__name__}: {problem})") from None
    if bad is not None:
        raise UseError(f"cannot read {path}: it is damaged ({bad} does not match its checksum)")


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=begins(path, ZIP))
    except (FileNotFoundError, PermissionError) as problem:
        raise UseError(f"cannot read {path}: {problem.strerror}") from None
    except Exception as problem:  # a damaged or hostile pickle can raise nearly anything
        said = " ".join(str(problem).split())
        if asked := _ASKED.search(said):
            raise UseError(
                f"{path} is more than tensors: it asks for {asked[1]}, and code of a file is never run. Nothing of it was. If "
                "you trust it, load it yourself and save its state dict alone: torch.save(state_dict, path)"
            ) from None
        why = _ADVICE.split(said)[0][:200]  # what follows is how to run the code
        raise UseError(
            f"cannot read {path}: it is damaged, or not of torch.save ({type(problem).__name__}: {why})"
        ) from None


def _state_dict(content: Any, path: Path) -> tuple[str, Mapping[Any, Any]]:
    """The state dict in what a file holds, and the key that it is under."""
    inner = (
        {key: content[key] for key in WRAPPERS if _is_state(content.get(key))} if isinstance(content, Mapping) else {}
    )
    if len(inner) > 1:
        raise UseError(
            f"{path} has tensors under {' and under '.join(map(repr, inner))}; write those of the network to a file of their own"
        )
    if inner:
        return next(iter(inner.items()))
    if _is_state(content):
        return "", content
    there = ", ".join(repr(key)[:40] for key in list(content)[:8]) if isinstance(content, Mapping) else ""
    raise UseError(
        f"{path} holds no state dict: there is {f'a mapping of {there}' if there else f'a {type(content).__name__}'}, but no "
        f"tensors in it or under {', '.join(WRAPPERS)}"
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def _copy(tensor: Tensor, what: str) -> Tensor:
    """The values, apart from the file: in memory they would follow what is written there later. Laid out as in a module that
    was just made, on which the last bits of products depend."""
    if tensor.device.type != "cpu":
        raise UseError(f"tensor {what} has no values")
    tensor = tensor.detach()
    return tensor.clone(memory_format=torch.contiguous_format) if tensor.layout == torch.strided else tensor.clone()
