"""Which samples of the published splits are used: subsets and a validation split, with the shares of the classes kept."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerscope import rng
from layerscope.errors import UseError
from layerscope.query import whole_number

SIZES = ("n_train", "n_test", "n_validation")
MOST = 999_999_999


@dataclass(frozen=True)
class Sizes:
    """How many samples are asked for; None is all there are. Validation samples are taken out of the training split first."""

    n_train: int | None = None
    n_test: int | None = None
    n_validation: int | None = None

    @classmethod
    def of(cls, form: str, options: Mapping[str, str]) -> "Sizes":
        """From the options of a data set's name."""
        return cls(**{key: whole_number(form, key, options[key], MOST) for key in SIZES if key in options})


def choose(name: str, labels: Mapping[str, Tensor], sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Split name -> which samples of the published split it has (`[n]`, in the order of the files).

    `labels` has those of the published splits train and test. What is chosen depends on the labels, the sizes and the
    seed alone. Raises `UseError` where there are fewer samples than are asked for.
    """
    train = torch.arange(len(labels["train"]))
    chosen: dict[str, Tensor] = {}
    if sizes.n_validation is not None:
        _check(
            name, "n_validation", sizes.n_validation, len(train) - 1, "in the training split, but for one to train on"
        )
        chosen["validation"] = stratified(labels["train"], sizes.n_validation, seed, "validation")
        train = _without(train, chosen["validation"])
    if sizes.n_train is not None:
        left = f" that n_validation={sizes.n_validation} leaves" if sizes.n_validation else ""
        _check(name, "n_train", sizes.n_train, len(train), f"in the training split{left}")
        train = train[stratified(labels["train"][train], sizes.n_train, seed, "train")]
    test = torch.arange(len(labels["test"]))
    if sizes.n_test is not None:
        _check(name, "n_test", sizes.n_test, len(test), "in the test split")
        test = stratified(labels["test"], sizes.n_test, seed, "test")
    return {"train": train, "test": test, **chosen}


def stratified(labels: Tensor, n: int, seed: int, purpose: str) -> Tensor:
    """`n` indices into `labels`, ascending: of each class its share, at random within the class."""
    order = torch.randperm(len(labels), generator=rng.generator(seed, "choose", purpose))
    order = order[labels[order].long().argsort(stable=True)]  # class by class, at random within
    counts = torch.bincount(labels.long())
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[place < shares(counts, n).repeat_interleave(counts)].sort().values


def shares(counts: Tensor, n: int) -> Tensor:
    """How many of `n` samples each class gets: in proportion to `counts`, what is left over by the largest remainders
    (of equal ones the first classes). Whole numbers throughout, so that no rounding decides."""
    parts, total = counts * n, int(counts.sum())
    whole = parts // total
    left = n - int(whole.sum())
    whole[(parts % total).argsort(descending=True, stable=True)[:left]] += 1
    return whole


def published(split: str) -> str:
    """The published split that the samples of a split are taken from."""
    return "train" if split == "validation" else split


def lost_classes(labels: Mapping[str, Tensor], chosen: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A warning for each split that has no sample of a class that the published one has."""
    lost = {split: _lost(labels[published(split)], indices) for split, indices in chosen.items()}
    return tuple(
        f"the {len(chosen[split])} samples chosen for {split} have none of the classes {', '.join(map(str, names[:5]))}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for split, names in lost.items()
        if names
    )


def _lost(labels: Tensor, indices: Tensor) -> list[int]:
    return sorted(set(labels.unique().tolist()) - set(labels[indices].unique().tolist()))


def _without(indices: Tensor, taken: Tensor) -> Tensor:
    kept = torch.ones(len(indices), dtype=torch.bool)
    kept[taken] = False
    return indices[kept]


def _check(name: str, key: str, asked: int, there: int, where: str) -> None:
    if asked > there:
        raise UseError(f"{name}: {key}={asked} is more than the {there} samples {where}")
