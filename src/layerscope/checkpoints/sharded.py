"""A state in several files, with an index that says which tensor lies where: as Hugging Face writes large models."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from layerscope.checkpoints.safetensors_file import SUFFIX, SafetensorsFile
from layerscope.checkpoints.source import version_of
from layerscope.checkpoints.torch_file import TorchFile
from layerscope.errors import UseError
from layerscope.store import read_file

INDEX = ".index.json"
SHARD = re.compile(r"-\d+-of-\d+$")


class Sharded:
    """A state in the shards that an index names (`model.safetensors.index.json`, `pytorch_model.bin.index.json`).

    Each file is read as any other of its kind. The index may name files of its own folder only, and must agree with them.
    """

    under = ""

    def __init__(self, index: Path) -> None:
        self._index = index
        self.where = f"({index})"

    def read(self, names: Iterable[str] | None) -> dict[str, Tensor]:
        wanted = None if names is None else set(names)
        found: dict[str, Tensor] = {}
        for shard, inside in self._shards().items():
            mine = [name for name in inside if wanted is None or name in wanted]
            found |= _file(shard).read(mine) if mine else {}
        if missing := [name for name in wanted or () if name not in found]:
            raise UseError(f"{self._index} has no tensor {missing[0]}")
        return found

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for shard, inside in self._shards().items():
            there = _file(shard).shapes()
            if differ := sorted(there.keys() ^ set(inside)):
                which = "has" if differ[0] in there else "does not have"
                raise UseError(f"{shard} {which} {differ[0]}, unlike what {self._index} says")
            shapes |= there
        return shapes

    def iterations(self) -> int:
        return 0

    def version(self) -> Any:
        return tuple(version_of(path) for path in (self._index, *self._shards()))

    def _shards(self) -> dict[Path, list[str]]:
        """File -> the names of the tensors in it."""
        content = read_file(self._index)
        try:
            places = json.loads(content)["weight_map"]
        except (ValueError, KeyError, TypeError, RecursionError):
            places = None
        if not isinstance(places, Mapping) or not places or not all(isinstance(file, str) for file in places.values()):
            raise UseError(f"{self._index} is not an index of shards: it has no weight_map of tensor to file")
        shards: dict[Path, list[str]] = {}
        for name, file in places.items():
            shards.setdefault(self._index.parent / file, []).append(name)
        for shard in shards:
            if shard.parent != self._index.parent or not shard.is_file():
                raise UseError(f"{self._index} names {shard.name}, but there is no such file beside it")
        return shards


def _file(shard: Path) -> SafetensorsFile | TorchFile:
    return SafetensorsFile(shard) if shard.suffix == SUFFIX else TorchFile(shard)
