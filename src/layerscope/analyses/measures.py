"""Measures of a whole network that are said to predict how well it generalises: those of chatterji2020, and others."""

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerscope import runtime
from layerscope.analyses import flat
from layerscope.analyses.criticality import AT_TRAINED, criticality, estimates
from layerscope.analyses.modules import Map, Modules, maps_of
from layerscope.analyses.robustness import PLAN, Data, checked, steady
from layerscope.analyses.spec import MeasuresSpec, Plan
from layerscope.data import Batches
from layerscope.engine.batches import Forward, Targets, outputs_of, targets_of, with_each
from layerscope.engine.precision import some
from layerscope.engine.probe import Probe, probe
from layerscope.engine.reference import reference
from layerscope.engine.subject import Subject
from layerscope.engine.task import Task, reason_of
from layerscope.engine.untouched import untouched
from layerscope.errors import UseError, unknown
from layerscope.measures.circular import is_circular
from layerscope.measures.distance import UNIT
from layerscope.measures.operator import Bracket, Operator
from layerscope.measures.path import log_path_norm, squared
from layerscope.measures.product import change, log_spectral_complexity, spectral, two_one
from layerscope.metrics import CrossEntropy, ErrorRate
from layerscope.metrics.base import SampleMean
from layerscope.metrics.error import margin
from layerscope.partition import WHOLE, Part
from layerscope.perturb import Rewind, Variant, World
from layerscope.perturb.swap import parameters
from layerscope.plots.measures import RECOVERED
from layerscope.runtime import Progress
from layerscope.state import State
from layerscope.step import INIT
from layerscope.table import Table
from layerscope.trajectory import Trajectory

Row = dict[str, Any]
LACKING, FAILED = "not applicable", "failed"
NONE = "no linear layer or convolution is called"
NO_START = "the values before training are not known"
ZERO = "its weights are all 0, so that their norm has no logarithm"
QUANTILES = {"margin_q10": 0.1, "margin_median": 0.5}
SPECTRAL = {"log_psn", "log_spectral_margin", *(f"{name}_normalised" for name in QUANTILES)}
"""Measures that need the spectral norms of the trained network's modules."""
SPLITS = ("train", "test")


class _Margin(SampleMean):
    """The margin of each sample: the output of its class minus the largest other; of several decisions, the smallest."""

    name, unit, better = "margin", "", "higher"

    def per_sample(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return margin(outputs.double(), targets).amin(1)


def measures(
    model: nn.Module,
    trajectory: Trajectory,
    data: Mapping[str, Data] | Data,
    spec: MeasuresSpec | None = None,
    *,
    forward: Forward = outputs_of,
    targets: Targets = targets_of,
    anyway: bool = False,
    plan: Plan = PLAN,
    run: str = "",
    done: MutableMapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Table:
    """What is said to predict how well a network generalises, and how well it does.

    `data` has batches of `train`, and of `test` if the generalisation gap is wanted. Rows, by `metric`, have the Part `whole
    network`; where a measure is a sum over modules (log products too), each module's share is a row with its name. Modules are
    linear layers and convolutions that are called, with their weights alone: biases, norm layers and others are `left_out` in the
    provenance. `measures.catalogue` has a label, the direction in which a measure is worse, and its source. Logarithms are
    natural; D is the 2-norm of how far a module's weights moved, s their spectral norm as a linear map on inputs of
    the size that it has in this network (`operator`), k the number of parameters of the network, all of them, tied ones once.

    `error`, `cross_entropy` (train, test) and `generalisation_gap` (test minus train error, with the interval that test samples
    leave it); of training data whose labels have noise (batches of a `layerscope.data` split) these again with the split
    `recovered`, against the labels before the noise, for the gap proper takes clean test labels and noisy training labels, and
    the table warns; `parameters` (k); `log_pfn` (sum of logs of 2-norms of weights, not squared), `log_psn` (of spectral norms);
    `distance_squared` (sum of D^2), `distance_sum` (of D); `sosp`, `log_sosp` (k x sum of spectral norms of the change);
    `criticality` (see there, at `eps`), `pac_bayes` (sum of D^2 / sigma^2, sigma that of alpha = 1), `pac_bayes_joint` (sigma
    that of the criticality); `margin_q10`, `margin_median` (quantiles of training margins, the output of a sample's class minus
    the largest other), and `..._normalised` (divided by the product of spectral norms); `log_spectral_margin` (log of product of
    s x (sum (b / s)^(2/3))^(3/2) / (gamma sqrt n), b the (2, 1) norm of the change, gamma = `margin_q10`, n training samples;
    without the norm of the inputs); `log_path_norm` (see `measures.path`); `flatness_gaussian` (sigma: see `flat.gaussian`);
    `flatness_worst` (a radius: see `flat.worst`; there may be a smaller one).

    `done` takes what takes long as it comes, and gives that of an earlier call with the same arguments. Warnings of the searches
    for criticality and PAC-Bayes are those of the table, and their `monotonicity` (see `criticality`) is in its provenance, that
    of both together; `changed_labels` there is how many training labels noise changed.

    Errors: what could not be computed is a row with a status and a reason, as without a start all that needs one. `status` is
    `on the edge` where the answer is an end of what was searched. Intervals are `population` (test samples), `draws` (of the
    noise) or `numerical`. Raises `UseError` for wrong use; batches, `forward`, `targets`, `anyway` and `plan` are as in
    `criticality`.

    Source: chatterji2020, Sec. 3.3, Table 1 and 2; Bartlett et al. 2017; Neyshabur et al. 2015; Keskar et al. 2017; Jiang et al.
    2020. Differs from the paper: spectral norms are of convolutions with their own padding, not of circular ones, unless
    asked for; powers of norms do not matter for rank correlations, and sums of D and D^2 are both there.
    """
    spec = spec or MeasuresSpec()
    if not isinstance(data, Mapping) or "train" not in data:
        raise UseError(
            'measures need training data: pass data={"train": batches, "test": batches}; test may be missing'
        )
    if strange := [name for name in data if name not in SPLITS]:
        raise unknown("split", strange[0], SPLITS)
    changed = _changed(data["train"])
    data = {**data, **({RECOVERED: _recovered(data["train"])} if changed else {})}
    given, trajectory = trajectory, checked(trajectory, model)
    world = World.of(model, trajectory.ends().fitted(model), {}, spec.seed)
    subject = Subject(model, world, forward, None, plan.device)
    outcomes: dict[str, list[Row]] = {}
    probes: dict[str, Probe] = {}
    tasks: dict[str, Task] = {}
    margins: dict[str, np.ndarray] = {}
    measured = [ErrorRate(spec.level), CrossEntropy(spec.level), _Margin()]
    for split, batches in data.items():
        probes[split] = seen = probe(subject, batches, targets, anyway)
        tasks[split] = steady(Task(batches, measured, targets), seen)
        kept = reference(subject, tasks[split]).kept
        outcomes[split] = [_first(metric, at, kept) for at, metric in enumerate(measured[:2])]
        margins[split] = torch.cat([each[2] for each in kept]).numpy()
    train = tasks["train"]
    rows = [row | {"split": split} for split, found in outcomes.items() for row in found]
    rows += _gap(outcomes)
    first = next(iter(train.data))
    asked = _Asked(subject, first, spec)
    rows += asked.norms(margins["train"])
    done = {} if done is None else done
    searches: dict[str, Table] = {}

    def critical(alphas: tuple[float, ...], what: str) -> list[Row]:
        table = criticality(
            model,
            given,
            train.data,
            spec=replace(spec.criticality, alphas=alphas),
            partition=asked.modules.partition,
            forward=forward,
            targets=targets,
            anyway=anyway,
            plan=plan,
            done=runtime.Under(done, what),
            progress=progress,
        )
        searches[what] = table
        return [_plain(row) for row in table.where(metric="criticality").to_dict("records")]

    none = NO_START if not trajectory.has_start else "" if asked.modules.partition.parts else NONE
    rows += _critical(critical, none, spec)
    rows += _flat(asked, train, targets, runtime.Under(done, "flatness"), progress)
    wanted = {"error", "cross_entropy", "generalisation_gap", *spec.which}
    rows = [{"run": run, "status": "ok", **row} for row in rows if row["metric"] in wanted]
    warnings = [*trajectory.warnings(), *asked.warnings, *_of_noise(changed, "test" in data)]
    facts = {
        "spec": spec.to_dict(),
        "by": "module",
        "left_out": asked.modules.partition.left_out,
        "probe": {split: seen.to_dict() for split, seen in probes.items()},
        "warnings": _with_those_of(searches, warnings),
        **({"changed_labels": changed} if changed else {}),
        **({"monotonicity": _monotonicity(list(searches.values()))} if searches else {}),
        **trajectory.facts(),
    }
    return Table.of([_finite(row) for row in rows], facts)


def _changed(train: Data) -> int:
    """How many training labels noise changed, so far as that is known."""
    split = train.split if isinstance(train, Batches) else None
    return 0 if split is None or split.true is None else int((split.targets != split.true).sum())


def _recovered(train: Data) -> Batches:
    """Training data with the labels that they had before the noise."""
    assert isinstance(train, Batches)
    return train.split.recovered().batches(train.size)


def _of_noise(changed: int, tested: bool) -> list[str]:
    """What has to be known of the generalisation gap of a network that was trained with label noise."""
    if not changed or not tested:
        return []
    return [
        f"{changed} training labels were changed at random, and no test label was: the generalisation gap is the error on clean "
        "test labels less the training error against changed ones. It is not that of one distribution, and may be below 0; rows "
        f"of the split {RECOVERED} have it against the labels before the noise"
    ]


def _with_those_of(searches: Mapping[str, Table], warnings: Sequence[str]) -> list[str]:
    """Warnings and those of the searches, each once: what the search at alpha = 1 alone says is of PAC-Bayes alone."""
    found = list(warnings)
    for name, before in (("criticality", ""), ("pac_bayes", "PAC-Bayes: ")):
        said = searches[name].provenance["warnings"] if name in searches else []
        found += [before + text for text in said if text not in found]
    return found


def _monotonicity(searches: Sequence[Table]) -> dict[str, Any]:
    """What searches found of whether errors grow with sigma, all together; a fall that several found is there once."""
    found = [search.provenance["monotonicity"] for search in searches]
    falls: list[Any] = []
    for fall in (fall for each in found for fall in each["falls"]):
        falls += [fall] if fall not in falls else []
    return {**found[0], **{name: sum(each[name] for each in found) for name in ("pairs", "able")}, "falls": falls}


measure = measures
"""Its public name: `layerscope.measures` is a room of the package."""


class _Asked:
    """The modules of a network, trained and at its start."""

    def __init__(self, subject: Subject, batch: Any, spec: MeasuresSpec) -> None:
        self.subject, self.spec, self.batch = subject, spec, batch
        world = subject.world
        final = self._maps(subject.unmodified())
        self.modules = Modules.of(subject.model, set(final))
        parts = self.modules.partition.parts
        self.without = {part.name: self._startless(part) for part in parts}
        back = [Variant.of(part, Rewind(INIT), buffers="keep") for part in parts if not self.without[part.name]]
        edits = tuple(edit for variant in back for edit in variant.edits)
        start = self._maps(subject.values(Variant(edits, buffers="keep"))) if edits else {}
        paths = self.modules.paths
        self.final = {name: final[path] for name, path in paths.items()}
        self.start = {name: start[path] for name, path in paths.items() if path in start}
        uncalled = {name for name in paths if not self.without[name]} - set(self.start)
        self.without |= dict.fromkeys(uncalled, "it is not called with the values before training")
        sizes = [name for name, map_ in self.final.items() if map_.several]
        self.warnings = [
            f"{name} is called on inputs of several sizes; its spectral norm is for the first" for name in sizes
        ]
        own = parameters(subject.model)
        self.count = sum(world.like[name].numel() for name in set(world.firsts.values()) if name in own)

    def _maps(self, values: State) -> dict[str, Map]:
        with untouched(self.subject.model), torch.no_grad():
            return maps_of(self.subject, values, self.batch)

    def _startless(self, part: Part) -> str:
        world = self.subject.world
        return world.lacking(part, INIT) if world.trajectory.has_start else NO_START

    def norms(self, margins: np.ndarray) -> list[Row]:
        """Rows of all that follows from weights, and of margins."""
        which = set(self.spec.which)
        rows: list[Row] = [
            {"part": WHOLE, "metric": "parameters", "unit": "parameters", "value": self.count, "n": self.count}
        ]
        rows += self._sum("log_pfn", "nats", {name: _log(_size(_wide(map_))) for name, map_ in self.final.items()})
        norms = {name: self._norm(map_.operator) for name, map_ in self.final.items()} if which & SPECTRAL else {}
        log_psn = self._sum("log_psn", "nats", {name: _logs(norm) for name, norm in norms.items()})
        rows += log_psn
        moved = {n: why or _size(_wide(self.final[n]) - _wide(self.start[n])) for n, why in self.without.items()}
        rows += self._sum("distance_squared", f"squared {UNIT}", {n: _squared(each) for n, each in moved.items()})
        rows += self._sum("distance_sum", UNIT, moved)
        if which & {"sosp", "log_sosp"}:
            changes = {name: self._norm(self._change(name)) for name in self.final}
            scaled = {name: e if isinstance(e, str) else _times(e, self.count) for name, e in changes.items()}
            rows += (found := self._sum("sosp", UNIT, scaled))
            rows += _logged(found[-1], "log_sosp")
        rows += _margins(margins, log_psn[-1])
        if "log_spectral_margin" in which:
            rows.append(self._spectral_margin(norms, margins))
        if "log_path_norm" in which:
            rows.append(self._path_norm())
        return rows

    def _change(self, name: str) -> Operator | str:
        """The difference of a module's linear maps at the end and at the start, or why there is none."""
        if why := self.without[name]:
            return why
        final, start = self.final[name].operator, self.start[name].operator
        return final if isinstance(final, str) else start if isinstance(start, str) else change(final, start)

    def _norm(self, operator: Operator | str) -> Bracket | str:
        """The spectral norm, or why there is none."""
        if isinstance(operator, str):
            return operator
        try:
            return spectral(
                operator,
                circular=self.spec.operator == "circular",
                tolerance=self.spec.tolerance,
                seed=self.spec.seed,
            )
        except UseError as problem:
            return str(problem)

    def _sum(self, metric: str, unit: str, shares: Mapping[str, Any]) -> list[Row]:
        """A row a module and the sum of them, of numbers or brackets."""
        of = {"operator": self.spec.operator} if metric in ("log_psn", "sosp") else {}
        rows: list[Row] = []
        for name, share in shares.items():
            row = {"part": name, "metric": metric, "unit": unit, "n": self.final[name].weight.numel(), **of}
            operator = self.final[name].operator
            if of and isinstance(operator, Operator) and is_circular(operator):
                row["operator"] = "itself"
            if isinstance(share, str):
                rows.append(row | {"status": LACKING, "reason": share})
            else:
                rows.append(row | _number(share))
        return [*rows, _total(metric, unit, rows) | of]

    def _spectral_margin(self, norms: Mapping[str, Any], margins: np.ndarray) -> Row:
        row: Row = {"part": WHOLE, "metric": "log_spectral_margin", "unit": "nats", "operator": self.spec.operator}
        gamma = float(np.quantile(margins, QUANTILES["margin_q10"]))
        pairs: list[tuple[float, float]] = []
        for name, norm in norms.items():
            moved = self._change(name)
            if isinstance(norm, str) or isinstance(moved, str):
                return row | {"status": LACKING, "reason": f"{name}: {norm if isinstance(norm, str) else moved}"}
            if not norm.low > 0:
                return row | {"status": LACKING, "reason": f"{name}: {ZERO}"}
            pairs.append((norm.low, two_one(moved, name in self.modules.transposed)))
        if not gamma > 0:
            return row | {
                "status": LACKING,
                "reason": f"the 10 % quantile of training margins is {gamma:.4g}, not above 0",
            }
        complexity = log_spectral_complexity(pairs)
        if complexity == -math.inf:
            reason = "no weight moved" if pairs else NONE
            return row | {"status": LACKING, "reason": reason}
        return row | {"value": complexity - math.log(gamma) - math.log(len(margins)) / 2, "n": len(margins)}

    def _path_norm(self) -> Row:
        row: Row = {"part": WHOLE, "metric": "log_path_norm", "unit": "nats"}
        sample = some(self.batch, torch.zeros(1, dtype=torch.long))
        subject, given = self.subject, self.batch if sample is None else sample
        inputs: list[Tensor] = []
        with_each(
            given, lambda leaf: inputs.append(leaf) if isinstance(leaf, Tensor) and leaf.is_floating_point() else None
        )
        if not inputs:
            return row | {"status": LACKING, "reason": "the inputs are no numbers with a fraction"}
        try:
            with untouched(subject.model), torch.no_grad():
                values = squared(subject.model, subject.inside(subject.unmodified()))
                found = values if isinstance(values, str) else log_path_norm(lambda x: self._constant(values, given, x))
        except UseError:
            raise
        except Exception as problem:
            return row | {"status": FAILED, "reason": reason_of(problem)}
        return row | (
            {"status": LACKING, "reason": found} if isinstance(found, str) else {"value": found, "n": self.count}
        )

    def _constant(self, values: Mapping[str, Tensor], given: Any, x: float) -> Any:
        """The outputs with these values for inputs that are all x."""

        def constant(leaf: Any) -> Any:
            number = isinstance(leaf, Tensor) and leaf.is_floating_point()
            return torch.full_like(leaf, x, dtype=torch.float64) if number else leaf

        inputs = with_each(given, constant)
        copies = {place: value.clone() for place, value in values.items()}
        return self.subject.run_inside(copies, lambda network: self.subject.outputs(network, inputs))


def _critical(critical: Callable[[tuple[float, ...], str], list[Row]], none: str, spec: MeasuresSpec) -> list[Row]:
    """Rows of what rests on criticalities with certain alphas; `none` says why there are none."""
    named, rows = {"pac_bayes", "pac_bayes_joint", "criticality"} & set(spec.which), []
    if none:
        lacking = {"part": WHOLE, "status": LACKING, "reason": none, "split": "train"}
        return [{"metric": name, **lacking} for name in sorted(named)]
    if "pac_bayes" in named:
        rows += _at_trained(critical((1.0,), "pac_bayes"), spec)
    if named & {"criticality", "pac_bayes_joint"}:
        found = critical(spec.alphas, "criticality")
        rows += [*found, *_joint(found, spec)]
    return rows


def _flat(
    asked: _Asked, train: Task, targets: Targets, done: MutableMapping[str, Row], progress: Progress | None
) -> list[Row]:
    """Rows of how flat the training loss is around the trained values."""
    spec = asked.spec
    known = {"flatness_gaussian": (UNIT, flat.gaussian), "flatness_worst": ("share of norm", flat.worst)}
    if not (named := [name for name in known if name in spec.which]):
        return []
    batches = flat.chosen(list(train.data), spec.samples, spec.seed)

    def row(name: str) -> Row:
        unit, work = known[name]
        place: Row = {"part": WHOLE, "metric": name, "unit": unit, "split": "train"}
        try:
            return place | work(asked.subject, batches, targets, spec)
        except UseError:
            raise
        except Exception as problem:
            return place | {"status": FAILED, "reason": reason_of(problem)}

    return runtime.run(named, str, lambda todo: map(row, todo), done, "flatness", progress)


def _at_trained(rows: Sequence[Row], spec: MeasuresSpec) -> list[Row]:
    """Criticalities at alpha = 1 as PAC-Bayes: that alpha is 1 is no edge there."""
    ends = (spec.sigmas[0], spec.sigmas[-1])
    found = [row | {"metric": "pac_bayes"} for row in rows if row["part"] != WHOLE]
    for row in found:
        if row["status"] == "on the edge":
            others = [said for said in row["reason"].split("; ") if said != AT_TRAINED]
            row |= {"status": "on the edge" if row["sigma"] in ends else "ok", "reason": "; ".join(others)}
    total = next(row for row in rows if row["part"] == WHOLE)
    return [*found, total | _total("pac_bayes", "", found)]


def _joint(rows: Sequence[Row], spec: MeasuresSpec) -> list[Row]:
    """D^2 / sigma^2 with the sigma of each module's criticality."""
    found = []
    for row in (row for row in rows if row["part"] != WHOLE):
        value = {"value": (row["distance"] / row["sigma"]) ** 2} if "value" in row else {}
        row = {name: field for name, field in row.items() if name not in ("low", "high")}  # those of the criticality
        if row["status"] == "zero" and value["value"]:  # that of the criticality: alpha is 0, and D is not
            value |= {"status": "ok"}
            if row["sigma"] in (spec.sigmas[0], spec.sigmas[-1]):
                value |= {"status": "on the edge", "reason": f"sigma = {row['sigma']:g} is an end of its grid"}
        found.append(row | {"metric": "pac_bayes_joint"} | value)
    total = next(row for row in rows if row["part"] == WHOLE)
    return [*found, total | _total("pac_bayes_joint", "", found)]


def _plain(row: Mapping[str, Any]) -> Row:
    """A row of a table without what it does not have."""
    import pandas as pd

    return {str(name): value for name, value in row.items() if not pd.isna(value) and value != "" and name != "run"}


def _first(metric: SampleMean, at: int, kept: Sequence[Sequence[Tensor]]) -> Row:
    """The row of a metric of the unmodified network, from what it kept of each batch."""
    return {"part": WHOLE, **metric.compute([(each[at], each[at]) for each in kept])[0]}


def _gap(outcomes: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Test error minus train error: for the network of these training data only the former is an estimate. Where training labels
    have noise, minus that against the labels before it too."""
    row: Row = {"part": WHOLE, "metric": "generalisation_gap", "unit": "fraction"}
    if "test" not in outcomes:
        return [row | {"status": LACKING, "reason": "there are no test data"}]
    test = outcomes["test"][0]
    row |= {"n": test["n"], "interval": "population", "level": test["level"]}

    def less(train: Row) -> Row:
        return {name: test[name] - train["value"] for name in ("value", "low", "high")}

    recovered = [row | less(outcomes[RECOVERED][0]) | {"split": RECOVERED}] if RECOVERED in outcomes else []
    return [row | less(outcomes["train"][0]), *recovered]


def _margins(margins: np.ndarray, product: Row) -> list[Row]:
    """Quantiles of training margins, as they are and divided by the product of spectral norms."""
    rows: list[Row] = []
    common: Row = {"part": WHOLE, "split": "train", "n": len(margins)}
    for name, share in QUANTILES.items():
        value = float(np.quantile(margins, share))
        rows.append(common | {"metric": name, "value": value})
        row = common | {"metric": f"{name}_normalised"}
        if "value" in product:
            rows.append(row | {"value": value * math.exp(-product["value"])})
        else:
            rows.append(row | {"status": product["status"], "reason": product["reason"]})
    return rows


def _wide(map_: Map) -> Tensor:
    """A weight in double precision."""
    return map_.weight.to(torch.complex128 if map_.weight.is_complex() else torch.float64).cpu()


def _size(weight: Tensor) -> float:
    """Of all entries together, each once."""
    return float(torch.linalg.vector_norm(weight))


def _log(norm: float) -> float | str:
    return math.log(norm) if norm > 0 else ZERO


def _logs(norm: Bracket | str) -> Bracket | str:
    if isinstance(norm, str):
        return norm
    return Bracket(math.log(norm.low), math.log(norm.high), norm.risk) if norm.low > 0 else ZERO


def _times(norm: Bracket, factor: float) -> Bracket:
    return Bracket(norm.low * factor, norm.high * factor, norm.risk)


def _squared(share: float | str) -> float | str:
    return share if isinstance(share, str) else share * share


def _number(share: float | Bracket) -> Row:
    if not isinstance(share, Bracket):
        return {"value": share}
    low, high, risk = share
    return {"value": low, "low": low, "high": high, "interval": "numerical", "level": 1 - risk}


def _total(metric: str, unit: str, rows: Sequence[Row]) -> Row:
    """The sum over all modules, if all have a value."""
    row: Row = {"part": WHOLE, "metric": metric, "unit": unit, "n": len(rows), "status": "ok", "reason": ""}
    if not rows:
        return row | {"status": LACKING, "reason": NONE}
    if without := [each for each in rows if "value" not in each]:
        reasons = list(dict.fromkeys(each.get("reason", "") for each in without))
        names = ", ".join(each["part"] for each in without)
        return row | {"status": without[0]["status"], "reason": f"without a value: {names} ({'; '.join(reasons)})"}
    row["value"] = math.fsum(each["value"] for each in rows)
    if edge := [each["part"] for each in rows if each.get("status") == "on the edge"]:
        row |= {"status": "on the edge", "reason": f"on the edge: {', '.join(edge)}"}
    if all(each.get("interval") == "draws" for each in rows):
        row["reason"] = "; ".join(filter(None, [row["reason"], *estimates(rows)]))
    if all(each.get("interval") == "numerical" for each in rows):
        ends = {name: math.fsum(each[name] for each in rows) for name in ("low", "high")}
        row |= ends | {"interval": "numerical", "level": 1 - sum(1 - each["level"] for each in rows)}
    return row


def _logged(total: Row, metric: str) -> list[Row]:
    row = total | {"metric": metric, "unit": "nats"}
    if "value" not in total:
        return [row]
    if not total["value"] > 0:
        bare = {name: value for name, value in row.items() if name not in ("value", "low", "high", "interval", "level")}
        return [bare | {"status": LACKING, "reason": "no weight moved"}]
    return [row | {name: math.log(total[name]) for name in ("value", "low", "high")}]


def _finite(row: Row) -> Row:
    """A number that is none is a status."""
    if "value" not in row or math.isfinite(row["value"]):
        return row
    kept = {name: value for name, value in row.items() if name not in ("value", "low", "high", "interval", "level")}
    return kept | {"status": "not finite", "reason": row.get("reason") or "it overflows, or is not a number"}
