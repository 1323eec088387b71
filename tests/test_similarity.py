"""Similarity of activations: against NumPy's Gram matrices of activations that are computed by hand."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layerscope as ls
from layerscope.analyses.similarity import sampled
from layerscope.analyses.spec import KERNELS
from layerscope.errors import UseError
from layerscope.metrics.cka import KERNELS as KNOWN
from layerscope.metrics.cka import GramCKA
from layerscope.plots import cka as pair_plots
from layerscope.plots import similarity as plots
from layerscope.plots import words
from tests.test_cka import by_definition, centred, gram, ratio
from tests.test_compare import inside


def network() -> nn.Sequential:
    """An operation in place after a convolution, and a norm with statistics of its own."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten()),
        *(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)),
    )
    net[3].running_mean += 0.3
    return net


def start_of(net: nn.Module) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return {
        name: 0.5 * torch.randn(value.shape, generator=random) if name.endswith(("weight", "bias")) else value
        for name, value in ls.state_of(net).items()
    }


def pictures(n: int = 19, batch: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 1, 6, 6, generator=random), torch.randint(3, (n,), generator=random)
    return list(zip(x.split(batch), y.split(batch), strict=True))


LAYERS = ["0", "2", "3", "5", "7"]


def activations(net: nn.Sequential, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Layer by layer, copied before the next one can write to it."""
    found = {}
    with torch.no_grad():
        for name, module in copy.deepcopy(net).eval().named_children():
            x = module(x)
            found[name] = x.clone().flatten(1).double().numpy()
    return found


def changed(net: nn.Module, part: str, values: dict[str, torch.Tensor]) -> nn.Module:
    other = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith(f"{part}."):
                parameter.copy_(values[name])
    return other


OF = {True: by_definition, False: centred}


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_rewound_layer_against_gram_matrices(kernel, debiased):
    """All samples in one block: their order does not matter."""
    net, data = network(), pictures(8, 3)
    start = start_of(net)
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(net))
    table = ls.similarity(net, trajectory, data, ls.SimilaritySpec(kernel=kernel, debiased=debiased))
    x = torch.cat([x for x, _ in data])
    own = activations(net, x)
    for part, layer in itertools.product(LAYERS, LAYERS):
        (row,) = table.where(part=part, step=0, layer=layer).to_dict("records")
        if int(layer) < int(part):
            assert row["value"] == 1  # exactly: nothing came through the layer yet
        else:
            other = activations(changed(net, part, start), x)
            expected = ratio(OF[debiased], *(gram(a[layer], kernel) for a in (own, other)))
            assert row["value"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert row["value"] < 0.999
        assert (row["n"], row["status"], row["perturbation"]) == (8, "ok", "rewind")
        assert row["metric"] == f"cka_{kernel}{'_debiased' * debiased}"
    assert set(table.where(step=1)["value"]) == {1.0}
    assert table.provenance["layers"] == LAYERS


@pytest.mark.parametrize(("n", "sizes"), [(19, [6, 6, 7]), (16, [6, 6, 4]), (500, [6, 6, 7])])
def test_any_two_networks_in_blocks(n, sizes):
    """Blocks of all samples in the order of the draw; 1 that is left joins the block before, 4 are a block."""
    net, other, data = network(), network().double(), pictures()
    nn.init.orthogonal_(other[0].weight.flatten(1))
    for parameter in other.parameters():
        parameter.data += 0.2
    table = ls.cka(
        net, other, data, ["0", "?"], ["5", "7"], n=n, block=6, seed=3, forward_b=lambda m, b: m(b[0].double())
    )
    blocks = sampled(data, n, 6, 3)
    assert [len(x) for x, _ in blocks] == sizes
    ours = [activations(net, x) for x, _ in blocks]
    theirs = [activations(other, x.double()) for x, _ in blocks]
    for a, b in itertools.product([str(i) for i in range(8)], ["5", "7"]):
        pairs = [
            (gram(u[a], "linear"), gram(v[b], "linear"), size) for u, v, size in zip(ours, theirs, sizes, strict=True)
        ]
        covariance = lambda i, j: sum(p[2] * by_definition(p[i], p[j]) for p in pairs)  # noqa: B023, E731
        (row,) = table.where(layer=a, layer_b=b).to_dict("records")
        assert row["value"] == pytest.approx(
            covariance(0, 1) / math.sqrt(covariance(0, 0) * covariance(1, 1)), rel=1e-4
        )
        assert row["n"] == sum(sizes)
    assert len(table) == 16


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 40), st.integers(1, 9), st.integers(4, 50), st.integers(4, 20), st.integers(0, 99))
def test_samples_are_drawn_once_each_in_blocks_that_are_large_enough(there, batch, n, block, seed):
    values = torch.arange(there)
    data = [{"x": x, "labels": -x} for x in values.split(batch)]
    blocks = sampled(data, n, block, seed)
    x = torch.cat([one["x"] for one in blocks])
    assert len(x) == len(x.unique()) == min(n, there)
    assert torch.equal(torch.cat([one["labels"] for one in blocks]), -x)  # inputs keep their targets
    sizes = [len(one["x"]) for one in blocks]
    assert all(size == block for size in sizes[:-1])
    assert 4 <= sizes[-1] < block + 4
    again = sampled([{"x": values, "labels": -values}], n, block, seed)
    assert torch.equal(x, torch.cat([one["x"] for one in again]))  # whatever the batches
    if n < there and block >= n:
        assert not torch.equal(x, values[:n])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.sampled_from([("linear", True), ("linear", False), ("rbf", True)]))
def test_rotation_and_scale_do_not_matter(seed, scale, how):
    kernel, debiased = how
    random = torch.Generator().manual_seed(seed)
    a = nn.Sequential(nn.Linear(5, 4, dtype=torch.float64))
    turned = nn.Sequential(nn.Linear(5, 4, dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=random, dtype=torch.float64)).Q
    turned[0].weight.data, turned[0].bias.data = scale * turn @ a[0].weight.data, torch.ones(4).double()
    data = [torch.randn(12, 5, generator=random, dtype=torch.float64)]
    table = ls.cka(a, turned, data, kernel=kernel, debiased=debiased)
    assert list(table.frame["value"]) == pytest.approx([1])


def test_kernels_are_those_there_are():
    assert tuple(KNOWN) == KERNELS


class Odd(nn.Module):
    """Layers whose outputs cannot be compared, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.recurrent = nn.LSTM(4, 3)  # the first axis is time
        self.gru = nn.GRU(4, 3, batch_first=True)
        self.idle = nn.Linear(2, 2)
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        x = self.first(self.first(x))
        self.recurrent(x.transpose(0, 1))
        return self.last(self.gru(x)[0].mean(1))


class Late(Odd):
    """The same, but its first layer is defined last."""

    def __init__(self) -> None:
        super().__init__()
        first = self.first
        del self.first
        self.first = first


def test_pairs_are_in_the_order_in_which_layers_are_called():
    data = [torch.randn(9, 5, 4)]
    table = ls.cka(Late(), Odd(), data, debiased=False)
    assert table.provenance["layers"] == ["first", "recurrent", "gru", "last", "idle"]
    assert table.provenance["layers_b"] == table.provenance["layers"]
    assert list(dict.fromkeys(table.frame["layer"])) == table.provenance["layers"]
    assert table.provenance["several_calls"] == ["first"]
    (axes, _) = ls.plots.figures(table)["cka"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "gru", "last"]


def test_a_single_name_is_one_layer():
    net, data = network(), pictures()
    one = ls.cka(net, net, data, layers_a="5", layers_b="7")
    assert list(one.where(layer="5", layer_b="7")["value"]) == list(ls.cka(net, net, data, ["5"], ["7"]).frame["value"])
    assert len(one) == 1
    assert len(ls.cka(net, net, data, "*", "[57]")) == 8 * 2


def test_what_cannot_be_compared_has_a_reason():
    net = Odd()
    with torch.no_grad():
        net.last.bias.zero_()
    start = {name: value + 0.1 for name, value in ls.state_of(net).items()}
    data = [(torch.randn(6, 5, 4), torch.zeros(6)), (torch.randn(3, 5, 4), torch.zeros(3))]
    table = ls.similarity(net, ls.Trajectory.of(initial=start, final=ls.state_of(net)), data)
    pairs = ls.cka(net, Late(), data, ["idle", "last"], "r*").frame
    assert dict(zip(pairs["layer"], pairs["reason"], strict=True)) == {
        "last": "layer_b: the first axis of its outputs is not that of samples: they are [5, 9, 3] for 9 samples",
        "idle": "layer: the network's forward does not call it on these data",
    }
    reasons = {layer: set(table.where(layer=layer)["reason"]) for layer in ("recurrent", "idle", "first", "gru")}
    assert reasons["recurrent"] == {
        "the first axis of its outputs is not that of samples: they are [5, 9, 3] for 9 samples"
    }
    assert reasons["idle"] == {"the network's forward does not call it on these data"}
    assert reasons["first"] == reasons["gru"] == {""}
    assert table.provenance["several_calls"] == ["first"]
    dead = copy.deepcopy(net)
    nn.init.zeros_(dead.last.weight)
    row = ls.cka(net, dead, data, ["last"], ["last"]).frame.iloc[0]
    assert (row["status"], "do not vary" in row["reason"]) == ("not applicable", True)


def test_a_pretrained_start_that_lacks_a_layer():
    net = network()
    start = {name: value for name, value in start_of(net).items() if not name.startswith("7.")}
    table = ls.similarity(net, ls.Trajectory.of(pretrained=start, final=ls.state_of(net)), pictures())
    (row,) = table.where(part="7", step=0).to_dict("records")
    assert (row["status"], "7.weight" in row["reason"]) == ("not applicable", True)


def test_the_models_are_untouched():
    net, data = network(), pictures()
    before, state = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    trajectory = ls.Trajectory.of(initial=start_of(net), final=ls.state_of(net))
    ls.similarity(net, trajectory, data)
    ls.cka(net, net, data)
    with pytest.raises(RuntimeError):
        ls.cka(net, net, [torch.zeros(5, 2, 6, 6)])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in net.modules())


def test_layers_inside_a_fused_one_are_compared_too():
    """PyTorch computes a transformer's layer at once, unless somebody listens to what is inside it."""
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(24, 3)).eval()
    other = copy.deepcopy(net)
    other[0].linear2.weight.data += 0.3
    x = torch.randn(12, 3, 8)
    table = ls.cka(net, other, [x], debiased=False)
    reasons = table.where(layer="0.linear2", layer_b="0.linear2")["reason"]
    assert list(reasons) == [""]
    inside = [n[0].linear1(n[0].norm1(x + n[0].self_attn(x, x, x)[0])) for n in (net, other)]
    outputs = [n[0].linear2(torch.relu(one)).flatten(1) for n, one in zip((net, other), inside, strict=True)]
    expected = ratio(centred, *(gram(one.detach().double().numpy(), "linear") for one in outputs))
    value = table.where(layer="0.linear2", layer_b="0.linear2")["value"].iloc[0]
    assert value == pytest.approx(expected, rel=1e-4)
    assert value < 0.99


def of(data, **spec):
    net = network()
    ls.similarity(net, ls.Trajectory.of(initial=start_of(net), final=ls.state_of(net)), data, ls.SimilaritySpec(**spec))


def alone(data):
    net = network()
    ls.similarity(net, ls.Trajectory.of(final=ls.state_of(net)), data)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: of(pictures(), kernel="cosine"), "unknown kernel 'cosine'"),
        (lambda: of(pictures(), n=3), "n must be at least 4 samples, not 3"),
        (lambda: of(pictures(), block=3), "block must be at least 4 samples"),
        (lambda: of(pictures(), steps=(-1,)), "steps are epochs from 0"),
        (lambda: of(pictures(), at=("9",)), "unknown module '9'"),
        (lambda: of(pictures(3)), "at least 4 samples, and data has 3"),
        (lambda: of({"train": pictures()}), "takes the data of one split"),
        (lambda: ls.cka(network(), network(), {"test": pictures()}), "takes the data of one split"),
        (lambda: ls.cka(network(), network(), pictures(), "9"), "unknown module '9'"),
        (lambda: ls.CkaSpec(kernel="cosine"), "unknown kernel 'cosine'"),
        (lambda: ls.CkaSpec(n=3), "n must be at least 4 samples, not 3"),
        (lambda: ls.CkaSpec(step_with="last"), "step_with: 'last' is not a step; write init"),
        (lambda: ls.cka(network(), network(), iter(pictures())), "data can be gone through only once"),
        (
            lambda: ls.cka(network(), network(), torch.zeros(5, 1, 6, 6)),
            r"data must yield batches, but is a tensor: .*\[x\]",
        ),
        (lambda: of((torch.zeros(5, 1, 6, 6), torch.zeros(5).long())), r"data must yield batches, but .*\[\(x, y\)\]"),
        (lambda: alone(pictures()), r"needs values to put layers back to.*--checkpoints init=FILE"),
        (lambda: of([(torch.zeros(5, 1, 6, 6), 3)]), "these batches cannot be taken apart"),
    ],
)
def test_wrong_use(work, message):
    with pytest.raises(UseError, match=message):
        work()


@pytest.fixture(scope="module")
def table() -> ls.Table:
    net = network()
    start, final = start_of(net), ls.state_of(net)
    between = {n: torch.lerp(start[n], v, 0.5) if v.is_floating_point() else v for n, v in final.items()}
    trajectory = ls.Trajectory.of(initial=start, epoch_2=between, epoch_5=final)
    return ls.similarity(net, trajectory, pictures(60, 20))


def test_what_is_the_same_is_not_computed_again(monkeypatch):
    made: list[tuple[int, ...]] = []
    gram = GramCKA.gram
    monkeypatch.setattr(GramCKA, "gram", lambda self, x: made.append(tuple(x.shape)) or gram(self, x))
    net = network()
    trajectory = ls.Trajectory.of(initial=start_of(net), final=ls.state_of(net))
    ls.similarity(net, trajectory, pictures(), ls.SimilaritySpec(block=64))
    assert len(made) == 5 + (5 + 4 + 3 + 2 + 1)  # once each, then those at or after the Part, put back to the start


def test_rows_go_on_from_those_there_are():
    net, done = network(), {}
    trajectory = ls.Trajectory.of(initial=start_of(net), final=ls.state_of(net))
    whole = ls.similarity(net, trajectory, pictures(), done=done)
    assert len(done) == 10
    dropped = dict(list(done.items())[:3])
    again = ls.similarity(net, trajectory, pictures(), done=dropped)
    assert again.frame.equals(whole.frame)
    assert again.provenance == whole.provenance


def test_sentences_and_listings_say_what_is_least_similar(table):
    said = " ".join(plots.sentences(table))
    values = {part: table.where(part=part, step=0, layer="7")["value"].iloc[0] for part in LAYERS}
    least = min(values, key=lambda part: values[part])
    similar = sum(value >= 0.9 for value in values.values())
    assert f"{similar} of 5 layers leave the outputs of 7" in said
    assert f"least similar with {least} ({words.number(values[least], '')})" in said
    assert "linear CKA without bias" in said
    assert "60 samples" in said
    (listing,) = plots.listings(table)
    assert [row[0] for row in listing.rows] == LAYERS
    assert [row[2] for row in listing.rows] == [words.number(values[part], "") for part in LAYERS]
    for row in listing.rows:
        course = [table.where(part=row[0], step=step, layer="7")["value"].iloc[0] for step in (0, 2, 5)]
        since = next(step for i, step in enumerate((0, 2, 5)) if min(course[i:]) >= 0.9)
        assert row[4] == f"epoch {since}"


def test_maps_and_lines_have_the_rows(table):
    found = plots.figures(table)
    assert set(found) == {"similarity", "similarity_over_steps"}
    values = {part: table.where(part=part, step=0, layer="7")["value"].iloc[0] for part in LAYERS}
    order = sorted(values, key=lambda part: values[part])
    maps = [axes for axes in found["similarity"].axes if axes.images]
    assert [axes.get_title(loc="left") for axes in maps] == [order[0], order[1], order[3], order[4]]
    for axes in maps:
        rows = table.where(part=axes.get_title(loc="left"))
        expected = [
            [rows[(rows["layer"] == a) & (rows["step"] == s)]["value"].iloc[0] for s in (0, 2, 5)] for a in LAYERS
        ]
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected)
    hidden, last = found["similarity_over_steps"].axes
    assert [len(axes.get_lines()) for axes in (hidden, last)] == [5, 5]
    drawn = [line.get_ydata()[0] for line in last.get_lines()]
    assert drawn == pytest.approx([values[part] for part in LAYERS])
    one = plots.similarity_map(table, ["2"])
    assert [axes.get_title(loc="left") for axes in one.axes if axes.images] == ["2"]
    with pytest.raises(UseError, match="unknown part '9'"):
        plots.similarity_map(table, ["9"])


def test_nothing_to_show():
    empty = ls.Table.of([])
    assert (plots.sentences(empty), plots.listings(empty), plots.figures(empty)) == ([], [], {})
    for draw in (plots.similarity_map, plots.similarity_curves):
        with pytest.raises(UseError, match="no similarities"):
            draw(empty)


def test_lines_are_networks_with_a_layer_put_back(table):
    figure = plots.similarity_curves(table)
    assert "each line is the network with that one layer put back" in figure.get_suptitle().replace("\n", " ")
    assert figure.axes[-1].get_legend().get_title().get_text() == "layer put back"


def test_pictures_are_within_their_edges(table):
    assert all(map(inside, [*plots.figures(table).values(), plots.similarity_map(table, ["2"])]))


def pair(rows: list[list[float | str]], **facts) -> ls.Table:
    """A table of pairs: the similarities of the layers a1, a2, ... (rows) with b1, b2, ..., or why there is none."""
    cells = [
        {"layer": f"a{i}", "layer_b": f"b{j}", "metric": "cka_rbf_debiased", "split": "test"}
        | ({"status": "not applicable", "reason": v} if isinstance(v, str) else {"status": "ok", "value": v, "n": 64})
        for i, row in enumerate(rows, 1)
        for j, v in enumerate(row, 1)
    ]
    networks = [{"run": "one"}, {"run": "other"}]
    return ls.Table.of(cells, {"spec": {"kind": "cka"}, "networks": networks, "steps": ["", ""], **facts})


MADE = [[0.9, 0.8, 0.1], [0.3, 0.7, 0.2], [-0.02, 0.25, 0.2]]


def test_sentences_say_which_layer_is_most_similar_to_which():
    table = pair(MADE, data={"name": "digits"})
    first, nearest, least = pair_plots.sentences(table)
    assert first.startswith(
        "The outputs of 3 layers of one are compared with those of 3 layers of other on 64 digits test"
    )
    assert "CKA with a Gaussian kernel without bias" in first
    assert nearest == (
        "Each layer of one, and the most similar one of other: a1 → b1 (0.9); a2 → b2 (0.7); a3 → b2 (0.25)."
    )
    assert least == "The layer that is least like any one of other is a3: at most 0.25, with b2."
    ours, theirs = pair_plots.listings(table)
    assert ours.rows == [
        ["a1", "b1", "0.9", "b2", "0.8"],
        ["a2", "b2", "0.7", "b1", "0.3"],
        ["a3", "b2", "0.25", "b3", "0.2"],
    ]
    assert theirs.rows == [
        ["b1", "a1", "0.9", "a2", "0.3"],
        ["b2", "a1", "0.8", "a2", "0.7"],
        ["b3", "a2", "0.2", "a3", "0.2"],
    ]


def test_many_layers_are_told_of_in_the_table():
    said = " ".join(pair_plots.sentences(pair([[0.5, 0.1]] * 9)))
    assert "a5 → b1 (0.5); 4 more are in the table." in said
    assert len(pair_plots.listings(pair([[0.5, 0.1]] * 9))[0].rows) == 9


def test_layers_of_one_name_are_told_of():
    table = pair(MADE)
    named = ls.Table(table.frame.replace({"layer_b": {"b1": "a1", "b2": "a3"}}), table.provenance)
    assert "Of 2 layers that both have by name, 2 are most similar to their namesakes." in pair_plots.sentences(named)


def test_what_has_no_number_is_said_of_its_network():
    why, undefined = "layer_b: the network's forward does not call it on these data", "activations do not vary"
    table = pair([[0.9, why], [undefined, why], [0.4, why]], steps=["init", ""])
    said = pair_plots.sentences(table)
    assert "Not for b2 of other: the network's forward does not call it on these data." in said
    assert "Not for a2 and b1: activations do not vary." in said
    assert "2 layers of one at init are compared with those of 1 layer of other" in said[0]
    (axes, _) = pair_plots.cka_map(table).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a1", "a3"]
    assert pair_plots.listings(table)[0].rows == [["a1", "b1", "0.9", "-", "-"], ["a3", "b1", "0.4", "-", "-"]]


def test_a_network_with_itself_is_asked_for_other_layers():
    table = pair([[1.0, 0.6], [0.6, 1.0]], networks=[{"run": "one"}, {"run": "one"}])
    alone = ls.Table(table.frame.replace({"layer_b": {"b1": "a1", "b2": "a2"}}), table.provenance)
    said = pair_plots.sentences(alone)
    assert "2 layers of one are compared with those of 2 layers of itself" in said[0]
    assert "Each layer of one, and the most similar other one: a1 → a2 (0.6); a2 → a1 (0.6)." in said
    (listing,) = pair_plots.listings(alone)
    assert [row[1] for row in listing.rows] == ["a2", "a1"]
    start = alone.with_facts(steps=["", "init"])
    assert "Each layer of one as trained, and the most similar one of one at init: a1 → a1 (1.00)" in " ".join(
        pair_plots.sentences(start)
    )


def test_the_map_of_pairs_has_the_numbers_a_frame_a_row_and_both_names():
    table = pair(MADE, data={"name": "digits"})
    figure = ls.plots.figures(table)["cka"]
    axes, bar = figure.axes
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), MADE)
    assert axes.images[0].get_clim() == (-0.02, 1.0)
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for row in MADE for value in row]
    assert [(round(p.get_x() + 0.46), round(p.get_y() + 0.46)) for p in axes.patches] == [(0, 0), (1, 1), (1, 2)]
    assert (axes.get_ylabel(), axes.get_xlabel(), bar.get_ylabel()) == (
        "layers of one",
        "layers of other",
        "CKA (1: same)",
    )
    title = figure.get_suptitle().replace("\n", " ")
    assert title == (
        "Layers of one (side) and of other (below): CKA with a Gaussian kernel without bias, n = 64 digits test samples"
    )
    assert inside(figure)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 40), (110, 3), (90, 70)])
def test_labels_of_maps_of_pairs_do_not_touch(rows, columns):
    long = [{"run": "resnet-v2-50-of-a-long-name-in-a-folder"}, {"run": "b" * 60}]
    figure = pair_plots.cka_map(pair([[0.5] * columns] * rows, networks=long))
    assert inside(figure)
    assert figure.get_figwidth() <= 11
    axes = figure.axes[0]
    for labels, side in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
        boxes = [label.get_window_extent() for label in labels]
        ends = [sorted((getattr(box, f"{side}0"), getattr(box, f"{side}1"))) for box in boxes]
        ends.sort()
        assert all(before[1] < after[0] + 1 for before, after in itertools.pairwise(ends))
    assert bool(axes.texts) == (rows * columns <= 2)


def test_no_pairs():
    empty = ls.Table.of([], {"spec": {"kind": "cka"}})
    assert (pair_plots.sentences(empty), pair_plots.listings(empty), ls.plots.figures(empty)) == ([], [], {})
    with pytest.raises(UseError, match="no similarities"):
        pair_plots.cka_map(empty)
