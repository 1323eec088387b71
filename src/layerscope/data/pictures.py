"""Single pictures of others: decoded, resized, cropped."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import open as open_picture

from layerscope.data.query import whole_number
from layerscope.errors import UseError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
"""The decoders a foreign file may reach (others of the library start programs)."""
MAX_PIXELS = 89_478_485
"""Pillow's own limit, against small files that unpack to gigabytes."""
MAX_SIZE = 2048
GREY = ("1", "L")
DEEP = ("I", "F")
"""Pillow's modes of more than 8 bits a channel begin with these; it would cut their values at 255."""


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

    def __call__(self, picture: Image.Image, where: str) -> Image.Image:
        """The resized and cropped picture, with the roundings of torchvision's Resize and CenterCrop."""
        short = min(picture.size)
        width, height = (int(self.size * side / short) for side in picture.size)
        if width * height > MAX_PIXELS:
            raise UseError(
                f"{where} is {picture.width} x {picture.height}: too long to resize its short side to {self.size}"
            )
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + self.crop, top + self.crop))


def decode(content: bytes, where: str) -> tuple[Image.Image, list[str]]:
    """The picture in 8 bits, grey (mode L) or colour (RGB), and what the decoder warned of. `where` is for the errors.

    Transparency and the orientation that a camera noted are left aside, as is usual for ImageNet.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with open_picture(io.BytesIO(content), formats=FORMATS) as picture:
                _check(picture, where)
                decoded = picture.convert("L" if picture.mode in GREY else "RGB")
        except UseError:
            raise
        except UnidentifiedImageError:
            raise UseError(f"{where} is damaged or no picture; read are {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise _too_large(where) from None
        except Exception as problem:  # a damaged picture can raise nearly anything
            raise UseError(f"{where} is damaged: {problem}") from None
    return decoded, [f"{where}: {warning.message}" for warning in said]


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
