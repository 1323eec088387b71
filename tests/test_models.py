"""Architectures and initial laws, against PyTorch's own."""

import math

import pytest
import torch
from torch import nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.models.initialisers import initialise


def test_fcn_against_arithmetic():
    model = build("fcn-3x256", (1, 28, 28), 10)
    assert [part.name for part in ls.Partition.by_layer(model)] == ["layer1", "layer2", "layer3", "layer4"]
    assert sum(p.numel() for p in model.parameters()) == 784 * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 10 + 10
    x = torch.randn(5, 1, 28, 28)
    by_hand = x.flatten(1)
    for number in (1, 2, 3):
        layer = getattr(model, f"layer{number}")
        by_hand = torch.clamp(by_hand @ layer.weight.T + layer.bias, min=0)
    by_hand = by_hand @ model.layer4.weight.T + model.layer4.bias  # type: ignore[union-attr]
    assert torch.allclose(model(x), by_hand, atol=1e-5)


@pytest.mark.parametrize("name", ["fcn", "fcn-3", "fcn-0x5", "fcn-3x256x", "resnet"])
def test_unknown_names(name):
    with pytest.raises(UseError, match=r"unknown model .*fcn-3x256"):
        build(name, (4,), 2)


@pytest.mark.parametrize(
    ("initialiser", "torchs"),
    [
        ("he", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        ("glorot", nn.init.xavier_uniform_),
        ("pytorch", lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5))),
    ],
)
@pytest.mark.parametrize("layer", [nn.Linear(300, 200), nn.Conv2d(20, 40, 5)])
def test_laws_against_torch(initialiser, torchs, layer):
    """Same moments and same range as PyTorch's own initialisers, over some 10,000 entries."""
    law = ls.laws_of(layer, initialiser)["weight"]
    ours = law.sample(layer.weight, torch.Generator().manual_seed(0)).detach()
    theirs = torchs(torch.empty_like(layer.weight)).detach()
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)
    assert ours.mean().item() == pytest.approx(0, abs=4 * ours.std().item() / math.sqrt(ours.numel()))
    assert ours.abs().max().item() == pytest.approx(
        theirs.abs().max().item(), rel=0.02 if law.kind == "uniform" else 0.3
    )
    assert (law.kind == "normal") == (initialiser == "he")


def test_bias_law_of_pytorch():
    torch.manual_seed(0)
    layer = nn.Linear(25, 20000)
    law = ls.laws_of(layer)["bias"]
    assert law.scale == 0.2
    assert layer.bias.abs().max().item() == pytest.approx(0.2, rel=0.01)


def test_norm_layers_start_as_in_pytorch():
    for norm in (nn.BatchNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.BatchNorm1d(3, affine=False)):
        fresh = ls.state_of(norm)
        for tensor in norm.state_dict().values():
            tensor.fill_(7)
        laws = ls.laws_of(norm)
        drawn = {name: laws[name].sample(t, torch.Generator()) for name, t in norm.state_dict().items()}
        assert fresh.keys() == drawn.keys()
        assert all(torch.equal(fresh[name], drawn[name]) for name in fresh)


def test_the_start_is_a_draw_from_the_laws_and_depends_on_names_only():
    model, other = build("fcn-2x8", (4,), 2), build("fcn-3x8", (4,), 2)
    for network in (model, other):
        initialise(network, ls.laws_of(network, "he"), seed=3)
    assert torch.equal(model.layer1.weight, other.layer1.weight)
    assert not torch.equal(model.layer2.weight, other.layer3.weight)
    assert torch.count_nonzero(model.layer1.bias) == 0  # type: ignore[arg-type]


def test_unknown_initialiser_and_unknown_modules():
    with pytest.raises(UseError, match="unknown initialiser 'heh'; did you mean he"):
        ls.laws_of(nn.Linear(1, 1), "heh")

    class Mine(nn.Linear):
        """Nobody knows how it starts."""

    assert ls.laws_of(Mine(2, 2)) == {}
