"""Pictures in folders: tiny PNGs written here, damaged and hostile files, and real ImageNet pictures where they are."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import layerscope as ls
from layerscope.data import pictures
from layerscope.data.pictures import Crop, decode
from layerscope.errors import UseError


def png(pixels: np.ndarray, depth: int = 8, size: tuple[int, int] | None = None) -> bytes:
    """A PNG by hand, after its specification: grey `[h, w]` or RGB `[h, w, 3]`. `size` may lie about (width, height)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two pictures of each of three classes to train on, one to test on; 8 x 8 pixels."""
    root = tmp_path / "set"
    for split, count in (("train", 2), ("val", 1)):
        for label, name in enumerate(["bird", "cat", "ant"]):
            for i in range(count):
                path = root / split / name / f"{i}.PNG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(picture(10 * label + i + 100 * (split == "val"))))
    return root


def load(folder: Path, options: str = "?size=8&crop=8") -> ls.data.DataSet:
    return ls.data.load(f"imagefolder:{folder}{options}")


def test_classes_and_pictures_in_order(folder):
    data = load(folder)
    assert (data.classes, data.input_shape, data.warnings) == (3, (3, 8, 8), ())
    assert data.train.targets.tolist() == [0, 0, 1, 1, 2, 2]  # ant, bird, cat
    assert data.test.targets.tolist() == [0, 1, 2]
    seeds = [20, 21, 0, 1, 10, 11]
    expected = np.stack([picture(seed) for seed in seeds]).transpose(0, 3, 1, 2)
    assert np.array_equal((data.train.inputs.numpy() * data.std + data.mean).round(), expected)
    assert (data.mean, data.std) == pytest.approx((expected.mean(), expected.std()))


def test_the_crop_is_the_middle(folder):
    whole, middle = load(folder), load(folder, "?size=8&crop=4")
    levels = [(data.test.inputs * data.std + data.mean).round() for data in (whole, middle)]
    assert torch.equal(levels[0][:, :, 2:6, 2:6], levels[1])
    assert load(folder, "?size=8").input_shape == (3, 7, 7)  # seven eighths
    assert load(folder, "").input_shape == (3, 224, 224)
    assert whole.fingerprint != middle.fingerprint


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (33, 200), (20, 31)])
def test_resizing_against_torch(height, width):
    """Torch has its own antialiased bilinear resize; both round to whole grey levels."""
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(picture(1, 5, 7)).permute(2, 0, 1)[None].float(), (height, width)
    )
    levels = smooth[0].byte()
    size, crop = 32, 24
    long = int(size * max(height, width) / min(height, width))
    shape = (size, long) if height <= width else (long, size)
    resized = torch.nn.functional.interpolate(levels[None].float(), shape, mode="bilinear", antialias=True)[0]
    top, left = round((shape[0] - crop) / 2), round((shape[1] - crop) / 2)
    expected = resized[:, top : top + crop, left : left + crop]
    ours = Crop(size, crop)(Image.fromarray(levels.permute(1, 2, 0).numpy()), "here")
    assert np.abs(pictures.pixels(ours) - expected.numpy()).max() <= 1.01


def test_test_folder_instead_of_val(folder):
    before = load(folder).fingerprint
    (folder / "val").rename(folder / "test")
    assert load(folder).fingerprint == before
    (folder / "val").mkdir()
    with pytest.raises(UseError, match=r"val holds no class folders; the layout is val/CLASS/\*\.JPEG"):
        load(folder)


def test_a_second_test_folder_is_said_not_to_be_read(folder):
    (folder / "test").mkdir()
    (warning,) = load(folder).warnings
    assert "test was not read: the test pictures are those of" in warning


def test_other_files_are_skipped_and_counted(folder):
    before = load(folder).fingerprint
    (folder / "train" / "cat" / "notes.txt").write_text("no picture")
    (folder / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (folder / "train" / ".cache").mkdir()
    (folder / "val" / "labels.csv").write_text("")
    (folder / "val" / "ant" / "link").symlink_to(folder / "val" / "cat")
    data = load(folder)
    assert data.fingerprint == before
    (warning,) = data.warnings
    assert warning.startswith(f"5 files of {folder} that are no pictures were skipped, first {folder}/train/.cache")


def test_pictures_below_the_class_folder(folder):
    below = folder / "train" / "cat" / "images"
    below.mkdir()
    (folder / "train" / "cat" / "1.PNG").rename(below / "1.PNG")
    assert len(load(folder).train) == 6


def test_a_relative_path_is_looked_for_here_and_in_the_data_folder(folder, monkeypatch):
    monkeypatch.delenv("LAYERSCOPE_DATA", raising=False)
    fingerprint = load(folder).fingerprint
    assert ls.data.load("imagefolder:set?size=8&crop=8", folder.parent).fingerprint == fingerprint
    monkeypatch.chdir(folder)
    assert ls.data.load("imagefolder:.?size=8&crop=8").fingerprint == fingerprint
    with pytest.raises(UseError, match=r"imagefolder: there is no folder elsewhere$"):
        ls.data.load("imagefolder:elsewhere")
    with pytest.raises(UseError, match=f"there is no folder elsewhere or {folder.parent}/elsewhere"):
        ls.data.load("imagefolder:elsewhere", folder.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?sise=64", "unknown option of imagefolder: 'sise'; did you mean size"),
        ("?size", r"option size needs a value, as in \?size=VALUE"),
        ("?size=", "option size needs a value"),
        ("?size=8&size=9", "option size is given twice"),
        ("?size=eight", "option size must be a whole number from 1 to 2048, not 'eight'"),
        ("?size=0", "whole number"),
        ("?size=-8", "whole number"),
        ("?size=1e3", "whole number"),
        ("?size=99999", "from 1 to 2048"),
        ("?size=8&crop=9", "crop 9 is larger than size 8"),
    ],
)
def test_options(folder, options, message):
    with pytest.raises(UseError, match=message):
        load(folder, options)


def test_missing_folders(folder):
    (folder / "val").rename(folder / "away")
    with pytest.raises(UseError, match="has no folder val/ or test/ with the test pictures"):
        load(folder)
    (folder / "away").rename(folder / "val")
    (folder / "train" / "cat").rename(folder / "train" / "dog")
    with pytest.raises(
        UseError, match=r"val lacks class folders that .*train has: dog; both must have the same classes"
    ):
        load(folder)
    (folder / "train" / "dog").rename(folder / "train" / "cat")
    (folder / "val" / "zebra").mkdir()
    with pytest.raises(UseError, match=r"the class folder .*zebra holds no pictures"):
        load(folder)
    (folder / "val" / "zebra" / "0.png").write_bytes(b"")
    with pytest.raises(UseError, match=r"train lacks class folders that .*val has: zebra"):
        load(folder)
    (folder / "train").rename(folder / "away")
    with pytest.raises(UseError, match=r"set has no folder train/: the inputs are normalised by the training pictures"):
        load(folder)


WHOLE = png(picture(3))
JPEG = io.BytesIO()
Image.fromarray(picture(3, 64, 64)).save(JPEG, "JPEG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged or no picture; read are JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is damaged or no picture"),
        (b"GIF89a" + bytes(40), "is damaged or no picture"),
        (WHOLE[:20], "is damaged"),
        (WHOLE[:-60], "is damaged"),
        (WHOLE[:60] + b"\xff" + WHOLE[61:], "is damaged"),
        (JPEG.getvalue()[:-300], "is damaged"),
        (JPEG.getvalue()[:30], "is damaged"),
        (png(np.zeros((8, 8), ">u2"), depth=16), "more than 8 bits a channel"),
        (png(picture(3), size=(30_000, 30_000)), "more than 89,478,485 pixels: refused as a decompression bomb"),
        (png(picture(3), size=(10_000, 10_000)), "refused as a decompression bomb"),
        (png(np.zeros((1, 1_000_000), np.uint8)), "1000000 x 1: too long to resize"),
    ],
    ids=range(12),
)
def test_damaged_and_hostile_pictures_are_named(folder, content, message):
    (folder / "train" / "cat" / "1.PNG").write_bytes(content)
    with pytest.raises(UseError, match=f"set/train/cat/1.PNG .*{message}"):
        load(folder, "?size=64&crop=8")


def test_a_broken_link_is_an_error(folder):
    (folder / "train" / "cat" / "2.png").symlink_to("nowhere")
    with pytest.raises(UseError, match=r"cannot read .*cat/2\.png"):
        load(folder)


MODES = {"PNG": "1 L LA P RGBA", "JPEG": "L CMYK YCbCr", "TIFF": "1 L LA P RGBA CMYK YCbCr"}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes.split()])
def test_every_mode_of_8_bits(form, mode):
    file = io.BytesIO()
    grey = Image.new("RGB", (4, 4), (250, 250, 250))
    (grey.convert("L").convert(mode) if mode == "LA" else grey.convert(mode)).save(file, form)
    decoded, said = decode(file.getvalue(), "here")
    assert decoded.mode == ("L" if mode in ("1", "L") else "RGB")
    assert np.asarray(decoded).mean() == pytest.approx(250, abs=6)
    assert said == []


def test_grey_pictures_have_three_equal_channels(folder):
    (folder / "val" / "ant" / "0.PNG").write_bytes(png(picture(5)[..., 0]))
    first = load(folder).test.inputs[0]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])


def test_what_the_decoder_warns_of_is_kept(folder, monkeypatch):
    real = pictures.open_picture

    def warning(*args, **kwargs):
        warnings.warn("odd", stacklevel=1)
        return real(*args, **kwargs)

    monkeypatch.setattr(pictures, "open_picture", warning)
    (said,) = load(folder).warnings
    assert said == f"the decoder warned of 9 pictures, first {folder}/train/ant/0.PNG: odd"


@pytest.fixture(scope="session")
def imagenet_sample() -> Path:
    for root in (os.environ.get("LAYERSCOPE_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if root and (Path(root) / "imagenet-sample" / "val").is_dir():
            return Path(root) / "imagenet-sample"
    pytest.skip("no ImageNet pictures: set LAYERSCOPE_DATA to a folder that has imagenet-sample/val")


def test_real_imagenet_pictures(imagenet_sample, tmp_path):
    with pytest.raises(
        UseError, match="imagenet-sample has no folder train/: the inputs are normalised by the training"
    ):
        ls.data.load(f"imagefolder:{imagenet_sample}")
    classes = sorted((imagenet_sample / "val").iterdir())[:6]
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for source in classes:
            (tmp_path / split / source.name).symlink_to(source)
    data = ls.data.load(f"imagefolder:{tmp_path}")
    assert (data.classes, data.input_shape, len(data.train)) == (6, (3, 224, 224), 6)
    assert data.warnings == ()
    assert 60 < data.mean < 180
    # Their short side is 256 already: the crop is the middle of the file's own pixels.
    file = Image.open(next(classes[2].iterdir())).convert("RGB")
    left, top = round((file.width - 224) / 2), round((file.height - 224) / 2)
    expected = np.asarray(file)[top : top + 224, left : left + 224].transpose(2, 0, 1)
    assert np.array_equal((data.train.inputs[2].numpy() * data.std + data.mean).round(), expected)
