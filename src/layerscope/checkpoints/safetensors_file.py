"""Safetensors files, of layerscope and of anyone else."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from layerscope.checkpoints.source import version_of
from layerscope.errors import UseError
from layerscope.store import SUMS, Folder

SUFFIX = ".safetensors"


class SafetensorsFile:
    """A state in a safetensors file; its checksum is verified if the folder lists checksums."""

    under = ""

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, Folder(path.parent)
        self.where = f"({path})"

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        wanted = None if names is None else list(names)
        return self._with_file(
            lambda file: {n: file.get_tensor(n) for n in (file.keys() if wanted is None else wanted)}
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._with_file(lambda file: {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()})  # noqa: SIM118

    def iterations(self) -> int:
        return 0

    def version(self) -> Any:
        return version_of(self._path)

    def _with_file(self, use: Callable[[Any], Any]) -> Any:
        from safetensors import SafetensorError, safe_open

        listed = (self._folder.path / SUMS).exists()
        path = self._folder.file(self._path.name) if listed else self._path
        try:
            with safe_open(path, framework="pt") as file:
                return use(file)
        except (SafetensorError, OSError) as problem:
            raise UseError(f"cannot read {path}: {problem}") from None
