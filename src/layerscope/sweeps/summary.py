"""What came of a sweep: a row for each number of each member's trained network."""

from collections.abc import Sequence
from typing import Any

from layerscope.plots.means import SEED, Row, grouped, mean
from layerscope.run import Run, environment
from layerscope.sweeps.folder import Sweep, coordinates_of, data_of, grid_columns
from layerscope.table import Table

MOST = 20
"""Members that are listed one by one."""


def summary(sweep: Sweep) -> Table:
    """Error and loss of every member on each split, after the epoch whose network is the trained one, with what the member has
    of the grid, how long it was trained and how that ended. A member that diverged has the numbers of its last good epoch and
    the status `diverged`."""
    spec = sweep.spec
    found = coordinates_of(spec)
    rows = [row for name, place in found.items() for row in _rows(sweep.run(name), place)]
    facts = {"sweep": sweep.own.name, "spec": spec.fingerprint, "members": len(found), "data": data_of(spec)}
    return Table.of(rows, {**environment(), **facts, "grid": grid_columns(spec)})


def listing(table: Table) -> list[dict[str, Any]]:
    """What a summary says, a row a member; of more than 20 members a row for all that differ in their seeds alone.

    Of each: what it has of the grid, `n` runs, how many of them `diverged` (their numbers are left out), the mean of the
    epochs they were `trained` for, and of error and loss on each split: mean and, for several runs, the ends of its t interval.
    """
    names = [name for name, _ in table.provenance["grid"]]
    by = [name for name in names if name != SEED] if table.provenance["members"] > MOST else names
    groups = grouped(table.frame.to_dict("records"), by)
    return [{**dict(zip(by, place, strict=True)), **_entry(rows)} for place, rows in groups.items()]


def _entry(rows: Sequence[Row]) -> dict[str, Any]:
    runs = list({row["run"]: row for row in rows}.values())
    diverged = sum(row["status"] != "ok" for row in runs)
    entry = {"n": len(runs), "diverged": diverged, "trained": sum(row["trained"] for row in runs) / len(runs)}
    good = [row for row in rows if row["status"] == "ok"]
    for (split, metric), mine in grouped(good, ["split", "metric"]).items():
        found, name = mean(mine), f"{split}_{metric}"
        entry[name] = found.value
        if found.n > 1:
            entry |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return entry


def _rows(run: Run, place: dict[str, Any]) -> list[dict[str, Any]]:
    ending = run.ending
    kept = ("step", "split", "metric", "unit", "value", "n", "status", "reason")
    about: dict[str, Any] = {"run": run.name, **place}
    about |= {name: ending[name] for name in ("trained", "reached")} | {"ending": ending["reason"]}
    about["seconds"] = run.provenance["training"]["seconds"]
    found = run.training().where(step=ending["epoch"]).to_dict("records")
    rows = [{**about, **{name: row[name] for name in kept}} for row in found]
    return [{**row, "status": "diverged", "reason": ending["reason"]} for row in rows] if ending["diverged"] else rows
