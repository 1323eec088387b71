"""Parts by the names of their tensors, for groups that no rule knows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from layerscope.errors import UseError
from layerscope.partition.division import Division, division
from layerscope.partition.globs import matching
from layerscope.partition.owners import owners
from layerscope.partition.part import Part, Slice
from layerscope.partition.tensors import same

if TYPE_CHECKING:
    from torch import nn

UNMATCHED = "matches no pattern"


def by_pattern(model: "nn.Module", patterns: Mapping[str, str]) -> Division:
    """See `Partition.by_pattern`."""
    names, owner = same(model), owners(model)
    homes: dict[str, str] = {}
    for part, alternatives in patterns.items():
        globs = [each.strip() for each in alternatives.split("|")]
        for name in [alias for found in matching(globs, names, "tensor") for alias in names[found]]:
            if homes.setdefault(name, part) != part:
                tied = f" (tied: {' = '.join(names[name])})" if len(names[name]) > 1 else ""
                raise UseError(
                    f"{name}{tied} is matched for {homes[name]!r} and for {part!r}; it can be in one Part only"
                )
    members = {part: [name for name in names if homes.get(name) == part] for part in patterns}
    modules = {
        part: dict.fromkeys(each.path for each in sorted(map(owner.__getitem__, members[part]))) for part in members
    }
    parts = tuple(Part(part, tuple(map(Slice, members[part])), tuple(modules[part])) for part in members)
    return division(model, parts, {name: UNMATCHED for name in names if name not in homes})
