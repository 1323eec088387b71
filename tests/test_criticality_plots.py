"""What is said and drawn of criticality, from tables written by hand."""

import itertools

import pytest

import layerscope as ls
from layerscope.plots import criticality

SPEC = ls.CriticalitySpec().to_dict()


def row(part: str, value: float | None, status: str = "ok", eps: float = 0.1, **more) -> dict:
    place = {"part": part, "metric": "criticality", "eps": eps, "status": status, "split": "train", "n": 128}
    known = {"alpha": 0.0 if value == 0 else 0.5, "sigma": 0.1, "error": 0.08, "certificate": 0.095, "level": 0.95}
    if value is None:
        return place | more
    return place | {"value": value, "distance": 3.0} | known | more


def table(*rows: dict, **facts) -> ls.Table:
    return ls.Table.of(rows, {"spec": SPEC, "by": "layer", "error": 0.02} | facts)


def mixed(eps: float = 0.1) -> list[dict]:
    return [
        row("conv1", 300.0, eps=eps),
        row("conv2", 0.0, "zero", eps=eps),
        row("fc", 100.0, "on the edge", eps=eps, alpha=1.0),
        row("whole network", 400.0, "on the edge", eps=eps, n=3),
    ]


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text")))


def test_sentences_say_which_matter_and_how_sure_that_is():
    said = " ".join(
        criticality.sentences(table(*mixed(), monotonicity={"pairs": 40, "able": 7, "fall": 0.2, "falls": []}))
    )
    assert "sum over 3, is 400, 75 % of it conv1" in said
    assert "The most critical layer is conv1: 300; having kept 50 % of its way it bears noise of σ = 0.1" in said
    assert "error of 8.00 % in the mean over 128 draws (at 95 % confidence at most 9.50 %)" in said
    assert "Zero have conv2" in said
    assert "fc: the best cell lies at an edge of α and σ" in said
    assert "The trained network itself has an error of 2.00 %" in said
    assert "it is sure that its expected error is at most eps" in said
    assert "of 40 pairs of cells that were compared none contradicts it" in said
    assert "7 of them had draws enough to show a fall of 20 points" in said


def test_sentences_about_what_is_not_sure_or_not_there():
    fall = {"part": "fc", "alpha": 0.0, "sigma": [0.1, 1.0], "error": [0.5, 0.2]}
    rows = [
        row("conv", 10.0, certificate=0.2, low=4.0, high=20.0),
        row("fc", None, "infeasible", reason="no cell has an expected error of at most 0.1"),
        row("whole network", None, "infeasible"),
    ]
    said = " ".join(criticality.sentences(table(*rows, monotonicity={"pairs": 9, "falls": [fall]})))
    assert "In 1 of 1 answer the best cell is so near eps" in said
    assert "The most critical layer is conv: 10.0 (4.00 to 20.0)" in said
    (listing,) = criticality.listings(table(*rows))
    assert listing.rows[0][2] == "4.00 to 20.0"
    (axes,) = criticality.figures(table(*rows, *cells("conv")))["criticality"].axes
    assert [4.0, 20.0] in [list(line.get_xdata()) for line in axes.lines]
    open_ = [row("conv", 10.0, certificate=0.2, low=4.0), row("whole network", 10.0)]
    assert "10.0 (from 4.00 on)" in " ".join(criticality.sentences(table(*open_)))
    back = [row("conv", 0.0, "zero", certificate=0.2, low=0.0), row("fc", 1.0), row("whole network", 1.0)]
    assert "the error stays at most eps (by estimate: all)" in " ".join(criticality.sentences(table(*back)))
    assert "Without a criticality (infeasible): fc; no cell has an expected error of at most 0.1." in said
    assert "1 contradict it, each at its own 95 % level (fc)" in said
    assert "sum over" not in said
    none = [row("a", None, "failed", reason="ValueError: no"), row("whole network", None, "failed")]
    assert "no layer has a criticality: ValueError: no." in " ".join(
        criticality.sentences(table(*none))
    ).lower().replace("valueerror", "ValueError")
    zero = [row("a", 0.0, "zero"), row("whole network", 0.0, "zero")]
    assert "Every layer that has a criticality has zero" in " ".join(criticality.sentences(table(*zero)))


def test_listings_have_a_row_a_module_and_explain_their_words():
    one, two = criticality.listings(table(*mixed(), *mixed(0.2)))
    assert one.rows[0] == ["conv1", "300", "-", "0.5", "0.1", "3.00", "8.00 %", "9.50 %", "128", "ok"]
    assert one.rows[-1] == ["whole network", "400", *["-"] * 7, "on the edge"]
    assert [len(line) for line in one.rows] == [len(one.heads)] * 4
    assert "eps = 0.1" in one.caption
    assert "eps = 0.2" in two.caption
    assert "'zero' means: can be put back to the start" in one.caption
    assert "infeasible" not in one.caption


def test_what_has_no_upper_end_is_drawn_up_to_its_value_and_counted():
    rows = [row("a", 10.0, low=4.0), row("b", 20.0, low=5.0, high=40.0), row("c", 30.0, low=30.0, high=30.0)]
    figure = criticality.figures(table(*rows, row("whole network", 60.0)))["criticality"]
    drawn = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert [ends for ends in drawn if ends[0] in (4, 5)] == [[4.0, 10.0], [5.0, 40.0]]
    assert "Blue lines: what draws leave open; 1 of 3 have no upper end" in texts(figure).replace("\n", " ")


def test_curves_name_the_modules_that_are_most_critical_at_the_smallest_eps():
    """Zeros at a larger eps do not make a module less critical than one that is little everywhere."""
    first = {f"m{k}": 10.0 + k for k in range(12)} | {"dead": None}
    rows = [row(name, value, "failed" if value is None else "ok") for name, value in first.items()]
    later = [row(name, None if value is None else 0.0, "zero", eps=0.2) for name, value in first.items()]
    later[0] = row("m0", 9.0, eps=0.2)
    whole = [row("whole network", 1.0, eps=eps) for eps in (0.1, 0.2)]
    figure = criticality.figures(table(*rows, *later, *whole))["eps"]
    legend = figure.axes[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"m{k}" for k in range(11, 3, -1)]
    assert legend.get_title().get_text() == "grey: 5 less critical at eps = 0.1"


def cells(part: str) -> list[dict]:
    places = itertools.product(SPEC["alphas"][::3], SPEC["sigmas"][::2])
    return [
        {"part": part, "metric": "expected_error", "alpha": a, "sigma": s, "value": s / 2, "n": 4, "status": "ok"}
        for a, s in places
    ]


def test_figures_have_what_their_names_say():
    one = criticality.figures(table(*mixed(), *cells("conv1"), *cells("conv2")))
    assert list(one) == ["criticality", "errors"]
    drawn = texts(one["criticality"])
    assert all(name in drawn for name in ("conv1", "conv2", "fc", "eps = 0.1", "logarithmic", "their sum): 400"))
    assert "zero: can be put back" in drawn
    assert "on the edge: the best cell" in drawn
    assert "infeasible" not in drawn
    errors = texts(one["errors"])
    assert "conv1\ncriticality 300" in errors
    assert "conv2\ncriticality 0" in errors
    assert "50" in errors
    several = criticality.figures(table(*mixed(), *mixed(0.2)))
    assert "eps" in several
    assert "Network (sum)" in texts(several["eps"])
    assert "bottom line are zero" in texts(several["eps"])
    assert "eps = 0.1" in texts(several["criticality"])
    for figure in (*one.values(), *several.values()):
        assert figure._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("search", ["sequential", "grid"])
def test_a_real_table_can_be_said_and_drawn(search):
    from .test_criticality import few, trained

    model, trajectory, data = trained(n=200)
    found = ls.criticality(model, trajectory, data, eps=(0.1, 0.3), spec=few(search=search, draws=2))
    assert set(criticality.figures(found)) == {"criticality", "eps", "errors"}
    assert len(criticality.listings(found)) == 2
    assert any("pairs of cells" in text for text in criticality.sentences(found))
