"""What the report says of a model that layerscope did not train: where it came from, and how its tensors were changed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import WHOLE
from layerscope.table import Table

FITTED = "fitted to the start: "
"""How the text of a law begins that nobody stated: its moments are those of the values before training."""

_BY = {
    "layer": "one for each layer, a module that owns parameters itself",
    "module": "one for each module",
    "block": "one for each residual or transformer block and what lies outside of them",
    "stage": "one for each stage",
    "projection": "one for each projection, attention's packed ones taken apart",
    "head": "one for each attention head and what belongs to none",
    "groups": "the groups that the user named",
}
_BUFFERS = {
    "rewind": "Buffers such as running statistics were changed with the {part} that they belong to.",
    "keep": "Buffers such as running statistics kept their trained values.",
    "recalibrate": "Running statistics were computed afresh for each changed network, from training data.",
}
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_DOTTED = re.compile(r"(?<![\w.-])\w+(?:\.[\w-]+)+")


@dataclass(frozen=True)
class LawGroup:
    """Tensors that were drawn from laws of one form."""

    law: str
    fitted: bool
    tensors: list[str]
    moments: bool = False

    @property
    def source(self) -> str:
        """Where the law is known from."""
        if self.moments:
            return "with the moments of the trained values"
        return "fitted to the values before training" if self.fitted else "stated by the module or the user"


def sentences(spec: Mapping[str, Any], table: Table) -> list[str]:
    """What the model, its checkpoints and its data are."""
    facts = table.provenance
    return [
        f"The model {_said(facts.get('model') or spec.get('model') or '')} was analysed as it was given; layerscope did not "
        "train it.",
        *([f"Its checkpoints: {_said(spec['checkpoints'])}."] if spec.get("checkpoints") else []),
        *(f"{str(text)[:1].upper()}{str(text)[1:]}." for text in facts.get("checkpoints") or ()),
        *_data(facts.get("data"), spec.get("data")),
        *_probed(facts.get("probe")),
    ]


def division(table: Table) -> str:
    """Into what Parts the network was divided; empty for a network of the lab by layer, as that goes without saying."""
    about, by = About.of(table), str(table.provenance.get("by") or "layer")
    if by == "layer" and not about.foreign:
        return ""
    n = words.plural(len([name for name in table.parts() if name != WHOLE]), about.part)
    return f"The network was divided into {n}: {_BY.get(by, f'by {by}')}."


def buffers(table: Table) -> str:
    """What was done with buffers; empty where the table does not say, or where nothing but the usual was done."""
    rule, about = str(table.provenance.get("buffers") or ""), About.of(table)
    if not about.foreign and rule in ("", "rewind"):
        return ""
    return _BUFFERS.get(rule, "").format(part=about.part)


def laws(table: Table) -> list[LawGroup]:
    """The laws that tensors were drawn from, those of one form together: numbers that differ become their range."""
    groups: dict[tuple[str, bool], list[tuple[str, str]]] = {}
    for tensor, law in table.provenance.get("laws", {}).items():
        text = _DOTTED.sub(_unnamed, str(law).removeprefix(FITTED))
        groups.setdefault((_NUMBER.sub("\0", text), str(law).startswith(FITTED)), []).append((tensor, text))
    return [
        LawGroup(
            _ranged(form, [text for _, text in members]),
            fitted,
            words.natural(tensor for tensor, _ in members),
            About.of(table).redraw == "moments",
        )
        for (form, fitted), members in groups.items()
    ]


def _ranged(form: str, texts: Sequence[str]) -> str:
    """A form with its numbers put back: one, or from the least to the largest."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    ends = (sorted(set(column), key=float) for column in columns)
    shown = iter([found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}" for found in ends])
    return re.sub("\0", lambda _: next(shown), form)


def _unnamed(found: re.Match[str]) -> str:
    """A tensor's name is left out of a law; a number is kept."""
    return found[0] if _NUMBER.fullmatch(found[0]) else "another tensor"


def _data(described: Any, asked: Any) -> list[str]:
    """The data as the analysis found them, else as they were asked for."""
    found = described or asked
    if not found:
        return []
    counts = [
        f"{words.count(found[key])} {name}"
        for key, name in (("n_train", "training"), ("n_test", "test"))
        if isinstance(found, Mapping) and isinstance(found.get(key), int)
    ]
    return [f"Data: {_said(found)}{f' ({words.listed(counts)} samples)' if counts else ''}."]


def _probed(probe: Any) -> list[str]:
    """That the model gives the same outputs twice; where it does not, that is a warning and not said here."""
    if not isinstance(probe, Mapping) or probe.get("note"):
        return []
    n = int(probe.get("batches") or 1)
    same = "the same outputs" if probe.get("identical") else "the same outputs, up to rounding,"
    return [f"It gave {same} twice for the same {'batch' if n == 1 else f'{n} batches'}."]


def _said(value: Any) -> str:
    """A setting as text: a name as it is, facts as their name or as pairs."""
    if not isinstance(value, Mapping):
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return str(value.get("name") or ", ".join(f"{key} {_said(inner)}" for key, inner in value.items() if inner))
