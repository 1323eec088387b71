"""Singular values of layers as linear maps: against their matrices, made column by column, and NumPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.measures.circular import _above, _Gram, is_circular, largest_circular, singular_values
from layerscope.measures.lanczos import largest
from layerscope.measures.operator import Operator, dense, frobenius
from layerscope.measures.spectrum import operator_norms, operator_spectrum

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
"""PyTorch says so once a process: to hypothesis an error that does not come again."""

KINDS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


def matrix(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """What PyTorch's module does to each basis vector, less its bias."""
    n = math.prod(shape)
    with torch.no_grad():
        columns = module(torch.eye(n, dtype=torch.float64).reshape(n, *shape)) - module(
            torch.zeros(1, *shape, dtype=torch.float64)
        )
    return columns.reshape(n, -1).T.numpy()


def circular_matrix(weight: Tensor, size: tuple[int, ...], stride: int, dilation: int, groups: int) -> np.ndarray:
    """By the formula: y[q] = sum_t weight[t] x[(stride q + dilation t) mod size]."""
    outputs, each, *kernel = weight.shape
    places = [n // stride for n in size]
    found = np.zeros((outputs, *places, each * groups, *size))
    for q, t in itertools.product(itertools.product(*map(range, places)), itertools.product(*map(range, kernel))):
        at = tuple((stride * a + dilation * b) % n for a, b, n in zip(q, t, size, strict=True))
        for out, of in itertools.product(range(outputs), range(each)):
            group = out // (outputs // groups)
            found[(out, *q, group * each + of, *at)] += float(weight[(out, of, *t)])
    return found.reshape(outputs * math.prod(places), -1)


def values_of(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrix, compute_uv=False)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution of any kind with the size of its inputs."""
    axes, groups, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    size = tuple(draw(st.integers(3, 6)) for _ in range(axes))
    transposed, dilation = draw(st.booleans()), draw(st.integers(1, 2))
    some = {"stride": stride, "dilation": dilation, "groups": groups, "dtype": torch.float64}
    if transposed:
        some |= {"padding": draw(st.integers(0, 1)), "output_padding": draw(st.integers(0, min(1, stride - 1)))}
    else:
        some["padding"] = draw(st.sampled_from([0, 1, 2, "valid", *(["same"] if stride == 1 else [])]))
        some["padding_mode"] = draw(st.sampled_from(["zeros", "circular"]))
    torch.manual_seed(draw(st.integers(0, 1000)))
    channels = [groups * draw(st.integers(1, 2)) for _ in range(2)]
    return KINDS[axes][transposed](*channels, kernel, **some), size


def fitting(module: nn.Module, size: tuple[int, ...]) -> Operator:
    try:
        return Operator.of(module, size)
    except UseError:
        assume(False)
        raise


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_an_operator_is_what_the_module_does(given):
    module, size = given
    operator = fitting(module, size)
    expected = matrix(module, (module.in_channels, *size))
    found = dense(operator).numpy()
    transposed = isinstance(module, tuple(both[1] for both in KINDS.values()))
    np.testing.assert_allclose(found.T if transposed else found, expected, atol=1e-14)
    y = torch.randn(1, *operator.outputs, dtype=torch.float64)
    np.testing.assert_allclose(operator.adjoint(y).flatten(), found.T @ y.flatten().numpy(), atol=1e-12)
    if not (operator.mode == "circular" and any(r >= n for r, n in zip(operator.reach, size, strict=True))):
        assert frobenius(operator) == pytest.approx(np.linalg.norm(expected))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_the_largest_value_is_between_its_bounds(given):
    module, size = given
    operator = fitting(module, size)
    true = values_of(matrix(module, (module.in_channels, *size)))[0]
    low, high, risk = largest(operator)
    assert low <= true * (1 + 1e-9)
    assert true <= high * (1 + 1e-9)
    assert high <= 1.001 * low
    assert risk == 1e-6


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    data=st.data(),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    groups=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_circular_values_are_those_of_the_matrix(places, data, stride, dilation, groups, seed):
    """Also where the kernel goes round its input more than once."""
    assume(math.prod(places) * stride ** len(places) <= 100)
    size = tuple(stride * m for m in places)
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in places)
    outputs, each = data.draw(st.integers(1, 2)) * groups, data.draw(st.integers(1, 3))
    weight = torch.randn(outputs, each, *kernel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = len(size)
    reach = [dilation * (k - 1) for k in kernel]
    operator = Operator(weight, size, (stride,) * axes, (dilation,) * axes, tuple((0, r) for r in reach), groups)
    expected = values_of(circular_matrix(weight, size, stride, dilation, groups))
    found = singular_values(operator).numpy()
    np.testing.assert_allclose(np.sort(expected)[::-1][: len(found)], found, atol=1e-6 * expected[0])
    assert len(found) == math.prod(places) * groups * min(outputs // groups, each * stride**axes)
    np.testing.assert_allclose(expected[len(found) :], 0, atol=1e-12)
    low, high, risk = largest_circular(operator)
    assert low * (1 - 1e-12) <= expected[0] <= high
    assert (high / low, risk) == (pytest.approx(1.001), 0)


@st.composite
def circular_convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """Windows that go round in circles, or patches that do not overlap, so that none crosses the border."""
    axes, groups, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    size = tuple(stride * draw(st.integers(-(-3 // stride), 4)) for _ in range(axes))
    some = {"stride": stride, "groups": groups, "dtype": torch.float64}
    if draw(st.booleans()):
        kernel = tuple(draw(st.integers(1, stride)) for _ in range(axes))
    else:
        kernel, dilation = tuple(draw(st.integers(1, 3)) for _ in range(axes)), draw(st.integers(1, 2))
        padding = "same" if stride == 1 else tuple(dilation * (k - 1) // 2 for k in kernel)
        some |= {"dilation": dilation, "padding": padding, "padding_mode": "circular"}
    torch.manual_seed(draw(st.integers(0, 1000)))
    channels = [groups * draw(st.integers(1, 2)) for _ in range(2)]
    return KINDS[axes][0](*channels, kernel, **some), size


@settings(max_examples=60, deadline=None)
@given(circular_convolutions())
def test_what_is_called_circular_has_those_values_itself(given):
    operator = Operator.of(*given)
    assert is_circular(operator)
    found = singular_values(operator).numpy()
    expected = values_of(dense(operator).numpy())[: len(found)]
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected[0])


def test_what_is_circular():
    of = lambda size, **some: is_circular(Operator.of(nn.Conv2d(2, 2, **some), (size, size)))  # noqa: E731
    assert of(6, kernel_size=3, padding=1, padding_mode="circular")
    assert of(6, kernel_size=3, padding=1, stride=2, padding_mode="circular")
    assert of(6, kernel_size=2, stride=2)  # patches
    assert of(6, kernel_size=1)
    assert of(6, kernel_size=1, stride=2)
    assert not of(6, kernel_size=3, padding=1)
    assert not of(6, kernel_size=3, padding_mode="circular")
    assert not of(7, kernel_size=2, stride=2)
    assert is_circular(Operator.of(nn.Linear(3, 2)))


def test_as_in_the_paper():
    """Sedghi, Gupta and Long's own four lines, on a kernel [k, k, inputs, outputs]."""
    operator = Operator.of(nn.Conv2d(8, 12, 3, padding=1), (10, 9))
    transformed = np.fft.fft2(operator.weight.permute(2, 3, 1, 0).numpy(), (10, 9), axes=(0, 1))
    expected = np.sort(np.linalg.svd(transformed, compute_uv=False).ravel())[::-1]
    np.testing.assert_allclose(singular_values(operator).numpy(), expected, atol=1e-7 * expected[0])
    assert largest_circular(operator).low == pytest.approx(expected[0], rel=1e-3)


@pytest.mark.parametrize(("scale", "tolerance"), [(1, 1e-3), (1, 1e-6), (1e-12, 1e-3), (1e12, 1e-3), (0, 1e-3)])
def test_the_bracket_holds_at_every_scale_and_tolerance(scale, tolerance):
    """Where float32 cannot be trusted (small tolerances, numbers out of its range) float64 is taken."""
    weight = torch.randn(24, 16, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
    operator = Operator(weight, (12, 10), (1, 1), (1, 1), ((1, 1), (1, 1)), 1)
    true = np.linalg.svd(np.fft.fft2(weight.permute(2, 3, 0, 1).numpy(), (12, 10), axes=(0, 1)), compute_uv=False).max()
    low, high, _ = largest_circular(operator, tolerance)
    assert low <= true * (1 + 1e-12)
    assert true * (1 - 1e-12) <= high == low * (1 + tolerance)


def test_the_frequencies_of_a_kernel_of_one_place_are_one():
    """Their matrices are equal, and each value is there once for each of them."""
    operator = Operator.of(nn.Conv2d(3, 5, 1), (6, 4))
    found = singular_values(operator).numpy()
    expected = np.linalg.svd(operator.weight[:, :, 0, 0].numpy(), compute_uv=False).repeat(24)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert len(_Gram.of(operator).all) == 1
    low, high, _ = largest_circular(operator)
    assert low <= expected[0] * (1 + 1e-12) <= high


def one_by_one(work, pieces):
    return [work(piece) for piece in pieces]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [3, 24, 96])
def test_no_frequency_above_a_ceiling_is_missed(channels, kind):
    """However little it is above: what is taken off for rounding is more than what rounding does."""
    torch.manual_seed(channels)
    gram = _Gram.of(Operator.of(nn.Conv2d(channels, channels, 3, padding=1), (6, 6)))
    values = torch.linalg.eigvalsh(gram.at(gram.all))[:, 0, -1]
    missed = []
    for frequency, value in zip(gram.all, values.tolist(), strict=True):
        found = _above(gram, frequency[None], value * (1 - 1e-9), kind, one_by_one)
        missed += [] if len(found) else [frequency]
        enough = value * (1 + 1e-4) + 3 * gram.rounding(kind, value)
        assert not len(
            _above(gram, frequency[None], enough, kind, one_by_one)
        )  # it is not the test that always says so
    assert not missed


def test_as_many_threads_as_there_are_give_the_same_bits():
    torch.manual_seed(0)
    operator = Operator.of(nn.Conv2d(20, 24, 3, padding=1), (16, 16))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((singular_values(operator), largest_circular(operator)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(values, found[0][0]) and largest == found[0][1] for values, largest in found)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_linear_layers(shape):
    layer = nn.Linear(*shape)
    expected = values_of(layer.weight.detach().double().numpy())
    operator = Operator.of(layer)
    np.testing.assert_allclose(singular_values(operator).numpy(), expected, atol=1e-7)
    first, norm = operator_norms(operator)
    assert first["value"] == pytest.approx(float(layer.weight.detach().norm()))
    assert norm["low"] <= expected[0] * (1 + 1e-12) <= norm["high"]
    assert (norm["operator"], norm["level"], norm["n"]) == ("itself", 1, 5)


def test_rows_say_of_which_operator_they_are():
    """On 4 x 4 pictures zero padding makes the largest value several per cent smaller than going round does."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64)
    operator = Operator.of(layer, (4, 4))
    true = values_of(matrix(layer, (3, 4, 4)))
    round_ = values_of(circular_matrix(operator.weight, (4, 4), 1, 1, 1))
    assert round_[0] > 1.03 * true[0]
    (_, exact), (_, approximate) = operator_norms(operator), operator_norms(operator, circular=True)
    assert exact["low"] <= true[0] * (1 + 1e-9) <= exact["high"] * (1 + 1e-9)
    assert approximate["low"] <= round_[0] * (1 + 1e-9) <= approximate["high"]
    assert (exact["operator"], exact["level"]) == ("itself", 1 - 1e-6)
    assert (approximate["operator"], approximate["level"]) == ("circular", 1)
    spectrum = operator_spectrum(operator)
    assert {row["operator"] for row in spectrum} == {"circular"}
    share = round_ / round_.sum()
    expected = [round_[0], (round_**2).sum() / round_[0] ** 2, math.exp(-(share * np.log(share)).sum())]
    assert [row["value"] for row in spectrum] == pytest.approx(expected, rel=1e-6)
    table = ls.Table.of([exact, approximate, *spectrum])
    assert list(table.frame["operator"]) == ["itself", *["circular"] * 4]


def test_a_layer_of_zeros():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    nn.init.zeros_(layer.weight)
    operator = Operator.of(layer, (4, 4))
    assert [row["value"] for circular in (True, False) for row in operator_norms(operator, circular=circular)] == [
        0
    ] * 4
    assert [row["status"] for row in operator_spectrum(operator)] == ["ok", "not applicable", "not applicable"]


def test_few_steps_give_wider_bounds_that_hold():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    true = values_of(matrix(layer, (4, 5, 5)))[0]
    found = [largest(Operator.of(layer, (5, 5)), steps=steps) for steps in (1, 3, 6, 500)]
    assert all(low <= true * (1 + 1e-9) <= high * (1 + 1e-9) for low, high, _ in found)
    widths = [high / low for low, high, _ in found]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] > 1.001 >= widths[3]


@pytest.mark.parametrize("risk", [0.5, 0.1])
def test_the_upper_bound_fails_no_oftener_than_it_may(risk):
    """One large value among equal ones: after a step the bound is right but for how much of it the start is taken to have at
    least, so that it fails about as often as the start has less."""
    weight = torch.ones(60, dtype=torch.float64)
    weight[0] = 1.1
    operator = Operator.of(nn.Linear(60, 60))
    operator.weight[:, :, 0] = weight.diag()
    low = [largest(operator, risk=risk, seed=seed, steps=1).high < 1.1 * (1 - 1e-12) for seed in range(400)]
    assert risk / 2 < np.mean(low) < risk + 3 * math.sqrt(risk / 400)


def test_many_equal_largest_values():
    """An orthogonal map: all values are 1."""
    layer = nn.Conv2d(6, 6, 1, bias=False)
    nn.init.orthogonal_(layer.weight)
    operator = Operator.of(layer, (5, 5))
    np.testing.assert_allclose(singular_values(operator), np.ones(150), atol=1e-6)
    for found in (largest(operator), largest_circular(operator)):
        assert found.low == pytest.approx(1, abs=1e-6)
        assert found.high <= 1.001 * found.low * (1 + 1e-12)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: Operator.of(nn.ReLU()), "a ReLU is no linear layer or convolution"),
        (lambda: Operator.of(nn.Conv2d(1, 1, 3), (5,)), r"the size of its inputs, 2 positive numbers, not \[5\]"),
        (
            lambda: Operator.of(nn.Conv2d(1, 1, 3), (2, 5)),
            r"a kernel of \[3, 3\] does not fit on inputs of size \[2, 5\]",
        ),
        (
            lambda: Operator.of(nn.Conv1d(1, 1, 3, padding_mode="reflect"), (5,)),
            "padding mode 'reflect' is not handled",
        ),
        (lambda: Operator.of(nn.Conv1d(1, 1, 5, padding=4, padding_mode="circular"), (3,)), "more than once"),
        (lambda: Operator.of(nn.Conv1d(1, 1, 1, dtype=torch.complex64), (3,)), "must be real numbers"),
        (
            lambda: Operator.of(nn.ConvTranspose1d(1, 1, 3, stride=2, dilation=3, output_padding=2), (5,)),
            r"output padding \[2\] must be less than the stride \[2\]",
        ),
        (
            lambda: singular_values(Operator.of(nn.Conv1d(1, 1, 3, stride=2), (7,))),
            "a stride of 2 does not divide the size 7",
        ),
        (
            lambda: frobenius(Operator.of(nn.Conv1d(1, 1, 5, padding=2, padding_mode="circular"), (3,))),
            r"reaches \[4\] goes round inputs of size \[3\]",
        ),
        (lambda: largest(Operator.of(nn.Linear(2, 2)), risk=0), "risk in"),
        (lambda: largest(Operator.of(nn.Linear(2, 2)), tolerance=0), "tolerance must be positive"),
    ],
)
def test_wrong_use(work, message):
    with pytest.raises(UseError, match=message):
        work()
