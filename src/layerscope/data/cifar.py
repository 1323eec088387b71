"""CIFAR-10 and CIFAR-100 in the two forms they were published in: Python pickles and binary records.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; www.cs.toronto.edu/~kriz/cifar.html.
An image is 3,072 bytes: the red, the green and the blue plane, each 32 x 32 row by row.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerscope.data.pickles import bytes_of_array, read_pickle
from layerscope.data.raw import Pair, Raw, data_folder, unpublished
from layerscope.errors import UseError
from layerscope.store import read_file

PLANES = (3, 32, 32)
PIXELS = 3 * 32 * 32
IMAGES = {"train": 50_000, "test": 10_000}
"""Size of the published splits, of both sets."""

Arrays = tuple[np.ndarray, np.ndarray]
"""Images `[n, 3072]` and labels `[n]` of one file, both uint8."""


@dataclass(frozen=True)
class _Set:
    """One of the two sets: its classes, where its labels are, and its files; `md5` has the published sums of the pickles."""

    classes: int
    key: str
    label_bytes: int
    pickles: str
    binary: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    md5: dict[str, str]

    def files(self, split: str, ending: str) -> list[str]:
        return [name + ending for name in (self.train if split == "train" else self.test)]


CIFAR10 = _Set(
    classes=10,
    key="labels",
    label_bytes=1,
    pickles="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
CIFAR100 = _Set(
    classes=100,
    key="fine_labels",
    label_bytes=2,  # the coarse label, then the fine one
    pickles="cifar-100-python",
    binary="cifar-100-binary",
    train=("train",),
    test=("test",),
    md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
)
SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def read(name: str, root: Path | None) -> Raw:
    """Images `[n, 3, 32, 32]` (uint8; red, green, blue) and labels `[n]` of each split, in the order of the files.

    Looked for below the data folder, below its subfolder of the set's name, and in the data folder itself; pickles first.
    """
    about = SETS[name]
    folder, ending = _find(name, about, data_folder(name, root))
    parse: Callable[[bytes, Path, _Set], Arrays] = _from_binary if ending else _from_pickle
    splits: dict[str, Pair] = {}
    differ: list[str] = []
    for split in IMAGES:
        parts = []
        for file in about.files(split, ending):
            content = read_file(folder / file)
            if not ending and hashlib.md5(content, usedforsecurity=False).hexdigest() != about.md5[file]:
                differ.append(file)
            parts.append(parse(content, folder / file, about))
        splits[split] = _join(parts)
    warnings = unpublished(name, folder, differ) + (_counts(name, splits) if ending else [])
    return Raw(splits["train"], splits["test"], about.classes, tuple(warnings))


def _find(name: str, about: _Set, root: Path) -> tuple[Path, str]:
    """The folder that holds the files and their ending; an error names the file that is missing there."""
    forms = {about.pickles: "", about.binary: ".bin"}
    places = [(base / sub, ending) for base in (root, root / name) for sub, ending in forms.items()]
    places += [(root, ending) for ending in forms.values()]
    for folder, ending in places:
        files = [file for split in IMAGES for file in about.files(split, ending)]
        missing = [file for file in files if not (folder / file).is_file()]
        if not missing:
            return folder, ending
        if len(missing) < len(files):
            raise UseError(f"{name}: {folder} lacks {', '.join(missing)}; unpack the published archive again")
    looked = ", ".join(str(folder) for folder, _ in places[:-1])
    raise UseError(f"{name} was not found; looked in {looked}. Say where it is with --data-dir or LAYERSCOPE_DATA")


def _from_pickle(content: bytes, path: Path, about: _Set) -> Arrays:
    values = read_pickle(content, path)
    if not isinstance(values, dict):
        raise UseError(f"{path} holds no dictionary with data and {about.key}")
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in values.items()}
    images = bytes_of_array(named.get("data"), PIXELS)
    if images is None:
        raise UseError(f"{path}: data is not an array of unsigned bytes, [images, {PIXELS}]")
    return images, _labels(named.get(about.key), len(images), path, about)


def _labels(labels: Any, count: int, path: Path, about: _Set) -> np.ndarray:
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise UseError(f"{path}: {about.key} is not a list of whole numbers")
    if len(labels) != count:
        raise UseError(f"{path} holds {count} images and {len(labels)} {about.key}: they do not belong together")
    wrong = next((i for i, label in enumerate(labels) if not 0 <= label < about.classes), None)
    if wrong is not None:
        raise UseError(f"{path}: the label of image {wrong} is not one of 0 to {about.classes - 1}")
    return np.array(labels, np.uint8)


def _from_binary(content: bytes, path: Path, about: _Set) -> Arrays:
    record = about.label_bytes + PIXELS
    if not content or len(content) % record:
        raise UseError(
            f"{path} has {len(content)} bytes, no multiple of the {record} of an image: truncated or damaged"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, about.label_bytes - 1]
    if labels.max() >= about.classes:
        wrong = int((labels >= about.classes).argmax())
        raise UseError(f"{path}: the label of image {wrong} is not one of 0 to {about.classes - 1}")
    return records[:, about.label_bytes :], labels


def _join(parts: list[Arrays]) -> Pair:
    images = np.concatenate([images for images, _ in parts]).reshape(-1, *PLANES)
    return torch.from_numpy(images), torch.from_numpy(np.concatenate([labels for _, labels in parts]))


def _counts(name: str, splits: dict[str, Pair]) -> list[str]:
    """A warning for each split that is not of the published size: the binary files have no published sums."""
    return [
        f"{name} {split} has {len(splits[split][1])} images; {count} were published"
        for split, count in IMAGES.items()
        if len(splits[split][1]) != count
    ]
