"""Two networks on the same data: how similar the layers of one are to those of the other."""

import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerscope.analyses.material import Material, material_of
from layerscope.analyses.robustness import PLAN, checked
from layerscope.analyses.similarity import Grams, Watch, blocks_of, compared, layers_of, measure_of, sampled
from layerscope.analyses.spec import CkaSpec, Plan, RobustnessSpec
from layerscope.engine.batches import Targets, samples_in, samples_of
from layerscope.engine.probe import Probe, probe
from layerscope.engine.subject import Subject
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.perturb import World
from layerscope.run import SPEC, Run
from layerscope.runtime import Progress
from layerscope.spec import fingerprint
from layerscope.state import nbytes_of
from layerscope.step import FINAL, Step
from layerscope.table import Table
from layerscope.trajectory import Trajectory

TRIED = 32
"""Samples on which it is timed how long it would take."""


@dataclass(frozen=True, kw_only=True)
class Pair(Material):
    """A network with its data, and another one that is computed on these."""

    other: Material


def pair_of(run: Run, material: Material, other: Run, data_dir: str | Path | None = None) -> Pair:
    """The network of a run, whose `material` is given, and that of another run.

    Raises `UseError` if their data have inputs of different shapes."""
    theirs = material_of(other, RobustnessSpec(), data_dir)
    shapes = [_shape(each.splits["test"]) for each in (material, theirs)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise UseError(
            f"the network of {other.path} is for inputs of shape {shapes[1]}, and the test data of {run.path} are of shape "
            f"{shapes[0]}: layers can be compared only on data that both networks take"
        )
    called = _names(run, other)
    networks = [_about(*each) for each in zip(called, (run, other), (material, theirs), strict=True)]
    changed = {
        "inputs": fingerprint([material.inputs, theirs.inputs]),
        "facts": {**material.facts, "networks": networks},
        "nbytes": material.nbytes + theirs.nbytes,
        "warnings": (*material.warnings, *(f"{called[1]}: {text}" for text in theirs.warnings)),
    }
    return Pair(**{**vars(material), **changed}, other=theirs)


def alike(
    pair: Material,
    spec: CkaSpec,
    *,
    anyway: bool = False,
    plan: Plan = PLAN,
    run: str = "",
    done: MutableMapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Table:
    """How similar the layers of two networks are, each to each, on the test data of the first: the rows of `cka`.

    Each has the values of its own step. The provenance says which the `networks` are and of which `steps` (empty for the trained
    values), and `layers` and `layers_b` have their layers in the order in which they are called. `anyway`, the plan's device and
    `done` are as in `similarity`.
    """
    a, b = _networks(pair, spec, plan)
    data = pair.splits["test"]
    probes = [network.probed(data, pair.targets, anyway) for network in (a, b)]
    blocks = blocks_of(list(data) if probes[0].held else data, spec)
    with untouched(a.model), untouched(b.model), torch.no_grad():
        rows, facts = compared(a, b, blocks, measure_of(spec), done, progress)
    told = {
        **facts,
        "spec": spec.to_dict(),
        "networks": pair.facts["networks"],
        "steps": [a.step, b.step],
        "probe": next((seen for seen in probes if seen.note), probes[0]).to_dict(),
        "warnings": [],
    }
    return Table.of([{"run": run, "split": "test", **row} for row in rows], told)


def cost(pair: Pair, spec: CkaSpec) -> dict[str, Any]:
    """What it would take, from a few samples that are timed: layers of each network, forwards, seconds, bytes."""
    a, b = _networks(pair, spec, PLAN)
    n = min(spec.n, samples_of(pair.splits["test"]))
    size = min(n, spec.block if spec.debiased else n)
    (few,) = sampled(pair.splits["test"], min(n, TRIED), TRIED, spec.seed)
    with untouched(a.model), untouched(b.model), torch.no_grad():
        forward = _seconds(lambda: [each.plainly(few) for each in (a, b)])
        whole = _seconds(lambda: compared(a, b, [few], measure_of(spec)))
    share = n / samples_in(few)
    products = max(0.0, whole - forward) * size / samples_in(few)  # of each sample with all others of its block
    layers = [len(each.watch.layers) for each in (a, b)]
    return {
        "layers": layers[0],
        "layers_with": layers[1],
        "forwards": 2 * n,
        "seconds": round(share * (forward + products), 1),
        "memory_bytes": 2 * (nbytes_of(a.model) + nbytes_of(b.model)) + pair.nbytes + 8 * size**2 * sum(layers),
    }


class _Network:
    """A network with the values of one step; called with a batch it gives the Gram matrices of its layers."""

    def __init__(self, material: Material, step: str | None, layers: Iterable[str], spec: CkaSpec, plan: Plan) -> None:
        self.model, whole = material.model, material.trajectory.fitted(material.model)
        at = whole.resolve(Step.parse(step) if step else FINAL)
        if lacking := list(whole.lacking(at)):
            raise UseError(
                f"a network that has no {lacking[0]} cannot be computed: {whole.where(at)} lacks {len(lacking)} tensors"
            )
        self.step = "" if at == whole.steps[-1] else whole.called(at)
        world = World.of(self.model, checked(Trajectory.of(final=whole[at]), self.model), {})
        self.watch = Watch(
            self.model, layers_of(self.model, tuple(layers)), measure_of(spec), material.forward, learning=False
        )
        self._plain = Subject(self.model, world, material.forward, device=plan.device)
        self._watched = Subject(self.model, world, self.watch, device=plan.device)

    def __call__(self, batch: Any) -> Grams:
        return self.watch.in_order(_outputs(self._watched, batch))

    def plainly(self, batch: Any) -> Any:
        """Its outputs."""
        return _outputs(self._plain, batch)

    def probed(self, data: Iterable[Any], targets: Targets, anyway: bool) -> Probe:
        """Whether it gives the same twice; from then on it is evaluated as that showed it must be."""
        seen = probe(self._plain, data, targets, anyway)
        self._watched.written, self._watched.spoils = self._plain.written, self._plain.spoils
        return seen


def _networks(pair: Material, spec: CkaSpec, plan: Plan) -> tuple[_Network, _Network]:
    if not isinstance(pair, Pair):
        raise UseError("say with which other run the network is compared: layerscope cka RUN --with OTHER_RUN")
    return (
        _Network(pair, spec.step, spec.layers, spec, plan),
        _Network(pair.other, spec.step_with, spec.layers_with, spec, plan),
    )


def _outputs(subject: Subject, batch: Any) -> Any:
    return subject.run(subject.unmodified(), lambda network: subject.outputs(network, batch))


def _names(run: Run, other: Run) -> tuple[str, str]:
    """What two runs are called; by their whole paths where different folders have one name."""
    same = run.name == other.name and run.path.resolve() != other.path.resolve()
    return (str(run.path), str(other.path)) if same else (run.name, other.name)


def _about(name: str, run: Run, material: Material) -> dict[str, str]:
    """What the provenance says of a network."""
    asked = run.spec if run.folder.has(SPEC) else {}
    model = material.facts.get("model") or asked.get("model") or ""
    return {"run": name, "model": str(model), "data": str(material.facts["data"]["name"]), "inputs": material.inputs}


def _shape(batches: Iterable[Any]) -> list[int] | None:
    """The shape of one input, where inputs are one tensor."""
    batch = next(iter(batches), None)
    inputs = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
    return list(inputs.shape[1:]) if isinstance(inputs, Tensor) else None


def _seconds(work: Callable[[], Any]) -> float:
    """How long it takes at least, of three times."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)
