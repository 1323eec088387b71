"""The formats that are read: a new one is a file of this package and a row here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layerscope.checkpoints.hugging_face import hugging_face, weights_of
from layerscope.checkpoints.safetensors_file import SUFFIX, SafetensorsFile
from layerscope.checkpoints.sharded import INDEX, SHARD, Sharded
from layerscope.checkpoints.source import Source
from layerscope.checkpoints.torch_file import SUFFIXES, TorchFile
from layerscope.errors import UseError


@dataclass(frozen=True)
class Format:
    """How a checkpoint may lie on disk: what is one, and what reads it."""

    name: str
    is_one: Callable[[Path], bool]
    source: Callable[[Path], Source]


FORMATS = (
    Format(f"a {SUFFIX} file", lambda path: path.is_file() and path.suffix == SUFFIX, SafetensorsFile),
    Format(
        f"a {', '.join(SUFFIXES)} file of torch.save",
        lambda path: path.is_file() and path.suffix in SUFFIXES,
        TorchFile,
    ),
    Format(f"an {INDEX} file", lambda path: path.is_file() and path.name.endswith(INDEX), Sharded),
    Format("a folder of Hugging Face", lambda path: weights_of(path) is not None, hugging_face),
)


def is_checkpoint(path: Path) -> bool:
    """Whether something there is in one of the formats, by its name."""
    return any(each.is_one(path) for each in FORMATS)


def source_of(path: Path) -> Source:
    """The checkpoint at a path."""
    if not path.exists():
        raise UseError(f"there is no file or folder {path}")
    found = next((each for each in FORMATS if each.is_one(path)), None)
    if found is None:
        raise UseError(f"{path} is no checkpoint: expected {', or '.join(each.name for each in FORMATS)}")
    if SHARD.search(path.stem):
        raise UseError(
            f"{path} is one of several files of a checkpoint; name their index (*{INDEX}) or the folder that has it"
        )
    return found.source(path)
