"""How much noise all parameters of a network bear at once, and how near values with a larger loss are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerscope import rng
from layerscope.analyses.spec import MeasuresSpec
from layerscope.engine.batches import Targets, moved, samples_in
from layerscope.engine.precision import some
from layerscope.engine.subject import Subject
from layerscope.engine.untouched import untouched
from layerscope.measures.flatness import between, climbs
from layerscope.metrics import CrossEntropy, ErrorRate
from layerscope.partition import whole
from layerscope.perturb import Noise, Variant
from layerscope.state import State
from layerscope.stats import mean

Row = dict[str, Any]
SIGMAS = 1e-5, 10.0
RADII = 1e-4, 1.0
"""Where it is looked for sigma, and for the radius as a share of each tensor's norm."""


def chosen(batches: Sequence[Any], samples: int, seed: int) -> list[Any]:
    """So many samples at random, in the batches that they come in. A batch of which samples cannot be taken is whole."""
    sizes = [samples_in(batch) for batch in batches]
    order = torch.randperm(sum(sizes), generator=rng.generator(seed, "samples of flatness"))
    drawn = torch.zeros(sum(sizes), dtype=torch.bool)
    drawn[order[:samples]] = True
    rows = [share.nonzero()[:, 0] for share in drawn.split(sizes)]
    taken = [(batch, some(batch, mine)) for batch, mine in zip(batches, rows, strict=True) if len(mine)]
    return [batch if part is None else part for batch, part in taken]


def gaussian(subject: Subject, batches: Sequence[Any], targets: Targets, spec: MeasuresSpec) -> Row:
    """The largest sigma up to which the expected error on these samples, with noise N(0, sigma^2) on each parameter, is at most
    `rise` above the trained network's: by bisection, as if the error grew with sigma. Between `low` and `high` if the mean over
    draws is taken at the ends of its interval."""
    noisy, metric = whole(subject.model), ErrorRate()
    if reason := Noise(0.0).refused(noisy, subject.world):
        return {"status": "not applicable", "reason": reason}
    errors: dict[float, np.ndarray] = {}
    with untouched(subject.model), torch.no_grad():
        allowed = _error(subject, subject.unmodified(), batches, targets, metric) + spec.rise
    if allowed >= 1:
        return {
            "status": "not applicable",
            "reason": f"an error of {allowed:.4g} is no limit: no noise makes a larger one",
        }

    def at(sigma: float) -> np.ndarray:
        if sigma not in errors:
            variants = [Variant.of(noisy, Noise(sigma), draw, buffers="keep") for draw in range(spec.draws)]
            found = [_error(subject, subject.values(one), batches, targets, metric) for one in variants]
            errors[sigma] = np.asarray(found)
        return errors[sigma]

    def ends(sigma: float) -> tuple[float, float]:
        bounds = mean(at(sigma), spec.level)
        return bounds.low, bounds.high

    with untouched(subject.model), torch.no_grad():
        value, above = between(lambda sigma: float(at(sigma).mean()) <= allowed, *SIGMAS)
        row: Row = {"value": value, "n": spec.draws, "passes": 0}
        if value:
            row["error"] = float(at(value).mean())
        if value and spec.draws > 1:
            low = between(lambda sigma: ends(sigma)[1] <= allowed, *SIGMAS)[0]
            high = between(lambda sigma: ends(sigma)[0] <= allowed, *SIGMAS)[0]
            row |= {"low": low, "high": high, "interval": "draws", "level": spec.level}
    row["passes"] = spec.draws * len(errors) * sum(map(samples_in, batches))
    return _edge(row, above, "sigma", SIGMAS)


def worst(subject: Subject, batches: Sequence[Any], targets: Targets, spec: MeasuresSpec) -> Row:
    """The smallest radius, as a share of each parameter tensor's 2-norm, within which gradient ascent found values whose
    cross-entropy on these samples is `climb` nats above the trained network's. There may be nearer ones that it did not find, so
    that the network is at least as sharp as this."""
    inside = subject.inside(subject.unmodified())
    names = {id(inside[place]): place for place in reversed(list(inside)) if _climbable(subject.model, place, inside)}
    centre = {place: inside[place].detach() for place in names.values()}
    passes = 0

    def slope(values: State) -> tuple[float, Mapping[str, Tensor]]:
        nonlocal passes
        mine = {place: value.detach().clone().requires_grad_() for place, value in values.items()}
        moved_in = {place: mine[names[id(own)]] if id(own) in names else own.clone() for place, own in inside.items()}

        def work(network: nn.Module) -> tuple[float, dict[str, Tensor]]:
            total, sums = 0.0, {place: torch.zeros_like(value) for place, value in centre.items()}
            count = 0
            for batch in batches:
                outputs, right = subject.outputs(network, batch), moved(targets(batch), subject.device)
                loss = CrossEntropy().per_sample(outputs, right).sum()
                found = torch.autograd.grad(loss, list(mine.values()), allow_unused=True)
                total, count = total + float(loss.detach()), count + samples_in(batch)
                for place, gradient in zip(mine, found, strict=True):
                    if gradient is not None:
                        sums[place] += gradient
            return total / count, {place: each / count for place, each in sums.items()}

        passes += sum(map(samples_in, batches))
        return subject.run_inside(moved_in, work)

    with untouched(subject.model), torch.enable_grad():
        enough = slope(centre)[0] + spec.climb
        kept, value = between(lambda radius: not climbs(centre, slope, radius, spec.ascent, enough), *RADII)
    n = sum(map(samples_in, batches))
    return _edge({"value": value if math.isfinite(value) else kept, "n": n, "passes": passes}, value, "radius", RADII)


def _climbable(model: nn.Module, place: str, inside: State) -> bool:
    path, _, name = place.rpartition(".")
    return name in model.get_submodule(path)._parameters and inside[place].is_floating_point()


def _error(subject: Subject, values: State, batches: Sequence[Any], targets: Targets, metric: ErrorRate) -> float:
    """The error on these samples with these values."""

    def work(network: nn.Module) -> list[Tensor]:
        pairs = ((moved(targets(batch), subject.device), subject.outputs(network, batch)) for batch in batches)
        return [metric.keep(right, outputs) for right, outputs in pairs]

    return float(torch.cat(subject.run(values, work)).double().mean())


def _edge(row: Row, above: float, what: str, region: tuple[float, float]) -> Row:
    """Whether what was looked for is where it was looked for."""
    if row["value"] == 0 or above == region[0]:
        less = {key: row[key] for key in ("passes", "n")}
        return less | {"status": "infeasible", "reason": f"{what} is below {region[0]:g}, the smallest that was asked"}
    if not math.isfinite(above):
        return row | {
            "status": "on the edge",
            "reason": f"{what} is at least {region[1]:g}, the largest that was asked",
        }
    return row | {"status": "ok"}
