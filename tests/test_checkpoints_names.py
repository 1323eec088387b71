"""Which moment of training a checkpoint is of, by its name: a table of what training loops write, and what is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerscope as ls
from layerscope.checkpoints.names import steps_of
from layerscope.errors import UseError
from layerscope.step import parsed

ITS, EPS, CPS = "iteration", "epoch", "checkpoint"


@pytest.mark.parametrize(
    ("stems", "numbers", "unit"),
    [
        (["epoch-00000", "epoch-00012"], [0, 12], EPS),
        (["epoch=3-step=500", "epoch=4-step=1000"], [500, 1000], ITS),
        (["epoch=3-step=500-val_loss=0.25", "epoch=4-step=1000-val_loss=0.19"], [500, 1000], ITS),
        (["epoch=3-val_loss=0.25", "epoch=9-val_loss=0.19"], [3, 9], EPS),
        (["step_1000", "step_20"], [1000, 20], ITS),
        (["step1000", "step0", "step143000"], [1000, 0, 143000], ITS),
        (["stage1-step101000-tokens424B", "stage1-step175000-tokens735B"], [101000, 175000], ITS),
        (["resnet18_epoch_1", "resnet18_epoch_30"], [1, 30], EPS),
        (["Model_Ep1", "Model_Ep2"], [1, 2], EPS),
        (["net-e7", "net-e8"], [7, 8], EPS),
        (["vgg16.iter-0400", "vgg16.iter-0500"], [400, 500], ITS),
        (["global_step5", "global_step10"], [5, 10], ITS),
        (["model_0004999", "model_0009999"], [4999, 9999], CPS),
        (["model_12", "model_3"], [12, 3], CPS),
        (
            ["checkpoint-12", "checkpoint-3"],
            [12, 3],
            CPS,
        ),  # files so named are of epochs in some code, of iterations in other
        (["7", "10"], [7, 10], CPS),
        (["ckpt_0"], [0], CPS),
        (["v2_epoch_4"], [4], EPS),
    ],
)
def test_names_of_training_loops(stems, numbers, unit):
    steps, found = steps_of({f"x/{stem}.pt": stem for stem in stems})
    assert found == unit
    assert [steps[f"x/{stem}.pt"] for stem in stems] == [ls.Step.of(number, unit) for number in numbers]


def test_a_folder_of_hugging_face_counts_iterations():
    names = {name: name for name in ("checkpoint-500", "checkpoint-1000")}
    steps, unit = steps_of(names, folders=set(names))
    assert (unit, steps) == (ITS, {"checkpoint-500": ls.Step(0, 500), "checkpoint-1000": ls.Step(0, 1000)})


@pytest.mark.parametrize(
    ("stem", "step"),
    [
        ("init", ls.INIT),
        ("model_init", ls.INIT),
        ("initial", ls.INIT),
        ("final", ls.FINAL),
        ("model_final", ls.FINAL),
        ("last", ls.FINAL),
    ],
)
def test_the_start_and_the_end_may_be_words(stem, step):
    steps, unit = steps_of({stem: stem, "model_7": "model_7"})
    assert (steps, unit) == ({stem: step, "model_7": ls.Step(7)}, CPS)
    assert steps_of({stem: stem}) == ({stem: step}, "")


def test_names_of_layerscope_may_lie_within_epochs():
    names = ["epoch-00000", "epoch-00000-it-000300", "epoch-00002-it-000100"]
    steps, unit = steps_of({name: name for name in names})
    assert (unit, list(steps.values())) == (EPS, [ls.Step(0), ls.Step(0, 300), ls.Step(2, 100)])
    assert steps_of({name: name for name in names[:2]})[1] == ITS  # counted in iterations, as all are of one epoch


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["best", "model_1"], "best is not named after a step, the best by some measure is no moment: write STEP=FILE"),
        (["weights", "model_1"], "weights is not named after a step, it has no number: write STEP=FILE"),
        (["epoch_1", "step_500"], "epoch_1 and step_500 are not of one series"),
        (["epoch_1", "epoch_1-v1"], "epoch_1 and epoch_1-v1 are not of one series"),
        (["a1_b2", "a2_b3"], "it cannot be said which number in the name of a1_b2 is its step"),
        (["m_20240501123045123456"], "the number 20240501123045123456 in the name of m_20240501123045123456 is too large"),
        (["lr3_seed4"], "it cannot be said which number in the name of lr3_seed4 is its step"),
        (["epoch=0-step=100", "epoch=1-step=50"], "epoch=1-step=50 is of a later epoch than epoch=0-step=100 but of an earlier"),
    ],
)  # fmt: skip
def test_names_that_say_no_moment(stems, message):
    with pytest.raises(UseError, match=re.escape(message)):
        steps_of({stem: stem for stem in stems})


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=8, unique=True),
    st.sampled_from(["step", "epoch=", "iter-", "model_", "a_9_b"]),
    st.sampled_from(["", "_v2", "-loss=0.5"]),
    st.integers(0, 12),
)
def test_the_number_that_differs_is_the_step_however_it_is_written(numbers, before, after, zeros):
    """Padding, the order of names, and what stands around the number make no difference."""
    names = {f"{before}{number:0{zeros}d}{after}": number for number in numbers}
    steps, unit = steps_of({name: name for name in names})
    assert {name: step.number(unit) for name, step in steps.items()} == names


@given(st.integers(0, 10**9), st.sampled_from([EPS, ITS, CPS]))
def test_a_step_is_a_number_of_a_unit(number, unit):
    assert ls.Step.of(number, unit).number(unit) == number
    assert parsed(f"{unit}-{number}") == (ls.Step.of(number, unit), unit)
    assert ls.Step.parse(f"step-{number}") == ls.Step(0, number)


def test_a_number_that_is_no_moment():
    with pytest.raises(UseError, match="that of a seed, no moment"):
        steps_of({name: name for name in ("fcn_seed1", "fcn_seed3")})
    assert steps_of({name: name for name in ("lr1e-3_500", "lr1e-3_900")})[1] == "checkpoint"
    assert steps_of({"e3": "e3", "e4": "e4"})[1] == "epoch"
