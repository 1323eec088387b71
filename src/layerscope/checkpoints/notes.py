"""What was decided about the insides of checkpoints, in words: nothing of it is silent."""

from collections.abc import Iterable, Mapping, Sequence

from layerscope.checkpoints.fit import Fit


def notes(unders: Mapping[str, str], fits: Mapping[str, Fit]) -> list[str]:
    """What was decided to read the checkpoints, by their names: the key that their tensors are under, the prefix that was taken
    off or put before them, tensors that the model does not need."""
    return [
        *_told(unders, "the values under {!r} were read"),
        *_told({name: str(fit.prefix) for name, fit in fits.items()}, "{}"),
        *_told(
            {name: listed(fit.unneeded) for name, fit in fits.items()},
            "not read, as the model's own code says that it does not need them: {}",
        ),
    ]


def _told(found: Mapping[str, str], form: str) -> Iterable[str]:
    """Each text once, with the checkpoints that it is said of."""
    groups: dict[str, list[str]] = {}
    for name, text in found.items():
        groups.setdefault(text, []).append(name)
    for text, names in groups.items():
        if text:
            where = "of each checkpoint" if len(names) == len(found) else f"of {listed(names, 4)}"
            yield f"{where}, {form.format(text)}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row; a long one is cut and says so."""
    if len(names) <= most:
        return " and ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
