"""How similar activations are: of a network with a layer rewound and without, and of any two networks."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from layerscope import runtime
from layerscope.analyses.robustness import PLAN, Data, checked, partition_of
from layerscope.analyses.spec import CkaSpec, Plan, SimilaritySpec
from layerscope.analyses.spectra import steps_of
from layerscope.engine.batches import Forward, Targets, leaves, mark, outputs_of, samples_in, targets_of
from layerscope.engine.certified import joined
from layerscope.engine.precision import some
from layerscope.engine.probe import check_batches, probe
from layerscope.engine.reference import evaluate, reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Task
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError
from layerscope.metrics.base import Observation
from layerscope.metrics.cka import FEWEST, GramCKA
from layerscope.partition import Partition
from layerscope.partition.globs import matching
from layerscope.perturb import Rewind, Variant, World
from layerscope.rng import generator
from layerscope.runtime import Progress
from layerscope.step import Step
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]
APART = (
    "activations are compared on samples drawn at random, and these batches cannot be taken apart: they must be tensors with "
    "an entry a sample, all of one shape, in tuples, lists or dictionaries"
)
Grams = Mapping[str, Tensor | str]
"""Path of a module -> the kernel matrix of its outputs, or why it has none."""


def similarity(
    model: nn.Module,
    trajectory: Trajectory,
    data: Data,
    spec: SimilaritySpec | None = None,
    *,
    partition: Partition | None = None,
    forward: Forward = outputs_of,
    targets: Targets = targets_of,
    anyway: bool = False,
    plan: Plan = PLAN,
    run: str = "",
    split: str = "test",
    done: MutableMapping[str, list[Row]] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Where the network's activations change when a layer is put back to a checkpoint, and by how much.

    Rows: centred kernel alignment (CKA) between the outputs of module `layer` in the trained network and in that whose Part
    `part` has its values of `step`, on `n` samples of `data`: 1 where they are the same up to rotation and scale. All else,
    buffers too, stays trained. `metric` is `cka_linear` or `cka_rbf`, with `_debiased` where estimates are about 0 for
    independent activations (and may be below). Of a module that returns several things the first is compared, and of one that
    is called several times in a forward the first call (`several_calls` of the provenance). Outputs that are the same bit for
    bit, as those before the Part, are at 1 without being computed. There are no intervals.

    `data` is one iterable of batches, which are taken apart into samples and put together again: they must be tensors with an
    entry a sample. Only what is chosen of them is kept in memory, and of activations n x n numbers a block, never themselves.
    `forward`, `targets`, `anyway` and the plan's device are as in `evaluate`; each changed network is one whole forward.
    `done` takes each changed network's rows as they come, and gives those of an earlier call with the same arguments.
    Raises `UseError` if the trained network is all there is.

    Source: chatterji2020, Sec. 2.3 and Fig. 9; Kornblith et al., Similarity of neural network representations revisited, 2019.
    Differs from the paper: without bias by default, as it does not say which estimate it takes, nor on how many samples.
    """
    spec, trajectory = spec or SimilaritySpec(), checked(trajectory, model)
    if isinstance(data, Mapping):
        raise UseError("similarity takes the data of one split")
    if len(trajectory.steps) == 1:
        raise UseError(
            "similarity needs values to put layers back to, beside the trained ones: those before training, with initial= "
            "(--checkpoints init=FILE), or another checkpoint"
        )
    partition = partition or partition_of(model, spec)
    partition.check(model)
    steps, world = steps_of(trajectory, spec.steps), World.of(model, trajectory, {})
    layers = layers_of(model, spec.at)
    plain = Subject(model, world, forward, device=plan.device)
    seen = probe(plain, data, targets, anyway)
    blocks, measure = blocks_of(list(data) if seen.held else data, spec), measure_of(spec)
    watch = Watch(model, layers, measure, forward)
    subject = Subject(model, world, watch, device=plan.device)
    subject.written, subject.spoils = plain.written, plain.spoils  # as the probe found
    task = Task(blocks, [_Alike(measure)], targets, len(blocks))
    known = reference(subject, task)
    watch.learning = False
    variants = [
        Variant.of(part, Rewind(step), buffers="keep")
        for part in partition
        for step in steps
        if not world.lacking(part, step)
    ]
    rows = runtime.run(
        variants,
        lambda v: v.id,
        lambda todo: evaluate(subject, todo, task, known),
        {} if done is None else done,
        "similarity",
        progress,
    )
    found = [row for some in rows for row in some] + _lacking(world, partition, steps, measure.name)
    order = [part.name for part in partition]
    found.sort(key=lambda row: order.index(row["part"]))
    facts = {
        "spec": spec.to_dict(),
        "by": "groups" if spec.groups else spec.by,
        "buffers": "keep" if world.buffers else "",
        "left_out": partition.left_out,
        "layers": layers,
        "several_calls": sorted(watch.several),
        "probe": seen.to_dict(),
        "warnings": trajectory.warnings(),
        **trajectory.facts(),
    }
    described = {variant.id: variant.to_dict() for variant in variants}
    return Table.of([{"run": run, "split": split, **row} for row in found], facts, variants=described)


def cka(
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Data,
    layers_a: str | Sequence[str] = (),
    layers_b: str | Sequence[str] = (),
    *,
    n: int = 512,
    kernel: str = "linear",
    debiased: bool = True,
    block: int = 128,
    seed: int = 0,
    forward: Forward = outputs_of,
    forward_b: Forward | None = None,
) -> Table:
    """How similar the layers of two networks are, each to each: one row a pair of `layer` (of `model_a`) and `layer_b`.

    Layers are names or patterns with * and ? of modules, whose outputs are compared; all that own parameters, if not given. Rows
    are in the order in which they are called. Networks are taken with the values that they have, in evaluation mode, and left as
    they are; `forward_b` is that of the second, if it is another. `n`, `kernel`, `debiased`, `block` and `seed` are those of
    `CkaSpec`, and metrics those of `similarity`. All chosen samples count, also where they do not fill the last block.
    `plots.figures(table)` draws the table; `layerscope cka RUN --with OTHER_RUN` makes it of two runs on disk.

    Raises `UseError` for fewer than 4 samples, and for batches that cannot be taken apart.
    Source: Kornblith, Norouzi, Lee and Hinton, Similarity of neural network representations revisited, 2019; Nguyen, Raghu and
    Kornblith, Do wide and deep networks learn the same things?, 2021.
    """
    ours, theirs = ((given,) if isinstance(given, str) else tuple(given) for given in (layers_a, layers_b))
    spec = CkaSpec(ours, theirs, n=n, kernel=kernel, debiased=debiased, block=block, seed=seed)
    if isinstance(batches, Mapping):
        raise UseError("cka takes the data of one split")
    check_batches(batches)
    a = _InMemory(model_a, spec.layers, spec, forward)
    b = _InMemory(model_b, spec.layers_with, spec, forward_b or forward)
    with untouched(model_a), untouched(model_b), torch.no_grad():
        rows, facts = compared(a, b, blocks_of(batches, spec), measure_of(spec))
    return Table.of(rows, {"spec": spec.to_dict(), **facts})


@runtime_checkable
class Network(Protocol):
    """A network that is watched: batch -> the Gram matrices of its modules' outputs, in the order in which they are called."""

    @property
    def watch(self) -> "Watch": ...

    def __call__(self, batch: Any) -> Grams: ...


class _InMemory:
    """A network with the values that it has."""

    def __init__(self, model: nn.Module, layers: Sequence[str], spec: CkaSpec, forward: Forward) -> None:
        self.watch = Watch(model, layers_of(model, layers), measure_of(spec), forward, learning=False)

    def __call__(self, batch: Any) -> Grams:
        return self.watch.in_order(self.watch(self.watch.model, batch))


def compared(
    a: Network,
    b: Network,
    blocks: Sequence[Any],
    measure: GramCKA,
    done: MutableMapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of all pairs of modules of two networks, and what to know of them. `done` takes what each block adds."""

    def work(todo: Sequence[int]) -> Iterator[dict[str, Any]]:
        for number in todo:
            ours, theirs = a(blocks[number]), b(blocks[number])
            sums = [[x, y, _added(measure, ours[x], theirs[y])] for x in ours for y in theirs]
            yield {"sums": sums, "several": sorted(a.watch.several | b.watch.several)}

    pairs = _Pairs(measure, sum(map(samples_in, blocks)))
    found = runtime.run(range(len(blocks)), str, work, {} if done is None else done, "cka", progress)
    for block in found:
        for x, y, sums in block["sums"]:
            pairs.add((x, y), sums if isinstance(sums, str) else torch.tensor(sums, dtype=torch.float64))
    rows = [{"status": "ok", **row} for row in pairs.rows()]
    facts = {
        "layers": list(dict.fromkeys(row["layer"] for row in rows)),
        "layers_b": list(dict.fromkeys(row["layer_b"] for row in rows)),
        "several_calls": sorted({path for block in found for path in block["several"]}),
        "n": pairs.n,
    }
    return rows, facts


def measure_of(spec: CkaSpec | SimilaritySpec) -> GramCKA:
    """The kind of CKA that is asked for."""
    return GramCKA(spec.kernel, spec.debiased)


def blocks_of(data: Data, spec: CkaSpec | SimilaritySpec) -> list[Any]:
    """The samples that are compared, in blocks."""
    return sampled(data, spec.n, spec.block if spec.debiased else spec.n, spec.seed)


def layers_of(model: nn.Module, patterns: Sequence[str] = ()) -> list[str]:
    """The paths of modules whose outputs are compared, in the order of the model."""
    paths = {path: module for path, module in model.named_modules() if path}
    if not patterns:
        return [path for path, module in paths.items() if any(True for _ in module.parameters(recurse=False))]
    asked = matching(patterns, paths, "module")
    return [path for path in paths if path in asked]


def sampled(data: Data, n: int, block: int, seed: int) -> list[Any]:
    """At most `n` samples of data, drawn at random, in batches of `block`; what is left at the end is a batch of its own, or
    part of the last one if it has fewer samples than an estimate without bias needs.

    Raises `UseError` if there are too few, or batches cannot be taken apart into samples."""
    sizes = [samples_in(batch) for batch in data]
    if sum(sizes) < FEWEST:
        raise UseError(f"activations are compared on at least {FEWEST} samples, and data has {sum(sizes)}")
    random = generator(seed, "samples of a similarity")
    order = torch.randperm(sum(sizes), generator=random)[:n]
    chosen, start, picked = order.sort().values, 0, []
    for batch, size in zip(data, sizes, strict=True):
        here = chosen[(chosen >= start) & (chosen < start + size)] - start
        start += size
        if len(here):
            picked.append(some(batch, here))
    whole = joined(picked, APART)
    mixed = torch.randperm(len(chosen), generator=random)  # so that no block has the samples of one class
    starts = list(range(0, len(chosen), block))
    if len(starts) > 1 and len(chosen) - starts[-1] < FEWEST:
        starts.pop()
    return [some(whole, mixed[a:b]) for a, b in zip(starts, [*starts[1:], len(chosen)], strict=True)]


@dataclass
class Watch:
    """A forward that gives the Gram matrices of modules' outputs, each made when the module returns: an operation in place may
    write to what it returned. While it is `learning` it keeps them by what the outputs were, and later makes none again of the
    same outputs. `called` are modules in the order in which they returned; `several` are those that were called more than once:
    their first call counts."""

    model: nn.Module
    layers: list[str]
    measure: GramCKA
    forward: Forward
    learning: bool = True
    called: dict[str, None] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    known: dict[Any, Tensor] = field(default_factory=dict)

    def __call__(self, network: nn.Module, batch: Any) -> Grams:
        """Hooks are on the modules themselves: PyTorch's transformer layers then call the modules inside them."""
        found: dict[str, Tensor | str] = {}

        def note(path: str, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
            if path in found:
                self.several.add(path)
            else:
                found[path] = self._gram(path, outputs, samples_in(batch))

        handles = [self.model.get_submodule(path).register_forward_hook(partial(note, path)) for path in self.layers]
        try:
            self.forward(network, batch)
        finally:
            for handle in handles:
                handle.remove()
        self.called |= dict.fromkeys(found)
        return {path: found.get(path, "the network's forward does not call it on these data") for path in self.layers}

    def in_order(self, found: Grams) -> Grams:
        """What a forward gave, in the order in which modules are called; at the end those that are not."""
        return {path: found[path] for path in dict.fromkeys((*self.called, *found))}

    def _gram(self, path: str, outputs: Any, n: int) -> Tensor | str:
        outputs = outputs[0] if isinstance(outputs, tuple | list) and outputs else outputs
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            return f"its outputs are no tensor of real numbers, but a {type(outputs).__name__}"
        if outputs.ndim < 2 or len(outputs) != n:
            return (
                f"the first axis of its outputs is not that of samples: they are {list(outputs.shape)} for {n} samples"
            )
        key = (path, mark(outputs))
        if key in self.known:
            return self.known[key]
        gram = self.measure.gram(outputs)
        if self.learning:
            self.known[key] = gram
        return gram


def _sums(measure: GramCKA, k: Tensor | str, l: Tensor | str) -> Tensor | str:  # noqa: E741
    """What a block adds to a pair of modules, or why it has nothing."""
    if isinstance(k, str):
        return k
    return l if isinstance(l, str) else measure.sums(k, l)


def _added(measure: GramCKA, ours: Tensor | str, theirs: Tensor | str) -> list[float] | str:
    """The same of modules of two networks, as plain values; a reason says of which of the two it is."""
    named = {"layer": ours, "layer_b": theirs}
    sums = _sums(measure, *(f"{column}: {of}" if isinstance(of, str) else of for column, of in named.items()))
    return sums if isinstance(sums, str) else sums.tolist()


class _Pairs:
    """Sums over blocks of pairs of modules, on `n` samples."""

    def __init__(self, measure: GramCKA, n: int = 0) -> None:
        self._measure, self.n = measure, n
        self._sums: dict[tuple[str, str], Tensor | str] = {}

    def add(self, pair: tuple[str, str], sums: Tensor | str) -> None:
        """What one block has; why it has nothing, stays."""
        before = self._sums.get(pair, torch.zeros(3, dtype=torch.float64))
        why = next((one for one in (before, sums) if isinstance(one, str)), None)
        self._sums[pair] = why or before + sums  # type: ignore[operator]

    def rows(self) -> Iterable[Row]:
        none = {"metric": self._measure.name, "status": "not applicable"}
        for (a, b), sums in self._sums.items():
            found = none | {"reason": sums} if isinstance(sums, str) else self._measure.row(sums, self.n)
            yield {"layer": a, "layer_b": b, **found}


class _Alike:
    """The metric of a `Watch`: each module of a changed network with the same of the unmodified one."""

    def __init__(self, measure: GramCKA) -> None:
        self.name, self._measure = measure.name, measure

    def keep(self, targets: Any, outputs: Grams) -> Grams:
        return outputs

    def init(self) -> _Pairs:
        return _Pairs(self._measure)

    def update(self, state: _Pairs, seen: Observation) -> _Pairs:
        tensors = [leaf for leaf in leaves(seen.reference) if isinstance(leaf, Tensor)]
        state.n += len(tensors[0]) if tensors else 0
        for path, gram in seen.reference.items():
            state.add((path, path), _sums(self._measure, gram, seen.outputs[path]))
        return state

    def compute(self, state: _Pairs) -> list[Row]:
        return [{name: v for name, v in row.items() if name != "layer_b"} for row in state.rows()]


def _lacking(world: World, partition: Partition, steps: Sequence[Step], metric: str) -> list[Row]:
    """What cannot be put back to a pretrained network is said, not skipped."""
    none = {"metric": metric, "perturbation": Rewind.KIND, "status": "not applicable"}
    return [
        none | {"part": part.name, "reason": reason, **world.trajectory.coordinates(step)}
        for part in partition
        for step in steps
        if (reason := world.lacking(part, step))
    ]
