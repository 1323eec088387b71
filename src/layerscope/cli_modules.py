"""The commands for what is measured of modules and whole networks: each makes one analysis of a run, and shows it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from layerscope.analyses.spec import (
    BoundsSpec,
    CkaSpec,
    CompareSpec,
    CriticalitySpec,
    LandscapeSpec,
    MeasuresSpec,
    ModelSpec,
    Plan,
    SimilaritySpec,
    SpectraSpec,
)
from layerscope.cli_options import Anyway, DataDir, DryRun, Json
from layerscope.console import say, warn
from layerscope.errors import UseError
from layerscope.spec import Spec

if TYPE_CHECKING:
    from layerscope.run import Run
    from layerscope.table import Table

COMMANDS = ("criticality", "landscape", "spectra", "similarity", "cka", "measures", "bounds", "compare")
NO_MODEL, PLAN = ModelSpec(), Plan()
OWN = "Folder of a run; none for a model of your own."
Own = Annotated[Path | None, Parameter(help="Folder for the analyses of your own model. [default: runs/MODEL]")]


def check_subject(run: Path | None, source: ModelSpec, what: str) -> None:
    """One of the two is named; of a recording's folder both may be."""
    if (run is None) == (source == NO_MODEL) and not (run and (run / "spec.json").is_file()):
        raise UseError(f"say what to {what}: RUN, the folder of a run, or your own model with --model and --data")


def command(asked: type[Spec]) -> Callable[..., int]:
    """The command that makes the analysis of a kind of spec."""

    def analysis(
        run: Annotated[Path | None, Parameter(help=OWN)] = None,
        *,
        source: Annotated[ModelSpec, Parameter(name="*")] = NO_MODEL,
        out: Own = None,
        spec: Annotated[asked, Parameter(name="*")] = asked(),  # noqa: B008 (frozen)  # pyright: ignore[reportInvalidTypeForm]
        name: Annotated[str, Parameter(help="Name of the analysis within the run.")] = asked.KIND,
        anyway: Anyway = False,
        plan: Annotated[Plan, Parameter(name="*")] = PLAN,
        data_dir: DataDir = None,
        json: Json = False,
    ) -> int:
        from layerscope.analyses.kinds import needed
        from layerscope.analyses.session import analyze, opened
        from layerscope.console import progress

        check_subject(run, source, "look at")
        found, material = opened(run, source, out, needed(spec), data_dir, anyway)
        how = {"anyway": anyway, "plan": plan, "data_dir": data_dir}
        return _shown(found, analyze(found, spec, name=name, material=material, progress=progress(), **how), name, json)

    return analysis


criticality = command(CriticalitySpec)
landscape = command(LandscapeSpec)
spectra = command(SpectraSpec)
similarity = command(SimilaritySpec)
measures = command(MeasuresSpec)
bounds = command(BoundsSpec)


def cka(
    run: Annotated[Path | None, Parameter(help=OWN)] = None,
    *,
    other: Annotated[
        Path, Parameter(name="--with", help="Folder of the other run; that of RUN itself, to compare its own layers.")
    ],
    source: Annotated[ModelSpec, Parameter(name="*")] = NO_MODEL,
    out: Own = None,
    spec: Annotated[CkaSpec, Parameter(name="*")] = CkaSpec(),  # noqa: B008 (frozen)
    name: Annotated[
        str | None, Parameter(help="Name of the analysis within the run. [default: cka-OTHER, the other run's name]")
    ] = None,
    anyway: Anyway = False,
    plan: Annotated[Plan, Parameter(name="*")] = PLAN,
    data_dir: DataDir = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    from layerscope.analyses.kinds import needed
    from layerscope.analyses.material import material_of, of_model
    from layerscope.analyses.pair import cost, pair_of
    from layerscope.analyses.session import analyze, folder_of, opened
    from layerscope.console import progress
    from layerscope.run import Run

    check_subject(run, source, "look at")
    wanted, second = needed(spec), Run.open(other)
    if dry_run:
        found = Run(out or folder_of(source)) if run is None else Run.open(run)
        first = of_model(source, wanted, data_dir) if run is None else material_of(found, wanted, data_dir, source)
        return say(cost(pair_of(found, first, second, data_dir), spec), json)
    found, material = opened(run, source, out, wanted, data_dir, anyway)
    pair = pair_of(found, material or material_of(found, wanted, data_dir), second, data_dir)
    name = name or re.sub(r"[^\w.-]+", "-", f"{spec.KIND}-{second.name}")
    how = {"anyway": anyway, "plan": plan, "data_dir": data_dir}
    return _shown(found, analyze(found, spec, name=name, material=pair, progress=progress(), **how), name, json)


def compare(
    runs: Annotated[list[Path], Parameter(help="Folders of runs; or one of a sweep, for all its members.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder of the comparison.")] = Path("runs/compare"),
    spec: Annotated[CompareSpec, Parameter(name="*")] = CompareSpec(),  # noqa: B008 (frozen)
    measured: Annotated[MeasuresSpec, Parameter(name="*")] = MeasuresSpec(),  # noqa: B008 (frozen)
    name: Annotated[str, Parameter(help="Name of the analysis of measures within each run.")] = MeasuresSpec.KIND,
    plan: Annotated[Plan, Parameter(name="*")] = PLAN,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    from layerscope.analyses.contest import contest
    from layerscope.console import progress
    from layerscope.sweeps.folder import Sweep, is_sweep

    members: list[Path] = []
    for path in runs:
        if result := _result(path):
            print(f"left out: {path} is a {result}, not a run", file=sys.stderr)
        else:
            members += [run.path for run in Sweep.open(path).runs] if is_sweep(path) else [path]
    how = {"name": name, "plan": plan, "data_dir": data_dir}
    run, table = contest(members, out, spec, measured, **how, progress=progress())
    return _shown(run, table, CompareSpec.KIND, json)


def _result(path: Path) -> str:
    """What a folder beside runs, as in runs/*, may hold that came of them."""
    from layerscope.run import SPEC
    from layerscope.store import Folder
    from layerscope.studies.session import VERDICTS

    folder = Folder(path)
    if folder.has(SPEC) and folder.read_json(SPEC).get("kind") == CompareSpec.KIND:
        return "comparison"
    return "reproduction" if folder.has(VERDICTS) else ""


def _shown(run: "Run", table: "Table", name: str, json: bool) -> int:
    """Print what was found, and draw it."""
    from layerscope.console import listings_tables, print_table
    from layerscope.plots.kinds import KINDS, save_figures
    from layerscope.report import make

    kind = KINDS[str(table.provenance["spec_kind"])]
    warn(table)
    sentences = kind.sentences(table)
    with run.folder.lock():
        save_figures(table, run.path / "figures", name)
        page = make(run)
    if json:
        return say({"run": str(run.path), "found": sentences, "rows": _rows(table), "report": str(page)}, json)
    print_table(listings_tables(kind.listings(table)))
    print("\n".join(sentences))
    print(f"table    {run.path / 'analyses' / name}.parquet\nfigures  {run.path / 'figures'}\nreport   {page}")
    return 0


def _rows(table: "Table") -> list[dict[str, Any]]:
    """The rows without what is empty in them."""
    rows = table.frame.astype(object).where(table.frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items() if value not in (None, "")} for row in rows]
