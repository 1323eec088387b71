"""The laws of PyTorch's modules against what PyTorch draws, and laws that are fitted to a start."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import layerscope as ls
from layerscope import rng
from layerscope.errors import UseError
from layerscope.models.initialisers import settled
from layerscope.models.laws import Law, fitted

MODULES = {
    "linear": lambda: nn.Linear(40, 30),
    "conv1d": lambda: nn.Conv1d(8, 12, 5),
    "grouped conv2d": lambda: nn.Conv2d(12, 24, 3, groups=4),
    "conv3d": lambda: nn.Conv3d(4, 8, 3),
    "transposed 1d": lambda: nn.ConvTranspose1d(8, 12, 5),
    "transposed 2d": lambda: nn.ConvTranspose2d(6, 14, 3),
    "grouped transposed 2d": lambda: nn.ConvTranspose2d(8, 16, 3, groups=2),
    "transposed 3d": lambda: nn.ConvTranspose3d(4, 6, 3),
    "bilinear": lambda: nn.Bilinear(7, 11, 9),
    "embedding": lambda: nn.Embedding(50, 20),
    "embedding with padding": lambda: nn.Embedding(50, 20, padding_idx=3),
    "embedding with padding from the end": lambda: nn.Embedding(50, 20, padding_idx=-1),
    "embedding bag": lambda: nn.EmbeddingBag(50, 20),
    "lstm": lambda: nn.LSTM(9, 16, num_layers=2, bidirectional=True),
    "lstm with projection": lambda: nn.LSTM(9, 16, proj_size=5),
    "gru": lambda: nn.GRU(9, 16),
    "rnn": lambda: nn.RNN(9, 16),
    "cells": lambda: nn.ModuleList([nn.LSTMCell(9, 16), nn.GRUCell(9, 16), nn.RNNCell(9, 16)]),
    "attention": lambda: nn.MultiheadAttention(24, 4),
    "attention with other sizes": lambda: nn.MultiheadAttention(24, 4, kdim=20, vdim=12, add_bias_kv=True),
    "encoder layer": lambda: nn.TransformerEncoderLayer(24, 4, 48),
    "norms": lambda: nn.ModuleList(
        [nn.BatchNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.InstanceNorm1d(4, affine=True)]
    ),
    "prelu": lambda: nn.PReLU(3),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(40, 30)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(40, 30)),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(6, 14, 3)),
}


def drawn(laws, name: str, like: torch.Tensor, draw: int = 0) -> torch.Tensor:
    return laws[name].draw(name, like, lambda name: rng.generator(0, "test", name, draw))


@pytest.mark.parametrize("name", MODULES)
def test_what_pytorch_draws_could_be_ours_and_ours_has_the_same_spread(name):
    torch.manual_seed(0)
    fresh = [MODULES[name]() for _ in range(20)]
    laws = ls.laws_of(fresh[0])
    parameters = dict(fresh[0].named_parameters())
    assert set(parameters) <= set(laws)
    for parameter, tensor in parameters.items():
        theirs = torch.stack([dict(module.named_parameters())[parameter].detach() for module in fresh])
        law = laws[parameter]
        if isinstance(law, Law):
            assert all(law.could_give(each) for each in theirs), (parameter, str(law))
        ours = torch.stack([drawn(laws, parameter, tensor, draw) for draw in range(20)])
        assert ours.shape == theirs.shape
        assert ours.mean().item() == pytest.approx(
            theirs.mean().item(), abs=6 * theirs.std().item() / math.sqrt(theirs.numel()) + 1e-7
        )
        if theirs.std() > 0:
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=6 / math.sqrt(theirs.numel()) + 0.01)
        assert torch.equal((ours == 0).all(0), (theirs == 0).all(0))  # the padding row, and zero biases


def test_a_wrong_law_is_seen():
    torch.manual_seed(0)
    bert = torch.randn(64, 64) * 0.02
    assert not Law("uniform", 1 / 8).could_give(bert)
    assert not Law("normal", 0.025).could_give(bert)
    assert not Law("normal", 0.02).could_give(bert + 0.005)
    assert not Law("constant", 0.0).could_give(bert)
    assert Law("normal", 0.02).could_give(bert)
    assert Law("normal", 0.02).could_give(bert.bfloat16())
    assert not Law("normal", 0.0).could_give(bert)


def test_fitted_laws_find_what_was_drawn():
    generator = torch.Generator().manual_seed(1)
    like = torch.empty(100, 50)
    for law in (Law("normal", 0.02), Law("uniform", 0.3), Law("normal", 0.1, 1.0), Law("normal", 0.5, zero=7)):
        found = fitted(law.sample(like, generator), law.zero)
        assert (found.kind, found.zero, found.fitted) == (law.kind, law.zero, True)
        assert found.scale == pytest.approx(law.scale, rel=0.04)
        assert found.centre == pytest.approx(law.centre, abs=0.01)
        assert found.could_give(law.sample(like, generator))
    assert fitted(torch.full((3,), 2.0)) == Law("constant", 2.0, fitted=True)
    assert fitted(torch.empty(0)).kind == "constant"
    assert str(fitted(torch.ones(2))) == "fitted to the start: constant 1"


def test_settled_laws():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 30), parametrizations.weight_norm(nn.Linear(30, 20)))
    model.register_parameter("query", nn.Parameter(torch.randn(300)))
    with torch.no_grad():
        model[1].weight.normal_(0, 0.02)  # as many libraries do
        direction = model[2].parametrizations.weight.original1.normal_(0, 0.02)
        model[2].parametrizations.weight.original0.copy_(direction.norm(dim=1, keepdim=True))
    start = ls.state_of(model)
    laws = settled(model, lambda names: {name: start[name] for name in names})
    assert str(laws["0.weight"]) == f"uniform of scale {1 / math.sqrt(50):g}"
    assert str(laws["1.weight"]).startswith("fitted to the start: normal of scale 0.02")
    assert str(laws["query"]).startswith("fitted to the start: normal of scale ")
    assert drawn(laws, "query", start["query"]).std().item() == pytest.approx(1, rel=0.2)
    magnitude = drawn(laws, "2.parametrizations.weight.original0", start["2.parametrizations.weight.original0"])
    direction = drawn(laws, "2.parametrizations.weight.original1", start["2.parametrizations.weight.original1"])
    assert torch.allclose(magnitude.squeeze(1), direction.norm(dim=1))
    assert direction.std().item() == pytest.approx(0.02, rel=0.1)
    mine = {"1.weight": Law("constant", 5.0)}
    assert settled(model, None, mine)["1.weight"] == mine["1.weight"]
    assert "query" not in settled(model, None)


@pytest.mark.parametrize("make", [parametrizations.spectral_norm, nn.utils.spectral_norm], ids=["new", "old"])
@pytest.mark.parametrize(
    "layer", [lambda: nn.Linear(12, 7), lambda: nn.ConvTranspose2d(5, 6, 3)], ids=["linear", "transposed"]
)
def test_a_spectral_norm_drawn_afresh_has_norm_one(make, layer):
    """The oracle is the SVD of the weight that the network then uses: with stale vectors it would be far from 1."""
    torch.manual_seed(0)
    model = nn.Sequential(make(layer()))
    state = ls.state_of(model)
    trajectory = ls.Trajectory.of(final={name: 3 * tensor for name, tensor in state.items()})
    (part,) = ls.Partition.by_layer(model)
    made = ls.materialize(model, trajectory, ls.Variant.of(part, ls.Rerandomize(), buffers="keep")).eval()
    x = torch.randn(2, 12) if isinstance(model[0], nn.Linear) else torch.randn(2, 5, 4, 4)
    made(x)
    dim = 0 if isinstance(model[0], nn.Linear) else 1
    weight = made[0].weight.detach().movedim(dim, 0).flatten(1)
    assert torch.linalg.svdvals(weight)[0].item() == pytest.approx(1, abs=1e-4)


def test_a_weight_norm_drawn_afresh_has_the_law_of_its_layer():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(60, 50))
    for model, names in (
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(60, 50))), None),
        (nn.Sequential(old), None),
    ):
        trajectory = ls.Trajectory.of(final={name: 3 * tensor for name, tensor in ls.state_of(model).items()})
        (part,) = ls.Partition.by_layer(model)
        made = ls.materialize(model, trajectory, ls.Variant.of(part, ls.Rerandomize()))
        made(torch.randn(2, 60))
        weight = made[0].weight.detach()
        assert Law("uniform", 1 / math.sqrt(60)).could_give(weight), names


def test_what_follows_from_a_weight_follows_the_law_that_it_has_in_the_end():
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(60, 50)))
    direction, magnitude = "0.parametrizations.weight.original1", "0.parametrizations.weight.original0"
    state = ls.state_of(model)
    laws = settled(model, None, {direction: Law("normal", 1.0)})
    drawn_direction = drawn(laws, direction, state[direction])
    assert torch.allclose(drawn(laws, magnitude, state[magnitude]).squeeze(1), drawn_direction.norm(dim=1))
    with torch.no_grad():
        model[0].parametrizations.weight.original0.fill_(1.0)  # magnitudes that did not start as norms
    start = ls.state_of(model)
    found = settled(model, lambda names: {name: start[name] for name in names})
    assert str(found[magnitude]) == "fitted to the start: constant 1"
    with pytest.raises(UseError, match=r"unknown tensor in laws= '0\.wieght'"):
        settled(model, None, {"0.wieght": Law("constant", 0.0)})


def test_a_norm_on_a_module_that_nobody_knows():
    class Mine(nn.Linear):
        """Its law is not known, but the vectors of its spectral norm follow from its weight all the same."""

    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.spectral_norm(Mine(12, 7)))
    trained = {name: 3 * tensor + torch.randn_like(tensor) for name, tensor in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=ls.state_of(model), final=trained)
    (part,) = ls.Partition.by_layer(model)
    for change in (ls.Rewind(), ls.Rerandomize()):
        made = ls.materialize(model, trajectory, ls.Variant.of(part, change, buffers="keep")).eval()
        made(torch.randn(2, 12))
        assert torch.linalg.svdvals(made[0].weight.detach())[0].item() == pytest.approx(1, abs=0.05)


def test_weight_norm_of_a_recurrent_module():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.utils.weight_norm(nn.LSTM(5, 6), "weight_hh_l0")
    laws, state = ls.laws_of(model), ls.state_of(model)
    assert (drawn(laws, "weight_hh_l0_g", state["weight_hh_l0_g"]) > 0).all()
    assert set(state) <= set(laws)
