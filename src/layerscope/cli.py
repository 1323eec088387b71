"""The command line: a thin shell around the library. Heavy imports happen inside the commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from layerscope import __version__
from layerscope.analyses.spec import RobustnessSpec
from layerscope.errors import UseError
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    from layerscope.run import Run

app = App(
    name="layerscope",
    help="Which layers of a trained network matter, and which can be put back to their random start?",
    version=__version__,
    help_format="plaintext",
    help_on_error=False,
)

DataDir = Annotated[
    Path | None, Parameter(help="Folder with the data files. [default: environment variable LAYERSCOPE_DATA]")
]
Out = Annotated[Path, Parameter(help="Folder of the run. One that holds another run is never overwritten.")]
RunFolder = Annotated[Path, Parameter(help="Folder of a run.")]

DEMO = TrainSpec(epochs=30)


@app.command
def demo(*, out: Out = Path("runs/demo")) -> None:
    """Which layers of a small network matter? Train on embedded digits, analyse and report, in about a minute."""
    _train(DEMO, out, None)
    _analyze(out, RobustnessSpec(), "robustness", None)


@app.command
def train(
    *,
    out: Out,
    spec: Annotated[TrainSpec, Parameter(name="*")] = TrainSpec(),  # noqa: B008 (frozen)
    data_dir: DataDir = None,
) -> None:
    """How did a network get where it is? Train one and keep its checkpoints, from before any data is seen."""
    run = _train(spec, out, data_dir)
    final = run.training().frame.query("metric == 'error' and split == 'test'").iloc[-1]
    print(
        f"test error {100 * final['value']:.2f} % (n = {final['n']}) after epoch {final['step']}; the run is in {run.path}"
    )
    print(f"next: layerscope analyze {run.path}")


@app.command
def analyze(
    run: RunFolder,
    *,
    spec: Annotated[RobustnessSpec, Parameter(name="*")] = RobustnessSpec(),  # noqa: B008 (frozen)
    name: Annotated[str, Parameter(help="Name of the analysis within the run.")] = "robustness",
    data_dir: DataDir = None,
) -> None:
    """Which layers matter? Put each back to its start and to every checkpoint, and draw each afresh; then report."""
    _analyze(run, spec, name, data_dir)


@app.command
def report(run: RunFolder) -> None:
    """What was found? Make the report of a run again from the run's files."""
    from layerscope.run import Run

    _report(Run.open(run))


def _train(spec: TrainSpec, out: Path, data_dir: Path | None) -> "Run":
    from layerscope.console import progress
    from layerscope.training.session import train

    return train(spec, out, data_dir=data_dir, progress=progress())


def _analyze(path: Path, spec: RobustnessSpec, name: str, data_dir: Path | None) -> None:
    from rich.console import Console

    from layerscope import plots
    from layerscope.analyses.session import analyze
    from layerscope.console import progress
    from layerscope.run import Run

    run = Run.open(path)
    table = analyze(run, spec, name=name, data_dir=data_dir, progress=progress())
    for warning in table.provenance.get("data", {}).get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    Console().print(plots.terminal_map(table))
    figures = run.path / "figures"
    plots.save(plots.layer_map(table), figures / f"{name}-error")
    for norm in ("l2", "max"):
        plots.save(plots.distance_map(table, norm), figures / f"{name}-distance-{norm}")
    print(f"table    {run.path / 'analyses' / name}.parquet\nfigures  {figures}")
    _report(run)


def _report(run: "Run") -> None:
    from layerscope.report import make

    print(f"report   {make(run)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0 when done and 2 for wrong use, told in one sentence on stderr."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (UseError, CycloptsError) as problem:
        print(f"layerscope: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("layerscope: stopped; what is complete is kept", file=sys.stderr)
        return 130
    return 0


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
