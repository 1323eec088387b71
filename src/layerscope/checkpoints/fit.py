"""Names of tensors in a checkpoint and in a model: wrappers put prefixes before them, and tied tensors have several."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from layerscope.errors import UseError
from layerscope.partition import first_names
from layerscope.state import shapes_of, tensors_of


@dataclass(frozen=True)
class Prefix:
    """What the names of a checkpoint begin with and those of the model do not, as a wrapper puts it there; or, if `ours`, the
    other way round, as of a base model that the model has within it."""

    text: str = ""
    ours: bool = False

    def there(self, name: str) -> str:
        """The name in the checkpoint of a tensor of the model; empty if it can have none."""
        if not self.ours:
            return self.text + name
        return name.removeprefix(self.text) if name.startswith(self.text) else ""

    def __str__(self) -> str:
        """What is done to the names of a checkpoint."""
        if not self.text:
            return ""
        return f"{self.text!r} was {'put before' if self.ours else 'taken off'} the names of tensors"


@dataclass(frozen=True)
class Fit:
    """Where a checkpoint has the tensors of a model: `held` is the name in the model -> the name there, which differ by
    `prefix`. `unneeded` are tensors of the checkpoint that the model says it can do without."""

    prefix: Prefix
    held: Mapping[str, str]
    unneeded: tuple[str, ...]

    def shapes(self, there: Mapping[str, Any]) -> dict[str, Any]:
        """Shapes of a checkpoint by the names of the model; what the model does not have keeps its name."""
        used = {*self.held.values(), *self.unneeded}
        beside = {name: shape for name, shape in there.items() if name not in used}
        named = {name: there[place] for name, place in self.held.items()}
        return named | {
            f"{name} (beside {self.held[name]})" if name in named else name: beside[name] for name in beside
        }


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

        A prefix is taken off, or put before them, only if all tensors of the model are there then, and not all without that.
        One that fits most of the model or of the checkpoint is, too, so that the error that follows names what is missing;
        several that fit as well are an error here.
        """
        prefix = self._prefix(there, where)
        bare = {name: place for name in self.firsts if (place := prefix.there(name)) in there}
        by_first = {self.firsts[name]: bare[name] for name in reversed(list(self.firsts)) if name in bare}
        held = {
            name: bare.get(name, by_first[first])
            for name, first in self.firsts.items()
            if name in bare or first in by_first
        }
        used = set(held.values())
        surplus = [name for name in there if self.unneeded and name not in used and re.search(self.unneeded, name)]
        return Fit(prefix, held, tuple(surplus))

    def _prefix(self, there: Collection[str], where: str) -> Prefix:
        if self._lacking(Prefix(), there) == 0:
            return Prefix()
        theirs = Counter(Prefix(name[:at]) for name in there for at in _starts(name) if name[at:] in self.firsts)
        ours = Counter(
            Prefix(name[:at], True) for name in self.firsts for at in _starts(name) if at and name[at:] in there
        )
        counts = theirs + ours
        fitting = [prefix for prefix in counts if self._lacking(prefix, there) == 0]
        most = min(len(self.firsts), len(there))
        likely = [prefix for prefix, count in counts.items() if 2 * count > most]
        least = min((self._lacking(prefix, there) for prefix in likely), default=0)
        best = fitting or [prefix for prefix in likely if self._lacking(prefix, there) == least]
        if len(best) > 1:
            raise _several(best, where)
        return next(iter(best), Prefix())

    def _lacking(self, prefix: Prefix, there: Collection[str]) -> int:
        """How many tensors of the model a checkpoint lacks under a prefix."""
        found = {first for name, first in self.firsts.items() if prefix.there(name) in there}
        return len(set(self.firsts.values()) - found)


def _several(best: Sequence[Prefix], where: str) -> UseError:
    """An error for tensors that could be several of the model's, or the other way round."""
    texts = " and under ".join(repr(prefix.text) for prefix in best[:4])
    if any(prefix.ours for prefix in best):
        return UseError(
            f"{where} has names that fit the model under {texts}: nobody can say which are meant; write them to a file under "
            "the names that the model has"
        )
    return UseError(
        f"{where} has the tensors of the model {len(best)} times, under {texts}; write those that are meant to a file of their "
        "own"
    )


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
