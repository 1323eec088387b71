"""Sets of the Hugging Face hub, from local folders that its real library wrote; nothing is fetched."""

import os
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image as Pillow

import layerscope as ls
from layerscope.data import raw
from layerscope.errors import UseError

os.environ["HF_HUB_OFFLINE"] = "1"  # before the library is loaded, which reads it then
datasets = pytest.importorskip("datasets", minversion="4")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delenv("LAYERSCOPE_DATA", raising=False)


def picture(seed: int, shape: tuple[int, ...] = (6, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder, splits=("train", "test"), shapes=((6, 6, 3),), labels=(0, 1, 2), **columns):
    """Parquet files of each split with the columns `picture`, `kind` and those given besides."""
    kind = columns.pop("kind", datasets.ClassLabel(names=["ant", "bird", "cat", "dog"]))
    for s, split in enumerate(splits):
        images = [Pillow.fromarray(picture(10 * s + i, shapes[i % len(shapes)])) for i in range(len(labels))]
        rows = {"picture": images, "kind": list(labels), **{name: [0] * len(labels) for name in columns}}
        features = datasets.Features({"picture": datasets.Image(), "kind": kind, **columns})
        (folder / "data").mkdir(parents=True, exist_ok=True)
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return f"hub:{folder}"


def levels(data: ls.data.DataSet, split: str = "train") -> np.ndarray:
    return (getattr(data, split).inputs.numpy() * data.std + data.mean).round()


def test_a_local_set(tmp_path):
    data = ls.data.load(write(tmp_path / "set"))
    assert (data.classes, data.input_shape, data.warnings) == (4, (3, 6, 6), ())
    assert data.train.targets.tolist() == [0, 1, 2]
    assert np.array_equal(levels(data), np.stack([picture(i) for i in range(3)]).transpose(0, 3, 1, 2))
    assert np.array_equal(levels(data, "test"), np.stack([picture(10 + i) for i in range(3)]).transpose(0, 3, 1, 2))


def test_the_global_random_state_is_left_alone(tmp_path):
    name = write(tmp_path / "set")
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    ls.data.load(name)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_grey_sets_stay_grey_and_mixed_ones_become_coloured(tmp_path):
    grey = ls.data.load(write(tmp_path / "grey", shapes=((6, 6),)))
    assert grey.input_shape == (1, 6, 6)
    assert np.array_equal(levels(grey)[1, 0], picture(1, (6, 6)))
    mixed = levels(ls.data.load(write(tmp_path / "mixed", shapes=((6, 6, 3), (6, 6)))))
    assert np.array_equal(mixed[1], np.stack([picture(1, (6, 6))] * 3))
    assert np.array_equal(mixed[0], picture(0).transpose(2, 0, 1))


def test_a_grey_split_beside_a_coloured_one(tmp_path):
    write(tmp_path / "set", splits=("train",))
    name = write(tmp_path / "set", splits=("test",), shapes=((6, 6),))
    data = ls.data.load(name)
    assert np.array_equal(levels(data, "test")[2], np.stack([picture(2, (6, 6))] * 3))


def test_pictures_of_many_sizes_need_a_crop(tmp_path):
    name = write(tmp_path / "set", shapes=((6, 6, 3), (9, 7, 3)))
    with pytest.raises(
        UseError, match=r"train, picture 1 is 9 x 7, the first 6 x 6; bring them to one size with \?size="
    ):
        ls.data.load(name)
    data = ls.data.load(name + "?size=6&crop=4")
    assert data.input_shape == (3, 4, 4)
    assert np.array_equal(levels(data)[0], picture(0).transpose(2, 0, 1)[:, 1:5, 1:5])


def test_splits(tmp_path):
    data = ls.data.load(write(tmp_path / "a", splits=("train", "validation")))
    assert (len(data.test), data.warnings) == (3, ())
    name = write(tmp_path / "b", splits=("train", "test", "validation"))
    (warning,) = ls.data.load(name).warnings
    assert warning == f"of {name} the splits validation were not read"
    assert np.array_equal(levels(ls.data.load(name + "?test=validation"), "test")[0], picture(20).transpose(2, 0, 1))
    with pytest.raises(UseError, match=r"has no test split \(extra\); it has train"):
        ls.data.load(name + "?test=extra")
    with pytest.raises(UseError, match="has no split train, by which inputs are normalised; it has test"):
        ls.data.load(write(tmp_path / "c", splits=("test",)))
    with pytest.raises(UseError, match=r"has no test split \(test, validation, val\); it has train: name one with"):
        ls.data.load(write(tmp_path / "d", splits=("train",)))


def test_columns(tmp_path):
    two = datasets.ClassLabel(num_classes=2)
    with pytest.raises(
        UseError, match=r"which column is the label .*picture \(Image\), kind \(ClassLabel\), sort \(Cla"
    ):
        ls.data.load(write(tmp_path / "a", sort=two))
    assert ls.data.load(f"hub:{tmp_path / 'a'}?label=sort").classes == 2
    assert ls.data.load(write(tmp_path / "b", coarse_label=two, fine_label=two)).classes == 2
    number = datasets.Value("int64")
    with pytest.raises(
        UseError, match=r"which column is the label \(of type ClassLabel\)\? .*kind \(Value\); name one"
    ):
        ls.data.load(write(tmp_path / "c", kind=number))
    with pytest.raises(UseError, match="which column is the image"):
        ls.data.load(f"hub:{tmp_path / 'b'}?image=nothing")


def test_pictures_without_a_label(tmp_path):
    for i, label in enumerate((-1, None)):
        with pytest.raises(UseError, match=r"train has pictures without a label; name another with \?test=SPLIT"):
            ls.data.load(write(tmp_path / str(i), labels=(0, 1, label)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bytes": b"GIF89a"}, "picture 1 is damaged or no picture"),
        ({"path": "/nowhere/a.png"}, "cannot read /nowhere/a.png"),
        (None, "picture 1 is missing"),
    ],
)
def test_damaged_and_missing_pictures(tmp_path, content, message):
    name = write(tmp_path / "set")
    Pillow.fromarray(picture(0)).save(tmp_path / "good.png")
    good = {"bytes": (tmp_path / "good.png").read_bytes()}
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(num_classes=4)})
    rows = pyarrow.Table.from_pydict({"picture": [good, content], "kind": [0, 1]}, schema=features.arrow_schema)
    pyarrow.parquet.write_table(rows, tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(UseError, match=message):
        ls.data.load(name)


def test_memory(tmp_path, monkeypatch):
    name = write(tmp_path / "set")
    monkeypatch.setattr(raw, "MAX_BYTES", 400)
    with pytest.raises(UseError, match="6 images of 48 values would take 1,152 bytes as float32; the limit is 400"):
        ls.data.load(name + "?size=6&crop=4")
    with pytest.raises(UseError, match="3 images of 108 values would take 1,296 bytes"):
        ls.data.load(name)


def test_a_set_that_brings_code_is_not_run(tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    with pytest.raises(UseError, match="evil cannot be loaded: "):
        ls.data.load(f"hub:{folder}")
    assert not (tmp_path / "mark").exists()


def test_names_that_lead_nowhere(monkeypatch):
    with pytest.raises(UseError, match=r"hub: there is no folder \./nowhere"):
        ls.data.load("hub:./nowhere")
    with pytest.raises(UseError, match="hub:nobody/nothing cannot be loaded: "):
        ls.data.load("hub:nobody/nothing")
    with pytest.raises(UseError, match="unknown option of hub: 'lable'; did you mean label"):
        ls.data.load("hub:nobody/nothing?lable=x")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UseError, match=r"needs the library datasets: pip install 'layerscope\[hub\]'"):
        ls.data.load("hub:mnist")
