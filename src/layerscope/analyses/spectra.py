"""How each layer stretches space as training goes on: the singular values of linear maps, at each checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from layerscope import runtime
from layerscope.analyses.robustness import checked
from layerscope.analyses.spec import SpectraSpec
from layerscope.analyses.tiers import without_data
from layerscope.engine.batches import Forward, outputs_of
from layerscope.engine.subject import Subject
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.measures.operator import Convolution, Operator, Transposed
from layerscope.measures.spectrum import FROBENIUS, OF_OPERATORS, operator_rows
from layerscope.partition import Part, Partition
from layerscope.partition.globs import matching
from layerscope.perturb import World
from layerscope.perturb.swap import arranged, put_in
from layerscope.runtime import Progress
from layerscope.step import INIT, Step
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]
Sizes = Mapping[str, Sequence[tuple[int, ...]]]
"""Path of a convolution -> the different sizes of the inputs it was given, in order."""
METRICS = (FROBENIUS, *OF_OPERATORS)
NO_BATCH = "the size of its inputs is not known without data: give a batch"


def spectra(
    model: nn.Module,
    trajectory: Trajectory,
    spec: SpectraSpec | None = None,
    *,
    batch: Any = None,
    forward: Forward = outputs_of,
    run: str = "",
    done: MutableMapping[str, list[Row]] | None = None,
    progress: Progress | None = None,
) -> Table:
    """How each layer stretches space at each checkpoint, and what training added to it; nothing of which layers matter.

    A layer is a linear layer, or a convolution on inputs of the size that it is given in a forward of `batch` (which needs no
    targets, and one sample is enough; of a loader or a list of batches the first counts); without a batch nothing is said of
    convolutions. Biases do not count.

    Rows of each layer (`part`) and `step`: `operator_largest`, `operator_stable_rank`, `operator_effective` and
    `operator_frobenius` of the linear map, and with `to` = start those of its difference to the start, where there is one; and
    some of its singular values (`singular_value`, with their `index` among all `n`). Convolutions with zero padding are
    approximated by circular ones, as `operator` says; where a stride does not divide the size, the largest is of the layer
    itself, between bounds, and other values are not applicable. A layer that is called with inputs of several sizes is taken
    with the first, as `reason` says. The numbers are computed from all values, and none is an estimate from samples.

    `done` takes each layer's rows as they come, and gives those of an earlier call with the same arguments.
    Raises `UseError` if the trajectory does not fit the model or holds a NaN.

    Source: chatterji2020, Sec. 2.3, Fig. 3 (spectra) and Fig. 8 (operator norm of the difference to the start). Differs from the
    paper: the size of inputs is that of the network's own, and stride counts (see `circular.singular_values`).
    """
    spec, trajectory = spec or SpectraSpec(), checked(trajectory, model)
    world, steps = World.of(model, trajectory, {}), steps_of(trajectory, spec.steps)
    partition = Partition.by_layer(model)
    kinds = {part.name: linear(model, part) for part in partition}
    names = [name for name, (path, _) in kinds.items() if path is not None]
    asked = matching(spec.layers, names, "linear layer or convolution") if spec.layers else names
    parts = [part for part in partition if part.name in asked]
    sizes = None if batch is None else sizes_of(Subject(model, world, forward), one_batch(batch))

    def work(todo: Sequence[Part]) -> Iterator[list[Row]]:
        for part in todo:
            path, _ = kinds[part.name]
            assert path is not None
            yield list(_about(model, world, part, path, sizes, steps, spec))

    with untouched(model), torch.no_grad():
        found = runtime.run(parts, lambda part: part.name, work, {} if done is None else done, "spectra", progress)
    idle = {part.name: kinds[part.name][1] or "not asked for" for part in partition if part not in parts}
    facts = {
        "spec": spec.to_dict(),
        "by": "layer",
        "left_out": {**partition.left_out, **{t: idle[p.name] for p in partition if p.name in idle for t in p.tensors}},
        "tier": without_data(trajectory.has_start).to_dict(),
        "warnings": trajectory.warnings(),
        **trajectory.facts(),
    }
    return Table.of([{"run": run, **row} for rows in found for row in rows], facts)


def steps_of(trajectory: Trajectory, numbers: Sequence[int] | None) -> list[Step]:
    """The steps of these numbers, and the first and the last; all, if none are given."""
    if numbers is None:
        return list(trajectory.steps)
    return sorted({trajectory.steps[0], trajectory.steps[-1], *map(trajectory.at, numbers)})


def one_batch(given: Any) -> Any:
    """A batch as it is; of a loader or a list of batches the first."""
    if isinstance(given, Mapping) and given and all(map(_has_batches, given.values())):
        raise UseError(
            f"spectra takes one batch, or the data of one split, and not {', '.join(map(str, given))} at once"
        )
    if not _has_batches(given):
        return given
    if (first := next(iter(given), None)) is None:
        raise UseError("batch= has no batch in it")
    return first


def _has_batches(given: Any) -> bool:
    """Whether this yields batches, and is none. What a network is given may be a tuple of anything, but no list of nothing but
    tuples, lists and mappings; and an object of a kind of its own that is data can be moved to a device."""
    if isinstance(given, list):
        return all(isinstance(each, tuple | list | Mapping) for each in given)
    return (
        isinstance(given, Iterable)
        and not isinstance(given, Tensor | tuple | Mapping | str)
        and not hasattr(given, "to")
    )


def linear(model: nn.Module, part: Part) -> tuple[str | None, str]:
    """The path of the linear map whose weight is in a Part, or None and the reason why there is none."""
    modules = {path: model.get_submodule(path) for path in part.modules}
    maps = {path: m for path, m in modules.items() if isinstance(m, nn.Linear | Convolution | Transposed)}
    for path, module in maps.items():
        before = f"{path}." if path else ""
        names = (f"{before}weight", f"{before}parametrizations.weight.")
        if any(tensor == names[0] or tensor.startswith(names[1]) for tensor in part.tensors):
            return path, ""
        if "weight" not in module._parameters and not parametrize.is_parametrized(module, "weight"):
            return None, f"the weight of this {type(module).__name__} is computed in its forward"
    if maps:
        return None, "what is not shared of a layer whose weight is in another"
    kinds = ", ".join(dict.fromkeys(type(module).__name__ for module in modules.values()))
    return None, f"a {kinds} is no linear layer or convolution, so that it is no one linear map"


def sizes_of(subject: Subject, batch: Any) -> Sizes:
    """The sizes of the inputs of all convolutions in one forward of the trained network."""
    paths = {id(m): path for path, m in subject.model.named_modules() if isinstance(m, Convolution | Transposed)}
    found: dict[str, dict[tuple[int, ...], None]] = {}

    def note(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        if id(module) in paths:
            given = args[0] if args else kwargs["input"]
            axes = len(module.kernel_size)  # type: ignore[arg-type]
            found.setdefault(paths[id(module)], {})[tuple(given.shape[-axes:])] = None

    with untouched(subject.model), torch.no_grad():
        handle = register_module_forward_hook(note, with_kwargs=True)
        try:
            subject.run(subject.unmodified(), lambda network: subject.outputs(network, batch))
        finally:
            handle.remove()
    return {path: list(sizes) for path, sizes in found.items()}


def _about(
    model: nn.Module,
    world: World,
    part: Part,
    path: str,
    sizes: Sizes | None,
    steps: Sequence[Step],
    spec: SpectraSpec,
) -> Iterator[Row]:
    """All rows of one layer, whose values at two steps are in memory at a time."""
    trajectory = world.trajectory
    lacking = world.lacking(part, INIT) if trajectory.has_start else ""
    start: Operator | None = None
    size, note, why = _size(model.get_submodule(path), path, sizes)
    for step in steps:
        place = {"part": part.name, **trajectory.coordinates(step)}
        absent = lacking if step == INIT else ""
        to_start = [{"to": "start"}] if trajectory.has_start else []
        operator: Operator | None = None
        if not (why or absent):
            try:
                there = [name for name in part.tensors if name not in trajectory.lacking(step)]
                operator = _operator(model, path, trajectory.tensors(step, there), size)
            except UseError as problem:
                why = str(problem)
        if operator is None:
            none = {"status": "not applicable", "reason": why or absent}
            yield from ({**place, **none, **of, "metric": metric} for of in ({}, *to_start) for metric in METRICS)
            continue
        if step == INIT:
            start = operator
        yield from (_noted(place | row, note) for row in operator_rows(operator, spec.values))
        if start is not None:
            moved = replace(operator, weight=operator.weight - start.weight)
            yield from (_noted({**place, "to": "start"} | row, note) for row in operator_rows(moved))
        elif lacking:
            none = {"status": "not applicable", "reason": lacking, "to": "start"}
            yield from (place | none | {"metric": metric} for metric in METRICS)


def _operator(model: nn.Module, path: str, tensors: Mapping[str, Tensor], size: tuple[int, ...]) -> Operator:
    """The linear map of a module with these tensors in their places, from which a parametrisation computes its weight."""
    everything = arranged(model, tensors, lambda _name, _own, value: value)
    with put_in(model, {place: value for place, value in everything.items() if place in tensors}):
        return Operator.of(model.get_submodule(path), size)


def _size(module: nn.Module, path: str, sizes: Sizes | None) -> tuple[tuple[int, ...], str, str]:
    """The size of a layer's inputs, what to say of it, and why nothing can be said of the layer."""
    if isinstance(module, nn.Linear):
        return (), "", ""
    if sizes is None:
        return (), "", NO_BATCH
    if path not in sizes:
        return (), "", "the network's forward does not call it on this batch"
    shown = [" x ".join(map(str, size)) for size in sizes[path]]
    note = f"of inputs of {shown[0]}, the first of several sizes: {', '.join(shown)}" if len(shown) > 1 else ""
    return sizes[path][0], note, ""


def _noted(row: Row, note: str) -> Row:
    """A row with a note, where it has no reason of its own."""
    return row if row.get("reason") or not note else row | {"reason": note}
