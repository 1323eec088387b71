"""Which parts of a trained network matter, and what that says about how well it generalises.

Importing layerscope loads neither torch nor pandas; each name below is imported when it is first used (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "AbsoluteError": "metrics",
    "CrossEntropy": "metrics",
    "Disagreement": "metrics",
    "ErrorRate": "metrics",
    "Function": "metrics",
    "Metric": "metrics",
    "Observation": "metrics",
    "Perplexity": "metrics",
    "SampleMean": "metrics",
    "SquaredError": "metrics",
    "TokenCrossEntropy": "metrics",
    "TokenError": "metrics",
    "TokenMean": "metrics",
    "Law": "models.initialisers",
    "TopKError": "metrics",
    "Edit": "perturb",
    "Interpolate": "perturb",
    "Moments": "perturb",
    "Noise": "perturb",
    "Patch": "perturb",
    "Permute": "perturb",
    "Rerandomize": "perturb",
    "Rewind": "perturb",
    "Variant": "perturb",
    "World": "perturb",
    "bind": "perturb",
    "perturbation": "perturb",
    "FINAL": "step",
    "INIT": "step",
    "Step": "step",
    "Part": "partition",
    "Partition": "partition",
    "Slice": "partition",
    "BoundsSpec": "analyses.spec",
    "CkaSpec": "analyses.spec",
    "CompareSpec": "analyses.spec",
    "CriticalitySpec": "analyses.spec",
    "LandscapeSpec": "analyses.spec",
    "MeasuresSpec": "analyses.spec",
    "Plan": "analyses.spec",
    "RobustnessSpec": "analyses.spec",
    "SimilaritySpec": "analyses.spec",
    "SpectraSpec": "analyses.spec",
    "WeightsSpec": "analyses.spec",
    "bounds": "analyses.bounds",
    "cka": "analyses.similarity",
    "compare": "analyses.compare",
    "criticality": "analyses.criticality",
    "landscape": "analyses.landscape",
    "evaluate": "analyses.robustness",
    "robustness": "analyses.robustness",
    "materialize": "analyses.materialize",
    "measure": "analyses.measures",
    "similarity": "analyses.similarity",
    "spectra": "analyses.spectra",
    "weights": "analyses.weights",
    "Recorder": "recording.recorder",
    "Run": "run",
    "Sweep": "sweeps.folder",
    "SweepSpec": "sweeps.spec",
    "sweep": "sweeps.session",
    "Table": "table",
    "Trajectory": "trajectory",
    "TrainSpec": "training.spec",
    "train": "training.session",
    "UseError": "errors",
    "laws_of": "models.initialisers",
    "state_of": "state",
    "data": "",
    "models": "",
    "plots": "",
}
"""Public name -> the module that has it; an empty one is a module itself."""

__all__ = ["__version__", *_WHERE]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from layerscope import data, models, plots
    from layerscope.analyses.bounds import bounds
    from layerscope.analyses.compare import compare
    from layerscope.analyses.criticality import criticality
    from layerscope.analyses.landscape import landscape
    from layerscope.analyses.materialize import materialize
    from layerscope.analyses.measures import measure
    from layerscope.analyses.robustness import evaluate, robustness
    from layerscope.analyses.similarity import cka, similarity
    from layerscope.analyses.spec import (
        BoundsSpec,
        CkaSpec,
        CompareSpec,
        CriticalitySpec,
        LandscapeSpec,
        MeasuresSpec,
        Plan,
        RobustnessSpec,
        SimilaritySpec,
        SpectraSpec,
        WeightsSpec,
    )
    from layerscope.analyses.spectra import spectra
    from layerscope.analyses.weights import weights
    from layerscope.errors import UseError
    from layerscope.metrics import (
        AbsoluteError,
        CrossEntropy,
        Disagreement,
        ErrorRate,
        Function,
        Metric,
        Observation,
        Perplexity,
        SampleMean,
        SquaredError,
        TokenCrossEntropy,
        TokenError,
        TokenMean,
        TopKError,
    )
    from layerscope.models.initialisers import Law, laws_of
    from layerscope.partition import Part, Partition, Slice
    from layerscope.perturb import (
        Edit,
        Interpolate,
        Moments,
        Noise,
        Patch,
        Permute,
        Rerandomize,
        Rewind,
        Variant,
        World,
        bind,
        perturbation,
    )
    from layerscope.recording.recorder import Recorder
    from layerscope.run import Run
    from layerscope.state import state_of
    from layerscope.step import FINAL, INIT, Step
    from layerscope.sweeps.folder import Sweep
    from layerscope.sweeps.session import sweep
    from layerscope.sweeps.spec import SweepSpec
    from layerscope.table import Table
    from layerscope.training.session import train
    from layerscope.training.spec import TrainSpec
    from layerscope.trajectory import Trajectory


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'layerscope' has no attribute {name!r}")
    where = _WHERE[name]
    if not where:
        return importlib.import_module(f"layerscope.{name}")
    found = getattr(importlib.import_module(f"layerscope.{where}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
