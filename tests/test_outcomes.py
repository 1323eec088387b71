"""Right or wrong, of each change and each sample: against networks worked out by hand, and against the map's own numbers."""

from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import layerscope as ls
from layerscope.analyses.robustness import subject_of
from layerscope.analyses.session import analyze
from layerscope.engine.batches import outputs_of
from layerscope.engine.outcomes import outcomes
from layerscope.engine.replay import evaluate as replay_engine
from layerscope.engine.task import Task
from layerscope.errors import UseError

from .networks import signs


def case(metric: ls.Metric):
    """Both factors of the network of signs put back to their start, alone and together."""
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    parts = ls.Partition.by_layer(model)
    a, b = (ls.Variant.of(parts[name], ls.Rewind(ls.INIT)) for name in "ab")
    subject = subject_of(model, trajectory, None, 0, outputs_of, None)
    return subject, [a, b, ls.Variant((*a.edits, *b.edits))], Task(data, [metric])


def test_by_hand():
    found, unmodified = outcomes(*case(ls.ErrorRate()))
    only, others = [False, False, False, False, True], [True, True, True, True, False]
    assert found.dtype == unmodified.dtype == bool
    assert unmodified.tolist() == only
    assert found.tolist() == [others, only, others]


def test_numbers_a_sample():
    found, unmodified = outcomes(*case(ls.CrossEntropy()))
    margins = np.array([1, 2, 3, 4, -5.0])
    assert unmodified == pytest.approx(np.log1p(np.exp(-2 * margins)), abs=1e-6)
    assert found[1] == pytest.approx(np.log1p(np.exp(-4 * margins)), abs=1e-6)


def test_both_engines():
    subject, variants, task = case(ls.CrossEntropy())
    whole, shared = (
        outcomes(subject, variants, task),
        outcomes(subject, variants, task, partial(replay_engine, memory=9999)),
    )
    assert all((a == b).all() for a, b in zip(whole, shared, strict=True))


def test_no_changes():
    subject, _, task = case(ls.ErrorRate())
    found, unmodified = outcomes(subject, [], task)
    assert (found.shape, unmodified.shape) == ((0, 5), (5,))


def test_a_metric_that_says_nothing_of_single_samples():
    with pytest.raises(UseError, match="perplexity is no mean over samples"):
        outcomes(*case(ls.Perplexity()))


def test_a_change_that_fails_has_none():
    subject, variants, task = case(ls.Function("odd", odd))
    with pytest.raises(UseError, match=f"variant {variants[0].id} failed, so it has no outcomes: ValueError: negative"):
        outcomes(subject, variants, task)


def odd(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    if outputs[0, 0] < 0 and len(outputs) == 2 and outputs[1, 0] < outputs[0, 0]:
        raise ValueError("negative")
    return outputs[:, 0]


def test_of_a_run(tmp_path, monkeypatch):
    """The script's outcomes have the map's errors as their means."""
    run = ls.train(ls.TrainSpec(model="fcn-1x8", data="digits", epochs=1), tmp_path / "run")
    table = analyze(run, ls.RobustnessSpec(draws=1, train=False))
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    import_module("benchmarks.outcomes").main(run.path, tmp_path / "map.npz")
    rows = table.where(metric="error")
    rows = rows[rows["variant"].isin(list(table.variants))]
    with np.load(tmp_path / "map.npz") as kept:
        assert kept["reference"].mean() == pytest.approx(rows[rows["perturbation"] == "none"]["value"].item())
        changed = rows[rows["perturbation"] != "none"]
        assert len(kept["cells"]) == len(changed) == 8
        assert sorted(kept["outcomes"].mean(1)) == pytest.approx(sorted(changed["value"]))
        at = kept["cells"].tolist().index("rewind layer1 0")
        put_back = changed[(changed["part"] == "layer1") & (changed["step"] == 0)]
        assert kept["outcomes"][at].mean() == pytest.approx(put_back["value"].item())
        assert kept["chance"] == table.provenance["chance"] == 0.9
