"""What a user is told when something asked for cannot be done."""

from collections.abc import Iterable


class UseError(ValueError):
    """Wrong use: the message says what is wrong, where, and what would be right. The command line exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str], form: str = "") -> UseError:
    """The error for a name that does not exist: the nearest that do, else all of them."""
    import difflib  # only where something is wrong: it is slow to load

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
    return UseError(f"unknown {kind} {name!r}; {hint}{' ' + form if form else ''}")
