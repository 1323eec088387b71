"""Which moments of training checkpoints are of, by their names alone."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from layerscope.errors import UseError
from layerscope.step import FINAL, FORM, INIT, Step, parsed, unit_of

WORDS = {
    "iteration": ("step", "steps", "iteration", "iterations", "iter", "iters", "it"),
    "epoch": ("epoch", "epochs", "ep", "e"),
}
"""Unit -> the words before a number that say so. Where a name has both, as Lightning's `epoch=3-step=500`, the first counts:
its steps go on from epoch to epoch, and its epoch 0 is not the start."""
_ENDS = re.compile(r"(?:.*[^a-z])?(init|initial|final|last)")
_BEST = re.compile(r"(?:.*[^a-z])?best")
_WORD = re.compile(r"([a-z]+)[^a-z0-9]*$")
NO_MOMENT = ("seed", "fold", "run", "rank", "lr", "trial", "version", "v")
"""Words before numbers that say something else than when."""


def steps_of(stems: Mapping[str, str], folders: Collection[str] = ()) -> tuple[dict[str, Step], str]:
    """The step of each checkpoint of one series, and the unit that they are counted in (empty if none has a number).

    `stems` has their names without suffix, by what messages call them. Names ending in init, final or last are the start and
    the end. The others must be the same but for their numbers: the one that counts is that behind a word for iterations or
    epochs, else the only one that differs, and nobody knows what it counts. `checkpoint-500` is an iteration where it is one of
    the `folders`, as the Trainer writes them.
    """
    steps = ends_of(stems)
    counted = {shown: stem.lower() for shown, stem in stems.items() if shown not in steps}
    if not counted:
        return steps, ""
    own = _of_layerscope(counted)
    found, unit = own if own else _counted(counted, folders)
    return steps | found, unit


def ends_of(stems: Mapping[str, str]) -> dict[str, Step]:
    """The start and the end, of those whose names say so in a word."""
    words = {shown: match[1] for shown, stem in stems.items() if (match := _ENDS.fullmatch(stem.lower()))}
    return {shown: INIT if word.startswith("init") else FINAL for shown, word in words.items()}


def _of_layerscope(stems: Mapping[str, str]) -> tuple[dict[str, Step], str] | None:
    """Names that `Step.name` made."""
    try:
        found = {shown: parsed(stem) for shown, stem in stems.items()}
    except ValueError:
        return None
    if any(step.name != stems[shown] for shown, (step, _) in found.items()):
        return None
    steps = {shown: step for shown, (step, _) in found.items()}
    return steps, unit_of(steps.values())


def _counted(stems: Mapping[str, str], folders: Collection[str]) -> tuple[dict[str, Step], str]:
    pieces = {shown: re.split(r"(\d+)", stem) for shown, stem in stems.items()}
    for shown, found in pieces.items():
        if len(found) == 1:
            what = "the best by some measure is no moment" if _BEST.fullmatch(stems[shown]) else "it has no number"
            raise UseError(f"{shown} is not named after a step, {what}: {write(shown)}")
    first, *others = pieces
    for other in others:
        if pieces[other][::2] != pieces[first][::2]:
            raise UseError(
                f"{first} and {other} are not of one series, as their names differ in more than numbers: name those of one "
                f"series only, or {write(other)}"
            )
    numbers = {shown: [int(digits) for digits in found[1::2]] for shown, found in pieces.items()}
    words = [_word(text, first=not place) for place, text in enumerate(pieces[first][:-1:2])]
    place, unit = _place(words, numbers, all(shown in folders for shown in numbers))
    _check_epochs(words, place, numbers)
    for shown, found in numbers.items():
        if found[place] >= FINAL.epoch:
            raise UseError(f"the number {found[place]} in the name of {shown} is too large for a step: {write(shown)}")
    return {shown: Step.of(found[place], unit) for shown, found in numbers.items()}, unit


def _place(words: Sequence[str], numbers: Mapping[str, Sequence[int]], folders: bool) -> tuple[int, str]:
    """Which number of the names counts, and what."""
    for unit, known in WORDS.items():
        known = (*known, "checkpoint") if folders and unit == "iteration" else known
        places = [place for place, word in enumerate(words) if word in known]
        if len(places) == 1:
            return places[0], unit
    columns = list(zip(*numbers.values(), strict=True))
    differ = [place for place, column in enumerate(columns) if len(set(column)) > 1 or len(columns) == 1]
    shown = next(iter(numbers))
    if len(differ) == 1 and words[differ[0]] in NO_MOMENT:
        raise UseError(f"the number in the name of {shown} is that of a {words[differ[0]]}, no moment: {write(shown)}")
    if len(differ) == 1:
        return differ[0], "checkpoint"
    raise UseError(f"it cannot be said which number in the name of {shown} is its step: {write(shown)}")


def _check_epochs(words: Sequence[str], place: int, numbers: Mapping[str, Sequence[int]]) -> None:
    """Refuse steps that begin anew with each epoch: they do not say when a checkpoint was."""
    for other in (i for i, word in enumerate(words) if i != place and word in WORDS["epoch"]):
        inorder = sorted(numbers, key=lambda shown: numbers[shown][place])
        for before, after in pairwise(inorder):
            if numbers[before][other] > numbers[after][other]:
                raise UseError(
                    f"{before} is of a later epoch than {after} but of an earlier step: their steps are not those of the whole "
                    f"training; {write(before)}"
                )


def _word(text: str, first: bool) -> str:
    """The word before a number; a lone e directly behind another one is that of 1e-3."""
    match = _WORD.search(text)
    return match[1] if match and (first or not re.fullmatch(r"e\W*", text)) else ""


def write(shown: str) -> str:
    """What a user can do about a name."""
    return f"write STEP=FILE with STEP {FORM}, such as init={shown}"
