"""What was not analysed, or failed, and why: nothing is skipped in silence."""

from collections.abc import Iterable
from dataclasses import dataclass

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import Record, column_name, general, has, records
from layerscope.table import Table

TOLD = 6
"""Names that stand in a line; more are folded away below it."""


@dataclass(frozen=True)
class Gap:
    """Something that is not there, and why; `names` are all that are meant, where the line has some of them only."""

    what: str
    why: str
    names: tuple[str, ...] = ()


def gaps(table: Table) -> list[Gap]:
    """All that an analysis could not say."""
    return [*_left_out(table), *_unused(table), *_failed(table), *_absent(table)]


def lacking(table: Table) -> list[Gap]:
    """The same for an analysis without data."""
    return [*_left_out(table), *_failed(table)]


def missing(table: Table) -> list[Gap]:
    """What an analysis of another kind has no number for, by status and reason; and tensors that it left out."""
    rows = [row for row in records(table.frame) if row["status"] in NO_NUMBER]
    found = ((f"{row['status']}: {general(row['reason'] or '', row['part'] or '')}", _asked_of(row)) for row in rows)
    return [*_left_out(table), *(_gap(places, reason) for reason, places in _grouped(found).items())]


NO_NUMBER = ("failed", "diverged", "not applicable", "infeasible")


def _asked_of(row: Record) -> str:
    layers = " and ".join(filter(None, [row.get("layer"), row.get("layer_b")]))
    return ", ".join(filter(None, [row["part"] or layers, (row.get("measure") or row["metric"]).replace("_", " ")]))


def training_notes(training: Table) -> list[str]:
    """Remarks on rows of the training, with the data they are about."""
    rows = records(training.frame)
    notes = dict.fromkeys((row["split"], row["reason"]) for row in rows if row["reason"])
    return [f"{split} data: {reason}." for split, reason in notes]


def _left_out(table: Table) -> list[Gap]:
    """Tensors in no Part, by reason."""
    found = table.provenance.get("left_out", {})
    groups = _grouped((str(reason), name) for name, reason in found.items())
    return [_gap(words.natural(names), reason, " (never changed)") for reason, names in groups.items()]


def _unused(table: Table) -> list[Gap]:
    """Parts that the network does not use, by reason."""
    groups = _grouped((str(reason), name) for name, reason in table.provenance.get("unused", {}).items())
    return [_gap(words.natural(names), reason, " (measured in vain)") for reason, names in groups.items()]


def _failed(table: Table) -> list[Gap]:
    """Rows whose status is not ok, by status and reason."""
    about, found = About.of(table), []
    for row in records(table.frame):
        if row["status"] in (None, "", "ok") or (row.get("to") and row["status"] == "not applicable"):
            continue  # where there is no distance to a pretrained network, nothing could be put back to it either
        column = row.get("step") if row["perturbation"] in ("", "rewind") else None
        place = f"{row['part']}, {column_name(column, about)}" if row["part"] else "unmodified network"
        found.append((f"{row['status']}: {general(row['reason'] or '', row['part'] or '')}", place))
    return [_gap(places, reason) for reason, places in _grouped(found).items()]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Reason -> what has it, each once."""
    groups: dict[str, list[str]] = {}
    for reason, name in dict.fromkeys(pairs):
        groups.setdefault(reason, []).append(name)
    return groups


def _gap(names: list[str], why: str, ending: str = "") -> Gap:
    return Gap(words.listed(names, TOLD) + ending, why, tuple(names) if len(names) > TOLD else ())


def _absent(table: Table) -> list[Gap]:
    about, found = About.of(table), []
    if not has(table, split="train"):
        why = "not measured: there were no training data, or it was not asked for" if about.foreign else "not asked for"
        found.append(Gap("training data", f"the {about.noun} on training data was {why}"))
    if 0 not in _seen(table, "step"):
        there = "are not known" if about.foreign else "were not kept"
        found.append(Gap("the start", f"the values before training {there}"))
    draws = len(_seen(table, "draw"))
    if draws == 1:
        one = f"one draw of each {about.part} has none, so re-randomising gets no verdict"
        found.append(Gap("interval over draws", one))
    if draws == 0:
        found.append(Gap("re-randomising", "no draws were asked for, or none could be made"))
    return found


def _seen(table: Table, coordinate: str) -> set[int]:
    """The values of a coordinate, if the table has it."""
    return set(table.frame[coordinate].dropna()) if coordinate in table.frame.columns else set()
