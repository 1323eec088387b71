"""A sweep on disk: its members, its plan, its summary. Never imports torch, unless maps are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.analyses.spec import Plan, RobustnessSpec
from layerscope.errors import UseError
from layerscope.run import SPEC, Run, fields_of
from layerscope.runtime import Pool, Progress
from layerscope.store import Folder
from layerscope.sweeps.spec import SweepSpec, text_of
from layerscope.table import Table
from layerscope.training.spec import TrainSpec

if TYPE_CHECKING:
    import pandas as pd

PLAN, SUMMARY = "plan.json", "sweep.parquet"
PROGRESS, FAILED = "resume/progress.json", "resume/failed.json"


class Sweep:
    """The folder of one sweep; see `docs/run-layout.md` for its files. `own` are the files of the sweep itself."""

    def __init__(self, path: str | Path) -> None:
        self.own = Run(path)
        self.path = self.own.path

    @classmethod
    def open(cls, path: str | Path) -> "Sweep":
        """An existing sweep, complete or not."""
        if not is_sweep(path):
            raise UseError(f"{path} is not a sweep; make one with: layerscope sweep SPEC.yaml --out {path}")
        return cls(path)

    @property
    def spec(self) -> SweepSpec:
        """What was asked."""
        return SweepSpec.from_dict(fields_of(self.own.spec))

    @property
    def members(self) -> "pd.DataFrame":
        """A row a member: its `name`, and what it has of the grid."""
        import pandas as pd

        spec = self.spec
        rows = [{"name": name, **coordinates} for name, coordinates in coordinates_of(spec).items()]
        return pd.DataFrame(rows).astype({"name": "string", **dict(grid_columns(spec))})

    @property
    def runs(self) -> list[Run]:
        """The run of each member, in order; those that have not begun have no files yet."""
        return [self.run(member.name) for member in self.spec.members()]

    def run(self, name: str) -> Run:
        """The run of one member."""
        return Run(self.path / "members" / name)

    @property
    def complete(self) -> bool:
        """Whether all members are trained and summarised."""
        return self.own.folder.has(SUMMARY)

    @property
    def table(self) -> Table:
        """The summary: error and loss of each member's trained network, with what it has of the grid."""
        if not self.complete:
            raise UseError(f"{self.path} is not complete; go on with: layerscope sweep SPEC.yaml --out {self.path}")
        return Table.open(self.own.folder.file(SUMMARY))

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The plan: of each block its `name`, its `members`, and `why` it is not a stack; nothing before it was made."""
        return self.own.folder.read_json(PLAN)["blocks"] if self.own.folder.has(PLAN) else []

    def stack(self, block: str) -> Folder:
        """Where a block keeps what it needs to go on. Each has a folder of its own: they are written at the same time."""
        return Folder(self.path / "blocks" / block)

    def maps(
        self,
        spec: RobustnessSpec | None = None,
        *,
        name: str = "robustness",
        data_dir: str | Path | None = None,
        plan: Plan | None = None,
        anyway: bool = False,
        workers: int = 1,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Table:
        """Which layers matter in each member: see `layerscope.sweeps.maps.maps`."""
        from layerscope.sweeps.maps import maps

        how = {"name": name, "data_dir": data_dir, "plan": plan or Plan(), "anyway": anyway}
        return maps(self, spec or RobustnessSpec(), **how, pool=Pool(workers, threads), progress=progress)


def is_sweep(path: str | Path) -> bool:
    """Whether a folder holds a sweep, rather than a run or something else."""
    folder = Folder(path)
    return folder.has(SPEC) and folder.read_json(SPEC).get("kind") == SweepSpec.KIND


def grid_columns(spec: SweepSpec) -> list[list[str]]:
    """The columns that the grid adds to tables, in order: name and dtype."""
    return [[name, _dtype(values)] for name, values in spec.grid.items()]


def data_of(spec: SweepSpec) -> dict[str, str]:
    """What tables say of the data: the name as it is asked for, with what varies in braces."""
    return {"name": str(spec.base.get("data", "{data}" if "data" in spec.grid else TrainSpec.data))}


def coordinates_of(spec: SweepSpec) -> dict[str, dict[str, Any]]:
    """Name of a member -> what it has in these columns."""
    text = {name for name, dtype in grid_columns(spec) if dtype == "string"}
    return {
        member.name: {k: text_of(value) if k in text else value for k, value in member.coordinates.items()}
        for member in spec.members()
    }


def _dtype(values: Sequence[Any]) -> str:
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "string"
    return "Int64" if all(isinstance(value, int) for value in values) else "float64"
