"""What is asked for after a `?`: subsets, a validation split, label noise, against counting by hand."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import layerscope as ls
from layerscope.data.choose import Sizes, choose, shares, stratified
from layerscope.data.noise import Noise, touched
from layerscope.errors import UseError

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(lambda labels: torch.tensor(labels))
SEEDS = st.integers(0, 5)


def load(options: str) -> ls.data.DataSet:
    return ls.data.load("digits" + options)


@given(LABELS, st.integers(1, 60), SEEDS)
def test_a_subset_keeps_the_shares_of_the_classes(labels, n, seed):
    n = min(n, len(labels))
    chosen = stratified(labels, n, seed, "train").tolist()
    assert len(chosen) == len(set(chosen)) == n
    assert chosen == sorted(chosen)
    counts, ours = Counter(labels.tolist()), Counter(labels[chosen].tolist())
    assert all(abs(ours[label] - n * count / len(labels)) < 1 for label, count in counts.items())


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [
        ([6, 3, 1], 5, [3, 2, 0]),  # quotas 3, 1.5, 0.5: of equal remainders the first
        ([6, 3, 1], 10, [6, 3, 1]),
        ([1, 1, 1], 2, [1, 1, 0]),
        ([0, 7, 3], 5, [0, 4, 1]),  # 3.5, 1.5
        ([2, 2, 6], 6, [1, 1, 4]),  # 1.2, 1.2, 3.6
    ],
)
def test_largest_remainders(counts, n, expected):
    assert shares(torch.tensor(counts), n).tolist() == expected


@given(LABELS, st.integers(1, 30), st.integers(1, 30), SEEDS)
def test_no_sample_is_in_two_splits(labels, n_train, n_validation, seed):
    n_validation = min(n_validation, len(labels) - 1)
    n_train = min(n_train, len(labels) - n_validation)
    both = {"train": labels, "test": labels}
    chosen = choose("set", both, Sizes(n_train, None, n_validation), seed)
    train, validation = set(chosen["train"].tolist()), set(chosen["validation"].tolist())
    assert (len(train), len(validation)) == (n_train, n_validation)
    assert not train & validation
    assert chosen["test"].tolist() == list(range(len(labels)))
    everything = choose("set", both, Sizes(None, None, n_validation), seed)
    assert set(everything["train"].tolist()) == set(range(len(labels))) - validation


def test_another_seed_chooses_others_but_every_sample_as_often():
    labels = torch.zeros(10, dtype=torch.int64)
    chosen = torch.stack([stratified(labels, 3, seed, "train") for seed in range(2000)])
    often = torch.bincount(chosen.flatten(), minlength=10) / 2000
    assert (often - 0.3).abs().max() < 0.05  # five standard deviations


def test_subsets_of_a_data_set():
    whole, data = load(""), load("?n_train=300&n_test=50&n_validation=100&seed=3")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 300, "test": 50, "validation": 100}
    assert (data.mean, data.std, data.input_shape) == (whole.mean, whole.std, whole.input_shape)
    assert (data.warnings, data.describe()["seed"], data.describe()["n_validation"]) == ((), 3, 100)
    rows = {x.numpy().tobytes(): i for i, x in enumerate(whole.train.inputs)}
    for split in (data.train, data.validation):
        where = [rows[x.numpy().tobytes()] for x in split.inputs]
        assert where == sorted(where)  # the order of the files
        assert split.targets.tolist() == whole.train.targets[where].tolist()
    assert data.nbytes == 450 * (64 * 4 + 8)
    assert (whole.validation, list(whole.splits), whole.describe()["n_validation"]) == (None, ["train", "test"], 0)


def test_the_choice_depends_on_nothing_else():
    plain = load("?n_train=300&n_validation=100")
    for options in ("&shuffled=0.5", "&random=1", "&n_test=10"):
        data = load("?n_train=300&n_validation=100" + options)
        assert torch.equal(data.train.inputs, plain.train.inputs)
        assert torch.equal(data.validation.inputs, plain.validation.inputs)
        assert torch.equal(data.validation.targets, plain.validation.targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?n_train=1438", "digits?n_train=1438: n_train=1438 is more than the 1437 samples in the training split"),
        ("?n_test=361", "n_test=361 is more than the 360 samples in the test split"),
        ("?n_validation=1437", "n_validation=1437 is more than the 1436 samples in the training split, but for one"),
        ("?n_train=1000&n_validation=500", "more than the 937 samples in the training split that n_validation=500 le"),
        ("?n_train=0", "digits: option n_train must be a whole number from 1 to 999999999, not '0'"),
        ("?n_train=1e3", "not '1e3'"),
        ("?shufled=0.2", "unknown option of digits: 'shufled'; did you mean shuffled"),
        ("?ntrain=3", "unknown option of digits: 'ntrain'; did you mean n_train"),
        ("?size=8", "unknown option of digits: 'size'"),
        ("?shuffled=0.2&random=0.2", "digits: give shuffled= or random=, not both"),
        ("?shuffled=1.1", "option shuffled must be a share from 0 to 1, not '1.1'"),
        ("?shuffled=-0.1", "not '-0.1'"),
        ("?random=nan", "not 'nan'"),
        ("?random=1_0", "not '1_0'"),
        ("?random=0.1.2", "not '0.1.2'"),
        ("?random=20%", "not '20%'"),
        ("?seed=-1", "option seed must be a whole number from 0 to 999999999, not '-1'"),
        ("?seed=1&seed=2", "option seed is given twice"),
        ("?seed=1?n_train=5", "unknown data set 'digits?seed=1'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UseError, match=re.escape(message)):
        load(options)


def test_options_on_every_form(tmp_path):
    with pytest.raises(UseError, match="unknown option of imagefolder: 'n_trian'; did you mean n_train"):
        ls.data.load(f"imagefolder:{tmp_path}?size=8&n_trian=3")
    with pytest.raises(UseError, match="imagefolder: give shuffled= or random=, not both"):
        ls.data.load(f"imagefolder:{tmp_path}?size=8&shuffled=0&random=0")
    with pytest.raises(UseError, match=r"unknown data set 'mnits'; did you mean mnist"):
        ls.data.load("mnits?n_train=4")


def test_a_class_that_is_lost_is_said():
    data = load("?n_train=4&n_test=355&n_validation=8")
    have = set(data.train.targets.tolist())
    lost = sorted(set(range(10)) - have)
    more = f" and {len(lost) - 5} more"
    assert len(have) == 4
    assert data.warnings[0] == (
        f"the 4 samples chosen for train have none of the classes {', '.join(map(str, lost[:5]))}{more}"
    )
    assert re.fullmatch(r"the 8 samples chosen for validation have none of the classes \d, \d", data.warnings[1])
    assert len(data.warnings) == 2


RATIOS = st.floats(0, 1)
MANY = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(torch.tensor)


@given(MANY, RATIOS, SEEDS)
def test_shuffling_keeps_how_often_each_label_occurs(labels, ratio, seed):
    before = labels.clone()
    noisy = Noise("shuffled", ratio).on(labels, 7, seed)
    assert torch.equal(labels, before)
    assert sorted(noisy.tolist()) == sorted(labels.tolist())
    where = touched(len(labels), ratio, seed)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[where] = False
    assert torch.equal(noisy[kept], labels[kept])
    assert len(where) == round(ratio * len(labels))


@given(MANY, RATIOS, RATIOS, SEEDS)
def test_a_larger_ratio_adds_samples(labels, one, other, seed):
    low, high = sorted((one, other))
    few, many = (set(touched(len(labels), ratio, seed).tolist()) for ratio in (low, high))
    assert few <= many
    fewer, more = (Noise("random", ratio).on(labels, 7, seed) for ratio in (low, high))
    for i in range(len(labels)):
        assert fewer[i] == (more if i in few else labels)[i]  # what was drawn stays


def test_random_labels_are_uniform_and_may_be_the_true_ones():
    labels = torch.full((50_000,), 3)
    noisy = Noise("random", 0.8).on(labels, 5, 0)
    drawn = noisy[touched(50_000, 0.8, 0)]
    often = torch.bincount(drawn, minlength=5) / 40_000
    assert (often - 0.2).abs().max() < 0.01  # five standard deviations
    assert Noise("random", 0.8).describe(labels, noisy)["differ"] == int((drawn != 3).sum())


def test_label_noise_of_a_data_set():
    plain, data = load(""), load("?shuffled=0.2&seed=1")
    assert torch.equal(data.train.true, plain.train.targets)
    assert torch.equal(data.train.inputs, plain.train.inputs)
    assert torch.equal(data.test.targets, plain.test.targets)
    assert (data.test.true, plain.train.true) == (None, None)
    differ = int((data.train.targets != plain.train.targets).sum())
    assert data.describe()["noise"] == {"kind": "shuffled", "ratio": 0.2, "chosen": 287, "differ": differ}
    assert 287 * 0.8 < differ < 287
    assert "noise" not in plain.describe()
    assert data.train.targets.dtype == data.train.true.dtype == torch.int64


def test_label_noise_on_a_subset():
    data = load("?shuffled=0.5&n_train=100&n_validation=50")
    assert data.describe()["noise"]["chosen"] == 50
    assert data.validation.true is None
    assert sorted(data.train.targets.tolist()) == sorted(data.train.true.tolist())


def test_no_noise_is_noise_too():
    data = load("?random=0")
    assert torch.equal(data.train.true, data.train.targets)
    assert (data.describe()["noise"]["chosen"], data.describe()["noise"]["differ"]) == (0, 0)


def test_the_fingerprint_changes_with_all_that_is_chosen():
    options = ["", "?n_train=900", "?n_train=900&seed=1", "?n_train=901", "?n_test=100", "?n_validation=100"]
    options += ["?shuffled=0.2", "?shuffled=0.2&seed=1", "?random=0.2", "?shuffled=0.3", "?random=0"]
    options += ["?n_train=900&n_validation=100", "?n_train=900&shuffled=0.2"]
    assert len({load(each).fingerprint for each in options}) == len(options)
    assert load("?n_train=900").fingerprint == load("?n_train=900&seed=0").fingerprint
    assert load("?n_train=1437&seed=7").fingerprint == load("").fingerprint  # it is the same data


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    load("?n_train=100&n_validation=10&random=0.5")
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == before


@settings(max_examples=20)
@given(SEEDS)
def test_the_same_name_is_the_same_data(seed):
    one, other = (load(f"?n_train=50&random=0.5&seed={seed}") for _ in range(2))
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert torch.equal(one.train.targets, other.train.targets)
