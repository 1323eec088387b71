"""A reproduction on disk: one run a network and seed, the verdicts, and the report."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from layerscope import runtime
from layerscope.analyses.material import planned
from layerscope.analyses.session import analyze
from layerscope.analyses.session import cost as analysis_cost
from layerscope.analyses.spec import RobustnessSpec
from layerscope.errors import UseError
from layerscope.run import REPORT, Run, environment
from layerscope.runtime import HERE, Pool, Progress
from layerscope.spec import Spec
from layerscope.store import SUMS, Folder
from layerscope.studies.frame import Replicate, Scale, Study, judge
from layerscope.table import Table
from layerscope.training.session import cost as training_cost
from layerscope.training.session import train
from layerscope.training.spec import TrainSpec

VERDICTS = "verdicts.parquet"
OURS = {VERDICTS, REPORT, SUMS, "figures"}
"""What a reproduction's folder holds beside its runs."""


class Unit(NamedTuple):
    """A network that is trained and analysed."""

    network: str
    seed: int
    training: TrainSpec
    analyses: dict[str, Spec]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.network}-{self.seed}"


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` made: the runs (of the first seed first), what each seed gave, and the verdicts."""

    path: Path
    runs: tuple[Run, ...]
    replicates: tuple[Replicate, ...]
    verdicts: Table


def units(scale: Scale, seeds: int | None = None) -> list[Unit]:
    """What is trained and analysed, the first seed first."""
    if seeds is not None and seeds < 1:
        raise UseError(f"seeds must be at least 1, not {seeds}")
    return [
        Unit(
            name,
            seed,
            _training(scale, spec, seed),
            {key: _analysis(scale, a, seed) for key, a in scale.analyses.items()},
        )
        for seed in range(scale.seeds if seeds is None else seeds)
        for name, spec in scale.networks.items()
    ]


def _training(scale: Scale, spec: TrainSpec, seed: int) -> TrainSpec:
    ends = {"checkpoints": ()} if scale.lean and seed else {}
    return dataclasses.replace(spec, seed=seed, **ends)


def _analysis(scale: Scale, spec: Spec, seed: int) -> Spec:
    fields = {field.name for field in dataclasses.fields(spec)}
    changed = {"seed": seed} if "seed" in fields else {}
    changed |= {"steps": ()} if scale.lean and seed and "steps" in fields else {}
    return dataclasses.replace(spec, **changed)


def cost(study: Study, scale: str, seeds: int | None = None, *, data_dir: str | Path | None = None) -> dict[str, Any]:
    """What a reproduction would take, from a few timed steps and passes: training runs, steps, seconds, bytes; of the analyses
    only those that change layers are reckoned, and the others named."""
    asked = units(study.scale(scale), seeds)
    known: dict[tuple[str, bool], tuple[dict[str, Any], dict[str, Any]]] = {}
    for unit in asked:  # all seeds but the first have the same settings
        key = unit.network, bool(unit.seed)
        if key not in known:
            known[key] = training_cost(unit.training, data_dir=data_dir), _cost_of_maps(unit, data_dir)
    every = [known[unit.network, bool(unit.seed)] for unit in asked]
    others = {name for unit in asked for name, spec in unit.analyses.items() if not isinstance(spec, RobustnessSpec)}
    return {
        "study": study.id,
        "scale": scale,
        "training_runs": len(asked),
        "steps": sum(training["steps"] for training, _ in every),
        "forwards": sum(maps["forwards"] for _, maps in every),
        "seconds": round(sum(part["seconds"] for both in every for part in both), 1),
        **({"not_reckoned": ", ".join(sorted(others))} if others else {}),
        "disk_bytes": sum(training["disk_bytes"] for training, _ in every),
        "memory_bytes": max(part["memory_bytes"] for both in every for part in both),
    }


def _cost_of_maps(unit: Unit, data_dir: str | Path | None) -> dict[str, Any]:
    found = [
        analysis_cost(planned(unit.training, spec, data_dir), unit.training.kept(), spec)
        for spec in unit.analyses.values()
        if isinstance(spec, RobustnessSpec)
    ]
    return {
        "forwards": sum(each["forwards"] for each in found),
        "seconds": sum(each["seconds"] for each in found),
        "memory_bytes": max((each["memory_bytes"] for each in found), default=0),
    }


def reproduce(
    study: Study,
    scale: str,
    out: str | Path,
    *,
    seeds: int | None = None,
    networks: str | Path | None = None,
    data_dir: str | Path | None = None,
    pool: Pool = HERE,
    progress: Progress | None = None,
) -> Reproduction:
    """Run a study at a scale: train and analyse each network with each seed in `out/NETWORK-SEED`, and judge the claims.

    What is complete is not done again, so that a study that was stopped goes on; more seeds can be added later. With `networks`,
    a folder, the runs lie there, and several studies share those that are the same.
    """
    folder, asked = Folder(out), units(study.scale(scale), seeds)
    home = folder if networks is None else Folder(networks)
    known = tuple(f"{name}-" for name in study.scale(scale).networks)
    foreign = {name for name in folder.entries() if not name.startswith(known)} - OURS
    if foreign:
        raise UseError(f"{folder.path} holds {min(foreign)}, which is not of a reproduction; choose another --out")
    work = _Work(home.path, data_dir)
    if pool == HERE:
        for unit in asked:
            work(unit, _prefixed(progress, f"{unit.network} {unit.seed}: "))
    else:
        _side_by_side(asked, work, pool, progress)
    runs = [Run.open(home.path / unit.name) for unit in asked]
    of_seed: dict[int, dict[tuple[str, str], Table]] = {}
    for unit, run in zip(asked, runs, strict=True):
        tables = {(unit.network, name): run.analysis(name) for name in unit.analyses}
        of_seed.setdefault(unit.seed, {}).update(tables)
    replicates = [Replicate(tables) for tables in of_seed.values()]
    verdicts = judge(study, replicates)
    facts = {
        **verdicts.provenance,
        **environment(),
        "scale": scale,
        "lean": study.scale(scale).lean,
        "about": study.scale(scale).about,
        "title": study.title,
        "source": study.source,
        "run_specs": [run.spec["fingerprint"] for run in runs],
        "data": next(iter(replicates[0].tables.values())).provenance["data"],
    }
    verdicts = Table(verdicts.frame, facts)
    with folder.lock():
        folder.write(VERDICTS, verdicts.save)
    return Reproduction(folder.path, tuple(runs), tuple(replicates), verdicts)


@dataclass(frozen=True)
class _Work:
    """Trains and analyses a network, also in a process of its own."""

    home: Path
    data_dir: str | Path | None

    def __call__(self, unit: Unit, progress: Progress | None) -> None:
        run = train(unit.training, self.home / unit.name, data_dir=self.data_dir, progress=progress)
        for name, spec in unit.analyses.items():
            analyze(run, spec, name=name, data_dir=self.data_dir, progress=progress)


def _side_by_side(asked: Sequence[Unit], work: _Work, pool: Pool, progress: Progress | None) -> None:
    failed: dict[str, runtime.Failed] = {}
    for done, (number, result) in enumerate(runtime.each(asked, work, pool), start=1):
        if isinstance(result, runtime.Failed):
            failed[asked[number].name] = result
        if progress is not None:
            progress("networks trained and analysed", done, len(asked))
    runtime.tell(failed, len(asked), "networks")


def _prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(prefix + what, done, total)
