"""Descriptions of work: frozen dataclasses with one canonical JSON each, and the fingerprint of that JSON."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from layerscope.errors import UseError, unknown

BuffersRule = Literal["rewind", "keep", "recalibrate"]
"""What happens to the buffers (such as batch norm's running statistics) of a changed network. `rewind`: those of the changed
Part are changed with it. `keep`: all keep their trained values. `recalibrate`: the statistics of all batch norms are computed
again from training data, and other buffers keep their values (see docs/decisions/0007-buffers.md)."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What was asked, whole: equal specs give equal numbers, and a different field gives another fingerprint. Where several
    values may be given, one alone is a tuple of one."""

    KIND: ClassVar[str] = ""
    CODE: ClassVar[int] = 1
    """Raised whenever the code of this stage changes its numbers."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if _several(field.type) and given is not None and not isinstance(given, tuple):
                object.__setattr__(self, field.name, tuple(given) if isinstance(given, list) else (given,))

    def to_dict(self) -> dict[str, Any]:
        """All fields, with the kind of the spec and the version of the code that carries it out."""
        return {"kind": self.KIND, "code": self.CODE, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The spec of a mapping (as read from JSON); unknown fields are an error that names the nearest."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = dict(fields)
        kind, code = given.pop("kind", cls.KIND), given.pop("code", cls.CODE)
        if (kind, code) != (cls.KIND, cls.CODE):
            raise UseError(f"this is a {kind!r} spec of code version {code}, expected {cls.KIND!r}, version {cls.CODE}")
        for name in given:
            if name not in known:
                raise unknown(f"field of a {cls.KIND} spec", name, known)
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return fingerprint(self.to_dict())


def _several(kind: Any) -> bool:
    """Whether a field has values of its own in a tuple, if it has any."""
    return tuple in (get_origin(kind), *map(get_origin, get_args(kind)))


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any, digits: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]
