"""What was not analysed, or failed, and why: nothing is skipped in silence."""

from dataclasses import dataclass

from layerscope.plots import words
from layerscope.plots.grid import column_name, has, records
from layerscope.table import Table


@dataclass(frozen=True)
class Gap:
    """Something that is not there, and why."""

    what: str
    why: str


def gaps(table: Table) -> list[Gap]:
    """All that an analysis could not say."""
    return [*_left_out(table), *_failed(table), *_absent(table)]


def training_notes(training: Table) -> list[str]:
    """Remarks on rows of the training, with the data they are about."""
    rows = records(training.frame)
    notes = dict.fromkeys((row["split"], row["reason"]) for row in rows if row["reason"])
    return [f"{split} data: {reason}." for split, reason in notes]


def _left_out(table: Table) -> list[Gap]:
    found = table.provenance.get("left_out", {})
    return [Gap(f"{name} (never changed)", str(reason)) for name, reason in found.items()]


def _failed(table: Table) -> list[Gap]:
    """Rows whose status is not ok, by status and reason."""
    failed = [row for row in records(table.frame) if row["status"] not in (None, "", "ok")]
    groups: dict[str, list[str]] = {}
    for row in failed:
        column = row.get("step") if row["perturbation"] == "rewind" else None
        place = f"{row['part']}, {column_name(column)}" if row["part"] else "unmodified network"
        groups.setdefault(f"{row['status']}: {row['reason']}", []).append(place)
    return [Gap(words.listed(list(dict.fromkeys(places))), reason) for reason, places in groups.items()]


def _absent(table: Table) -> list[Gap]:
    found = []
    if not has(table, "error", "train"):
        found.append(Gap("training data", "the error on training data was not asked for"))
    if 0 not in _seen(table, "step"):
        found.append(Gap("the start", "the values before training were not kept"))
    draws = len(_seen(table, "draw"))
    if draws == 1:
        found.append(Gap("interval over draws", "one draw of each layer has none, so re-randomising gets no verdict"))
    if draws == 0:
        found.append(Gap("re-randomising", "no draws were asked for, or no initial law is known"))
    return found


def _seen(table: Table, coordinate: str) -> set[int]:
    """The values of a coordinate, if the table has it."""
    return set(table.frame[coordinate].dropna()) if coordinate in table.frame.columns else set()
