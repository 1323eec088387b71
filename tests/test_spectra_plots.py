"""What is said and drawn of spectra: against the rows, and hand-made numbers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.measures.operator import Operator, dense
from layerscope.plots import spectra as plots

from .test_compare import inside


def diagonal(values: list[float]) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.diag(torch.tensor(values)), "b.weight": torch.eye(3), "odd.weight": torch.ones(1, 1, 3)}


@pytest.fixture(scope="module")
def table() -> ls.Table:
    """Layer a goes from (1, 1, 1) over (4, 2, 1) to (8, 2, 0), b stays; nothing is known of a convolution."""
    net = nn.ModuleDict(
        {"a": nn.Linear(3, 3, False), "b": nn.Linear(3, 3, False), "odd": nn.Conv1d(1, 1, 3, bias=False)}
    )
    states = [diagonal(values) for values in ([1.0, 1.0, 1.0], [4.0, 2.0, 1.0], [8.0, 2.0, 0.0])]
    trajectory = ls.Trajectory.of(initial=states[0], epoch_2=states[1], epoch_5=states[2])
    return ls.spectra(net, trajectory)


def test_sentences_say_what_changed(table):
    said = " ".join(plots.sentences(table))
    assert "singular values of 2 layers" in said
    assert "at 3 epochs from 0 to 5" in said
    assert "changed by factors from 1.00 (b) to 8.00 (a); the median factor is 4.50" in said
    assert "a largest singular value of 7.00 (a) to 7.00 (a)" in said
    assert "Not all is known of odd: the size of its inputs is not known" in said
    assert "which layers matter" in said


def test_listings_have_the_numbers(table):
    (listing,) = plots.listings(table)
    rows = {row[0]: dict(zip(listing.heads[1:], row[1:], strict=True)) for row in listing.rows}
    assert rows["a"]["largest, start"] == "1.00"
    assert rows["a"]["largest, trained"] == "8.00"
    assert rows["a"]["stable rank, trained"] == "1.06"  # 1 + 1 / 16
    assert rows["a"]["largest of the difference"] == "7.00"
    assert rows["a"]["2-norm of the difference"] == "7.14"  # 49 + 1 + 1
    assert rows["b"]["largest of the difference"] == "0"
    assert set(rows["odd"].values()) == {"-"}


def test_a_line_an_epoch_and_none_of_what_is_0(table):
    found = plots.figures(table)
    assert set(found) == {"spectra", "difference"}
    a, b = [axes for axes in found["spectra"].axes if axes.get_visible()]
    assert [list(line.get_ydata()) for line in a.get_lines()] == [
        pytest.approx([1, 1, 1]),
        pytest.approx([4, 2, 1]),
        pytest.approx([8, 2]),
    ]
    assert list(a.get_lines()[1].get_xdata()) == [0, 0.5, 1]
    assert b.get_title(loc="left").startswith("b\n3 values")
    (axes,) = found["difference"].axes
    (line,) = axes.get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2, 5], pytest.approx([3, 7]))


def test_layers_can_be_chosen(table):
    figure = plots.spectra_figure(table, ["b"])
    assert [axes.get_title(loc="left")[0] for axes in figure.axes] == ["b"]
    with pytest.raises(UseError, match="unknown layer with a spectrum 'c'"):
        plots.spectra_figure(table, ["c"])


def test_many_layers_and_epochs():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(26)))
    states = {f"epoch_{e}": {n: v + e for n, v in ls.state_of(net).items()} for e in range(1, 11)}
    table = ls.spectra(net, ls.Trajectory.of(initial=ls.state_of(net), **states), ls.SpectraSpec(values=3))
    found = plots.figures(table)
    counts = [len(axes.get_lines()) for axes in found["spectra"].axes]
    assert len(counts) == 6
    assert all(5 <= count <= 8 for count in counts)
    assert found["spectra"].axes[-1].get_title(loc="left").startswith("25\n")
    assert len(found["difference"].axes[0].get_lines()) == 24
    assert "24 of 26 layers" in found["difference"].get_supxlabel()


def test_one_checkpoint_and_nothing_at_all():
    net = nn.Sequential(nn.Linear(3, 3))
    table = ls.spectra(net, ls.Trajectory.of(final=ls.state_of(net)), ls.SpectraSpec(values=0))
    assert plots.figures(table) == {}
    assert "changed" not in " ".join(plots.sentences(table))
    assert plots.listings(table)[0].heads == [
        "layer",
        "values",
        "of",
        *(f"{x}, trained" for x in ("largest", "stable rank", "effective number")),
    ]
    for draw in (plots.spectra_figure, plots.difference_figure):
        with pytest.raises(UseError, match="this table has no"):
            draw(table)
    nothing = ls.spectra(nn.Sequential(nn.PReLU()), ls.Trajectory.of(final={"0.weight": torch.ones(1)}))
    assert (plots.sentences(nothing), plots.listings(nothing), plots.figures(nothing)) == ([], [], {})


@pytest.fixture(scope="module")
def padded() -> tuple[torch.Tensor, torch.Tensor, ls.Table]:
    """A convolution with zeros around pictures of 7 x 7, and a linear layer: the singular values of its matrix, the matrix of
    its difference to the start, and the table."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(6 * 49, 3, bias=False))
    start = {name: torch.randn_like(value) for name, value in ls.state_of(net).items()}
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(net))
    of = Operator.of(net[0], (7, 7))
    moved = dense(replace(of, weight=of.weight - start["0.weight"].double()))
    table = ls.spectra(net, trajectory, ls.SpectraSpec(values=6 * 49), batch=torch.zeros(1, 6, 7, 7))
    return torch.linalg.svdvals(dense(of)), moved, table


def test_how_far_circular_values_are_from_the_layers_own(padded):
    """What is said of 7 x 7 inputs, against the singular values of the layer's matrix."""
    own, _, table = padded
    rows = table.frame[(table.frame["part"] == "0") & (table.frame["step"] > 0) & (table.frame["to"] != "start")]
    values = rows[rows["metric"] == "singular_value"].sort_values("index")
    circular = torch.tensor(values["value"].to_numpy())
    (stable,) = rows[rows["metric"] == "operator_stable_rank"]["value"]
    largest, median = float(circular[0] / own[0]) - 1, float(circular.median() / own.median()) - 1
    stable = stable / float((own / own[0]).square().sum()) - 1
    assert 0 < largest < 0.09
    assert largest < median < 0.5
    assert largest < stable < 0.5
    assert circular[-1] > 2 * own[-1]
    said = " ".join(plots.sentences(table))
    assert "1 convolution with zeros around the input is approximated" in said
    assert (
        "such as 7 x 7, the largest value differs from the layer's own by a few per cent, the stable rank and" in said
    )
    assert "by more, up to tens of per cent, and the small values by factors." in said


def test_the_2_norm_is_said_to_be_of_the_layer_itself(padded):
    _, moved, table = padded
    (listing,) = plots.listings(table)
    assert "Its 2-norm is always of the layer itself." in listing.caption
    assert listing.heads[-1] == "2-norm of the difference"
    assert float(listing.rows[0][-1]) == pytest.approx(float(moved.norm()), rel=0.005)


def test_the_difference_says_which_lines_are_circular(padded, table):
    figure = plots.figures(padded[2])["difference"]
    assert figure.get_supxlabel() == (
        "All lines but 2 (the layer itself) are circular: of the same convolution on inputs that go round in circles."
    )
    assert "circular" not in plots.figures(table)["difference"].get_supxlabel()


def test_pictures_are_within_their_edges(padded, table):
    for each in (padded[2], table):
        assert all(map(inside, plots.figures(each).values()))
    assert inside(plots.spectra_figure(table, ["b"]))
