"""All maps of a population in one call: each in its member's own run, and joined in one table."""

import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from layerscope.analyses.material import known_inputs
from layerscope.analyses.robustness import PLAN
from layerscope.analyses.session import analyze
from layerscope.analyses.spec import Plan, RobustnessSpec
from layerscope.errors import UseError
from layerscope.run import Run, environment
from layerscope.runtime import HERE, Failed, Pool, Progress, each, tell
from layerscope.spec import canonical_json, fingerprint
from layerscope.sweeps.folder import Sweep, coordinates_of, data_of, grid_columns
from layerscope.table import Table, columns


def maps(
    sweep: Sweep,
    spec: RobustnessSpec,
    *,
    name: str = "robustness",
    data_dir: str | Path | None = None,
    plan: Plan = PLAN,
    anyway: bool = False,
    pool: Pool = HERE,
    progress: Progress | None = None,
) -> Table:
    """Which layers matter in each member of a complete sweep: the rows of every member's analysis, with what the member has of
    the grid; `run` is the member.

    Each analysis is kept in its member's run, as `analyze` does; what is complete is read, not computed again. The joined
    table is the analysis `name` of the sweep. A member that diverged has one row that says so. What goes wrong with one member
    does not stop the others; it is raised after them.
    """
    if not sweep.complete:
        raise UseError(f"{sweep.path} is not complete; go on with: layerscope sweep SPEC.yaml --out {sweep.path}")
    if gone := [run.name for run in sweep.runs if not run.trained]:
        raise UseError(
            f"{gone[0]} is gone from {sweep.path}; train it again with: layerscope sweep SPEC.yaml --out {sweep.path}"
        )
    runs = [run for run in sweep.runs if not run.ending["diverged"]]
    inputs = fingerprint([known_inputs(run) for run in runs])
    if (done := sweep.own.finished_analysis(name, spec, inputs)) is not None:
        return done
    began, failed = time.perf_counter(), dict[str, Failed]()
    work = partial(_analyze, spec, name, data_dir, plan, anyway)
    with sweep.own.folder.lock():
        with closing(each([run.path for run in runs], work, pool)) as found:
            for count, (number, outcome) in enumerate(found, start=1):
                if isinstance(outcome, Failed):
                    failed[runs[number].name] = outcome
                if progress is not None:
                    progress(f"maps of {len(runs)} networks", count, len(runs))
        tell(failed, len(runs), "maps")
        table = joined(sweep, {run.name: run.analysis(name) for run in runs})
        facts = environment() | {"workers": pool.workers, "seconds": round(time.perf_counter() - began, 2)}
        table = table.with_facts(**facts)
        sweep.own.save_analysis(name, table, spec, inputs)
    return table


def joined(sweep: Sweep, tables: dict[str, Table]) -> Table:
    """The tables of some members as one; members without a table diverged, and have a row that says so. What the tables'
    provenance have in common is kept."""
    import pandas as pd

    spec, frames = sweep.spec, []
    facts = {**_common([table.provenance for table in tables.values()]), "grid": grid_columns(spec)}
    for member, place in coordinates_of(spec).items():
        table = tables.get(member)
        rows = _diverged(sweep.run(member)) if table is None else table.frame
        frames.append(rows.assign(run=member, **place))
    dtypes = columns(facts)
    frame = pd.concat(frames, ignore_index=True)
    kept = {column: dtype for column, dtype in dtypes.items() if column in frame}
    ordered: pd.DataFrame = frame[list(kept)].astype(kept)  # pyright: ignore[reportAssignmentType]
    warnings = [f"{name}: {text}" for name, table in tables.items() for text in table.provenance.get("warnings", ())]
    diverged = [member for member in coordinates_of(spec) if member not in tables]
    if diverged:
        warnings.append(f"{len(diverged)} networks diverged, and have no map: {', '.join(diverged[:5])}")
    facts["diverged"] = diverged
    facts |= {"sweep": sweep.own.name, "members": len(frames), "data": data_of(spec), "warnings": warnings}
    variants = {key: value for table in tables.values() for key, value in table.variants.items()}
    return Table(ordered, facts, variants)


def _analyze(
    spec: RobustnessSpec,
    name: str,
    data_dir: str | Path | None,
    plan: Plan,
    anyway: bool,
    path: Path,
    progress: Progress,
) -> None:
    analyze(Run(path), spec, name=name, data_dir=data_dir, plan=plan, anyway=anyway, progress=progress)


def _diverged(run: Run) -> Any:
    return Table.of([{"status": "diverged", "reason": run.ending["reason"]}]).frame


def _common(provenances: list[Any]) -> dict[str, Any]:
    first, *others = provenances or [{}]
    same = {key: canonical_json(value) for key, value in first.items()}
    return {key: first[key] for key, text in same.items() if all(canonical_json(o.get(key)) == text for o in others)}
