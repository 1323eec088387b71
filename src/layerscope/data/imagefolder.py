"""Pictures in folders, as ImageNet is laid out: PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import PIL
import torch
from torch import Tensor

from layerscope.data.pictures import Crop, decoder_warnings
from layerscope.data.raw import Raw, Ready
from layerscope.data.squares import Files, Look, Pictures, look
from layerscope.errors import UseError
from layerscope.query import number_of_bytes
from layerscope.state import content_hash

FORM = "imagefolder"
OPTIONS = ("size", "crop", "memory")
MEMORY = "8GiB"
"""How much of the memory the decoded pictures may take, unless another limit is given."""
ENDINGS = (".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff")
"""A file with another ending, or a hidden one, is not taken for a picture."""
TEST = ("val", "test")
"""Where the test pictures are; the first that is there. (ImageNet's own test/ has no labels.)"""


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a split, by class folder, sorted; and what else lay there."""

    folder: Path
    classes: dict[str, list[Path]]
    skipped: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """All of them, class by class."""
        return [str(path) for paths in self.classes.values() for path in paths]

    @property
    def labels(self) -> Tensor:
        """`[n]`, int64."""
        return torch.arange(len(self.classes)).repeat_interleave(torch.tensor([len(x) for x in self.classes.values()]))


def read(place: str, options: Mapping[str, str], root: Path | None) -> Raw:
    """Pictures `[n, 3, crop, crop]` and labels `[n]` (int64, the place of the class folder in the sorted list).

    Options: `size` (256), to which the short side is resized; `crop` (7/8 of it), the middle that networks get; `memory`
    (8GiB). Every picture is decoded once, by as many threads as there are processors, which finds damaged ones and the
    mean and standard deviation of the training pixels within the crops. Training pictures stay whole squares of `size`,
    of which `Split.ordered` gives all, to be cropped at random, and `Split.batches` the middle. A split whose squares fit
    into `memory` as bytes is kept there, the test split first; of another each batch is decoded as it is needed.

    A relative PATH is looked for in the working folder, then in the data folder.
    Raises `UseError` if a picture is damaged or the splits' classes differ.
    """
    crop, memory = Crop.of(FORM, options), number_of_bytes(f"{FORM}: option memory", options.get("memory", MEMORY))
    path = _folder(place, root)
    listed = {"train": _listed(path / "train"), "test": _listed(_test(path))}
    train, test = listed.values()
    _check_classes(train, test)
    files = {split: Files(found.paths, crop, whole=split == "train") for split, found in listed.items()}
    kept = _kept(files, memory)
    looks = {split: look(each, keep=split in kept) for split, each in files.items()}
    mean, std = looks["train"].moments
    if not std:
        raise UseError(
            f"{FORM}:{path}: all training pixels have the same grey level; there is nothing to learn from them"
        )
    pairs = {split: (Pictures(each.squares, crop, mean, std), listed[split].labels) for split, each in looks.items()}
    said = [warning for each in looks.values() for warning in each.said]
    warnings = _left_out(path, test.folder, train.skipped + test.skipped) + decoder_warnings(said)
    about = {"size": crop.size, "crop": crop.crop, "kept": kept, "decoder": f"Pillow {PIL.__version__}"}
    ready = Ready(mean, std, _fingerprint(crop, listed, looks), {"pictures": about})
    return Raw(pairs["train"], pairs["test"], len(train.classes), tuple(warnings), ready)


def _kept(files: Mapping[str, Files], memory: int) -> list[str]:
    """Which splits are kept in memory: that of the test pictures first, which every analysis goes through many times."""
    kept: list[str] = []
    for split in ("test", "train"):
        if sum(files[name].nbytes for name in (*kept, split)) <= memory:
            kept.append(split)
    return kept


def _fingerprint(crop: Crop, listed: Mapping[str, _Pictures], looks: Mapping[str, Look]) -> str:
    """Of the bytes of all files, their labels, and how they are cut."""
    tensors = {f"{split} files": each.digests for split, each in looks.items()}
    tensors |= {f"{split} labels": each.labels for split, each in listed.items()}
    return content_hash(tensors | {"size, crop": torch.tensor([crop.size, crop.crop])})


def _folder(place: str, root: Path | None) -> Path:
    if not place:
        raise UseError(f"{FORM} needs a folder: {FORM}:PATH, with PATH/train/CLASS/ and PATH/val/CLASS/")
    given = Path(place).expanduser()
    tried = [given] if root is None or given.is_absolute() else [given, root / given]
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        raise UseError(f"{FORM}: there is no folder {' or '.join(map(str, tried))}")
    if not (found / "train").is_dir():
        raise UseError(
            f"{FORM}: {found} has no folder train/: the inputs are normalised by the training pictures, train/CLASS/*.JPEG"
        )
    return found


def _test(path: Path) -> Path:
    folder = next((path / name for name in TEST if (path / name).is_dir()), None)
    if folder is None:
        raise UseError(
            f"{FORM}: {path} has no folder {'/ or '.join(TEST)}/ with the test pictures, {TEST[0]}/CLASS/*.JPEG"
        )
    return folder


def _listed(folder: Path) -> _Pictures:
    listed = _Pictures(folder, {})
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            listed.skipped.append(entry)
        else:
            listed.classes[entry.name] = _pictures(entry, listed.skipped)
    if not listed.classes:
        raise UseError(f"{FORM}: {folder} holds no class folders; the layout is {folder.name}/CLASS/*.JPEG")
    return listed


def _pictures(folder: Path, skipped: list[Path]) -> list[Path]:
    """The pictures of a class, at any depth; what is none is added to `skipped`, a link to a folder too."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        picture = path.suffix.lower() in ENDINGS and not hidden and not path.is_dir()
        (found if picture else skipped).append(path)
    if not found:
        raise UseError(f"{FORM}: the class folder {folder} holds no pictures ({', '.join(ENDINGS)})")
    return found


def _check_classes(train: _Pictures, test: _Pictures) -> None:
    for one, other in ((train, test), (test, train)):
        lacking = [name for name in one.classes if name not in other.classes]
        if lacking:
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            raise UseError(
                f"{FORM}: {other.folder} lacks class folders that {one.folder} has: {', '.join(lacking[:5])}{more}; "
                "both must have the same classes"
            )


def _left_out(path: Path, test: Path, skipped: list[Path]) -> list[str]:
    others = [path / name for name in TEST if path / name != test and (path / name).is_dir()]
    warnings = [f"{other} was not read: the test pictures are those of {test}" for other in others]
    if skipped:
        warnings.append(f"{len(skipped)} files of {path} that are no pictures were skipped, first {skipped[0]}")
    return warnings
