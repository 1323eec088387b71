"""Pictures in folders, as ImageNet is laid out: PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from layerscope.data.pictures import Crop, decode, decoder_warnings, pixels
from layerscope.data.query import parse
from layerscope.data.raw import Pair, Raw, check_memory
from layerscope.errors import UseError
from layerscope.store import read_file

FORM = "imagefolder"
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

    def __len__(self) -> int:
        return sum(map(len, self.classes.values()))

    def labelled(self) -> Iterator[tuple[int, Path]]:
        for label, paths in enumerate(self.classes.values()):
            for path in paths:
                yield label, path


def read(argument: str, root: Path | None) -> Raw:
    """Images `[n, 3, crop, crop]` (uint8) and labels `[n]` (int64, the place of the class folder in the sorted list).

    `argument` is `PATH?size=256&crop=224`; a relative PATH is looked for in the working folder, then in the data folder.
    Every picture is decoded once, resized and cropped as `Crop` says, in training too: the crops are not random.
    Raises `UseError` if a picture is damaged, the splits' classes differ, or the inputs would take over `MAX_BYTES`.

    Differs from the paper (zhang2022, App. A): there the training pictures were cropped at random.
    """
    place, options = parse(FORM, argument, ("size", "crop"))
    crop = Crop.of(FORM, options)
    path = _folder(place, root)
    train, test = _listed(path / "train"), _listed(_test(path))
    _check_classes(train, test)
    check_memory(f"{FORM}:{path}", len(train) + len(test), 3 * crop.crop**2)
    said: list[str] = []
    pairs = [_decoded(pictures, crop, said) for pictures in (train, test)]
    warnings = _left_out(path, test.folder, train.skipped + test.skipped) + decoder_warnings(said)
    return Raw(pairs[0], pairs[1], len(train.classes), tuple(warnings))


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


def _decoded(pictures: _Pictures, crop: Crop, said: list[str]) -> Pair:
    images = torch.empty((len(pictures), 3, crop.crop, crop.crop), dtype=torch.uint8)
    view = images.numpy()
    for i, (_, path) in enumerate(pictures.labelled()):
        picture, warnings = decode(read_file(path), str(path))
        view[i] = pixels(crop(picture.convert("RGB"), str(path)))
        said += warnings[:1]
    return images, torch.tensor([label for label, _ in pictures.labelled()])


def _left_out(path: Path, test: Path, skipped: list[Path]) -> list[str]:
    others = [path / name for name in TEST if path / name != test and (path / name).is_dir()]
    warnings = [f"{other} was not read: the test pictures are those of {test}" for other in others]
    if skipped:
        warnings.append(f"{len(skipped)} files of {path} that are no pictures were skipped, first {skipped[0]}")
    return warnings
