"""The contest on disk: the measures of many runs, and which of them ranks the runs as their generalisation does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from layerscope.analyses.compare import check, compare
from layerscope.analyses.session import analyze
from layerscope.analyses.spec import CompareSpec, MeasuresSpec, Plan
from layerscope.errors import UseError
from layerscope.run import Run, environment
from layerscope.runtime import Progress
from layerscope.spec import fingerprint
from layerscope.table import Table

NO_SETTINGS = ("kind", "fingerprint", "inputs", "schema", "checkpoints")
"""What a run's spec has beside that which decides its network."""


def contest(
    paths: Sequence[str | Path],
    out: str | Path,
    spec: CompareSpec,
    measured: MeasuresSpec,
    *,
    name: str = MeasuresSpec.KIND,
    data_dir: str | Path | None = None,
    plan: Plan,
    progress: Progress | None = None,
) -> tuple[Run, Table]:
    """The table of `compare` over runs on disk, kept as the analysis `compare` of the folder `out`. Measures that a run has
    already are read; the others are computed, and kept with the run as its analysis `name`. What cannot be compared is refused
    before anything is measured."""
    runs = [Run.open(path) for path in dict.fromkeys(Path(path).resolve() for path in paths)]
    names = _named(runs)
    check(len(runs), measured.which, spec)
    tables: dict[str, Table] = {}
    for number, (called, run) in enumerate(zip(names, runs, strict=True)):
        if progress is not None:
            progress("networks measured", number, len(runs))
        tables[called] = analyze(run, measured, name=name, data_dir=data_dir, plan=plan)
    if progress is not None:
        progress("networks measured", len(runs), len(runs))
    hyper = {called: settings(run) for called, run in zip(names, runs, strict=True)}
    table = compare(tables, hyper, spec)
    own = Run(out)
    with own.claim(spec):
        facts = environment() | {"spec_kind": spec.KIND, "runs": names}
        table = table.with_facts(**facts)
        own.save_analysis(spec.KIND, table, spec, fingerprint([run.analysis_spec(name) for run in runs]))
        own.record(f"analysis {spec.KIND}", facts)
    return own, table


def settings(run: Run) -> dict[str, Any]:
    """What a network's training was asked, setting by setting; options of model and data are settings of their own."""
    fields = {key: value for key, value in run.spec.items() if key not in NO_SETTINGS}
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if key in ("model", "data") and isinstance(value, str):
            base, _, options = value.partition("?")
            found |= {key: base, **{f"{key} {option}": said for option, said in parse_qsl(options)}}
        else:
            found[key] = tuple(value) if isinstance(value, list) else value
    return found


def _named(runs: Sequence[Run]) -> list[str]:
    """The names of runs; those of whole paths where folders are called the same."""
    if not runs:
        raise UseError("name the folders of the runs to compare")
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]
