"""Names of tensors in a checkpoint and in a model: wrappers put prefixes before them, and tied tensors have several."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from layerscope.errors import UseError
from layerscope.partition import first_names
from layerscope.state import shapes_of, tensors_of


@dataclass(frozen=True)
class Fit:
    """Where a checkpoint has the tensors of a model: `held` is the name in the model -> the name there, which begins with
    `prefix`. `unneeded` are tensors of the checkpoint that the model says it can do without."""

    prefix: str
    held: Mapping[str, str]
    unneeded: tuple[str, ...]

    def shapes(self, there: Mapping[str, Any]) -> dict[str, Any]:
        """Shapes of a checkpoint by the names of the model; what the model does not have keeps its name."""
        used = {*self.held.values(), *self.unneeded}
        beside = {name: shape for name, shape in there.items() if name not in used}
        named = {name: there[place] for name, place in self.held.items()}
        return named | {f"{name} (without {self.prefix!r})" if name in named else name: beside[name] for name in beside}


@dataclass(frozen=True)
class Wanted:
    """The tensors of a model: each name -> the first of its names, another one where it is tied. `unneeded` matches names that
    checkpoints may have beside them. `shapes` are those of the model."""

    firsts: Mapping[str, str]
    unneeded: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> "Wanted":
        tensors = tensors_of(model)
        return cls({name: name for name in tensors} | first_names(model), _unneeded(model), shapes_of(tensors))

    def fit(self, there: Collection[str], where: str) -> Fit:
        """Where a checkpoint with these names has the model's tensors.

        A prefix is taken off only if all tensors of the model are there with it, and not all without it. One that fits most
        of them is, too, so that the error that follows names what is missing; several that fit all are an error here.
        """
        prefix = self._prefix(there, where)
        bare = {name.removeprefix(prefix): name for name in there if name.startswith(prefix)}
        by_first = {self.firsts[name]: bare[name] for name in reversed(list(self.firsts)) if name in bare}
        held = {
            name: bare.get(name, by_first[first])
            for name, first in self.firsts.items()
            if name in bare or first in by_first
        }
        used = set(held.values())
        surplus = [name for name in there if self.unneeded and name not in used and re.search(self.unneeded, name)]
        return Fit(prefix, held, tuple(surplus))

    def _prefix(self, there: Collection[str], where: str) -> str:
        if self._lacking("", there) == 0:
            return ""
        counts = Counter(name[:at] for name in there for at in _starts(name) if name[at:] in self.firsts)
        fitting = [prefix for prefix in counts if self._lacking(prefix, there) == 0]
        likely = [prefix for prefix, count in counts.items() if 2 * count > len(self.firsts)]
        least = min((self._lacking(prefix, there) for prefix in likely), default=0)
        best = fitting or [prefix for prefix in likely if self._lacking(prefix, there) == least]
        if len(best) > 1:
            raise UseError(
                f"{where} has the tensors of the model {len(best)} times, under {' and under '.join(map(repr, best[:4]))}; "
                "write those that are meant to a file of their own"
            )
        return next(iter(best), "")

    def _lacking(self, prefix: str, there: Collection[str]) -> int:
        """How many tensors of the model a checkpoint lacks under a prefix."""
        found = {first for name, first in self.firsts.items() if prefix + name in there}
        return len(set(self.firsts.values()) - found)


def _starts(name: str) -> Iterator[int]:
    """Where a name may begin behind a prefix: at its start and behind each dot."""
    yield 0
    yield from (dot.end() for dot in re.finditer(r"\.", name))


def _unneeded(model: nn.Module) -> str:
    """What a model of Hugging Face says of older checkpoints: names that it finds there and does not need, such as masks that
    it now computes itself. Its library reads them so, too."""
    patterns = list(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    buffers = [name for name, _ in model.named_buffers()]
    moved = {r"rotary_emb\.inv_freq": "rotary_emb.inv_freq", r"(^|\.)position_ids$": "position_ids"}
    patterns += [pattern for pattern, name in moved.items() if any(buffer.endswith(name) for buffer in buffers)]
    return "|".join(f"(?:{pattern})" for pattern in sorted(patterns))
