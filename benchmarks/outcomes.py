"""Keeps of each change in a run's map which test samples it has wrong: `python -m benchmarks.outcomes RUN OUT.npz [NAME]`.

The changes are those of the run's analysis NAME (robustness). Written are `outcomes` [cells, N] and `reference` [N] (the
unmodified network), True where wrong; `cells` [cells], what they are; `chance`, the error of guessing. `benchmarks.certified`
replays such maps.
"""

import sys
from pathlib import Path

import numpy as np

from layerscope import Run, Variant
from layerscope.analyses.material import material_of
from layerscope.analyses.robustness import PLAN, engine_of, subject_of
from layerscope.analyses.spec import RobustnessSpec
from layerscope.engine.outcomes import outcomes
from layerscope.engine.task import Task
from layerscope.metrics import ErrorRate
from layerscope.run import fields_of


def main(path: str | Path, out: str | Path, name: str = "robustness") -> None:
    run = Run.open(path)
    spec = RobustnessSpec.from_dict(fields_of(run.analysis_spec(name)))
    variants = [Variant.from_dict(plain) for plain in run.analysis(name).variants.values()]
    variants = [variant for variant in variants if variant.edits]
    of = material_of(run, spec)
    subject = subject_of(of.model, of.trajectory, of.laws, spec.seed, of.forward, of.calibration)
    task = Task(of.splits["test"], [ErrorRate()], of.targets)
    found, reference = outcomes(subject, variants, task, engine_of(PLAN))
    cells = [" ".join(str(value) for key, value in v.row(subject.world).items() if key != "variant") for v in variants]
    chance = run.analysis(name).provenance["chance"]
    np.savez_compressed(out, outcomes=found, reference=reference, cells=cells, chance=chance)
    print(f"{len(found)} cells, N = {len(reference)}, unmodified error {reference.mean():.2%}: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
