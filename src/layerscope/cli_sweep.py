"""The commands for populations of networks: a thin shell around `layerscope.sweeps`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from layerscope.analyses.spec import Plan, RobustnessSpec
from layerscope.cli_options import DataDir, Device, DryRun, Json
from layerscope.console import lines, say
from layerscope.errors import UseError
from layerscope.runtime import HERE, Pool

if TYPE_CHECKING:
    from layerscope.sweeps.folder import Sweep
    from layerscope.table import Table


def sweep(
    spec: Annotated[Path, Parameter(help="YAML file: base (fields of a training), grid (name: values), perhaps out.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder of the sweep. One that holds something else is never overwritten.")
    ] = None,
    pool: Annotated[Pool, Parameter(name="*")] = HERE,
    stacked: Annotated[
        bool, Parameter(help="Train together what can be; else each network alone, which takes longer.")
    ] = True,
    data_dir: DataDir = None,
    device: Device = "cpu",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    from layerscope.console import progress
    from layerscope.sweeps import session
    from layerscope.sweeps.spec import read

    asked, written = read(spec)
    if dry_run:
        how = {"data_dir": data_dir, "device": device, "workers": pool.workers, "stacked": stacked}
        return say(session.cost(asked, **how), json)
    if (folder := out or written) is None:
        raise UseError(f"say where the sweep is kept: --out runs/NAME, or out: runs/NAME in {spec}")
    how = {"data_dir": data_dir, "device": device, "workers": pool.workers, "threads": pool.threads, "stacked": stacked}
    return _told(session.sweep(asked, folder, **how, progress=progress()), json)


def status(
    paths: Annotated[list[Path], Parameter(help="Folders of runs and sweeps.")],
    /,
    *,
    json: Json = False,
) -> int:
    from layerscope.sweeps.status import status

    found = [status(path) for path in paths]
    if json:
        return say(found, json)
    for entry in found:
        print(f"{'' if entry is found[0] else chr(10)}{lines(_brief(entry))}")
    return 0


def analyze_sweep(
    path: Path,
    spec: RobustnessSpec,
    name: str,
    plan: Plan,
    pool: Pool,
    anyway: bool,
    data_dir: Path | None,
    json: bool,
) -> int:
    """All maps of a sweep, as `layerscope analyze` gives those of a run."""
    from layerscope.console import progress
    from layerscope.sweeps.folder import Sweep
    from layerscope.table import Table

    sweep = Sweep.open(path)
    how = {"name": name, "data_dir": data_dir, "plan": plan, "anyway": anyway}
    table = sweep.maps(spec, **how, workers=pool.workers, threads=pool.threads, progress=progress())
    for warning in table.provenance["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    metric = f"{table.provenance.get('metric', 'error')}_delta"
    start = Table(table.where(perturbation="rewind", step=0), table.provenance)
    figure = _drawn(sweep, start, f"{name}-start", {"metric": metric}, beside=["part"])
    found: dict[str, Any] = {"sweep": str(path), "networks": len(set(table.frame["run"])), "rows": len(table)}
    found |= {"table": str(path / "analyses" / f"{name}.parquet"), "figure": figure}
    return say({key: value for key, value in found.items() if json or value is not None}, json)


def _told(sweep: "Sweep", json: bool) -> int:
    """Print what came of a sweep, and draw it."""
    from layerscope.console import print_table, sweep_table
    from layerscope.sweeps.folder import SUMMARY
    from layerscope.sweeps.summary import listing

    table = sweep.table
    rows, grid = listing(table), [name for name, _ in table.provenance["grid"]]
    figure = _drawn(sweep, table, "sweep", {})
    diverged = sum(row["diverged"] for row in rows)
    if json:
        found = {
            "sweep": str(sweep.path),
            "networks": sum(row["n"] for row in rows),
            "diverged": diverged,
            "rows": rows,
        }
        return say({**found, "table": str(sweep.path / SUMMARY), "figure": figure}, json)
    print_table(sweep_table(rows, grid))
    if diverged:
        print(f"warning: {diverged} networks diverged, and are in no mean; see `ending` in the table", file=sys.stderr)
    print(f"table    {sweep.path / SUMMARY}" + (f"\nfigure   {figure}" if figure else ""))
    print(f"next: layerscope analyze {sweep.path}")
    return 0


def _drawn(
    sweep: "Sweep", table: "Table", name: str, how: dict[str, Any], beside: list[str] | None = None
) -> str | None:
    """The picture of what depends on the first number of the grid; None where the grid has none, or nothing was measured."""
    from layerscope import plots
    from layerscope.plots.means import SEED, grid_of, numeric

    if not (numbers := numeric(table)) or "ok" not in set(table.frame["status"]):
        return None
    others = [*(beside or ()), *(name for name in grid_of(table) if name not in (numbers[0], SEED))]
    with sweep.own.folder.lock():
        png, _ = plots.save(plots.sweep_curves(table, numbers[0], lines=others, **how), sweep.path / "figures" / name)
    return str(png)


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    """A status as people read it: without the state of each member, and without what there is none of."""
    said: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, dict) and name != "each":
            said[name] = {key: _worded(inner) for key, inner in value.items() if inner is False or inner != 0}
        elif name != "each":
            said[name] = _worded(value)
    return {name: value for name, value in said.items() if value != {}}


def _worded(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else value
