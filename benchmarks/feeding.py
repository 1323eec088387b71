"""Pictures a second: decoded by all processors, against one after the other as it was before."""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from benchmarks.frame import Result, ratio
from layerscope.data.feed import threads
from layerscope.data.pictures import FORMATS, Crop, pixels
from layerscope.data.squares import Files, Pictures, look
from layerscope.store import read_file

CROP = Crop(256, 224)
BATCH = 32
GOAL = 0.8
"""Of a processor's worth, for each processor."""


def run(root: str | None = None) -> list[Result]:
    """On the 200 pictures of imagenet-sample below `root` or LAYERSCOPE_DATA; nothing where they are not."""
    folder = Path(root or os.environ.get("LAYERSCOPE_DATA", ".")) / "imagenet-sample" / "val"
    paths = [str(path) for path in sorted(folder.rglob("*.JPEG"))]
    if not paths:
        return []
    files = Files(paths, CROP, whole=True)
    needed = Pictures(files, CROP, 127.0, 64.0)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    works = {
        "the pass at load: decoded, counted, hashed and kept": lambda: look(files, keep=True),
        f"an epoch decoded as needed, batches of {BATCH}": lambda: [None for _ in needed.ordered(order, BATCH)],
    }
    return [row(what, len(paths), *ratio(work, lambda: one_by_one(paths))) for what, work in works.items()]


def row(what: str, n: int, ours: float, before: float, quotient: float) -> Result:
    goal = GOAL * threads()
    return Result(
        f"{n} ImageNet pictures, {threads()} threads; {what}",
        f"{n / ours:.0f} pictures/s, {1 / quotient:.2f}x",
        f"one by one {n / before:.0f} pictures/s",
        f">= {goal:.1f}x",
        1 / quotient >= goal,
    )


def one_by_one(paths: Sequence[str]) -> torch.Tensor:
    """The loop that layerscope had before, copied: one thread, crops only, floats at the end."""
    images = torch.empty((len(paths), 3, CROP.crop, CROP.crop), dtype=torch.uint8)
    view = images.numpy()
    for i, path in enumerate(paths):
        with warnings.catch_warnings(record=True), Image.open(io.BytesIO(read_file(path)), formats=FORMATS) as file:
            picture = file.convert("RGB")
        view[i] = pixels(middle(picture.convert("RGB")))
    return images.float().sub_(127.0).div_(64.0)


def middle(picture: Image.Image) -> Image.Image:
    """As it was cut before: always resized, if only to the size it has."""
    short = min(picture.size)
    width, height = (int(CROP.size * side / short) for side in picture.size)
    left, top = round((width - CROP.crop) / 2), round((height - CROP.crop) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + CROP.crop, top + CROP.crop))
