"""Names chosen by patterns."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from layerscope.errors import unknown


def matching(patterns: Iterable[str], names: Iterable[str], kind: str) -> list[str]:
    """The names that one of these glob patterns is or matches, each once.

    Errors: UseError for a pattern that matches none, with the nearest names; `kind` says of what.
    """
    names = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise unknown(kind, pattern, names)
        found |= dict.fromkeys(hits)
    return list(found)
