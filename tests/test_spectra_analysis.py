"""Spectra of layers over checkpoints: against matrices made of the modules' own outputs, and NumPy."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import layerscope as ls
from layerscope.errors import UseError
from tests.test_spectra import circular_matrix, matrix, values_of


def network() -> nn.Sequential:
    """Circular and zero padding, a stride that divides its size and one that does not, a norm, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(3), nn.ReLU()),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(18, 3)),
    )


def moved(net: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The network's values with something added."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=random) if value.is_floating_point() else value
        for name, value in ls.state_of(net).items()
    }


def trajectory_of(net: nn.Module) -> ls.Trajectory:
    return ls.Trajectory.of(initial=ls.state_of(net), epoch_3=moved(net, 1), epoch_9=moved(net, 2))


BATCH = (torch.zeros(1, 2, 5, 5), torch.zeros(1))


def of(table: ls.Table, **equal) -> dict[str, dict]:
    return {row["metric"]: row for row in table.where(**equal).to_dict("records")}


def expected(values: np.ndarray) -> list[float]:
    share = values / values.sum()
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    return [values[0], (values**2).sum() / values[0] ** 2, math.exp(entropy)]


NAMES = ("operator_largest", "operator_stable_rank", "operator_effective")


@pytest.mark.parametrize("step", [0, 3, 9])
@pytest.mark.parametrize("to", ["", "start"])
def test_rows_are_of_the_layers_matrices(step, to):
    net = network()
    trajectory = trajectory_of(net)
    table = ls.spectra(net, trajectory, batch=BATCH)
    assert table.parts() == ["0", "3", "4", "6"]
    values = trajectory[trajectory.at(step)]
    if to:
        values = {name: value - trajectory[ls.INIT][name] for name, value in values.items()}
    own = copy.deepcopy(net).double()
    own.load_state_dict(values)
    shapes = {"0": (2, 5, 5), "3": (3, 5, 5), "4": (4, 5, 5), "6": (18,)}
    itself = {part: matrix(own[int(part)], shape) for part, shape in shapes.items()}
    for part, dense in itself.items():
        found = of(table, part=part, step=step, to=to)
        assert found["operator_frobenius"]["value"] == pytest.approx(np.linalg.norm(dense), abs=1e-6)
        assert found["operator_frobenius"]["operator"] == "itself"
        if part == "4":
            continue
        round_ = part == "3"
        singular = values_of(circular_matrix(own[3].weight.detach(), (5, 5), 1, 1, 1) if round_ else dense)
        assert {found[name]["operator"] for name in NAMES} == {"circular" if round_ else "itself"}
        if singular[0] == 0:
            assert [found[name]["status"] for name in NAMES] == ["ok", "not applicable", "not applicable"]
        else:
            assert [found[name]["value"] for name in NAMES] == pytest.approx(expected(singular), rel=1e-5)
            assert found["operator_largest"]["n"] == len(singular)


def test_a_stride_that_does_not_divide_the_size():
    """5 is not a multiple of 2: the largest is bounded for the layer as it is, and the ranks say why there are none."""
    net = network()
    table = ls.spectra(net, trajectory_of(net), batch=BATCH)
    found = of(table, part="4", step=0, to="")
    true = values_of(matrix(net.double()[4], (4, 5, 5)))[0]
    largest = found["operator_largest"]
    assert largest["low"] <= true * (1 + 1e-9) <= largest["high"] * (1 + 1e-9) <= 1.002 * true
    assert (largest["operator"], largest["interval"], largest["level"]) == ("itself", "numerical", 1 - 1e-6)
    assert "a stride of 2 does not divide the size 5" in found["operator_effective"]["reason"]
    assert "singular_value" not in found


def test_some_values_are_kept_of_each_layer_and_checkpoint():
    net = network()
    table = ls.spectra(net, trajectory_of(net), ls.SpectraSpec(values=5, steps=(3,), layers=("0", "6")), batch=BATCH)
    frame = table.where(metric="singular_value", part="0", step=9)
    own = copy.deepcopy(net).double()
    own.load_state_dict(trajectory_of(net)[ls.FINAL])
    true = values_of(matrix(own[0], (2, 5, 5)))
    assert list(frame["index"]) == [0, 12, 24, 37, 49]
    np.testing.assert_allclose(frame["value"], true[[0, 12, 24, 37, 49]], rtol=1e-6)
    assert set(frame["n"]) == {50}
    short = table.where(metric="singular_value", part="6", step=9)
    assert list(short["index"]) == [0, 1, 2]  # there are no more
    assert set(table.frame["step"]) == {0, 3, 9}
    assert "singular_value" not in of(table, to="start")
    left_out = table.provenance["left_out"]
    assert left_out["3.weight"] == "not asked for"
    assert (
        left_out["1.running_mean"] == "a BatchNorm2d is no linear layer or convolution, so that it is no one linear map"
    )
    assert not len(ls.spectra(net, trajectory_of(net), ls.SpectraSpec(values=0)).where(metric="singular_value"))


def test_without_a_batch_convolutions_have_no_size():
    net = network()
    table = ls.spectra(net, trajectory_of(net))
    assert set(table.where(part="3")["reason"]) == {"the size of its inputs is not known without data: give a batch"}
    assert set(table.where(part="6", step=9)["status"]) == {"ok"}


class Twice(nn.Module):
    """One convolution on two sizes, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
        self.idle = nn.Conv1d(1, 1, 3)
        self.mirrored = nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        return self.mirrored(input=self.conv(input=self.conv(x)[..., ::2]))


def test_sizes_are_those_of_the_forward():
    net = Twice()
    table = ls.spectra(net, ls.Trajectory.of(final=ls.state_of(net)), batch=torch.zeros(1, 1, 8))
    found = of(table, part="conv")
    assert found["operator_largest"]["reason"] == "of inputs of 8, the first of several sizes: 8, 4"
    true = values_of(matrix(net.double().conv, (1, 8)))
    assert [found[name]["value"] for name in NAMES] == pytest.approx(expected(true), rel=1e-5)
    assert set(table.where(part="idle")["reason"]) == {"the network's forward does not call it on this batch"}
    assert "padding mode 'reflect' is not handled" in table.where(part="mirrored")["reason"].iloc[0]
    assert "to" not in table.frame  # there is no start


class Mine:
    """A batch of a kind of its own, that can be gone through as a loader can."""

    def __init__(self) -> None:
        self.x = BATCH[0]

    def __iter__(self):
        return iter(["x"])

    def to(self, device):
        return self


FORWARD = {"forward": lambda model, batch: model(batch.x)}


@pytest.mark.parametrize(
    ("batch", "how"),
    [
        ([BATCH, (torch.zeros(1, 2, 9, 9), torch.zeros(1))], {}),
        ([list(BATCH)], {}),
        (torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*BATCH)), {}),
        (ls.data.Split(*BATCH).batches(), {}),
        (list(BATCH), {}),
        (BATCH[0], {}),
        ({"input": BATCH[0], "labels": BATCH[1]}, {}),
        ((({"input": BATCH[0]}, BATCH[1])), {}),
        ([[BATCH[0]], BATCH[1]], {}),
        (Mine(), FORWARD),
        ([Mine()], {"forward": lambda model, batch: model(batch[0].x)}),
    ],
)
def test_of_a_loader_the_first_batch_counts(batch, how):
    net = network()
    expected = ls.spectra(net, trajectory_of(net), ls.SpectraSpec(values=0), batch=BATCH)
    found = ls.spectra(net, trajectory_of(net), ls.SpectraSpec(values=0), batch=batch, **how)
    assert found.frame.equals(expected.frame)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"train": [BATCH], "test": [BATCH]}, "takes one batch, or the data of one split, and not train, test at once"),
        ([], "batch= has no batch in it"),
        (iter(()), "batch= has no batch in it"),
    ],
)
def test_what_is_no_batch_is_refused(batch, message):
    net = network()
    with pytest.raises(UseError, match=message):
        ls.spectra(net, trajectory_of(net), batch=batch)


def test_a_parametrised_layer_is_the_map_that_it_computes():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 3))
    net[1].weight = nn.Parameter(torch.eye(3))
    start = ls.state_of(net)
    final = moved(net, 3)
    table = ls.spectra(net, ls.Trajectory.of(initial=start, final=final))
    own = copy.deepcopy(net)
    own.load_state_dict(final)
    weights = [n[0].weight.detach().double().numpy() for n in (net, own)]
    value = of(table, part="0", step=1, to="start")["operator_largest"]["value"]
    assert value == pytest.approx(values_of(weights[1] - weights[0])[0], rel=1e-6)


def test_tied_and_computed_weights():
    net = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    net["head"].weight = net["embedding"].weight
    table = ls.spectra(net, ls.Trajectory.of(final=ls.state_of(net)))
    (name,) = table.parts()
    assert name == "embedding = head"
    with pytest.warns(FutureWarning, match="weight_norm"):
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
    table = ls.spectra(old, ls.Trajectory.of(final=ls.state_of(old)))
    assert table.provenance["left_out"]["0.weight_v"] == "the weight of this Linear is computed in its forward"
    assert not len(table)


def test_a_pretrained_network_without_the_head():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    pretrained = {name: value for name, value in ls.state_of(net).items() if name.startswith("0.")}
    table = ls.spectra(net, ls.Trajectory.of(pretrained=pretrained, final=moved(net, 1)))
    assert set(table.where(part="1", step=0)["status"]) == {"not applicable"}
    head = table.where(part="1", step=1)
    assert set(head[head["to"] == "start"]["reason"]) == set(table.where(part="1", step=0)["reason"])
    assert set(head[head["to"] == ""]["status"]) == {"ok"}
    assert set(table.where(part="0")["status"]) == {"ok", "not applicable"}  # the difference of the start to itself


def test_the_model_is_untouched():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    ls.spectra(net, trajectory_of(net), batch=BATCH)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not nn.modules.module._global_forward_hooks
    with pytest.raises(RuntimeError):
        ls.spectra(net, trajectory_of(net), batch=torch.zeros(1, 7, 5, 5))
    assert not nn.modules.module._global_forward_hooks


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"values": 1}, "values must be 0, or at least 2"),
        ({"steps": (-1,)}, "steps are epochs from 0"),
        ({"steps": (4,)}, "no checkpoint at epoch-00004|no checkpoint at epoch-4"),
        ({"layers": ("7*",)}, "unknown linear layer or convolution '7\\*'"),
    ],
)
def test_wrong_use(spec, message):
    net = network()
    with pytest.raises(UseError, match=message):
        ls.spectra(net, trajectory_of(net), ls.SpectraSpec(**spec))


def test_a_kernel_that_goes_round_its_input():
    """Its entries meet, so that the 2-norm of the matrix is not known from theirs; the singular values are."""
    net = nn.Sequential(nn.Conv1d(1, 1, 5, padding=2, padding_mode="circular"))
    table = ls.spectra(net, ls.Trajectory.of(final=ls.state_of(net)), batch=torch.zeros(2, 1, 3))
    found = of(table, part="0")
    assert "goes round inputs of size [3]" in found["operator_frobenius"]["reason"]
    true = values_of(matrix(net.double()[0], (1, 3)))
    assert [found[name]["value"] for name in NAMES] == pytest.approx(expected(true), rel=1e-5)


def test_rows_go_on_from_those_there_are():
    net, done = network(), {}
    whole = ls.spectra(net, trajectory_of(net), batch=BATCH, done=done)
    assert list(done) == ["0", "3", "4", "6"]
    again = ls.spectra(net, trajectory_of(net), batch=BATCH, done={"3": done["3"]})
    assert again.frame.equals(whole.frame)
