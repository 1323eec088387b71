"""Random inputs labelled by a random network, against NumPy."""

import numpy as np
import pytest
import torch

import layerscope as ls
from layerscope import rng
from layerscope.data import raw, teacher
from layerscope.errors import UseError


def test_inputs_and_labels():
    data = ls.data.load("teacher:10")
    assert (len(data.train), len(data.test), data.classes, data.input_shape) == (1000, 1000, 2, (10,))
    assert (data.mean, data.std, data.black, data.warnings) == (0, 1, 0, ())
    assert data.train.inputs.dtype == torch.float32
    assert data.train.inputs.mean().abs() < 0.05
    assert (data.train.inputs.std() - 1).abs() < 0.05
    assert not torch.equal(data.train.inputs, data.test.inputs)
    about = data.describe()["teacher"]
    for split in (data.train, data.test):
        assert abs(split.targets.double().mean() - about["share_of_label_1"]) < 0.08


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_those_of_the_first_balanced_network(seed):
    """The network by hand; no earlier draw is balanced on the 10,000 inputs, this one is."""
    data = ls.data.load(f"teacher:7?hidden=5&std=0.3&seed={seed}&n_train=200")
    about = data.describe()["teacher"]
    shapes = {"hidden.weight": (5, 7), "hidden.bias": (5,), "out.weight": (2, 5), "out.bias": (2,)}

    def label(draw: int, inputs: torch.Tensor) -> np.ndarray:
        a, b, c, d = (
            np.float64((torch.randn(shape, generator=rng.generator(seed, "teacher", name, draw)) * 0.3).numpy())
            for name, shape in shapes.items()
        )
        return (np.maximum(inputs.double().numpy() @ a.T + b, 0) @ c.T + d).argmax(1)

    fresh = [torch.randn(1000, 7, generator=rng.generator(seed, "teacher inputs", "measured", i)) for i in range(10)]
    ones = [label(draw, torch.cat(fresh)).mean() for draw in range(about["draw"] + 1)]
    assert all(not 0.4 <= share <= 0.6 for share in ones[:-1])
    assert 0.4 <= ones[-1] <= 0.6
    assert about["share_of_label_1"] == pytest.approx(ones[-1])
    assert label(about["draw"], data.train.inputs).tolist() == data.train.targets.tolist()


def test_splits_and_noise():
    data = ls.data.load("teacher:4?n_train=60&n_test=30&n_validation=20&random=0.5&seed=2")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "test": 30, "validation": 20}
    plain = ls.data.load("teacher:4?n_train=60&n_test=30&n_validation=20&seed=2")
    assert torch.equal(data.train.true, plain.train.targets)
    assert torch.equal(data.train.inputs, plain.train.inputs)
    assert data.describe()["noise"]["chosen"] == 30
    assert len(ls.data.load("teacher:4?n_validation=20").train) == 1000


def test_the_fingerprint():
    names = ["", "?seed=1", "?std=0.5", "?hidden=16", "?n_train=999", "?shuffled=0.1"]
    assert len({ls.data.load("teacher:3" + name).fingerprint for name in names}) == len(names)
    assert ls.data.load("teacher:3").fingerprint == ls.data.load("teacher:3?n_train=1000&hidden=32&std=1").fingerprint


def test_many_dimensions():
    data = ls.data.load("teacher:3000?n_train=20&n_test=10")
    assert data.input_shape == (3000,)
    assert 0.4 <= data.describe()["teacher"]["share_of_label_1"] <= 0.6


def test_no_balanced_teacher(monkeypatch):
    monkeypatch.setattr(teacher, "TEACHERS", 3)
    monkeypatch.setattr(teacher, "SHARES", (0.7, 0.6))
    with pytest.raises(
        UseError, match=r"teacher:2: none of 3 teachers gives each label to 70% to 60% of random inputs"
    ):
        ls.data.load("teacher:2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("teacher", "teacher needs the number of dimensions of the inputs: teacher:10"),
        ("teacher:", "teacher needs the number of dimensions"),
        ("teacher:ten", "option D must be a whole number from 1 to 999999999, not 'ten'"),
        ("teacher:10?std=0", "option std must be a number above 0, not '0'"),
        ("teacher:10?std=nan", "option std must be"),
        ("teacher:10?std=wide", "option std must be"),
        ("teacher:10?hidden=0", "option hidden must be"),
        ("teacher:10?hiden=4", "unknown option of teacher: 'hiden'; did you mean hidden"),
        ("teacher:10?n_test=0", "option n_test must be"),
        ("teacher:999999999", "Use fewer samples or dimensions"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(UseError, match=message):
        ls.data.load(name)


def test_memory_is_checked_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(raw, "MAX_BYTES", 100_000)
    monkeypatch.setattr(teacher.Teacher, "drawn", None)
    with pytest.raises(UseError, match=r"samples of 10 values would take .* bytes as float32; the limit is 100,000"):
        ls.data.load("teacher:10")
