"""Sets of pictures of the Hugging Face hub, or of a local folder in one of its formats, through the library `datasets`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerscope.data.pictures import Crop, decode, decoder_warnings, pixels
from layerscope.data.raw import Raw, check_memory
from layerscope.errors import UseError
from layerscope.store import read_file

FORM = "hub"
SMALLER = "Use fewer pictures or a smaller crop (?size=64&crop=56)"
OPTIONS = ("size", "crop", "config", "revision", "image", "label", "test")
TEST = ("test", "validation", "val")
"""The test split is the first of these that there is, or the one the option `test` names."""
LABELS = ("label", "labels", "fine_label")
"""Which column of labels is meant where there are several, in this order."""


def read(name: str, options: Mapping[str, str], root: Path | None) -> Raw:
    """Images (uint8; `[n, height, width]` if all are grey, else `[n, 3, height, width]`) and labels `[n]` (int64).

    `name` is that of a set of the hub or a local folder. Of the options, `size` and `crop` are as for `imagefolder`
    (without them pictures are taken as they are, and must be of one size), but training pictures are cropped too;
    `config` and `revision` are the set's; `image`, `label` and `test` name the columns and the test split, where they
    cannot be found. Code that a set brings is never run (`datasets` of version 4 and later cannot). The library keeps
    its own cache: HF_HOME says where.
    """
    crop = Crop.of(FORM, options) if options.keys() & {"size", "crop"} else None
    source = f"{FORM}:{name}"
    loaded = _load(name, options)
    if "train" not in loaded:
        raise UseError(f"{source} has no split train, by which inputs are normalised; it has {', '.join(loaded)}")
    test = _test(source, loaded, options.get("test"))
    image, label = _columns(source, loaded["train"].features, options)
    said: list[str] = []
    splits = [(split, _labelled(source, split, loaded[split], image, label)) for split in ("train", test)]
    if crop:
        check_memory(source, sum(len(rows) for _, rows in splits), 3 * crop.crop**2, "images", SMALLER)
    pairs = [_decoded(f"{source} {split}", rows, image, label, crop, said) for split, rows in splits]
    pairs = _of_same_depth(pairs)
    others = [split for split in loaded if split not in ("train", test)]
    warnings = [f"of {source} the splits {', '.join(others)} were not read"] if others else []
    classes = loaded["train"].features[label].num_classes
    return Raw(pairs[0], pairs[1], classes, tuple(warnings + decoder_warnings(said)))


def _load(name: str, options: Mapping[str, str]) -> Any:
    """The set's splits by name. Anything the library may raise, from the network to a foreign file, is our error."""
    if not name:
        raise UseError(f"{FORM} needs the name of a data set: {FORM}:NAME or {FORM}:FOLDER")
    try:
        from datasets import load_dataset
    except ImportError:
        raise UseError(f"{FORM}:{name} needs the library datasets: pip install 'layerscope[hub]'") from None
    if name.startswith(("/", ".", "~")) and not Path(name).expanduser().is_dir():
        raise UseError(f"{FORM}: there is no folder {name}")
    place = str(Path(name).expanduser()) if name.startswith("~") else name
    try:
        return load_dataset(place, options.get("config"), revision=options.get("revision"))
    except Exception as problem:
        raise UseError(f"{FORM}:{name} cannot be loaded: {problem}") from problem


def _test(source: str, loaded: Iterable[str], wanted: str | None) -> str:
    found = next((split for split in ([wanted] if wanted else TEST) if split in loaded), None)
    if found is None:
        asked = wanted or ", ".join(TEST)
        raise UseError(f"{source} has no test split ({asked}); it has {', '.join(loaded)}: name one with ?test=SPLIT")
    return found


def _columns(source: str, features: Any, options: Mapping[str, str]) -> tuple[str, str]:
    """The names of the column of pictures and of the column of labels."""
    from datasets import ClassLabel, Image

    kinds = {"image": (Image, ()), "label": (ClassLabel, LABELS)}
    found = {}
    for what, (kind, preferred) in kinds.items():
        fitting = [name for name, feature in features.items() if isinstance(feature, kind)]
        if what in options:
            fitting = [name for name in fitting if name == options[what]]
        fitting = fitting if len(fitting) == 1 else [name for name in preferred if name in fitting]
        if not fitting:
            columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
            raise UseError(
                f"{source}: which column is the {what} (of type {kind.__name__})? Its columns are {columns}; "
                f"name one with ?{what}=COLUMN"
            )
        found[what] = fitting[0]
    return found["image"], found["label"]


def _labelled(source: str, split: str, rows: Any, image: str, label: str) -> Any:
    """A split with its two columns only, pictures undecoded; an error if a row has no label."""
    from datasets import Image

    lacking = {image, label} - set(rows.features)
    if lacking:
        raise UseError(f"{source}: the split {split} has no column {' and '.join(sorted(lacking))}")
    if any(value is None or value < 0 for value in rows[label]):
        raise UseError(f"{source}: the split {split} has pictures without a label; name another with ?test=SPLIT")
    return rows.select_columns([image, label]).cast_column(image, Image(decode=False))


def _decoded(
    source: str, rows: Any, image: str, label: str, crop: Crop | None, said: list[str]
) -> tuple[Tensor, Tensor]:
    arrays: list[np.ndarray] = []
    for i, row in enumerate(rows):
        where = f"{source}, picture {i}"
        picture, warnings = decode(_content(row[image], where), where)
        arrays.append(pixels(crop(picture, where) if crop else picture))
        said += warnings[:1]
        if i == 0:
            check_memory(source, len(rows), arrays[0].size, "images", SMALLER)
        if arrays[i].shape[-2:] != arrays[0].shape[-2:]:
            sizes = [" x ".join(map(str, array.shape[-2:])) for array in (arrays[0], arrays[i])]
            raise UseError(f"{where} is {sizes[1]}, the first {sizes[0]}; bring them to one size with ?size=64&crop=56")
    if len({array.ndim for array in arrays}) > 1:
        arrays = [_coloured(array) for array in arrays]
    images = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, 1, 1, dtype=torch.uint8)
    return images, torch.tensor(list(rows[label]), dtype=torch.int64)


def _content(value: Any, where: str) -> bytes:
    """The encoded picture, from the table or from the file that the table names."""
    if isinstance(value, dict) and value.get("bytes") is not None:
        return value["bytes"]
    if isinstance(value, dict) and value.get("path"):
        return read_file(value["path"])
    raise UseError(f"{where} is missing")


def _coloured(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 3 else np.stack([array] * 3)


def _of_same_depth(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Grey pictures in three channels where the other split is in colour."""
    if pairs[0][0].ndim == pairs[1][0].ndim:
        return pairs
    return [(x if x.ndim == 4 else x.unsqueeze(1).expand(-1, 3, -1, -1).contiguous(), y) for x, y in pairs]
