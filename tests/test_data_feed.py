"""Pictures in memory and decoded as they are needed: the same values in the order asked for, and no thread left behind."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import layerscope as ls
from layerscope.data import feed, pictures
from layerscope.data.feed import in_order
from layerscope.data.pictures import Crop, decode, heard
from layerscope.errors import UseError

SIZE, CROP = 12, 8
KEPT, NEEDED = f"?size={SIZE}&crop={CROP}", f"?size={SIZE}&crop={CROP}&memory=0B"


def smooth(seed: int, height: int, width: int) -> Image.Image:
    """A picture with something at every scale."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five training and two test pictures of each of two classes, of many sizes, JPEG and PNG."""
    sizes = [(20, 30), (31, 20), (13, 40), (12, 12), (25, 18)]
    for split, count in (("train", 5), ("val", 2)):
        for label in range(2):
            for i, (height, width) in enumerate(sizes[:count]):
                path = tmp_path / split / f"class{label}" / f"{i}.{'png' if i % 2 else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                smooth(100 * label + 10 * i + count, height, width).save(path)
    return tmp_path


def load(folder: Path, options: str) -> ls.data.DataSet:
    return ls.data.load(f"imagefolder:{folder}{options}")


def by_hand(path: Path, size: int = SIZE, crop: int = CROP) -> tuple[np.ndarray, np.ndarray]:
    """The grey levels of the middle, and of the square around it, as the former code cut the middle."""
    picture = Image.open(path).convert("RGB")
    short = min(picture.size)
    width, height = (int(size * side / short) for side in picture.size)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    margin = round((size - crop) / 2)
    square = resized[:, top - margin : top - margin + size, left - margin : left - margin + size]
    return resized[:, top : top + crop, left : left + crop], square


def feeding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(feed.NAME)]


@pytest.mark.parametrize("options", [KEPT, NEEDED])
def test_values_against_pillow(folder, options):
    data = load(folder, options)
    paths = {split: sorted((folder / split).rglob("*.*")) for split in ("train", "val")}
    middles, squares = (np.stack(cut) for cut in zip(*map(by_hand, paths["train"]), strict=True))
    mean, std = middles.mean(dtype=np.float64), middles.std(dtype=np.float64)
    assert (data.mean, data.std, data.black) == pytest.approx((mean, std, -mean / std))
    exactly = lambda levels: torch.from_numpy(levels.copy()).float().sub_(data.mean).div_(data.std)  # noqa: E731
    assert torch.equal(data.train.inputs, exactly(middles))
    assert torch.equal(data.test.inputs, exactly(np.stack([by_hand(path)[0] for path in paths["val"]])))
    order = torch.tensor([7, 0, 3, 9, 3])
    batches = list(data.train.ordered(order, 2))
    whole = torch.cat([x for x, _ in batches])
    assert torch.equal(whole, exactly(squares[order]))
    assert torch.equal(data.train.cropped(whole), exactly(middles[order]))
    assert torch.cat([y for _, y in batches]).tolist() == [1, 0, 0, 1, 0]
    (tests, _), *_ = data.test.ordered(torch.tensor([2]), 1)
    assert torch.equal(data.test.cropped(tests), data.test.inputs[2:3])
    assert (data.input_shape, data.train.shape, whole.shape[1:]) == ((3, CROP, CROP), (3, CROP, CROP), (3, SIZE, SIZE))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 20), st.integers(3, 20), st.integers(1, 15), st.data())
def test_the_crop_of_the_square_is_the_crop_of_the_picture(height, width, size, data):
    crop = Crop(size, data.draw(st.integers(1, size)))
    picture = smooth(1, height, width)
    square = crop.square(picture, "here")
    assert np.array_equal(pictures.pixels(crop.inner(square)), pictures.pixels(crop(picture, "here")))
    for corner in ((0, 0), (size - 1, size - 1)):  # it does not reach beyond the picture, where all is black
        bright = crop.square(Image.new("RGB", picture.size, (200, 200, 200)), "here")
        assert bright.getpixel(corner) == (200, 200, 200)


def test_in_memory_or_not_is_one_data_set(folder):
    kept, needed = load(folder, KEPT), load(folder, NEEDED)
    assert kept.fingerprint == needed.fingerprint
    assert (kept.describe()["pictures"]["kept"], needed.describe()["pictures"]["kept"]) == (["test", "train"], [])
    assert (kept.mean, kept.std, kept.warnings) == (needed.mean, needed.std, needed.warnings)
    labels = (10 + 4) * 8
    assert kept.nbytes == labels + 10 * 3 * SIZE**2 + 4 * 3 * CROP**2
    assert needed.nbytes == labels
    for size in (1, 3, 4, 512):
        pairs = zip(kept.train.batches(size), needed.train.batches(size), strict=True)
        assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


def test_the_limit_of_the_memory(folder):
    """The test pictures take 4 x 3 x 8 x 8 = 768 bytes, the training squares 10 x 3 x 12 x 12 = 4,320: 5,088 together."""
    both, one = ["test", "train"], ["test"]
    limits = {"5088B": both, "5087B": one, "1GiB": both, "5KB": one, "5KiB": both, "1TB": both, "768B": one, "767B": []}
    for memory, kept in limits.items():
        data = load(folder, f"?size={SIZE}&crop={CROP}&memory={memory}")
        assert data.describe()["pictures"]["kept"] == kept, memory
    for wrong in ("8", "8 GB", "-1B", "1.5GB", "lots", "8gb"):
        with pytest.raises(UseError, match="option memory must be a number of bytes such as 500MB or 8GiB, not"):
            load(folder, f"?memory={wrong}")


@pytest.mark.parametrize("options", [KEPT, NEEDED])
def test_a_chosen_part_with_label_noise(folder, options):
    whole, data = load(folder, options), load(folder, options + "&n_train=6&n_validation=2&n_test=2&shuffled=1&seed=2")
    rows = {x.numpy().tobytes(): i for i, x in enumerate(whole.train.inputs)}
    chosen = {
        name: [rows[x.numpy().tobytes()] for x in split.inputs] for name, split in data.splits.items() if name != "test"
    }
    assert not set(chosen["train"]) & set(chosen["validation"])
    assert data.train.true.tolist() == whole.train.targets[chosen["train"]].tolist() == [0, 0, 0, 1, 1, 1]
    assert (data.mean, data.std) == (whole.mean, whole.std)
    corrupted = data.train.corrupted()
    wrong = (data.train.targets != data.train.true).nonzero().flatten()
    assert torch.equal(corrupted.inputs, data.train.inputs[wrong])
    assert torch.equal(data.train.recovered().inputs, data.train.inputs)
    moved = data.train.to("cpu")
    assert torch.equal(moved.inputs, data.train.inputs)
    assert torch.equal(moved.select(torch.tensor([4, 1])).inputs, data.train.inputs[[4, 1]])


def test_the_fingerprint_is_of_the_files_and_how_they_are_cut(folder):
    prints = {load(folder, options).fingerprint for options in (KEPT, "?size=12&crop=7", "?size=13&crop=8")}
    path = folder / "val" / "class1" / "0.jpg"
    path.write_bytes(path.read_bytes() + b"\0")  # the same pixels
    assert len(prints | {load(folder, KEPT).fingerprint}) == 4


def test_a_file_that_changes_in_use_is_named(folder):
    split = load(folder, NEEDED).train
    path = folder / "train" / "class1" / "2.jpg"
    content = path.read_bytes()
    for damage, message in ((content[:-1] + b"\0", "was changed while it was in use"), (None, "cannot read")):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        batches = iter(split.batches(2))
        assert [len(next(batches)[1]) for _ in range(3)] == [2, 2, 2]  # what comes before is as it was
        with pytest.raises(UseError, match=rf"({message}.*{path})|({path} {message})"):
            next(batches)
        assert feeding() == []


def test_the_first_damaged_picture_is_named_whichever_thread_is_first(folder):
    for name in ("class0/3.png", "class1/0.jpg"):
        (folder / "train" / name).write_bytes(b"")
    for options in (KEPT, NEEDED):
        with pytest.raises(UseError, match=r"class0/3\.png is damaged"):
            load(folder, options)
    assert feeding() == []


def test_a_consumer_that_stops_leaves_no_thread(folder):
    split = load(folder, NEEDED).train
    assert feeding() == []
    order = torch.arange(10)
    for batches in (split.ordered(order, 1), iter(split.batches(1))):
        next(batches)
        assert feeding() != []
        del batches
    assert feeding() == []
    for _ in split.batches(1):
        break
    assert feeding() == []


def test_a_consumer_that_raises_leaves_no_thread(folder):
    split = load(folder, NEEDED).train

    def consume():
        for _ in split.batches(1):
            assert feeding() != []
            raise KeyError("enough")

    with pytest.raises(KeyError) as caught:
        consume()
    assert feeding() == []  # though the traceback still holds the frame
    assert caught.traceback


def test_two_consumers_at_once(folder):
    split = load(folder, NEEDED).train
    pairs = zip(split.batches(2), split.batches(2), strict=True)
    assert all(torch.equal(a, b) for (a, _), (b, _) in pairs)


@given(st.lists(st.integers(), max_size=30), st.integers(0, 10))
def test_results_come_in_order_and_tasks_are_not_taken_too_early(tasks, ahead):
    taken: list[int] = []

    def given() -> object:
        for task in tasks:
            taken.append(task)
            yield task

    results = []
    for result in in_order(lambda task: -task, given(), ahead):
        results.append(result)
        assert len(taken) <= len(results) + ahead
    assert results == [-task for task in tasks]


def test_threads_work_at_once(monkeypatch):
    monkeypatch.setattr(feed, "threads", lambda: 2)
    meeting = threading.Barrier(2, timeout=20)
    assert list(in_order(lambda _: meeting.wait() < 2, range(4), 4)) == [True] * 4


def test_an_error_comes_where_its_result_would_have():
    results = in_order(lambda task: 1 // task, [1, 1, 0, 1], 4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert feeding() == []


def odd(monkeypatch) -> None:
    """Every picture makes the decoder warn."""
    real = pictures.open_picture

    def warning(*args, **kwargs):
        warnings.warn("odd", stacklevel=1)
        return real(*args, **kwargs)

    monkeypatch.setattr(pictures, "open_picture", warning)


@pytest.mark.parametrize("options", [KEPT, NEEDED])
def test_warnings_of_all_threads_are_heard_once_for_all(folder, monkeypatch, options):
    odd(monkeypatch)
    before = warnings.showwarning, list(warnings.filters)
    data = load(folder, options)
    assert data.warnings == (f"the decoder warned of 14 pictures, first {folder}/train/class0/0.jpg: odd",)
    assert (warnings.showwarning, warnings.filters) == before


def test_warnings_that_are_not_of_a_picture_go_their_usual_way(monkeypatch):
    seen = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: seen.append(str(message))
        with heard() as said:
            warnings.warn("something else", stacklevel=1)
    assert (seen, said) == (["something else"], {})


def test_what_one_picture_makes_the_decoder_say(monkeypatch):
    odd(monkeypatch)
    file = io.BytesIO()
    smooth(0, 4, 4).save(file, "PNG")
    assert decode(file.getvalue(), "here")[1] == ["here: odd"]


def test_all_of_one_grey(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        Image.new("RGB", (8, 8), (7, 7, 7)).save(tmp_path / split / "one" / "0.png")
    with pytest.raises(UseError, match="all training pixels have the same grey level"):
        load(tmp_path, KEPT)
