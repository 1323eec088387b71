"""CIFAR-10 and CIFAR-100: tiny files of the true formats, files of an enemy, and the real data where it is there."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import layerscope as ls
from layerscope.data import cifar
from layerscope.data.pickles import ADMITTED, read_pickle
from layerscope.errors import UseError

FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
FILES = {"cifar10": [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], "cifar100": ["train", "test"]}
KEYS = {"cifar10": b"labels", "cifar100": b"fine_labels"}


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def text(value: bytes) -> bytes:
    """A string as Python 2 pickles it: SHORT_BINSTRING or BINSTRING."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def python2(images: np.ndarray, labels: list[int], key: bytes) -> bytes:
    """The opcodes of the published files, by hand: protocol 2, and NumPy as it was in 2009."""
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(M" + struct.pack("<H", len(images)) + b"M\x00\x0ct"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(images.tobytes()) + b"tb"
    items = text(b"batch_label") + text(b"a batch") + text(key) + numbers + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def python3(protocol: int):
    def write(images: np.ndarray, labels: list[int], key: bytes) -> bytes:
        return pickle.dumps({key.decode(): labels, "data": images, "filenames": ["x.png"]}, protocol=protocol)

    return write


def by_columns(images: np.ndarray, labels: list[int], key: bytes) -> bytes:
    return pickle.dumps({key: labels, b"data": np.asfortranarray(images)}, protocol=2)


def binary(images: np.ndarray, labels: list[int], key: bytes) -> bytes:
    coarse = b"\x07" if key == b"fine_labels" else b""
    return b"".join(coarse + bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


WRITERS = {"py2": python2, "py3": python3(4), "py3-2": python3(2), "py3-3": python3(3), "columns": by_columns}


def write(folder: Path, name: str, writer=python2, ending: str = "", count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """All files of a set; returns all their images and labels, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    top = 10 if name == "cifar10" else 100
    for i, file in enumerate(FILES[name]):
        images.append(pixels(count, i))
        labels.append([(i * 3 + j) % top for j in range(count - 1)] + [top - 1])
        (folder / (file + ending)).write_bytes(writer(images[-1], labels[-1], KEYS[name]))
    return np.concatenate(images), np.concatenate(labels)


def check(data: ls.data.DataSet, images: np.ndarray, labels: np.ndarray, count: int = 4) -> None:
    read = torch.cat([data.train.inputs, data.test.inputs]).numpy() * data.std + data.mean
    assert np.array_equal(read.round(), images.reshape(-1, 3, 32, 32))
    assert torch.cat([data.train.targets, data.test.targets]).tolist() == labels.tolist()
    assert len(data.test) == count
    train = images[:-count].astype(float)
    assert (data.mean, data.std) == pytest.approx((train.mean(), train.std()))


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_pickles_of_every_python(tmp_path, name, writer):
    images, labels = write(tmp_path / FOLDERS[name][0], name, WRITERS[writer])
    data = ls.data.load(name, tmp_path)
    check(data, images, labels)
    assert (data.classes, data.input_shape) == (10 if name == "cifar10" else 100, (3, 32, 32))
    (warning,) = data.warnings
    assert "not the published files" in warning
    assert warning.endswith(": " + ", ".join(FILES[name]))


@pytest.mark.parametrize("name", FOLDERS)
def test_binary_files(tmp_path, name):
    images, labels = write(tmp_path / FOLDERS[name][1], name, binary, ".bin")
    data = ls.data.load(name, tmp_path)
    check(data, images, labels)
    assert data.warnings == (
        f"{name} train has {len(images) - 4} images; 50000 were published",
        f"{name} test has 4 images; 10000 were published",
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_both_forms_have_one_fingerprint_and_lie_anywhere(tmp_path, name):
    prints = set()
    for i, (form, writer, ending) in enumerate([(0, python2, ""), (1, binary, ".bin")]):
        for j, below in enumerate([FOLDERS[name][form], f"{name}/{FOLDERS[name][form]}", "."]):
            root = tmp_path / f"{i}{j}"
            write(root / below, name, writer, ending)
            prints.add(ls.data.load(name, root).fingerprint)
    assert len(prints) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 31), st.integers(0, 31), st.integers(1, 255), st.booleans())
def test_planes_are_red_green_blue_row_by_row(image, channel, row, column, value, pickled):
    """The published description: 1,024 bytes red, then green, then blue, each in row-major order."""
    images = np.zeros((3, 3072), np.uint8)
    images[image, 1024 * channel + 32 * row + column] = value
    writer, parse = (python2, cifar._from_pickle) if pickled else (binary, cifar._from_binary)
    read, _ = cifar._join([parse(writer(images, [1, 2, 3], b"labels"), Path("batch"), cifar.CIFAR10)])
    assert read.nonzero().tolist() == [[image, channel, row, column]]
    assert read[image, channel, row, column] == value


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("LAYERSCOPE_DATA", raising=False)
    with pytest.raises(UseError, match="--data-dir DIR or LAYERSCOPE_DATA"):
        ls.data.load("cifar10")
    with pytest.raises(UseError, match=r"cifar10 was not found; looked in .*batches-py.*cifar10/cifar-10-batches-bin"):
        ls.data.load("cifar10", tmp_path)
    write(tmp_path / "cifar-10-batches-py", "cifar10")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(UseError, match="cifar-10-batches-py lacks data_batch_3"):
        ls.data.load("cifar10", tmp_path)


def test_truncated_binary_and_labels_out_of_range(tmp_path):
    write(tmp_path, "cifar10", binary, ".bin")
    path = tmp_path / "data_batch_2.bin"
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole + b"1"):
        path.write_bytes(content)
        with pytest.raises(UseError, match=r"data_batch_2\.bin has \d+ bytes, no multiple of the 3073"):
            ls.data.load("cifar10", tmp_path)
    path.write_bytes(whole[:3073] + b"\x0a" + whole[3074:])
    with pytest.raises(UseError, match=r"data_batch_2\.bin: the label of image 1 is not one of 0 to 9"):
        ls.data.load("cifar10", tmp_path)


class Enemy:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def enemies(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Files that would leave a mark if anything of them were run, and the name that each asks for."""
    touch = f"touch {mark}"
    system = Enemy(os.system, touch)
    code = f"open({str(mark)!r}, 'w')"
    good = {"data": pixels(2), "labels": [1, 2]}
    line = touch.encode()
    return {
        "alone": (pickle.dumps(system), "posix.system"),
        "protocol 0": (pickle.dumps(system, protocol=0), "posix.system"),
        "among labels": (pickle.dumps(good | {"labels": [1, system]}), "posix.system"),
        "as the data": (pickle.dumps(good | {"data": system}), "posix.system"),
        "as a key": (pickle.dumps(good | {system: 1}), "posix.system"),
        "in another key": (pickle.dumps(good | {"filenames": [("a", [system])]}), "posix.system"),
        "builtins": (pickle.dumps(good | {"labels": [Enemy(eval, code)]}), "builtins.eval"),
        "python 2's": (b"c__builtin__\neval\n(S" + repr(code).encode() + b"\ntR.", "eval"),
        "getattr": (pickle.dumps(Enemy(getattr, "", "join")), "builtins.getattr"),
        "of numpy": (pickle.dumps(Enemy(np.load, str(mark))), "numpy.load"),
        "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        "opcode INST": (b"(S'" + line + b"'\niposix\nsystem\n.", "posix.system"),
        "opcode OBJ": (b"(cposix\nsystem\nS'" + line + b"'\no.", "posix.system"),
        "late": (pickle.dumps(good)[:-1] + b"0cposix\nsystem\n(S'" + line + b"'\ntR.", "posix.system"),
        "escape codes": (b"c\x1b[2Jmodule\nname\n.", "x1b.2Jmodule.name"),
    }


@pytest.mark.parametrize("kind", enemies(Path("mark")))
def test_nothing_of_a_hostile_pickle_is_executed(tmp_path, kind):
    mark = tmp_path / "mark"
    content, name = enemies(mark)[kind]
    write(tmp_path, "cifar10")
    (tmp_path / "data_batch_4").write_bytes(content)
    with pytest.raises(
        UseError, match=rf"data_batch_4 asks for '.*{name}'.*refused, and nothing of it was executed"
    ) as error:
        ls.data.load("cifar10", tmp_path)
    assert not mark.exists()
    assert "\x1b" not in str(error.value)


def test_the_enemies_are_real(tmp_path):
    """Python's own unpickler does run them: otherwise the test above would show nothing."""
    for content in (value for key, (value, _) in enemies(tmp_path / "mark").items() if key in ("alone", "opcode INST")):
        pickle.loads(content)
        (tmp_path / "mark").unlink()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PNG",
        b"\x80\x02",
        b"\x80\x02}q\x01(U\x0bbatch",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",  # bytes of 2**63
        b"P0\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"cnumpy\ndtype\n(N}S'__new__'\nI1\nstb.",  # sets an attribute of what stands for numpy.dtype
        b"c_codecs\nencode\n(N}S'__new__'\nI1\nstb.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"c_codecs\nencode\n(I1\nI2\ntR.",
        b"\x80\x02]]a\x85}q\x00h\x00h\x00s.",
    ],
)
def test_damaged_pickles(content):
    before = {stand_in: dict(vars(stand_in)) for stand_in in ADMITTED.values()}
    with pytest.raises(UseError, match=r"batch is damaged or not a pickle \(\w+\)"):
        read_pickle(content, Path("batch"))
    assert before == {stand_in: dict(vars(stand_in)) for stand_in in ADMITTED.values()}


@pytest.mark.parametrize("opcode", [b"r\xff\xff\xff\x7f", b"p2000000000\n", b"r\x00\x00\x10\x00"])
def test_a_memo_index_cannot_fill_the_memory(opcode):
    """The first would take 32 GiB; refused before the unpickler sees it, not because memory ran out."""
    with pytest.raises(UseError, match=r"\(UnpicklingError\)"):
        read_pickle(b"\x80\x02K\x01" + opcode + b".", Path("batch"))


GOOD = pixels(3)


class Claim:
    """An array that states other facts than it has."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np.array([]).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


U1 = np.dtype("u1")


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        GOOD.tolist(),
        GOOD.tobytes(),
        GOOD.astype(np.int8),
        GOOD.astype(np.float32),
        GOOD[:, :-1],
        GOOD.reshape(3, 3, 1024),
        GOOD.reshape(-1),
        np.array([[object()] * 3072]).astype(str).astype("S1"),
        np.dtype("u1"),
        Claim(1, (10**12, 3072), U1, False, b"abc"),
        Claim(1, (-1, 3072), U1, False, b""),
        Claim(1, (True, 3072), U1, False, bytes(3072)),
        Claim(1, (3, 3072), U1, False, [0] * 9216),
        Claim(1, [3, 3072], U1, False, GOOD.tobytes()),
        Claim(1, (3, 3072), "u1", False, GOOD.tobytes()),
        Claim(1, (3, 3072), np.dtype([("a", "u1")]), False, GOOD.tobytes()),
        Claim(1, (3, 3072), U1, False),
        Claim(),
    ],
)
def test_data_of_another_type_or_shape(data):
    content = pickle.dumps({"data": data, "labels": [0, 1, 2]}, protocol=4)
    with pytest.raises(UseError, match=r"batch: data is not an array of unsigned bytes, \[images, 3072\]"):
        cifar._from_pickle(content, Path("batch"), cifar.CIFAR10)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels is not a list of whole numbers"),
        ((0, 1, 2), "labels is not a list of whole numbers"),
        ([0, 1, 2.0], "labels is not a list of whole numbers"),
        ([0, 1, True], "labels is not a list of whole numbers"),
        ([0, 1, "2"], "labels is not a list of whole numbers"),
        ([0, 1], "holds 3 images and 2 labels"),
        ([0, 1, 10], "the label of image 2 is not one of 0 to 9"),
        ([0, -1, 1], "the label of image 1 is not one of 0 to 9"),
        ([0, 1, 10**5000], "the label of image 2 is not one of 0 to 9"),
    ],
)
def test_labels_of_another_type_or_range(labels, message):
    content = pickle.dumps({"data": GOOD, "labels": labels})
    with pytest.raises(UseError, match=f"batch.*{message}"):
        cifar._from_pickle(content, Path("batch"), cifar.CIFAR10)


def test_no_dictionary():
    for value in ([1], 7, None, GOOD):
        with pytest.raises(UseError, match="batch holds no dictionary with data and fine_labels"):
            cifar._from_pickle(pickle.dumps(value), Path("batch"), cifar.CIFAR100)


@pytest.fixture(scope="module")
def real_cifar10() -> ls.data.DataSet:
    """The real CIFAR-10, where it is there."""
    for root in (os.environ.get("LAYERSCOPE_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if root and (Path(root) / "cifar10" / "cifar-10-batches-py" / "data_batch_1").is_file():
            return ls.data.load("cifar10", root)
    pytest.skip("no real CIFAR-10: set LAYERSCOPE_DATA to a folder that has cifar10/cifar-10-batches-py")


def test_real_cifar10(real_cifar10):
    data = real_cifar10
    assert torch.bincount(data.train.targets).tolist() == [5000] * 10
    assert torch.bincount(data.test.targets).tolist() == [1000] * 10
    assert data.train.targets[:5].tolist() == [6, 9, 9, 4, 1]  # frog, truck, truck, deer, automobile
    assert data.test.targets[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog
    variance, mean = torch.var_mean(data.train.inputs, dim=(0, 2, 3))
    assert ((mean * data.std + data.mean) / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=6e-5)
    assert (variance.sqrt() * data.std / 255).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=6e-5)
    assert len(data.warnings) <= 1
