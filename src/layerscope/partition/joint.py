"""Joint groups: Parts that are changed together become one."""

from collections.abc import Mapping, Sequence

from layerscope.errors import UseError
from layerscope.partition.globs import matching
from layerscope.partition.part import Part, merged


def joined(parts: Sequence[Part], groups: Mapping[str, Sequence[str]]) -> tuple[Part, ...]:
    """See `Partition.joined`."""
    names = [part.name for part in parts]
    homes: dict[str, str] = {}
    for group, wanted in groups.items():
        if not wanted:
            raise UseError(f"the joint group {group!r} has no Parts; there are: {', '.join(names)}")
        for name in matching([wanted] if isinstance(wanted, str) else wanted, names, "Part"):
            if homes.setdefault(name, group) != group:
                raise UseError(f"the Part {name!r} is in {homes[name]!r} and in {group!r}; it can be in one group only")
    members: dict[tuple[str, bool], list[Part]] = {}
    for part in parts:
        members.setdefault((homes.get(part.name, part.name), part.name in homes), []).append(part)
    return tuple(_as_one(name, group) if joint else group[0] for (name, joint), group in members.items())


def _as_one(name: str, parts: Sequence[Part]) -> Part:
    modules = dict.fromkeys(module for part in parts for module in part.modules)
    return Part(name, merged(each for part in parts for each in part.slices), tuple(modules))
