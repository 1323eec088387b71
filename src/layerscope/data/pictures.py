"""Single pictures of others: decoded, resized, cropped."""

import io
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import open as open_picture

from layerscope.errors import UseError
from layerscope.query import whole_number

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
"""The decoders a foreign file may reach (others of the library start programs)."""
MAX_PIXELS = 89_478_485
"""Pillow's own limit, against small files that unpack to gigabytes."""
MAX_SIZE = 2048
GREY = ("1", "L")
DEEP = ("I", "F")
"""Pillow's modes of more than 8 bits a channel begin with these; it would cut their values at 255."""

_thread = threading.local()
"""Which picture a thread decodes, while it does."""


@dataclass(frozen=True)
class Crop:
    """The short side is resized to `size` pixels (bilinear, with antialiasing), then the middle `crop` x `crop` cut out."""

    size: int
    crop: int

    @classmethod
    def of(cls, form: str, options: Mapping[str, str]) -> "Crop":
        """From the options `size` (256) and `crop` (7/8 of size: 224 of 256, as is usual)."""
        size = whole_number(form, "size", options.get("size", "256"), MAX_SIZE)
        crop = whole_number(form, "crop", options.get("crop", str(max(1, size * 7 // 8))), MAX_SIZE)
        if crop > size:
            raise UseError(f"{form}: crop {crop} is larger than size {size}, to which the short side is resized")
        return cls(size, crop)

    @property
    def margin(self) -> int:
        """How far the crop lies within the square, from above and from the left."""
        return round((self.size - self.crop) / 2)

    def __call__(self, picture: Image.Image, where: str) -> Image.Image:
        """The resized and cropped picture, with the roundings of torchvision's Resize and CenterCrop."""
        return self._cut(picture, where, self.crop, 0)

    def square(self, picture: Image.Image, where: str) -> Image.Image:
        """The resized picture's middle `size` x `size`, laid such that `inner` of it is the crop, to the pixel."""
        return self._cut(picture, where, self.size, self.margin)

    def inner(self, square: Image.Image) -> Image.Image:
        """The crop of a square."""
        return square.crop((self.margin, self.margin, self.margin + self.crop, self.margin + self.crop))

    def _cut(self, picture: Image.Image, where: str, side: int, before: int) -> Image.Image:
        """A square of this side that begins so many pixels before the crop."""
        short = min(picture.size)
        width, height = (int(self.size * length / short) for length in picture.size)
        if width * height > MAX_PIXELS:
            raise UseError(
                f"{where} is {picture.width} x {picture.height}: too long to resize its short side to {self.size}"
            )
        left, top = (round((length - self.crop) / 2) - before for length in (width, height))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return picture.crop((left, top, left + side, top + side))


def decode(content: bytes, where: str) -> tuple[Image.Image, list[str]]:
    """`decoded`, and what the decoder warned of."""
    with heard() as said:
        picture = decoded(content, where)
    return picture, [f"{where}: {said[where]}"] if where in said else []


def decoded(content: bytes, where: str) -> Image.Image:
    """The picture in 8 bits, grey (mode L) or colour (RGB). `where` is for the errors, and for `heard`.

    Transparency and the orientation that a camera noted are left aside, as is usual for ImageNet.
    """
    _thread.where = where
    try:
        with open_picture(io.BytesIO(content), formats=FORMATS) as picture:
            _check(picture, where)
            return in_mode("L" if picture.mode in GREY else "RGB", picture)
    except UseError:
        raise
    except UnidentifiedImageError:
        raise UseError(f"{where} is damaged or no picture; read are {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise _too_large(where) from None
    except Exception as problem:  # a damaged picture can raise nearly anything
        raise UseError(f"{where} is damaged: {problem}") from None
    finally:
        _thread.where = None


def in_mode(mode: str, picture: Image.Image) -> Image.Image:
    """The picture in one of Pillow's modes, decoded; itself if it is in that mode: `convert` would copy it, which takes a
    tenth of the time of decoding it."""
    picture.load()
    return picture if picture.mode == mode else picture.convert(mode)


@contextmanager
def heard() -> Iterator[dict[str, str]]:
    """What the decoder warns of meanwhile, in whatever thread: where -> the first warning.

    Python's state of warnings belongs to the whole process, so one thread hears for all. Where nobody does, warnings
    go their usual way.
    """
    said: dict[str, str] = {}
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def hear(message: Warning | str, *about: Any, **more: Any) -> None:
            where = getattr(_thread, "where", None)
            if where is None:
                usual(message, *about, **more)
            else:
                said.setdefault(where, str(message))

        warnings.simplefilter("always")
        warnings.showwarning = hear
        yield said


def pixels(picture: Image.Image) -> np.ndarray:
    """The grey levels, uint8 `[height, width]` of a grey picture, `[3, height, width]` of a coloured one."""
    array = np.asarray(picture)
    return array if array.ndim == 2 else array.transpose(2, 0, 1)


def decoder_warnings(said: list[str]) -> list[str]:
    """One warning for all pictures that the decoder warned of."""
    return [f"the decoder warned of {len(said)} pictures, first {said[0]}"] if said else []


def _check(picture: Image.Image, where: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(where)
    if picture.mode.startswith(DEEP):
        raise UseError(f"{where} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits")


def _too_large(where: str) -> UseError:
    return UseError(f"{where} unpacks to more than {MAX_PIXELS:,} pixels: refused as a decompression bomb")
