"""A reproduction on disk: one run a seed, the verdicts, and the report."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from layerscope.analyses.session import analyze
from layerscope.analyses.spec import RobustnessSpec
from layerscope.errors import UseError
from layerscope.run import REPORT, Run, environment
from layerscope.runtime import Progress
from layerscope.store import SUMS, Folder
from layerscope.studies.frame import Scale, Study, judge
from layerscope.table import Table
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


def plan(study: Study, scale: Scale, seeds: int | None = None) -> list[tuple[TrainSpec, RobustnessSpec]]:
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
    for number, (training, analysis) in enumerate(plan(study, study.scale(scale), seeds)):
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
