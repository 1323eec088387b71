"""What a rule makes of a network: Parts, and a reason for each tensor that is in none."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from layerscope.partition.part import Part
from layerscope.partition.tensors import every_tensor, unkept

if TYPE_CHECKING:
    from torch import nn

Division = tuple[tuple[Part, ...], dict[str, str]]
"""Parts, and tensor -> reason for what is left out: together all there is."""


def division(model: "nn.Module", parts: Iterable[Part], reasons: Mapping[str, str]) -> Division:
    """The Parts, and what is left out: for the given reasons, or because no Part can have it; in the order of tensors."""
    reasons = {**unkept(model), **reasons}
    return _named_apart(parts), {name: reasons[name] for name in every_tensor(model) if name in reasons}


def _named_apart(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Paths can be such that two Parts come to the same name: then the later one is numbered."""
    named: dict[str, Part] = {}
    for part in parts:
        numbered = (f"{part.name} ({number})" for number in count(2))
        name = part.name if part.name not in named else next(name for name in numbered if name not in named)
        named[name] = replace(part, name=name)
    return tuple(named.values())
