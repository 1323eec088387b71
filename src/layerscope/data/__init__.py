"""Data sets by name: which samples, with which labels, normalised."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from layerscope.data import cifar, digits, hub, idx, imagefolder, teacher
from layerscope.data.choose import SIZES, Sizes, choose, lost_classes, published
from layerscope.data.noise import KINDS, Noise
from layerscope.data.raw import Raw, Ready, moments
from layerscope.data.split import Batches, Source, Split
from layerscope.errors import UseError, unknown
from layerscope.query import parse
from layerscope.state import content_hash

__all__ = ["FORMS", "NAMES", "SETS", "Batches", "DataSet", "Source", "Split", "load"]

Reader = Callable[[str, Path | None], Raw]
"""Reads a set: its name and the data folder, if one is known."""
FormReader = Callable[[str, Mapping[str, str], Path | None], Raw]
"""Reads a set of a form: what stands after the colon, the options, and the data folder, if one is known."""

SETS: dict[str, Reader] = {
    "digits": digits.read,
    "mnist": idx.read,
    "fashion-mnist": idx.read,
    "cifar10": cifar.read,
    "cifar100": cifar.read,
}
FORMS: dict[str, tuple[FormReader, tuple[str, ...]]] = {
    "imagefolder": (imagefolder.read, imagefolder.OPTIONS),
    "hub": (hub.read, hub.OPTIONS),
    "teacher": (teacher.read, teacher.OPTIONS),
}
"""Readers of sets that are named by more than a word, `imagefolder:PATH`, with the options that are their own."""

OPTIONS = (*SIZES, *KINDS, "seed")
"""What can be asked of every set, after a `?`."""

NAMES = tuple(SETS)


@dataclass(frozen=True)
class DataSet:
    """A data set. `mean` and `std` are those of all published training pixels, before normalisation, in grey levels;
    `fingerprint` changes with any input, label, true label, and with which split a sample is in.

    `facts` is what the provenance says of how the set came about: choice of samples, label noise, a teacher.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: float
    std: float
    fingerprint: str
    warnings: tuple[str, ...] = ()
    validation: Split | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        """Split name -> split: train, test, and validation where there is one."""
        found = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in found.items() if split is not None}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, as a network gets it."""
        return self.train.shape

    @property
    def black(self) -> float:
        """What the grey level 0 is after normalisation: what a picture is padded with."""
        return (0 - self.mean) / self.std

    @property
    def nbytes(self) -> int:
        """Memory that inputs and labels of all splits take, in bytes."""
        return sum(split.nbytes for split in self.splits.values())

    def describe(self) -> dict[str, object]:
        """What the provenance says of it."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "n_validation": len(self.validation) if self.validation else 0,
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "warnings": list(self.warnings),
            **self.facts,
        }


def load(name: str, data_dir: str | Path | None = None) -> DataSet:
    """A data set by name, normalised by mean and standard deviation of all training pixels and channels.

    `digits` is embedded. `mnist`, `fashion-mnist`, `cifar10` and `cifar100` are read from their published files below
    `data_dir` (or the environment variable LAYERSCOPE_DATA). `imagefolder:PATH?size=256&crop=224` reads pictures from
    folders, PATH/train/CLASS/ and PATH/val/CLASS/; `hub:NAME` a set of the Hugging Face hub; `teacher:D` is made of random
    inputs that a random network labels.

    Any name may be followed by options, as in `mnist?n_train=4000&shuffled=0.2&seed=1`: `n_train` and `n_test` samples
    chosen at random, in the order of the files, each class keeping its share; before that `n_validation` taken out of
    the training split; the labels of a share of the training samples `shuffled` among themselves or replaced by `random`
    classes. What `seed` (0) chooses does not depend on the noise, and the samples chosen at one ratio of noise are among
    those chosen at a larger one. Pixels are normalised by the whole published training split, whatever is chosen of it:
    a network sees the same values at every `n_train`.

    Source of the normalisation: zhang2022, App. A.
    """
    form, read, options = _asked(name)
    sizes, noise, seed = Sizes.of(form, options), Noise.of(form, options), _seed(form, options)
    root = data_dir or os.environ.get("LAYERSCOPE_DATA")
    raw = read(Path(root) if root else None)
    raw.check(name)
    ready = raw.ready or _by_pixels(name, raw)
    chosen = choose(name, raw.labels, sizes, seed)
    splits = {split: _split(raw, ready, split, indices) for split, indices in chosen.items()}
    facts = {**ready.facts, "seed": seed} if options.keys() & set(OPTIONS) else dict(ready.facts)
    if noise:
        splits["train"], facts["noise"] = _noisy(splits["train"], noise, raw.classes, seed)
    return DataSet(
        name,
        splits["train"],
        splits["test"],
        raw.classes,
        ready.mean,
        ready.std,
        _fingerprint(ready.fingerprint, raw, chosen, splits),
        raw.warnings + lost_classes(raw.labels, chosen),
        splits.get("validation"),
        facts,
    )


def _asked(name: str) -> tuple[str, Callable[[Path | None], Raw], dict[str, str]]:
    """The word that a name begins with, how its set is read from a data folder, and the options."""
    word, mark, text = name.partition("?")
    if word in SETS:
        place, options = parse(word, mark + text, OPTIONS)
        if place:
            raise unknown("data set", word + place, SETS)
        return word, lambda root: SETS[word](word, root), options
    form, colon, argument = name.partition(":")
    if form in FORMS:
        reader, own = FORMS[form]
        place, options = parse(form, argument, (*own, *OPTIONS))
        return form, lambda root: reader(place, options, root), options
    if colon:
        raise unknown("form of data set", form, FORMS)
    raise unknown("data set", word, SETS, form="Or imagefolder:PATH, hub:NAME, teacher:D.")


def _seed(form: str, options: Mapping[str, str]) -> int:
    value = options.get("seed", "0")
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UseError(f"{form}: option seed must be a whole number from 0 to 999999999, not {value!r}")
    return int(value)


def _split(raw: Raw, ready: Ready, split: str, indices: Tensor) -> Split:
    inputs, labels = raw.splits[published(split)]
    if len(indices) < len(labels):  # else it is all of them, in order
        inputs = inputs[indices] if isinstance(inputs, Tensor) else inputs.select(indices)
    if raw.ready is None and isinstance(inputs, Tensor):
        channels = inputs if inputs.ndim == 4 else inputs.unsqueeze(1)
        inputs = channels.float().sub_(ready.mean).div_(ready.std)
    return Split(inputs, labels[indices].long())


def _noisy(train: Split, noise: Noise, classes: int, seed: int) -> tuple[Split, dict[str, object]]:
    targets = noise.on(train.targets, classes, seed)
    return replace(train, targets=targets, true=train.targets), noise.describe(train.targets, targets)


def _fingerprint(content: str, raw: Raw, chosen: Mapping[str, Tensor], splits: Mapping[str, Split]) -> str:
    """That of what was read, if all of it is used as it is; else one of the choice and the labels besides."""
    all_of_it = all(len(chosen[split]) == len(labels) for split, labels in raw.labels.items())
    if all_of_it and splits["train"].true is None:
        return content
    tensors = {f"{split}.chosen": indices for split, indices in chosen.items()}
    tensors |= {f"{split}.targets": each.targets for split, each in splits.items()}
    tensors |= {f"{split}.true": each.true for split, each in splits.items() if each.true is not None}
    return content_hash({f"{content} {key}": tensor for key, tensor in tensors.items()})


def _by_pixels(name: str, raw: Raw) -> Ready:
    """By what grey levels are normalised, and the fingerprint of all of them and of their labels."""
    pairs = [(f"{split}.{i}", x) for split, pair in raw.splits.items() for i, x in enumerate(pair)]
    flat = {key: tensor for key, tensor in pairs if isinstance(tensor, Tensor)}
    mean, std = _moments(flat["train.0"])
    if not std:
        raise UseError(f"{name}: all training pixels have the same grey level; there is nothing to learn from them")
    return Ready(mean, std, content_hash(flat))


def _moments(images: Tensor) -> tuple[float, float]:
    return moments(torch.bincount(images.flatten(), minlength=256))
