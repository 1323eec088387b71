"""A reproduction on disk: one run a seed, the verdicts, and the report."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerscope.analyses.material import planned
from layerscope.analyses.session import analyze
from layerscope.analyses.session import cost as analysis_cost
from layerscope.analyses.spec import RobustnessSpec
from layerscope.errors import UseError
from layerscope.run import REPORT, Run, environment
from layerscope.runtime import Progress
from layerscope.store import SUMS, Folder
from layerscope.studies.frame import Scale, Study, judge
from layerscope.table import Table
from layerscope.training.session import cost as training_cost
from layerscope.training.session import train
from layerscope.training.spec import TrainSpec

VERDICTS = "verdicts.parquet"
OURS = {VERDICTS, REPORT, SUMS, "figures"}
"""What a reproduction's folder holds beside its runs."""


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` made: the runs by seed (the first has the whole map), and the verdicts."""

    path: Path
    runs: tuple[Run, ...]
    verdicts: Table


def specs(study: Study, scale: Scale, seeds: int | None = None) -> list[tuple[TrainSpec, RobustnessSpec]]:
    """What is trained and analysed, by seed. The first seed has every checkpoint; the others, which only replicate the
    claims, start and end."""
    if seeds is not None and seeds < 1:
        raise UseError(f"seeds must be at least 1, not {seeds}")
    whole = (scale.training, scale.analysis)
    ends = (dataclasses.replace(scale.training, checkpoints=()), dataclasses.replace(scale.analysis, steps=()))
    chosen = [whole if seed == 0 else ends for seed in range(scale.seeds if seeds is None else seeds)]
    return [
        (dataclasses.replace(training, seed=seed), dataclasses.replace(analysis, seed=seed))
        for seed, (training, analysis) in enumerate(chosen)
    ]


def cost(study: Study, scale: str, seeds: int | None = None, *, data_dir: str | Path | None = None) -> dict[str, Any]:
    """What a reproduction would take, from a few timed steps and passes: training runs, steps, forwards, seconds, bytes."""
    runs = specs(study, study.scale(scale), seeds)
    first, *others = [
        (
            training_cost(training, data_dir=data_dir),
            analysis_cost(planned(training, analysis, data_dir), training.kept(), analysis),
        )
        for training, analysis in runs[:2]
    ]
    all_runs = [first, *others * (len(runs) - 1)]  # all but the first have the same settings
    return {
        "study": study.id,
        "scale": scale,
        "training_runs": len(runs),
        "steps": sum(training["steps"] for training, _ in all_runs),
        "forwards": sum(analysis["forwards"] for _, analysis in all_runs),
        "seconds": round(sum(part["seconds"] for both in all_runs for part in both), 1),
        "disk_bytes": sum(training["disk_bytes"] for training, _ in all_runs),
        "memory_bytes": max(part["memory_bytes"] for both in all_runs for part in both),
    }


def reproduce(
    study: Study,
    scale: str,
    out: str | Path,
    *,
    seeds: int | None = None,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Run a study at a scale: train and analyse each seed in `out/seed-K`, and judge the claims.

    What is complete is not done again, so that a study that was stopped goes on; more seeds can be added later.
    """
    folder, runs, tables = Folder(out), [], []
    foreign = {name for name in folder.entries() if not name.startswith("seed-")} - OURS
    if foreign:
        raise UseError(f"{folder.path} holds {min(foreign)}, which is not of a reproduction; choose another --out")
    for number, (training, analysis) in enumerate(specs(study, study.scale(scale), seeds)):
        told = _prefixed(progress, f"seed {number}: ")
        run = train(training, folder.path / f"seed-{number}", data_dir=data_dir, progress=told)
        tables.append(analyze(run, analysis, data_dir=data_dir, progress=told))
        runs.append(run)
    verdicts = judge(study, tables)
    facts = {
        **verdicts.provenance,
        **environment(),
        "scale": scale,
        "about": study.scale(scale).about,
        "title": study.title,
        "source": study.source,
        "run_specs": [run.spec["fingerprint"] for run in runs],
        "data": tables[0].provenance["data"],
    }
    verdicts = Table(verdicts.frame, facts)
    with folder.lock():
        folder.write(VERDICTS, verdicts.save)
    return Reproduction(folder.path, tuple(runs), verdicts)


def _prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(prefix + what, done, total)
