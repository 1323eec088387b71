"""The readers on tiny files of the true format, and on the real data where it is there."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import layerscope as ls
from layerscope.data import _moments
from layerscope.data.idx import FILES, read_idx
from layerscope.errors import UseError

IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """The format as Y. LeCun's page gives it: two zero bytes, type 8, number of dimensions, big-endian sizes, data."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    for split, (images, labels) in FILES.items():
        count = 6 if split == "train" else 3
        (tmp_path / f"{images}.gz").write_bytes(gzip.compress(idx(IMAGES[:count])))
        (tmp_path / f"{labels}.gz").write_bytes(gzip.compress(idx(LABELS[:count])))
    return tmp_path


def test_tiny_files(folder):
    data = ls.data.load("mnist", folder)
    mean, std = IMAGES.mean(), IMAGES.std()
    assert (data.mean, data.std) == pytest.approx((mean, std))
    assert data.train.inputs.shape == (6, 1, 4, 4)
    assert np.allclose(data.train.inputs[:, 0].numpy() * std + mean, IMAGES, atol=1e-4)
    assert data.test.targets.tolist() == [0, 1, 2]
    assert (data.classes, data.input_shape) == (10, (1, 4, 4))
    assert data.nbytes == (6 + 3) * (16 * 4 + 8)
    (warning,) = data.warnings
    assert "not the published files of mnist" in warning
    assert all(file + ".gz" in warning for files in FILES.values() for file in files)


def test_unpacked_files_and_torchvisions_folders(folder):
    below = folder / "MNIST" / "raw"
    below.mkdir(parents=True)
    for path in folder.glob("*.gz"):
        (below / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(ls.data.load("mnist", folder).train) == 6


def test_the_fingerprint_changes_with_any_pixel_or_label(folder):
    before = ls.data.load("mnist", folder).fingerprint
    assert ls.data.load("mnist", folder).fingerprint == before
    for name, array in (
        ("t10k-labels-idx1-ubyte.gz", LABELS[:3].copy()),
        ("train-images-idx3-ubyte.gz", IMAGES.copy()),
    ):
        array.flat[-1] += 1
        (folder / name).write_bytes(gzip.compress(idx(array)))
        after = ls.data.load("mnist", folder).fingerprint
        assert after != before
        before = after


def test_a_missing_file_says_which_and_where(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UseError, match=r"t10k-labels-idx1-ubyte\.gz is missing; looked in .*MNIST/raw.*--data-dir"):
        ls.data.load("mnist", folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: gzip.compress(raw)[:-20], "truncated or not a gzip file"),
        (lambda raw: raw, "truncated or not a gzip file"),
        (lambda raw: gzip.compress(raw[:-1]), "announces 96 bytes of data .* and holds 95"),
        (lambda raw: gzip.compress(raw + b"1"), "holds 97"),
        (lambda raw: gzip.compress(raw[:7]), "truncated within its header"),
        (lambda raw: gzip.compress(b"\0\0\x0d" + raw[3:]), "only unsigned bytes"),
        (lambda raw: gzip.compress(b"PNG" + raw), "is not an IDX file"),
        (lambda raw: gzip.compress(b""), "is not an IDX file"),
    ],
)
def test_damaged_files(folder, damage, message):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(idx(IMAGES)))
    with pytest.raises(UseError, match=message) as caught:
        ls.data.load("mnist", folder)
    assert str(path) in str(caught.value)


def test_images_and_labels_must_belong_together(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:5])))
    with pytest.raises(UseError, match="do not belong together"):
        ls.data.load("mnist", folder)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS + 8, "mnist train: the label of image 2 is not one of 0 to 9"),
        (IMAGES[:0], LABELS[:0], "mnist train is empty"),
        (IMAGES * 0, LABELS, "all training pixels have the same grey level"),
        (IMAGES[:, :3], LABELS, r"training images are \[3, 4\], test images \[4, 4\]"),
    ],
)
def test_what_cannot_be_trained_on(folder, images, labels, message):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(UseError, match=message):
        ls.data.load("mnist", folder)


@settings(max_examples=50)
@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))))
def test_normalisation_is_exact(pixels):
    """Against the definition in float64, for grey images and for those with channels."""
    for images in (pixels, pixels[:, 0]):
        mean, std = _moments(torch.from_numpy(images.copy()))
        assert (mean, std) == pytest.approx((images.mean(dtype=np.float64), images.std(dtype=np.float64)), abs=1e-9)
        assert (std == 0) == (images.min() == images.max())


def test_names(monkeypatch):
    monkeypatch.delenv("LAYERSCOPE_DATA", raising=False)
    assert ls.data.NAMES == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")
    with pytest.raises(UseError, match=r"did you mean cifar10.*imagefolder:PATH, hub:NAME"):
        ls.data.load("cifar-10")
    with pytest.raises(UseError, match="unknown form of data set 'imagefoldr'; did you mean imagefolder"):
        ls.data.load("imagefoldr:there")
    for form in ("imagefolder", "imagefolder:", "imagefolder:?size=3"):
        with pytest.raises(UseError, match="imagefolder needs a folder: imagefolder:PATH"):
            ls.data.load(form)
    for form in ("hub", "hub:"):
        with pytest.raises(UseError, match="hub needs the name of a data set: hub:NAME"):
            ls.data.load(form)
    with pytest.raises(UseError, match="did you mean fashion-mnist"):
        ls.data.load("fasion-mnist")
    with pytest.raises(UseError, match="--data-dir DIR or LAYERSCOPE_DATA"):
        ls.data.load("mnist")


def test_the_environment_variable(folder, monkeypatch):
    monkeypatch.setenv("LAYERSCOPE_DATA", str(folder))
    assert len(ls.data.load("mnist").train) == 6


def test_digits():
    from sklearn.datasets import load_digits

    data = ls.data.load("digits")
    assert (len(data.train), len(data.test), data.classes) == (1437, 360, 10)
    images = torch.cat([data.train.inputs, data.test.inputs]).flatten(1) * data.std + data.mean
    published = load_digits().data
    ours = images.round().numpy()
    assert np.array_equal(ours[np.lexsort(ours.T)], published[np.lexsort(published.T)])
    assert data.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train.inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.bincount(data.test.targets).min() > 20


def test_batches_go_round_again():
    batches = ls.data.load("digits").test.batches(128)
    assert [len(y) for _, y in batches] == [128, 128, 104] == [len(y) for _, y in batches]
    assert len(batches) == 3


def test_real_mnist(real_mnist):
    data = ls.data.load("mnist", real_mnist)
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert (data.mean / 255, data.std / 255) == pytest.approx((0.1307, 0.3081), abs=5e-5)  # as widely published
    assert torch.bincount(data.test.targets).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert data.warnings == ()
    assert read_idx(real_mnist / "mnist" / "t10k-labels-idx1-ubyte.gz")[:5].tolist() == [7, 2, 1, 0, 4]


def test_another_set_under_the_same_names_is_refused(real_mnist):
    with pytest.raises(UseError, match="is the file of mnist, not of fashion-mnist; use --data mnist"):
        ls.data.load("fashion-mnist", real_mnist / "mnist")
