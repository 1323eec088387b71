"""What a checkpoint is to the rest: values somewhere, read when they are asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from layerscope.state import State, shapes_of


@runtime_checkable
class Source(Protocol):
    """Values of a network somewhere. Nothing but names is kept between two calls.

    `where` is how a message calls the place (empty for memory); `under` is the key of the file under which the values were
    found, once it was looked at: empty if they are all that is in it.
    """

    where: str
    under: str

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        """Some of the tensors, by their names (all, with None)."""
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, without reading their values."""
        ...

    def iterations(self) -> int:
        """After how many steps of the optimizer the file itself says that it was written; 0 where it does not say."""
        ...

    def version(self) -> Any:
        """What differs if the values may have changed since; None where nobody can tell without reading them."""
        ...


class Memory:
    """A state in memory."""

    where = under = ""

    def __init__(self, state: State) -> None:
        self._state = {name: tensor.detach() for name, tensor in state.items()}

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        return dict(self._state) if names is None else {name: self._state[name] for name in names}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes_of(self._state)

    def iterations(self) -> int:
        return 0

    def version(self) -> None:
        return None


def version_of(path: Path) -> tuple[int, ...] | None:
    """Size, place and times of a file; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
