"""The kinds of analysis that a run can have, and what each takes of its network, states and data. A new kind is a row here."""

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from layerscope.analyses.bounds import bounds
from layerscope.analyses.criticality import criticality
from layerscope.analyses.landscape import landscape
from layerscope.analyses.material import Material
from layerscope.analyses.measures import measures
from layerscope.analyses.pair import alike
from layerscope.analyses.robustness import robustness
from layerscope.analyses.similarity import similarity
from layerscope.analyses.spec import (
    BoundsSpec,
    CkaSpec,
    CriticalitySpec,
    LandscapeSpec,
    MeasuresSpec,
    Plan,
    RobustnessSpec,
    SimilaritySpec,
    SpectraSpec,
)
from layerscope.analyses.spectra import spectra
from layerscope.errors import UseError
from layerscope.runtime import Progress
from layerscope.spec import Spec
from layerscope.table import Table


@dataclass(frozen=True)
class How:
    """How an analysis is made, which does not decide its numbers. `done` keeps what there is of it, for one that is stopped."""

    anyway: bool
    plan: Plan
    run: str
    done: MutableMapping[str, Any]
    progress: Progress | None


@dataclass(frozen=True)
class Kind:
    """A kind of analysis: its spec, and how its table is made."""

    spec: type[Spec]
    compute: Callable[[Material, Any, How], Table]


def _robustness(material: Material, spec: RobustnessSpec, how: How) -> Table:
    return robustness(
        material.model,
        material.trajectory,
        material.splits,
        spec,
        laws=material.laws if spec.redraw == "law" else None,
        calibration=material.calibration,
        **_common(material, how),
    )


def _criticality(material: Material, spec: CriticalitySpec, how: How) -> Table:
    data = _split(material, "train", spec)
    return criticality(material.model, material.trajectory, data, spec=spec, **_common(material, how))


def _landscape(material: Material, spec: LandscapeSpec, how: How) -> Table:
    return landscape(material.model, material.trajectory, material.splits, spec, **_common(material, how))


def _spectra(material: Material, spec: SpectraSpec, how: How) -> Table:
    return spectra(
        material.model,
        material.trajectory,
        spec,
        batch=next(iter(material.splits["test"])),
        forward=material.forward,
        run=how.run,
        done=how.done,
        progress=how.progress,
    )


def _similarity(material: Material, spec: SimilaritySpec, how: How) -> Table:
    return similarity(material.model, material.trajectory, material.splits["test"], spec, **_common(material, how))


def _cka(material: Material, spec: CkaSpec, how: How) -> Table:
    return alike(material, spec, **vars(how))


def _measures(material: Material, spec: MeasuresSpec, how: How) -> Table:
    _split(material, "train", spec)
    return measures(material.model, material.trajectory, material.splits, spec, **_common(material, how))


def _bounds(material: Material, spec: BoundsSpec, how: How) -> Table:
    _split(material, "train", spec)
    table = bounds(material.model, material.trajectory, material.splits, spec, **_common(material, how))
    noise = material.facts.get("data", {}).get("noise")
    if not noise or "test" not in material.splits:
        return table
    warning = (
        f"{noise['differ']} training labels were changed at random, and no test label was: the bounds are of the error on data "
        "with as much noise, and the rows of the test data are of clean ones"
    )
    return table.with_facts(warnings=[*table.provenance["warnings"], warning])


KINDS = {
    kind.spec.KIND: kind
    for kind in (
        Kind(RobustnessSpec, _robustness),
        Kind(CriticalitySpec, _criticality),
        Kind(LandscapeSpec, _landscape),
        Kind(SpectraSpec, _spectra),
        Kind(SimilaritySpec, _similarity),
        Kind(CkaSpec, _cka),
        Kind(MeasuresSpec, _measures),
        Kind(BoundsSpec, _bounds),
    )
}


def kind_of(spec: Spec) -> Kind:
    """The kind of analysis that a spec asks for."""
    return KINDS[spec.KIND]


def needed(spec: Spec) -> RobustnessSpec:
    """What an analysis needs of a run's data and metrics, as that of robustness says it: by default all."""
    if isinstance(spec, RobustnessSpec):
        return spec
    metrics = getattr(spec, "metrics", None)
    return RobustnessSpec(metrics=metrics) if metrics else RobustnessSpec()


def _common(material: Material, how: How) -> dict[str, Any]:
    return {
        "forward": material.forward,
        "targets": material.targets,
        "anyway": how.anyway,
        "plan": how.plan,
        "run": how.run,
        "done": how.done,
        "progress": how.progress,
    }


def _split(material: Material, name: str, spec: Spec) -> Iterable[Any]:
    if name not in material.splits:
        raise UseError(
            f"{spec.KIND} needs training data: give data with a split called {name!r}, {{'train': ..., 'test': ...}}"
        )
    return material.splits[name]
