"""Architectures and initial laws, against PyTorch's own."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.models import FAMILIES, build, listing, parameters_of
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


@pytest.mark.parametrize("name", ["fcn", "fcn-3", "fcn-3x256x", "fnc-3x256"])
def test_unknown_names(name):
    with pytest.raises(UseError, match=r"unknown model .*fcn-3x256"):
        build(name, (4,), 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fcn-3x256?nrm=batch", "did you mean norm"),
        ("fcn-3x256?norm=bach", "option norm is one of none, batch, not 'bach'"),
        ("fcn-3x256?width=wide", "option width is a number, not 'wide'"),
        ("fcn-3x256?width=0", "width is a factor above 0"),
        ("fcn-3x256?width=nan", "width is a factor above 0"),
        ("fcn-3x256?dropout=1", r"dropout is a share in \[0, 1\)"),
        ("fcn-3x256?bias=none", "option bias is yes or no, not 'none'"),
        ("fcn-3x256?norm", "needs a value"),
        ("fcn-3x256?width=2&width=3", "given twice"),
        ("fcn-0x5", "at least one hidden layer"),
        ("fcn-20-0", "at least one unit"),
    ],
)
def test_wrong_options(name, message):
    with pytest.raises(UseError, match=message):
        build(name, (4,), 2)


def test_fcn_of_chatterji2020():
    """FCN I and II of chatterji2020, Table 2: 2.0e7 and 5.0e7 parameters."""
    one, two = (parameters_of(f"fcn-{sizes}?norm=batch", (3, 32, 32), 10) for sizes in ("5000-1000", "10000-2000"))
    norms = 2 * (5000 + 1000)
    assert one == 3072 * 5000 + 5000 + 5000 * 1000 + 1000 + 1000 * 10 + 10 + norms
    assert (f"{one:.1e}", f"{two:.0e}") == ("2.0e+07", "5e+07")


def test_fcn_with_batch_norm_and_dropout():
    model = build("fcn-20-10?norm=batch&dropout=0.5", (4, 4), 3)
    x = torch.randn(64, 4, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    by_hand = x.flatten(1)
    for number in (1, 2):
        layer, norm = model.get_submodule(f"layer{number}"), model.get_submodule(f"norm{number}")
        by_hand = by_hand @ layer.weight.T + layer.bias
        by_hand = (by_hand - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        by_hand = by_hand.clamp(min=0)
    assert torch.allclose(model(x), by_hand @ model.layer3.weight.T + model.layer3.bias, atol=1e-5)


VARIANCES = {
    "glorot": lambda i, o: 2 / (i + o),
    "he": lambda i, o: 2 / i,
    "lecun": lambda i, o: 1 / i,
    "lecun-printed": lambda i, o: 3**0.5 / i,
}


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("name", list(VARIANCES))
def test_variances_as_printed(name, kind):
    """Draws against the printed variances (casper2019, Sec. 3), and their shape by the kurtosis: 3 normal, 1.8 uniform."""
    layer = nn.Conv2d(30, 50, 3)
    law = ls.laws_of(layer, f"{name}-{kind}")["weight"]
    draw = law.sample(layer.weight, torch.Generator().manual_seed(0)).double()
    assert draw.var().item() == pytest.approx(VARIANCES[name](30 * 9, 50 * 9), rel=0.05)
    assert (draw**4).mean().item() / draw.var().item() ** 2 == pytest.approx(3 if kind == "normal" else 1.8, rel=0.06)
    assert ls.laws_of(layer, f"{name}-{kind}")["bias"] == ls.Law("constant", 0.0)


def test_stated_standard_deviations():
    layer = nn.Linear(300, 200)
    draws = {
        name: ls.laws_of(layer, f"{name}?std=0.1")["weight"].sample(layer.weight, torch.Generator().manual_seed(0))
        for name in ("normal", "truncated-normal")
    }
    assert draws["normal"].std().item() == pytest.approx(0.1, rel=0.02)
    cut = stats.truncnorm(-2, 2, scale=0.1)
    assert draws["truncated-normal"].abs().max() <= 0.2
    assert stats.kstest(draws["truncated-normal"].flatten()[:20000], cut.cdf).pvalue > 1e-3
    law = ls.Law("truncated", 0.1)
    assert law.could_give(draws["truncated-normal"])
    assert not law.could_give(draws["normal"])
    assert not law.could_give(0.5 * draws["truncated-normal"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glorott", "did you mean glorot"),
        ("normal", r"normal needs the standard deviation of the weights: normal\?std=0.1"),
        ("normal?var=0.1", "unknown option.*'var'"),
        ("normal?std=-1", "above 0, not -1"),
        ("normal?std=nan", "above 0, not nan"),
        ("he?std=1", "unknown initialiser"),
        ("fixup", "fixup is for residual networks"),
    ],
)
def test_wrong_initialisers(name, message):
    with pytest.raises(UseError, match=message):
        ls.laws_of(nn.Linear(3, 4), name)


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


EVERY = [
    "fcn-2x16?norm=batch&dropout=0.1",
    "mlp?width=0.25",
    "vgg-11?norm=batch&width=0.1&hidden=32",
    "alexnet-small?width=0.1",
    "resnet-v1-18?width=0.1",
    "resnet-v1-20?norm=none&width=0.5",
    "resnet-v1-50?norm=scalar&width=0.1",
    "resnet-v2-18?norm=scalar&width=0.1",
    "resnet-v2-34?norm=none&width=0.1&downsample=layer",
    "resnet-v2-4^2?width=0.1",
    "densenet-121?width=0.1",
    "lstm-20",
    "gru-20?layers=2&bidirectional=yes",
    "rnn-20",
    "transformer-2x32",
]
IMAGES = (3, 32, 32)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("initialiser", ["pytorch", "glorot", "he-uniform", "lecun-printed", "normal?std=0.02"])
def test_the_whole_of_a_start_is_drawn_from_stated_laws(name, initialiser):
    """No tensor of any architecture is left to chance: its values depend on the seed alone, and could come from its law; a
    layer drawn again has other values."""
    torch.manual_seed(0)
    one, other = build(name, IMAGES, 10), build(name, IMAGES, 10)
    laws = ls.laws_of(one, initialiser)
    assert set(laws) == set(one.state_dict())
    initialise(one, laws, seed=3)
    initialise(other, laws, seed=3)
    for tensor_name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[tensor_name])
        law = laws[tensor_name]
        assert law.could_give(tensor), tensor_name
        again = law.draw(tensor_name, tensor, lambda _: torch.Generator().manual_seed(1))
        assert law.kind == "constant" or not torch.equal(again, tensor), tensor_name


def branches_of(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if hasattr(module, "branch")}


@pytest.mark.parametrize("name", ["resnet-v1-18?norm=scalar&width=0.25", "resnet-v2-50?norm=none&width=0.25"])
def test_fixup_by_its_paper(name):
    """Zhang, Dauphin, Ma 2019, Sec. 3: branches and classifier start at zero, inner layers at He times L^(-1/(2m-2)); so the
    network starts as its shortcuts alone."""
    model = build(name, IMAGES, 10)
    laws = ls.laws_of(model, "fixup")
    initialise(model, laws, seed=0)
    blocks = branches_of(model)
    m = 2 if "18" in name else 3
    assert len(blocks) == (8 if m == 2 else 16)
    for block in blocks.values():
        *inner, last = (block.get_submodule(conv) for conv in block.branch)
        assert len(inner) == m - 1
        assert not last.weight.any()
        for conv in inner:
            fan_in = conv.in_channels * conv.kernel_size[0] ** 2
            expected = (2 / fan_in) ** 0.5 * len(blocks) ** (-1 / (2 * m - 2))
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.2 if conv.weight.numel() < 1000 else 0.06)
    assert not model.final_linear.weight.any()
    assert set(laws) == set(model.state_dict())
    assert all(laws[f"{path}.{last}.weight"].kind == "constant" for path, b in blocks.items() for last in b.branch[-1:])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-v2-18", "fixup stands in for normalisation, and the network has 17 norm layers"),
        ("vgg-11", "fixup is for residual networks, such as resnet-v2-18\\?norm=scalar"),
        ("densenet-121", "fixup is for residual networks"),
    ],
)
def test_fixup_where_it_means_nothing(name, message):
    with pytest.raises(UseError, match=message):
        ls.laws_of(build(name, IMAGES, 10), "fixup")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-v2-19", "depth is one of 18, 20"),
        ("resnt-v2-18", "did you mean resnet-v2-18"),
        ("resnet-v2-18?remove=stage1.block9", "unknown block to remove 'stage1.block9'; did you mean stage1.block2"),
        ("resnet-v2-18?remove=stage2.block1", "stage2.block1 cannot be left out, it changes the shape"),
        ("vgg-12", "did you mean vgg-1"),
        ("inception-v3", "at least 75"),
        ("densnet-121", "did you mean densenet-121"),
        ("transformer-2x33", "heads"),
    ],
)
def test_wrong_architectures(name, message):
    with pytest.raises(UseError, match=message):
        build(name, IMAGES, 10)


def test_what_is_listed_can_be_built():
    """Each usual name has a count for the data it is for, and every option a default that it says."""
    families = {family["family"]: family for family in listing()}
    assert set(families) == set(FAMILIES)
    for family in families.values():
        assert family["what"]
        assert all(any(counts.values()) for counts in family["parameters"].values())
        assert all("[" in described for described in family["options"].values())
    assert families["inception"]["parameters"]["inception-v3"] == {"cifar10": None, "imagenet": 23_834_568}
