"""Pickles of others, read without running anything of theirs.

A pickle is a program: it may name any function of any module and have it called. This reader knows the names that
CIFAR's files need and no other, and what they name here are inert records: not even NumPy is called by the file.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.errors import UseError


class _Record:
    """What a pickle said of an object: the arguments it would have called it with, and the state it would have set.

    Each name is answered with a subclass, never with a function or instance: setting attributes on what was answered
    (the opcode BUILD) then fails, since a class's `__setstate__` lacks its first argument.
    """

    __slots__ = ("arguments", "state")
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "_Record":
        record = object.__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    __slots__ = ()


class _ArrayClass(_Record):
    __slots__ = ()


class _DType(_Record):
    __slots__ = ()


class _Encode(_Record):
    """Python 3 writes bytes as text for protocols below 3, to be encoded again when read."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> bytes:  # pyright: ignore[reportInconsistentConstructor]
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("an encoding other than latin1")
        return str.encode(text, "latin1")


ADMITTED: dict[tuple[str, str], type[_Record]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode,
}
"""The only names that a pickle may use, and what stands for them."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in ADMITTED:
            asked = f"{module}.{name}"[:200]
            raise UseError(
                f"{self._path} asks for {asked!r}, which no genuine file of this kind needs: refused, and nothing of it "
                "was executed. Get the file again from its publisher"
            )
        return ADMITTED[module, name]


def read_pickle(content: bytes, path: Path) -> Any:
    """The lists, dictionaries, numbers, text and bytes of a pickle; arrays come out through `bytes_of_array`.

    `path` is for the messages. A name that is not `ADMITTED` is an error before anything is called; text that Python 2
    wrote comes as bytes.
    """
    try:
        _check_memo(content)
        return _Unpickler(content, path).load()
    except UseError:
        raise
    except Exception as problem:  # a damaged pickle can raise nearly anything
        raise UseError(f"{path} is damaged or not a pickle ({type(problem).__name__})") from None


def bytes_of_array(value: Any, columns: int) -> np.ndarray | None:
    """The uint8 array `[n, columns]` (read-only) that a pickle describes; None if it describes anything else."""
    if not isinstance(value, _Array) or not isinstance(value.state, tuple) or len(value.state) != 5:
        return None
    _, shape, dtype, by_columns, content = value.state
    if not isinstance(shape, tuple) or [type(size) for size in shape] != [int, int] or shape[1] != columns:
        return None
    if not isinstance(dtype, _DType) or dtype.arguments[:1] not in (("u1",), (b"u1",)):
        return None
    if type(content) is not bytes or len(content) != math.prod(shape):
        return None
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _check_memo(content: bytes) -> None:
    """Refuse a memo index that no pickler writes: the unpickler would fill memory up to it."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument is None or argument > count):
            raise pickle.UnpicklingError("a memo index out of order")
