"""What a sweep is asked: a training, and what varies of it. Without torch."""

import dataclasses
import itertools
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from layerscope.errors import UseError, unknown
from layerscope.spec import Spec
from layerscope.store import read_file
from layerscope.table import COLUMNS
from layerscope.training.spec import TrainSpec

_HINTS = typing.get_type_hints(TrainSpec)
FIELDS = {field.name: _HINTS[field.name] for field in dataclasses.fields(TrainSpec)}
"""Field of a training -> its type."""
LONGEST = 200
"""Bytes of a member's name: a file system allows 255 bytes, and a file beside it must be possible."""
_PLACE = re.compile(r"\{(\w*)\}")
_ODD = re.compile(r"[^\w.+-]")
"""What the name of a folder better has not."""
_OWN = re.compile(r"name|n|diverged|(train|validation|test)_.*")
"""What listings of members say of each, besides columns of tables."""
_WHOLE = 2**63
"""Whole numbers from here on have no place in a table."""
_KEYS = ("base", "grid", "out")


@dataclass(frozen=True)
class Member:
    """One training of a sweep: its name, which is that of its folder, what it has of the grid, and its spec."""

    name: str
    coordinates: Mapping[str, Any]
    spec: TrainSpec


@dataclass(frozen=True)
class SweepSpec(Spec):
    """Train a network at every combination of a grid's values.

    Example: `SweepSpec(base={"model": "fcn-4x{hidden}", "epochs": 50}, grid={"hidden": [8, 16], "seed": range(3)})`
    has six members, the first of them `hidden=8,seed=0`.
    """

    KIND: ClassVar[str] = "sweep"

    base: Mapping[str, Any]
    """Fields of a TrainSpec. Their text may have names of the grid in braces: "fcn-4x{hidden}", "mnist?shuffled={noise}"."""
    grid: Mapping[str, Any]
    """Name -> values. A name that is a field of TrainSpec sets it; any other stands in braces in a field of `base`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "base", {name: _plain(value) for name, value in dict(self.base).items()})
        object.__setattr__(self, "grid", {name: _values(name, values) for name, values in dict(self.grid).items()})
        self._check_names()
        self.members()

    def to_dict(self) -> dict[str, Any]:
        """All fields; the grid as pairs, because the order of its names is that of the members."""
        return {**super().to_dict(), "grid": [[name, list(values)] for name, values in self.grid.items()]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The sweep of what `to_dict` gives."""
        return super().from_dict({**fields, "grid": dict(fields["grid"])})

    def members(self) -> list[Member]:
        """Every combination of the grid's values; the last name varies fastest. Raises `UseError` for a training that cannot be
        asked, and for values that have no name of their own."""
        found = [self._member(values) for values in itertools.product(*self.grid.values())]
        named: dict[str, str] = {}
        asked: dict[str, str] = {}
        for name, spec in ((member.name, member.spec.fingerprint) for member in found):
            if named.setdefault(name.casefold(), spec) != spec or asked.get(spec) == name:
                raise UseError(f"two members of the sweep would be called {name!r}: each value of the grid must differ")
            if (other := asked.setdefault(spec, name)) != name:
                raise UseError(f"members {other} and {name} are the same training")
        return found

    def _member(self, values: Sequence[Any]) -> Member:
        coordinates = dict(zip(self.grid, values, strict=True))
        texts = {name: text_of(value) for name, value in coordinates.items()}
        name = ",".join(f"{key}={_ODD.sub('-', text)}" for key, text in texts.items())
        if len(name.encode()) > LONGEST:
            raise UseError(f"{name!r} is too long for the name of a folder: write what all members share into base")
        fields = {key: _filled(value, texts) for key, value in self.base.items()}
        fields |= {key: value for key, value in coordinates.items() if key in FIELDS}
        try:
            return Member(name, coordinates, TrainSpec(**{key: _fitting(key, value) for key, value in fields.items()}))
        except UseError as problem:
            raise UseError(f"member {name}: {problem}") from None

    def _check_names(self) -> None:
        if wrong := [name for name in self.base if name not in FIELDS]:
            raise unknown("field of base", wrong[0], FIELDS)
        if not self.grid:
            raise UseError("grid must name at least one thing that varies, such as seed: [0, 1, 2]")
        used = {place for value in self.base.values() for place in _places(value)}
        for name in self.grid:
            if name in self.base:
                raise UseError(f"{name} is in base and in grid; say it once")
            if name in COLUMNS or _OWN.fullmatch(name) or not re.fullmatch(r"[^\W\d]\w*", name):
                raise UseError(
                    f"{name!r} cannot be a name of the grid: it must be a word, and no column of every table"
                )
            if name not in FIELDS and name not in used:
                raise UseError(
                    f"{name!r} of the grid is no field of a training and stands nowhere in base: write {{{name}}} into a text "
                    "of base, such as model: fcn-4x{" + name + "}" + _meant(name)
                )
        if missing := sorted(used - set(self.grid)):
            raise UseError(
                f"base has {{{missing[0]}}}, but the grid has no {missing[0]!r}; it has {', '.join(self.grid)}"
            )


def read(path: str | Path) -> tuple[SweepSpec, Path | None]:
    """The sweep of a YAML file with the keys `base`, `grid` and, if it says so, `out`: the folder, too."""
    import yaml

    path = Path(path)
    try:
        text = read_file(path)
        _refuse_repeated(path, yaml.compose(text, yaml.SafeLoader))
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UseError(f"{path} is no YAML: {problem}") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("base", "grid")):
        raise UseError(f"{path} must have base and grid, each with names and values")
    if wrong := [str(key) for key in found if key not in _KEYS]:
        raise unknown(f"key of {path}:", wrong[0], _KEYS)
    out = found.get("out")
    if not isinstance(out, str | None):
        raise UseError(f"{path}: out must be the name of a folder, not {out!r}")
    return SweepSpec(_numbers(found["base"]), _numbers(found["grid"])), Path(out) if out else None


def _refuse_repeated(path: Path, node: Any) -> None:
    """YAML takes the last of keys that are said twice, in silence."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise UseError(f"{path}: {twice[0]} is said twice; say it once")
    for inner in getattr(node, "value", ()) if not isinstance(node, yaml.ScalarNode | None) else ():
        for each in inner if isinstance(inner, tuple) else (inner,):
            _refuse_repeated(path, each)


def text_of(value: Any) -> str:
    """A value of the grid as names and texts have it: yes and no as options of models are written, lists joined by `+`."""
    if isinstance(value, list):
        return "+".join(map(text_of, value)) or "empty"
    return {True: "yes", False: "no", None: "none"}[value] if isinstance(value, bool | None) else str(value)


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean the number."""
    if isinstance(value, dict):
        return {str(key): _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    number = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value)
    return float(value) if number else value


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise UseError(f"{value!r} is no value of a sweep: numbers, texts, yes, no, nothing and lists of them are")


def _values(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
        raise UseError(f"grid: {name} must be a list of values, not {values!r}")
    if not (found := tuple(_plain(value) for value in values)):
        raise UseError(f"grid: {name} has no values")
    if large := [value for value in found if isinstance(value, int) and not -_WHOLE <= value < _WHOLE]:
        raise UseError(f"grid: {name} has {large[0]}; whole numbers go from -2^63 to 2^63 - 1")
    return found


def _places(value: Any) -> set[str]:
    """The names in braces in a text or a list of texts."""
    if isinstance(value, list):
        return {place for inner in value for place in _places(inner)}
    return set(_PLACE.findall(value)) if isinstance(value, str) else set()


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(inner, texts) for inner in value]
    return _PLACE.sub(lambda place: texts[place[1]], value) if isinstance(value, str) else value


def _fitting(name: str, value: Any) -> Any:
    """The value of a field in the type that the field has."""
    kinds = typing.get_args(FIELDS[name]) if isinstance(FIELDS[name], types.UnionType) else (FIELDS[name],)
    for kind in kinds:
        element = (typing.get_args(kind) or (None,))[0]
        if element and isinstance(value, list) and all(_is(element, inner) for inner in value):
            return tuple(element(inner) for inner in value)
        if not element and _is(kind, value):
            return value if value is None else kind(value)
    said = " or ".join(
        _NAMED.get(kind, f"a list, each {_NAMED[(typing.get_args(kind) or (str,))[0]]}") for kind in kinds
    )
    raise UseError(f"{name} must be {said}, not {value!r}")


_NAMED = {int: "a whole number", float: "a number", str: "a text", type(None): "nothing (null)"}


def _is(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not isinstance(value, bool)


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"; or did you mean {near[0]}?" if near else ""
