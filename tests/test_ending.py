"""When a training ends: rules on plain numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerscope as ls
from layerscope.errors import UseError
from layerscope.training.ending import Epoch, Past, ending

LOSSES = st.lists(st.floats(0.01, 3), min_size=1, max_size=30)


def ends(spec, values, of="train_loss"):
    """How a training with these numbers, an epoch each, ends: told only what was known after each epoch."""
    past = Past()
    for value in values:
        past.add(Epoch(value) if of == "train_loss" else Epoch(1.0, value))
        if (end := ending(spec, past)) is not None:
            return len(past), end
    return len(past), None


def test_all_epochs():
    assert ends(ls.TrainSpec(epochs=3), [1.0, 0.5])[1] is None
    stopped, end = ends(ls.TrainSpec(epochs=3), [1.0, 0.5, 0.4])
    assert (stopped, end.epoch, end.reached, end.diverged) == (3, 3, True, False)


@given(LOSSES)
def test_loss(losses):
    spec = ls.TrainSpec(epochs=len(losses), until="loss", target_loss=0.5)
    stopped, end = ends(spec, losses)
    below = [epoch for epoch, loss in enumerate(losses, start=1) if loss < 0.5]
    assert (stopped, end.epoch) == ((below or [len(losses)])[0],) * 2
    assert end.reached == bool(below)
    assert ("fell below 0.5" in end.reason) == bool(below)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 5))
def test_validation(errors, patience):
    spec = ls.TrainSpec(epochs=len(errors), until="validation", patience=patience)
    stopped, end = ends(spec, [error / 20 for error in errors], "validation_error")
    seen = errors[:stopped]
    assert end.epoch == seen.index(min(seen)) + 1
    assert stopped == len(errors) or stopped - end.epoch == patience
    for earlier in range(1, stopped):
        assert earlier - (errors[:earlier].index(min(errors[:earlier])) + 1) < patience


@given(LOSSES, st.integers(1, 5))
def test_convergence(losses, patience):
    spec = ls.TrainSpec(epochs=len(losses), until="convergence", patience=patience, tolerance=0.1)
    stopped, end = ends(spec, losses)
    flat = [
        epoch
        for epoch in range(patience + 1, len(losses) + 1)
        if min(losses[:epoch]) >= 0.9 * min(losses[: epoch - patience])
    ]
    assert stopped == end.epoch == (flat or [len(losses)])[0]
    assert end.reached == bool(flat)


@pytest.mark.parametrize(("until", "kept"), [("epochs", 2), ("validation", 1)])
def test_divergence_ends_with_the_network_before(until, kept):
    spec = ls.TrainSpec(epochs=9, until=until)
    end = ending(spec, Past([Epoch(1.0, 0.2), Epoch(0.9, 0.3), Epoch(math.nan, diverged="nan")]))
    assert (end.epoch, end.reached, end.diverged) == (kept, False, True)
    assert "diverged in epoch 3: nan" in end.reason
    assert end.trained == 2
    assert ending(spec, Past([Epoch(math.nan, diverged="nan")])).epoch == 0


def test_the_first_of_equal_epochs_is_the_best():
    assert Past([Epoch(1, 0.3), Epoch(1, 0.2), Epoch(1, 0.2)]).best == 2
    assert Past().best == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"until": "loss"}, "until=loss and target_loss belong together"),
        ({"target_loss": 0.1}, "until=loss and target_loss belong together"),
        ({"until": "loss", "target_loss": -1.0}, "target_loss must be above 0"),
        ({"until": "best"}, "unknown until 'best'"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean sgd"),
        ({"schedule": "cosinus"}, "did you mean cosine"),
        ({"augment": "pad-crop-flp"}, "did you mean pad-crop-flip"),
        ({"precision": "float16"}, "did you mean"),
        ({"every": 0}, "every is a number of epochs, from 1"),
        ({"every": 3, "schedule": "cosine"}, "every belongs to schedule=step; with cosine it means nothing"),
        ({"every": 3, "milestones": (0.5,)}, "every and milestones both"),
        ({"milestones": (0.5,), "schedule": "constant"}, "milestones belongs to schedule=step"),
        ({"decay": 0.5, "schedule": "cosine"}, "decay belongs to schedule=step or exponential"),
        ({"smoothing": 0.9}, "smoothing belongs to optimizer=adam or rmsprop; with sgd it means nothing"),
        ({"patience": 3}, "patience belongs to until=validation or convergence"),
        ({"tolerance": 0.5, "until": "validation"}, "tolerance belongs to until=convergence"),
        ({"freeze_by": "block"}, "freeze_by says how the Parts of freeze are named"),
        ({"patience": 0, "until": "validation"}, "patience must be above 0"),
        ({"lr": math.inf}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be above 0"),
    ],
)
def test_what_cannot_be_asked(fields, message):
    with pytest.raises(UseError, match=message):
        ls.TrainSpec(**fields)
