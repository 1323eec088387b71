"""Metrics against scikit-learn, PyTorch and numbers worked out by hand; intervals by their measured coverage."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional

import layerscope as ls
from layerscope import metrics, stats
from layerscope.errors import UseError
from layerscope.metrics import Observation, as_metric, named


def rows(metric, batches, variant=lambda outputs: outputs) -> dict[str, dict]:
    """The rows of a metric over (outputs, targets) batches, where the variant's outputs are a function of the unmodified's."""
    state = metric.init()
    for outputs, targets in batches:
        kept = metric.keep(targets, outputs)
        state = metric.update(state, Observation(targets, variant(outputs), kept))
    return {row["metric"]: row for row in metric.compute(state)}


@pytest.fixture
def classes():
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(300, 7, generator=generator), torch.randint(7, (300,), generator=generator)
    return list(zip(outputs.split(128), targets.split(128), strict=True)), outputs, targets


def test_top_k_against_scikit_learn(classes):
    batches, outputs, targets = classes
    for k in (1, 2, 5):
        found = rows(ls.TopKError(k), batches)[f"top{k}_error"]
        theirs = 1 - sklearn_metrics.top_k_accuracy_score(targets, outputs, k=k)
        assert (found["value"], found["n"]) == (pytest.approx(theirs), 300)
        assert found["low"] < theirs < found["high"]
    assert rows(ls.TopKError(1), batches)["top1_error"]["value"] == rows(ls.ErrorRate(), batches)["error"]["value"]


def test_ties_and_nan_count_against_the_sample_in_top_k():
    outputs = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [math.nan, 1.0, 2.0], [3.0, math.nan, 1.0]])
    targets = torch.tensor([0, 1, 0, 0])
    assert rows(ls.TopKError(2), [(outputs, targets)])["top2_error"]["value"] == 2 / 4
    assert ls.TopKError(2).per_sample(outputs, targets).tolist() == [False, True, True, False]
    assert ls.TopKError(1).per_sample(outputs, targets).tolist() == [True, True, True, True]


def test_a_pixel_at_a_time():
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(6, 3, 4, 5, generator=generator), torch.randint(3, (6, 4, 5), generator=generator)
    wrong = (outputs.argmax(1) != targets).double().mean((1, 2))
    found = rows(ls.ErrorRate(), [(outputs, targets)])["error"]
    assert (found["value"], found["n"]) == (pytest.approx(wrong.mean().item()), 6)
    low, high = stats.mean(wrong.numpy())
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    loss = rows(ls.CrossEntropy(), [(outputs, targets)])["cross_entropy"]
    assert loss["value"] == pytest.approx(functional.cross_entropy(outputs, targets).item())


def test_regression_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    batches = list(zip(outputs.split(20), targets.split(20), strict=True))
    squared, absolute = rows(ls.SquaredError(unit="m^2"), batches), rows(ls.AbsoluteError(), batches)
    assert squared["squared_error"]["value"] == pytest.approx(sklearn_metrics.mean_squared_error(targets, outputs))
    assert absolute["absolute_error"]["value"] == pytest.approx(sklearn_metrics.mean_absolute_error(targets, outputs))
    assert squared["squared_error"]["unit"] == "m^2"
    doubled = rows(ls.SquaredError(), batches, lambda outputs: 2 * outputs)["squared_error_delta"]
    change = ((2 * outputs - targets) ** 2 - (outputs - targets) ** 2).mean().item()
    assert doubled["value"] == pytest.approx(change)


def tokens(n: int = 40, length: int = 9, vocabulary: int = 11):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(n, length, vocabulary, generator=generator)
    targets = torch.randint(vocabulary, (n, length), generator=generator)
    targets[torch.rand(n, length, generator=generator) < 0.3] = -100
    return outputs, targets


@pytest.mark.parametrize("next_token", [True, False])
def test_tokens_against_pytorch(next_token):
    outputs, targets = tokens()
    batches = list(zip(outputs.split(16), targets.split(16), strict=True))
    a, b = (outputs[:, :-1], targets[:, 1:]) if next_token else (outputs, targets)
    loss = functional.cross_entropy(a.reshape(-1, 11), b.reshape(-1), ignore_index=-100).item()
    wrong = (a.argmax(2) != b)[b != -100].double().mean().item()
    same = "" if next_token else "_same_place"
    assert rows(ls.TokenCrossEntropy(next_token), batches)[f"token_cross_entropy{same}"]["value"] == pytest.approx(loss)
    assert rows(ls.Perplexity(next_token), batches)[f"perplexity{same}"]["value"] == pytest.approx(math.exp(loss))
    found = rows(ls.TokenError(next_token), batches)[f"token_error{same}"]
    assert (found["value"], found["n"]) == (pytest.approx(wrong), 40)


def test_the_interval_of_tokens_takes_sequences_as_units():
    """A jackknife over sequences shares no formula with the delta method, and agrees with it."""
    outputs, targets = tokens(200)
    found = rows(ls.TokenCrossEntropy(), [(outputs, targets)], lambda outputs: 1.5 * outputs)
    b = targets[:, 1:]

    def mean(which: torch.Tensor, factor: float) -> float:
        return functional.cross_entropy(factor * outputs[which, :-1].flatten(0, 1), b[which].flatten()).item()

    every = torch.arange(200)
    left_out = [every[every != i] for i in range(200)]
    for name, statistic in (
        ("token_cross_entropy", lambda which: mean(which, 1.5)),
        ("token_cross_entropy_delta", lambda which: mean(which, 1.5) - mean(which, 1.0)),
    ):
        jack = np.array([statistic(which) for which in left_out])
        half = 1.972 * math.sqrt(199 / 200 * ((jack - jack.mean()) ** 2).sum())
        row = found[name]
        assert row["value"] == pytest.approx(statistic(every), rel=1e-5)
        assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.03)


def test_coverage_for_sequences_of_different_length_and_difficulty():
    """95 % intervals of perplexity and of its change cover the population's value in 93.5 to 96.5 % of 2,000 samples of 200
    sequences, whose tokens are far from independent: each sequence has a difficulty of its own."""
    random = np.random.default_rng(0)

    def population(n: int):
        counts = random.integers(3, 40, n)
        difficulty = random.gamma(4, 0.5, n)
        noise = random.normal(size=n)
        return difficulty * counts, (1.2 * difficulty + 0.1 * noise) * counts, counts.astype(float)

    before, after, counts = population(2_000_000)
    truth = math.exp(after.sum() / counts.sum())
    change = truth - math.exp(before.sum() / counts.sum())
    metric, hits = ls.Perplexity(), np.zeros(2)
    for _ in range(2000):
        before, after, counts = (torch.from_numpy(np.asarray(column)) for column in population(200))
        level, delta = metric.compute([((after, counts), (before, counts))])
        hits += [level["low"] <= truth <= level["high"], delta["low"] <= change <= delta["high"]]
    assert (hits / 2000 > 0.935).all(), hits / 2000
    assert (hits / 2000 < 0.965).all(), hits / 2000


def test_disagreement_counts_changed_decisions_right_or_wrong(classes):
    batches, outputs, _ = classes
    assert rows(ls.Disagreement(), batches)["disagreement"]["value"] == 0
    found = rows(ls.Disagreement(), batches, lambda outputs: -outputs)["disagreement"]
    assert found["value"] == (outputs.argmax(1) != (-outputs).argmax(1)).double().mean().item()
    assert rows(ls.Disagreement(), batches)["disagreement_delta"]["value"] == 0  # the change is itself
    broken = rows(ls.Disagreement(), batches, lambda outputs: outputs.masked_fill(outputs > 2, math.nan))
    assert broken["disagreement"]["value"] == (outputs > 2).any(1).double().mean().item()
    more, _ = tokens()
    assert rows(ls.Disagreement(axis=-1), [(more, None)])["disagreement"]["n"] == 40
    with pytest.raises(UseError, match=r"for more axes say which has the classes, as in Disagreement\(axis=-1\)"):
        rows(ls.Disagreement(), [(more, None)])


def test_chance():
    outputs, targets = torch.randn(4, 10), torch.zeros(4, dtype=torch.long)
    expected = {"error": 0.9, "top5_error": 0.5, "cross_entropy": math.log(10), "disagreement": 0.9}
    for name, value in expected.items():
        assert named(name).chance(targets, outputs) == pytest.approx(value)
    outputs, targets = tokens()
    expected = {"token_error": 10 / 11, "token_cross_entropy": math.log(11), "perplexity": 11}
    for name, value in expected.items():
        assert named(name).chance(targets, outputs) == pytest.approx(value)
    assert named("squared_error").chance(targets, outputs) is None


def margin(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.gather(1, targets[:, None]).squeeze(1)


def test_a_function_is_a_metric_under_its_own_name(classes):
    batches, outputs, targets = classes
    found = rows(as_metric(margin), batches)
    assert found["margin"]["value"] == pytest.approx(margin(outputs, targets).mean().item())
    assert found["margin_delta"]["value"] == 0
    mine = ls.Function("own", lambda outputs, targets: margin(outputs, targets) > 0, unit="fraction", better="higher")
    assert (mine.better, rows(mine, batches)["own"]["unit"]) == ("higher", "fraction")


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "message"),
    [
        ("error", torch.randn(3, 4), torch.tensor([0, 4, 1]), r"label 4 \(at \[1\].*not one of 0 to 3"),
        ("cross_entropy", torch.randn(3, 4), torch.tensor([0, -1, 1]), r"label -1 \(at \[1\]"),
        ("error", torch.randn(3, 4), torch.zeros(3, 1).long(), r"outputs are \[3, 4\] and targets \[3, 1\]"),
        ("error", torch.randn(3, 4), torch.zeros(3, 4), r"class numbers \(integers\), not torch.float32"),
        ("error", torch.randn(3), torch.zeros(3).long(), r"outputs are \[3\]"),
        ("error", (torch.randn(3), 1), torch.zeros(3).long(), "outputs that are a tensor, not tuple; say.*forward="),
        ("error", torch.randn(3, 4), None, "targets that are a tensor, not none; say what they are with targets="),
        ("top5_error", torch.randn(3, 4), torch.zeros(3).long(), "top5_error of 4 classes is always 0"),
        ("squared_error", torch.randn(3, 1), torch.randn(3), "of one shape.*would be broadcast"),
        ("token_error", torch.randn(3, 4), torch.zeros(3).long(), r"needs outputs \[n, tokens, vocabulary\]"),
        ("token_error", torch.randn(2, 3, 4), torch.tensor([[1, 2, 4], [0, 0, 0]]), r"label 4 \(at \[0, 2\]"),
        ("perplexity", torch.randn(2, 3, 4), torch.full((2, 3), -100), "no token counts"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(metric, outputs, targets, message):
    with pytest.raises(UseError, match=message):
        rows(named(metric), [(outputs, targets)])


def test_a_metric_that_gives_the_wrong_shape_is_refused(classes):
    batches, *_ = classes
    wrong = {r"shape \[128, 7\]": lambda o, t: o, r"shape \[\]": lambda o, t: o.mean(), "a float": lambda o, t: 1.0}
    for got, function in wrong.items():
        with pytest.raises(
            UseError, match=rf"must give one number a sample, a tensor of shape \[128\], but gave {got}"
        ):
            rows(ls.Function("mine", function), batches)
    with pytest.raises(UseError, match=r"ErrorRate is a class; write ErrorRate\(\)"):
        as_metric(ls.ErrorRate)
    with pytest.raises(UseError, match="neither a metric nor a function"):
        as_metric(3)


def test_names():
    assert named("top3_error").k == 3
    assert named("token_error:same_place").next_token is False
    with pytest.raises(UseError, match="unknown metric 'eror'; did you mean error"):
        named("eror")
    with pytest.raises(UseError, match="only metrics of tokens have an option"):
        named("error:same_place")
    assert named("tests.test_metrics:margin").name == "margin"


def test_half_precision_does_not_overflow_in_the_loss():
    outputs = torch.tensor([[60000.0, -60000.0]], dtype=torch.float16)
    found = rows(ls.CrossEntropy(), [(outputs, torch.tensor([1]))])["cross_entropy"]
    assert found["value"] == pytest.approx(120000, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type(dtype):
    outputs, targets = torch.randn(9, 4), torch.arange(9) % 4
    for name in ("error", "top2_error", "cross_entropy"):
        assert rows(named(name), [(outputs, targets.to(dtype))]) == rows(named(name), [(outputs, targets)])


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(UseError, match="two metrics are called 'error'"):
        metrics.as_metrics([ls.ErrorRate(), ls.ErrorRate(0.9)])
    with pytest.raises(UseError, match="at least one"):
        metrics.as_metrics([])
    assert len(metrics.as_metrics([named("token_error"), named("token_error:same_place")])) == 2


def test_a_metric_of_tuple_outputs_or_with_the_batch_on_the_second_axis():
    start, end = torch.randn(6, 9), torch.randn(6, 9)
    span = ls.Function("span", lambda outputs, targets: (outputs[0].argmax(1) - targets).abs())
    assert rows(span, [((start, end), torch.zeros(6).long())])["span"]["n"] == 6
    second = ls.Function("second", lambda outputs, targets: outputs.mean((0, 2)))
    assert rows(second, [(torch.randn(5, 6, 3), torch.zeros(6))])["second"]["n"] == 6
