"""The IDX files of MNIST and its relatives, as they were published (gzip) or unpacked."""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerscope.data.raw import Pair, Raw, data_folder, unpublished
from layerscope.errors import UseError
from layerscope.store import first_existing, read_file

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw")}
"""Where below the data folder each set is looked for, before the data folder itself (the layout torchvision uses too)."""

CLASSES = 10
"""Of each of these sets, as published."""
CONTENTS = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7a",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d7",
        "t10k-images-idx3-ubyte": "0fa7898d509279e4",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de3373",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc8",
        "train-labels-idx1-ubyte": "bad3541b69d91243",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91e",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663",
    },
}
"""The first 16 digits of the SHA-256 of each unpacked file. The two sets have the same file names, so that a wrong folder
would silently give the wrong set; repacked archives have other checksums, so that the unpacked content is compared."""


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor of an IDX file; refuses another type, and a file with more or fewer bytes than it announces."""
    return _parse(read_file(path), path)


def read(name: str, root: Path | None) -> Raw:
    """Images `[n, 28, 28]` and labels `[n]` (uint8) of each split below a data folder."""
    root = data_folder(name, root)
    splits: dict[str, Pair] = {}
    differ: list[Path] = []
    for split, files in FILES.items():
        loaded = []
        for file in files:
            path = _find(name, root, file)
            content = read_file(path)
            if not _published(name, file, content, path):
                differ.append(path)
            loaded.append(_parse(content, path))
        images, labels = loaded
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UseError(
                f"{name} {split}: images {list(images.shape)} and labels {list(labels.shape)} do not belong together"
            )
        splits[split] = (images, labels)
    warnings = unpublished(name, differ[0].parent, [path.name for path in differ]) if differ else []
    return Raw(splits["train"], splits["test"], CLASSES, tuple(warnings))


def _find(name: str, root: Path, file: str) -> Path:
    folders = [root / sub for sub in FOLDERS[name]] + [root]
    path = first_existing([folder / (file + ending) for folder in folders for ending in (".gz", "")])
    if path is None:
        looked = ", ".join(map(str, folders))
        raise UseError(
            f"{name}: {file}.gz is missing; looked in {looked}. Say where it is with --data-dir or LAYERSCOPE_DATA"
        )
    return path


def _published(name: str, file: str, content: bytes, path: Path) -> bool:
    digest = hashlib.sha256(content).hexdigest()[:16]
    for other, known in CONTENTS.items():
        if other != name and known[file] == digest:
            raise UseError(f"{path} is the file of {other}, not of {name}; use --data {other} or another --data-dir")
    return CONTENTS[name][file] == digest


def _parse(content: bytes, path: Path) -> Tensor:
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UseError(f"{path} is not an IDX file")
    if content[2] != 8:
        raise UseError(f"{path} holds IDX type 0x{content[2]:02x}; only unsigned bytes (0x08) are read")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UseError(f"{path} is truncated within its header")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    if len(content) - header != math.prod(shape):
        raise UseError(
            f"{path} announces {math.prod(shape)} bytes of data ({shape}) and holds {len(content) - header}: truncated or damaged"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())
