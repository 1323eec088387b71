"""The command line: a thin shell around the library. Heavy imports happen inside the commands; what each answers is said
once, in `entry.COMMANDS`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from layerscope import __version__, cli_modules
from layerscope.analyses.spec import ModelSpec, Plan, RobustnessSpec, WeightsSpec
from layerscope.cli_modules import check_subject
from layerscope.cli_options import Anyway, DataDir, Device, DryRun, Json, Out, RunFolder
from layerscope.cli_sweep import analyze_sweep, status, sweep
from layerscope.console import say, warn
from layerscope.entry import COMMANDS, QUESTION
from layerscope.errors import UseError
from layerscope.runtime import HERE, Pool
from layerscope.spec import BuffersRule
from layerscope.sweeps.folder import is_sweep
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerscope.analyses.material import Material
    from layerscope.analyses.summary import Condition
    from layerscope.run import Run
    from layerscope.studies.catalogue import Row
    from layerscope.studies.frame import Study
    from layerscope.table import Table

app = App(
    name="layerscope",
    help=QUESTION,
    version=__version__,
    help_format="plaintext",
    help_on_error=False,
    suppress_keyboard_interrupt=False,  # `main` says what is left of what was stopped
    default_parameter=Parameter(consume_multiple=True),  # --steps 1 2 5, as well as --steps 1 --steps 2
)

TRAIN, ROBUSTNESS, NO_MODEL, PLAN = TrainSpec(), RobustnessSpec(), ModelSpec(), Plan()
"""What is done where nothing else is asked; the demo too."""
NAME = "robustness"
LASTING = {*cli_modules.COMMANDS, "demo", "train", "sweep", "analyze", "reproduce"}
"""Commands that go on where they were stopped."""

FailIf = Annotated[
    tuple[str, ...],
    Parameter(
        help="End with exit code 1 if this is true of a layer put back to its start, such as 'part=fc, delta>0.02' "
        "(fields: part, change, verdict, value, delta, low, high)."
    ),
]


@app.command(help=COMMANDS["demo"])
def demo(*, out: Out = Path("runs/demo")) -> int:
    return _analyzed(_trained(TRAIN, out, None), ROBUSTNESS, "robustness", None, False, ())


@app.command(help=COMMANDS["train"])
def train(
    *,
    out: Annotated[
        Path,
        Parameter(
            help="Folder of the run. One that holds another run is never overwritten; one that was stopped goes on, by its own "
            "settings where none are given."
        ),
    ],
    spec: Annotated[TrainSpec | None, Parameter(name="*")] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    spec = spec or _begun(out)
    if dry_run:
        from layerscope.training.session import cost

        return say(cost(spec, data_dir=data_dir, device=device), json)
    run = _trained(spec, out, data_dir, device)
    end = run.ending
    final = run.training().where(metric="error", split="test", step=end["epoch"]).iloc[0]
    found = {
        "run": str(run.path),
        "epoch": end["epoch"],
        "test_error": final["value"],
        "n": int(final["n"]),
        "ending": end,
    }
    if not end["reached"]:
        print(f"warning: training ended, but {end['reason']}", file=sys.stderr)
    if json:
        say(found, json)
    else:
        after = f"after epoch {end['epoch']} ({end['reason']})"
        print(f"test error {100 * final['value']:.2f} % (n = {final['n']}) {after}; the run is in {run.path}")
        if end["epoch"]:
            print(f"next: layerscope analyze {run.path}")
    return 1 if end["diverged"] else 0


for each in cli_modules.COMMANDS:
    app.command(getattr(cli_modules, each), name=each, help=COMMANDS[each])
app.command(sweep, help=COMMANDS["sweep"])
app.command(status, help=COMMANDS["status"])


@app.command(help=COMMANDS["models"])
def models(*, json: Json = False) -> int:
    from layerscope.console import models_table, print_table
    from layerscope.models import listing

    found = listing()
    if json:
        return say(found, json)
    print_table(models_table(found))
    return 0


@app.command(help=COMMANDS["analyze"])
def analyze(
    run: Annotated[
        Path | None,
        Parameter(
            help="Folder of a run or sweep; none for a model of your own. One of a Recorder may need --model and --data too."
        ),
    ] = None,
    *,
    source: Annotated[ModelSpec, Parameter(name="*")] = NO_MODEL,
    out: Annotated[
        Path | None, Parameter(help="Folder for the analyses of your own model. [default: runs/MODEL]")
    ] = None,
    spec: Annotated[RobustnessSpec, Parameter(name="*")] = ROBUSTNESS,
    name: Annotated[str, Parameter(help="Name of the analysis within the run.")] = NAME,
    anyway: Anyway = False,
    plan: Annotated[Plan, Parameter(name="*")] = PLAN,
    pool: Annotated[Pool, Parameter(name="*")] = HERE,
    data_dir: DataDir = None,
    fail_if: FailIf = (),
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    if run is not None and is_sweep(run):
        alone = {"model": source != NO_MODEL, "out": out, "fail-if": fail_if, "dry-run": dry_run}
        if needless := [key for key, value in alone.items() if value]:
            raise UseError(f"--{needless[0]} is for a single run or model; {run} is a sweep")
        return analyze_sweep(run, spec, name, plan, pool, anyway, data_dir, json)
    if pool != HERE:
        raise UseError("--workers and --threads are for the folder of a sweep, whose members are analysed side by side")
    check_subject(run, source, "analyse")
    if run is None and source.model and not source.data:
        return _weighed(source, out, spec, name, plan, fail_if, dry_run, anyway, json)
    if dry_run:
        return say(_cost_of_analysis(run, source, spec, data_dir), json)
    from layerscope.analyses.session import opened

    found, material = opened(run, source, out, spec, data_dir, anyway)
    how = {"anyway": anyway, "plan": plan}
    return _analyzed(found, spec, name, data_dir, json, fail_if, material, how)


@app.command(help=COMMANDS["bench"])
def bench(
    run: Annotated[Path | None, Parameter(help="Folder of a run; none for a model of your own.")] = None,
    *,
    source: Annotated[ModelSpec, Parameter(name="*")] = NO_MODEL,
    spec: Annotated[RobustnessSpec, Parameter(name="*")] = ROBUSTNESS,
    samples: Annotated[int, Parameter(help="Of the test data, in whole batches.")] = 512,
    variants: Annotated[int, Parameter(help="At most so many changes of the map, spread over kinds and Parts.")] = 24,
    repeats: Annotated[int, Parameter(help="How often each engine is timed.")] = 3,
    anyway: Anyway = False,
    plan: Annotated[Plan, Parameter(name="*")] = PLAN,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    from layerscope.analyses.bench import bench
    from layerscope.console import bench_table, print_table, progress

    check_subject(run, source, "try")
    how = {"samples": samples, "variants": variants, "repeats": repeats, "plan": plan, "anyway": anyway}
    found = bench(_material(run, source, spec, data_dir), spec, **how, progress=progress())
    if json:
        say(found, json)
    else:
        print_table(bench_table(found))
    return 0 if found["same"] else 1


@app.command(help=COMMANDS["parts"])
def parts(
    model: Annotated[
        str,
        Parameter(
            help="package.module:NAME, torchvision:NAME, timm:NAME, hf:PATH, one of the lab such as fcn-3x256, or the folder "
            "of a run, for its own."
        ),
    ],
    *,
    by: Annotated[
        str, Parameter(help="layer, module, block, stage, projection (query, key, value) or head.")
    ] = "layer",
    groups: Annotated[tuple[str, ...], Parameter(help="Instead: groups of tensors, each NAME=PATTERN.")] = (),
    join: Annotated[tuple[str, ...], Parameter(help="Parts to change together, each NAME=PART|PART|...")] = (),
    data: Annotated[str, Parameter(help="Data set that a model of the lab is for.")] = "digits",
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    from layerscope.analyses.material import code_of
    from layerscope.analyses.robustness import partition_of
    from layerscope.console import parts_table, print_table
    from layerscope.partition import rows

    network = code_of(*_own(Path(model)) or (model, data), data_dir)
    found = rows(network, partition_of(network, RobustnessSpec(by=by, groups=groups, join=join)))
    if json:
        return say(found, json)
    print_table(parts_table(found))
    return 0


@app.command(help=COMMANDS["materialize"])
def materialize(
    run: RunFolder,
    *,
    out: Annotated[Path, Parameter(help="The .safetensors file to write; one that exists is never overwritten.")],
    part: Annotated[tuple[str, ...], Parameter(help="Part to change; several are changed together.")] = (),
    to: Annotated[str, Parameter(help="Step whose values the Parts take: init, epoch-N or step-N.")] = "init",
    rerandomize: Annotated[bool, Parameter(help="Draw the Parts afresh instead.", negative=())] = False,
    draw: Annotated[int, Parameter(help="Which draw.")] = 0,
    variant: Annotated[
        str | None, Parameter(help="Instead of a Part: id of a variant of the run's analyses, or its beginning.")
    ] = None,
    name: Annotated[str | None, Parameter(help="The analysis that has the variant, where several do.")] = None,
    by: Annotated[
        str, Parameter(help="How Parts are named: layer, module, block, stage, projection or head.")
    ] = "layer",
    buffers: Annotated[BuffersRule, Parameter(help="Running statistics of a changed layer.")] = ROBUSTNESS.buffers,
    seed: Annotated[int, Parameter(help="Seed of the random draws.")] = 0,
    data_dir: DataDir = None,
) -> int:
    from layerscope.analyses.material import material_of
    from layerscope.analyses.session import export, find_variant, variant_of
    from layerscope.run import Run

    if bool(part) == bool(variant):
        raise UseError("say what to change: --part NAME (one or more), or --variant ID")
    opened = Run.open(run)
    named = RobustnessSpec(by=by, buffers=buffers, seed=seed)
    wanted, asked = find_variant(opened, variant, name) if variant else (None, named)
    material = material_of(opened, asked, data_dir)
    wanted = wanted or variant_of(material.model, asked, part, to, rerandomize, draw)
    export(opened, material, wanted, out, asked)
    print(f"values   {out}\nvariant  {wanted.id}: {', '.join(edit.part.name for edit in wanted.edits)}")
    return 0


@app.command(help=COMMANDS["report"])
def report(run: RunFolder) -> int:
    from layerscope.report import make
    from layerscope.run import Run

    opened = Run.open(run)
    with opened.folder.lock():
        print(f"report   {make(opened)}")
    return 0


@app.command(help=COMMANDS["reproduce"])
def reproduce(
    study: Annotated[str | None, Parameter(help="Which figure or table, such as zhang2022/fig1.")] = None,
    *,
    scale: Annotated[str, Parameter(help="smoke (seconds), small (CPU) or paper (the paper's own setting).")] = "smoke",
    out: Annotated[Path | None, Parameter(help="Folder of the reproduction. [default: runs/STUDY-SCALE]")] = None,
    seeds: Annotated[
        int | None, Parameter(help="Training runs of each network; the scale's own number, if not given.")
    ] = None,
    networks: Annotated[
        Path | None, Parameter(help="Folder of trained networks that several reproductions share. [default: --out]")
    ] = None,
    pool: Annotated[Pool, Parameter(name="*")] = HERE,
    data_dir: DataDir = None,
    list_: Annotated[
        bool, Parameter(name="--list", help="List all figures and tables, and which are ready.", negative=())
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    from layerscope.studies import catalogue

    if list_ or study is None:
        return _list(catalogue.rows(), json)
    found = catalogue.find(study)
    if dry_run:
        from layerscope.studies.session import cost

        return say(cost(found, scale, seeds, data_dir=data_dir), json)
    folder = out or Path("runs") / f"{study.replace('/', '-')}-{scale}"
    return _reproduced(found, scale, folder, seeds, networks, data_dir, pool, json)


def _begun(out: Path) -> TrainSpec:
    """What the training in a folder was asked, where nothing else is asked now; the defaults, if there is none."""
    from layerscope.run import SPEC, Run, fields_of

    run = Run(out)
    if not run.folder.has(SPEC) or run.spec.get("kind") != TrainSpec.KIND:
        return TRAIN
    print(f"going on with {out}, as its {SPEC} asks", file=sys.stderr)
    return TrainSpec.from_dict(fields_of(run.spec))


def _own(path: Path) -> tuple[str, str] | None:
    """The model and the data of a run, if the path is that of its folder."""
    from layerscope.run import Run

    if not path.is_dir():
        return None
    run = Run.open(path)
    known = {**run.spec, **run.recording.get("source", {})}
    if not known.get("model"):
        raise UseError(f"{path} does not say how its model is made; write package.module:NAME")
    return known["model"], known.get("data", "")


def _trained(spec: TrainSpec, out: Path, data_dir: Path | None, device: str = "cpu") -> "Run":
    from layerscope.console import progress
    from layerscope.training.session import train

    return train(spec, out, data_dir=data_dir, device=device, progress=progress())


def _material(run: Path | None, source: ModelSpec, spec: RobustnessSpec, data_dir: Path | None) -> "Material":
    from layerscope.analyses.material import material_of, of_model
    from layerscope.run import Run

    return of_model(source, spec, data_dir) if run is None else material_of(Run.open(run), spec, data_dir, source)


def _cost_of_analysis(
    run: Path | None, source: ModelSpec, spec: RobustnessSpec, data_dir: Path | None
) -> dict[str, Any]:
    from layerscope.analyses.session import cost

    material = _material(run, source, spec, data_dir)
    return cost(material, [material.trajectory.number(step) for step in material.trajectory.steps], spec)


def _analyzed(
    run: "Run",
    spec: RobustnessSpec,
    name: str,
    data_dir: Path | None,
    json: bool,
    fail_if: tuple[str, ...],
    material: "Material | None" = None,
    how: dict[str, Any] | None = None,
) -> int:
    from rich.console import Console

    from layerscope import plots
    from layerscope.analyses.session import analyze
    from layerscope.analyses.summary import condition, summary
    from layerscope.console import progress
    from layerscope.plots.kinds import save_figures
    from layerscope.report import make

    conditions = [condition(text) for text in fail_if]
    table = analyze(run, spec, name=name, data_dir=data_dir, material=material, progress=progress(), **(how or {}))
    warn(table)
    with run.folder.lock():
        save_figures(table, run.path / "figures", name)
        page = make(run)
    found = {"run": str(run.path), **summary(table), "tier": table.provenance.get("tier"), "report": str(page)}
    if json:
        say(found, json)
    else:
        Console().print(plots.terminal_map(table))
        _print_limits(table)
        print(f"table    {run.path / 'analyses' / name}.parquet\nfigures  {run.path / 'figures'}\nreport   {page}")
    return _checked(found, conditions)


def _weighed(
    source: ModelSpec,
    out: Path | None,
    spec: RobustnessSpec,
    name: str,
    plan: Plan,
    fail_if: tuple[str, ...],
    dry_run: bool,
    anyway: bool,
    json: bool,
) -> int:
    """What values alone say, where no data are named; what only data can answer is refused."""
    from layerscope.analyses.session import folder_of, weigh
    from layerscope.console import listings_tables, print_table
    from layerscope.plots.weights import listings
    from layerscope.report import make

    asked = WeightsSpec(spec.by, spec.groups, spec.join)
    changed = {key for key, value in asdict(spec).items() if value != getattr(ROBUSTNESS, key)} - {
        "by",
        "groups",
        "join",
    }
    given = {"fail-if": fail_if, "dry-run": dry_run, "anyway": anyway, "plan": plan != PLAN}
    given |= {"forward": source.forward, "targets": source.targets}
    if needless := [*sorted(changed), *(key for key, value in given.items() if value)]:
        raise UseError(f"--{needless[0]} needs --data too: without data no network is evaluated")
    name = "weights" if name == NAME else name
    run, table = weigh(source, out or folder_of(source, "-weights"), asked, name)
    warn(table)
    with run.folder.lock():
        page = make(run)
    kept = ("part", "tensor", "step", "to", "metric", "unit", "value", "n", "status", "reason")
    rows = [{key: row[key] for key in kept if key in row} for row in table.frame.to_dict("records")]
    if json:
        return say({"run": str(run.path), "weights": rows, "tier": table.provenance["tier"], "report": str(page)}, json)
    print_table(listings_tables(listings(table)))
    _print_limits(table)
    print(f"table    {run.path / 'analyses' / name}.parquet\nreport   {page}")
    return 0


def _print_limits(table: "Table") -> None:
    """What there was to analyse, and what that cannot answer: a line each."""
    from layerscope.plots.about import limits

    for i, sentence in enumerate(limits(table)):
        print(f"Cannot say: {sentence[:1].lower()}{sentence[1:]}" if i else sentence)


def _checked(found: dict[str, Any], conditions: "Sequence[Condition]") -> int:
    """1 if a check that the user asked for failed; each failure is a line on stderr."""
    failures = [(asked, entry) for asked in conditions for entry in asked.failures(found)]
    for asked, entry in failures:
        change = f"change {entry['delta']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
        numbers = f"{found['metric'].replace('_', ' ')} {entry['value']:.4f}, {change}"
        print(f"failed: {asked.text}: {entry['part']} has {numbers}, n = {entry['n']}", file=sys.stderr)
    return 1 if failures else 0


def _list(rows: "Sequence[Row]", json: bool) -> int:
    if json:
        return say([{"id": row.id, "what": row.what, "scales": row.scales, "state": row.state} for row in rows], json)
    width = max(len(row.id) for row in rows)
    for row in rows:
        print(f"{row.id:{width}}  {row.state:8}{', '.join(row.scales):22}{row.what}")
    return 0


def _reproduced(
    study: "Study",
    scale: str,
    out: Path,
    seeds: int | None,
    networks: Path | None,
    data_dir: Path | None,
    pool: Pool,
    json: bool,
) -> int:
    from layerscope.console import progress
    from layerscope.studies.page import show
    from layerscope.studies.session import reproduce

    how = {"seeds": seeds, "networks": networks, "data_dir": data_dir, "pool": pool}
    made = reproduce(study, scale, out, **how, progress=progress())
    page = show(study, made)
    rows = made.verdicts.frame.to_dict("records")
    if json:
        kept = ("metric", "unit", "value", "n", "low", "high", "verdict", "reason")
        return say({"study": study.id, "scale": scale, "claims": [{k: row[k] for k in kept} for row in rows]}, json)
    for claim, row in zip(study.claims, rows, strict=True):
        bounds = f" ({row['low']:.3g} to {row['high']:.3g})" if row["interval"] else ""
        print(f"{row['verdict']}{': ' + row['reason'] if row['reason'] else ''}\n  {claim.text}")
        print(
            f"  {claim.statistic}: {row['value']:.3g}{bounds}, {claim.relation} {claim.threshold:g}? n = {row['n']} {claim.over}"
        )
    print(f"verdicts {out / 'verdicts.parquet'}\nfigures  {out / 'figures'}\nreport   {page}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0 when done, 1 if a check of `--fail-if` failed, 2 for wrong use (told in
    one sentence on stderr), 3 for an exception of the model's own code or of ours."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return app(_from_file(words), exit_on_error=False, print_error=False, result_action="return_value") or 0
    except (UseError, CycloptsError) as problem:
        print(f"layerscope: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from what is there" if words and words[0] in LASTING else ""
        print(f"layerscope: stopped{goes_on}", file=sys.stderr)
        return 130
    except Exception as problem:  # of the user's model, data or metric, or a fault of ours: 1 means that a check failed
        import traceback

        traceback.print_exc()
        print(f"layerscope: {type(problem).__name__}, see above; what is complete is kept", file=sys.stderr)
        return 3


def _from_file(words: list[str]) -> list[str]:
    """The command line without `--spec FILE`, whose settings become the defaults of this call."""
    app.config = ()
    if "--spec" not in words:
        return words
    at = words.index("--spec")
    if at + 1 == len(words):
        raise UseError("--spec needs a file: --spec settings.yaml")
    path = Path(words[at + 1])
    from cyclopts.config import Toml, Yaml

    kinds = {".yaml": Yaml, ".yml": Yaml, ".toml": Toml}
    if path.suffix not in kinds:
        raise UseError(f"{path} must end in .yaml, .yml or .toml")
    if not path.is_file():
        raise UseError(f"there is no file {path}")
    app.config = (kinds[path.suffix](path, use_commands_as_keys=False, allow_unknown=False),)
    return words[:at] + words[at + 2 :]
