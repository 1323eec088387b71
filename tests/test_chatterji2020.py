"""The studies of chatterji2020: each statistic on tables that can be worked out by hand, and every row at smoke scale."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from layerscope.cli import main
from layerscope.studies.chatterji2020 import (
    STUDIES,
    activations,
    bounds,
    contest,
    criticality,
    path,
    rewinding,
    spectra,
)
from layerscope.studies.chatterji2020.networks import BASE, corrupt, fixup
from layerscope.studies.frame import Replicate, judge
from layerscope.studies.session import units
from layerscope.table import Table

COSTS = {"a": 0.5, "b": 0.02, "c.conv": 0.0, "scale": 0.9}
WHOLE = "whole network"


def rewound(costs=COSTS, **of_criteria) -> Table:
    """Changes of three criteria; the unmodified network errs on 2 %, and chance is 90 %."""
    rows = [{"perturbation": "none", "metric": "error", "split": "train", "value": 0.02}]
    for name, (metric, split) in rewinding.CRITERIA.items():
        for part, cost in {**of_criteria.get(name.replace(" ", "_"), costs), WHOLE: 0.88}.items():
            rows.append(
                {
                    "part": part,
                    "perturbation": "rewind",
                    "step": 0,
                    "metric": f"{metric}_delta",
                    "split": split,
                    "value": cost,
                }
            )
    return Table.of(rows, {"chance": 0.9})


def seed(**tables: Table) -> Replicate:
    return Replicate({("resnet", name): table for name, table in tables.items()})


def test_share_of_critical_modules_without_scalars_and_the_whole():
    assert rewinding.share_critical(rewound()) == pytest.approx(1 / 3)  # a of a, b, c


def test_the_criteria_agree_as_the_least_of_three_correlations():
    other = {"a": 0.1, "b": 0.3, "c": 0.2}
    table = rewound({"a": 0.5, "b": 0.2, "c": 0.1}, test_error=other)
    assert rewinding.agreement(table) == pytest.approx(spearmanr([0.5, 0.2, 0.1], list(other.values()))[0])
    assert rewinding.agreement(rewound()) == pytest.approx(1.0)


def test_the_same_pattern_is_over_modules_that_both_have():
    both = Replicate(
        {("resnet", "modules"): rewound(), ("adam", "modules"): rewound({"a": 0.1, "b": 0.2, "c": 0.3, "more": 1.0})}
    )
    assert rewinding.same_pattern(both, "adam") == pytest.approx(-1.0)


def falling(value: float, low: float | None, high: float | None) -> dict:
    common = {"part": "a", "perturbation": "interpolate", "metric": "error_worsening", "split": "test", "status": "ok"}
    return common | {"value": value, "low": low, "high": high}


def test_a_fall_along_the_way_is_between_what_is_sure_and_what_is_left_open():
    one = Table.of([falling(-0.1, -0.15, -0.04), falling(-0.05, -0.3, 0.1), falling(0.2, 0.1, 0.3)])
    found = path.fall([seed(path=one)] * 5, "path", "error")
    assert found[:4] == pytest.approx((0.1, 0.04, 0.3, 5))
    assert found.reason == ""
    assert path.fall([seed(path=one)] * 4, "path", "error").reason.startswith("4 runs")
    unknown = Table.of([falling(-0.1, None, None)])
    assert path.fall([seed(path=unknown)] * 5, "path", "error").reason == "some pairs of places could not be compared"


def test_the_wider_valley_counts_at_its_narrowest():
    rows = [{"perturbation": "none", "metric": "error", "split": "train", "value": 0.0, "status": "ok"}]
    borne = {"a": {0.0: 0, 1.0: 1}, "b": {0.0: 1, 1.0: 2}}
    for part, of in borne.items():
        for alpha, last in of.items():
            place = {"part": part, "alpha": alpha, "metric": "error", "split": "train", "status": "ok"}
            rows.append(place | {"perturbation": "interpolate", "value": 0.0})
            for number, sigma in enumerate((0.1, 0.2, 0.4), start=1):
                for draw in (0, 1):
                    value = 0.0 if number <= last else 0.5
                    rows.append(
                        place | {"perturbation": "noise", "sigma": sigma, "draw": draw, "value": value, "level": 0.95}
                    )
    assert path.narrowest(seed(valley=Table.of(rows))) == pytest.approx(0.5)


def test_what_tells_modules_apart():
    rows = []
    for part, values in {"a": (1.0, 8.0), "b": (1.0, 4.0), "c": (2.0, 4.0)}.items():
        for step, value in zip((0, 7), values, strict=True):
            rows.append(
                {"part": part, "step": step, "metric": "operator_largest", "to": "", "value": value, "status": "ok"}
            )
            moved = {"part": part, "step": step, "metric": "operator_largest", "to": "start", "status": "ok"}
            rows.append(moved | {"value": {"a": 1.0, "b": 2.0, "c": 3.0}[part] * step})
    one = seed(modules=rewound(), spectra=Table.of(rows))
    assert spectra.growth(one, "operator_largest")["a"] == pytest.approx(math.log(8))
    assert spectra.separation(one, spectra.growth(one, "operator_largest")) == 1.0  # a is critical, and grew most
    assert spectra.separation(one, spectra.moved(one)) == 0.0  # the other way round
    assert math.isnan(
        spectra.separation(seed(modules=rewound({"b": 0.0, "c": 0.0}), spectra=Table.of(rows)), spectra.moved(one))
    )


def test_nothing_told_apart_is_an_area_of_a_half():
    assert spectra.off_half([0.5, 0.5, 0.5, 0.4, 0.6])[:2] == pytest.approx((0.0, 0.0))
    low = spectra.off_half([0.1, 0.12, 0.1, 0.12, 0.1])
    assert 0.3 < low.low < low.value < low.high < 0.5
    assert spectra.off_half([math.nan, 0.5, 0.5, 0.5, 0.5]).reason.startswith("no module is critical")


def test_similarity_of_ambient_and_critical_modules():
    cka = {"a": (1.0, 0.7, 0.2), "b": (1.0, 1.0, 0.9), "c": (1.0, 1.0, 0.7)}
    rows = [
        {"part": part, "layer": layer, "step": 0, "status": "ok", "metric": "cka", "value": value}
        for part, values in cka.items()
        for layer, value in zip(("x", "y", "z"), values, strict=True)
    ]
    one = seed(modules=rewound(), similarity=Table.of(rows, {"layers": ["x", "y", "z"]}))
    assert activations.of_ambient(one) == pytest.approx(0.8)
    assert activations.steepest(one) == pytest.approx(0.5 / 0.8)


def network_criticality(values, eps=criticality.EPS) -> Table:
    rows = [{"part": WHOLE, "metric": "criticality", "eps": e, "value": v} for e, v in zip(eps, values, strict=True)]
    return Table.of(rows, {"error": 0.01})


def test_the_smallest_ratio_of_criticalities():
    def of(true, corrupted):
        tables = {
            ("resnet", "criticality"): network_criticality(true),
            ("corrupt", "criticality"): network_criticality(corrupted),
        }
        return criticality.smallest_ratio(Replicate(tables))

    assert of((3.0, 2.0, 1.0), (6.0, 2.0, 4.0)) == pytest.approx(0.0)
    assert of((1.0, 1.0, 1.0), (2.0, 4.0, 8.0)) == pytest.approx(math.log(2))
    assert math.isnan(of((1.0, 1.0, 1.0), (math.nan, 4.0, 8.0)))
    assert math.isnan(of((1.0, 1.0, 0.0), (1.0, 4.0, 8.0)))
    assert math.isnan(of((1.0, 1.0, 1.0), (0.0, 4.0, 8.0)))


@pytest.mark.parametrize(
    ("scale", "eps"),
    [
        ("smoke", (0.1, 0.2, 0.3)),
        ("small", (0.1, 0.2, 0.3)),
        ("paper", (0.025, 0.05, 0.075, 0.1, 0.125, 0.15)),
    ],
)
def test_the_ratio_is_over_the_eps_of_its_scale(scale, eps):
    """At paper scale those of the figure; elsewhere ours, and the scale says why."""
    of_scale = criticality.FIG5.scales[scale]
    assert of_scale.analyses["criticality"].eps == eps
    assert ("training errors of such networks are near 5 %" in of_scale.about) == (scale == "small")
    (claim,) = criticality.FIG5.claims
    assert ", ".join(f"{each:g}" for each in eps) in claim.statistic
    growing = network_criticality([1.0 + k for k in range(len(eps))], eps)
    tables = {
        ("resnet", "criticality"): network_criticality([1.0] * len(eps), eps),
        ("corrupt", "criticality"): growing,
    }
    assert claim.per_run(Replicate(tables)) == 0  # at the smallest eps
    short = network_criticality([1.0], eps[:1])
    assert math.isnan(claim.per_run(Replicate(tables | {("corrupt", "criticality"): short})))


GAPS = {"resnet": 0.1, "conv-w4": 0.3, "fcn1-w256": 0.2, "fcn3-w128": 0.4}


def four(values, gaps=GAPS) -> Replicate:
    """Part (b): by network its criticality at each eps; and the two networks of part (a)."""
    tables = {}
    for name, found in {**values, "corrupt": (9.0, 9.0, 9.0)}.items():
        tables[name, "criticality"] = network_criticality(found)
        tables[name, "gap"] = measured(gaps.get(name, 0.9))
    return Replicate(tables)


VALUES = {
    "resnet": (1.0, 1.0, 0.0),
    "conv-w4": (3.0, 2.0, math.nan),
    "fcn1-w256": (2.0, 3.0, 2.0),
    "fcn3-w128": (4.0, 4.0, 1.0),
}


def test_four_architectures_are_ranked_at_each_eps():
    """By medians over seeds; of four networks only a tau of 1 or -1 has an interval, and it is as wide as that."""
    doubled = {name: tuple(3 * v for v in row) for name, row in VALUES.items()}
    seeds = [four(VALUES), four(VALUES), four(doubled, {name: 2 * gap for name, gap in GAPS.items()})]
    found = criticality.Architectures(seeds)
    assert found.names == list(GAPS)
    assert found.gaps == pytest.approx(list(GAPS.values()))
    ranked = found.ranked()
    assert [each.eps for each in ranked] == list(criticality.EPS)
    gaps = list(GAPS.values())
    assert ranked[0].tau == pytest.approx(1.0)
    assert (ranked[0].high, ranked[0].n) == (1.0, 4)
    assert ranked[0].low < 0
    assert ranked[1].tau == pytest.approx(kendalltau([VALUES[name][1] for name in GAPS], gaps).statistic)
    assert math.isnan(ranked[1].low)
    assert ranked[2].tau == pytest.approx(kendalltau([0.0, 2.0, 1.0], [0.1, 0.2, 0.4]).statistic)
    assert ranked[2].n == 3


def test_what_is_shown_of_four_architectures():
    (listing,) = criticality.FIG5.listings([four(VALUES)] * 2)
    assert listing.heads == ["network", "gap", "eps = 0.1", "eps = 0.2", "eps = 0.3"]
    assert listing.rows[1] == ["conv-w4", "30.00", "3", "2", "-"]
    assert [row[0] for row in listing.rows] == [*GAPS, "Kendall's tau with the gap"]
    assert listing.rows[-1][2].startswith("1.00 (interval: -0.68 to 1.00; n = 4)")
    assert listing.rows[-1][3] == "0.67 (interval: none; n = 4)"
    assert "Four networks decide nothing" in listing.caption
    figures = criticality.FIG5.figures([four(VALUES)] * 2)
    assert list(figures) == ["criticality-against-eps", "architectures-against-eps"]
    upper, lower = figures["architectures-against-eps"].axes
    assert upper.get_yscale() == "symlog"  # a criticality of 0 can be seen
    assert upper.get_ylim()[0] < 0
    lines = {line.get_label(): list(line.get_ydata()) for line in upper.lines}
    assert lines["resnet (gap 10.00 points)"] == [1.0, 1.0, 0.0]
    dots = [line for line in lower.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in dots] == pytest.approx([1.0, 2 / 3, 1 / 3])
    for figure in figures.values():
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.01
        assert box.x1 < width + 0.01
        assert box.y1 < height + 0.01
    positive = dict.fromkeys(GAPS, (3.0, 2.0, 1.0))
    assert criticality.FIG5.figures([four(positive)])["architectures-against-eps"].axes[0].get_yscale() == "log"


def test_an_architecture_of_part_b_does_not_decide_part_a():
    """It may be undertrained; a network of part (a) may not."""
    seeds = [four(VALUES | {"resnet": (1.0, 1.0, 1.0)}) for _ in range(5)]
    assert judge(criticality.FIG5, seeds).frame["verdict"].item() == "holds"
    tables = {
        key: Table(table.frame, {"error": 0.2}) for key, table in seeds[0].tables.items() if key[0] == "fcn3-w128"
    }
    other = Replicate({**seeds[0].tables, **tables})
    assert judge(criticality.FIG5, [other, *seeds[1:]]).frame["verdict"].item() == "holds"
    tables = {key: Table(table.frame, {"error": 0.2}) for key, table in seeds[0].tables.items() if key[0] == "corrupt"}
    undertrained = judge(criticality.FIG5, [Replicate({**seeds[0].tables, **tables}), *seeds[1:]])
    assert undertrained.frame["reason"].item().startswith("undertrained: training error up to 20.0 %")
    assert undertrained.provenance["training_error"] == 0.2


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_the_other_architectures_are_networks_of_the_contest(scale):
    """Four with that of part (a), true labels; trained as there, so that both can share them."""
    of_contest = contest.TABLE2.scales[scale].networks
    mine = criticality.FIG5.scales[scale]
    assert list(mine.networks)[:2] == ["resnet", "corrupt"]
    others = list(mine.networks)[2:]
    assert len(others) == 3
    assert all(mine.networks[name] == of_contest[name] for name in others)
    assert "part (b)" in mine.about


def test_notes_say_which_criticality_and_which_gap():
    assert "another number than that of tables 2 to 5" in criticality.FIG5.note
    assert "layers with their biases" in criticality.FIG5.note
    for study in contest.STUDIES:
        assert "another number than that of fig5" in study.note
        assert ("clean test error less noisy training error" in study.note) == (study is contest.TABLE2)


def measured(gap: float, **values: float) -> Table:
    rows = [{"part": WHOLE, "metric": "generalisation_gap", "unit": "fraction", "value": gap, "status": "ok"}]
    rows += [{"part": WHOLE, "metric": name, "value": value, "status": "ok"} for name, value in values.items()]
    return Table.of(rows, {"error": 0.0})


def test_the_lead_of_criticality_over_the_best_other():
    random = np.random.default_rng(0)
    gaps = np.linspace(0.1, 0.6, 24)
    tables = {
        (f"n{k}", "measures"): measured(
            gap,
            criticality=gap,
            **{name: float(random.normal()) for name in contest.OF_THE_PAPER if name != "criticality"},
        )
        for k, gap in enumerate(gaps)
    }
    found = contest.lead([Replicate(tables)])
    assert (found.n, found.reason) == (24, "")
    assert 0 < found.low < found.value < found.high <= 2
    ranked, *_ = contest.TABLE2.listings([Replicate(tables)])
    assert ranked.rows[0][:2] == ["network criticality", "1.00"]
    few = contest.lead([Replicate(dict(list(tables.items())[:10]))])
    assert few.reason == "10 networks of different kinds; at least 20 are needed"
    assert set(contest.figures([Replicate(tables)])) >= {"tau"} or contest.figures([Replicate(tables)])


def test_the_best_tau_over_widths():
    order = {"criticality": (1, 2, 3, 4), "log_pfn": (4, 3, 2, 1)}
    others = {name: (1, 2, 4, 3) for name in contest.OF_THE_PAPER if name not in order}
    tables = {
        (f"w{k}", "measures"): measured(gap, **{name: float(v[k]) for name, v in (order | others).items()})
        for k, gap in enumerate((0.4, 0.3, 0.2, 0.1))
    }
    found = contest.best_tau([Replicate(tables)] * 5)
    assert found.value == pytest.approx(1.0)  # log_pfn
    assert (found.n, found.reason) == (5, "")
    assert contest.best_tau([Replicate(tables)]).reason.startswith("1 run;")
    ranked, *_ = contest.TABLE4.listings([Replicate(tables)])
    assert ranked.caption.endswith("Of 4 networks only: two measures are seldom told apart by fewer than 20.")


def test_the_conjecture_is_a_difference():
    table = Table.of([{"metric": "conjecture", "value": value, "status": "ok"} for value in (0.03, 0.05)])
    assert bounds.conjecture(seed(bounds=table)) == pytest.approx(0.03)
    better = Table.of([{"metric": "conjecture", "value": -0.1, "status": "ok"}])  # not the claim's network
    both = Replicate({("resnet", "bounds"): table, ("plain", "bounds"): better})
    assert bounds.conjecture(both) == pytest.approx(0.03)
    assert math.isnan(
        bounds.conjecture(seed(bounds=Table.of([{"metric": "theorem_3.2", "value": 1.0, "status": "ok"}])))
    )


def test_networks_differ_in_what_they_are_named_after():
    for spec in BASE.values():
        noisy = corrupt(spec)
        assert noisy.data.endswith("random=0.2")
        assert (noisy.augment, noisy.weight_decay) == ("none", 0.0)
        assert "norm=scalar" in fixup(spec).model
    assert len(units(contest.TABLE2.scales["small"])) == 24


def test_every_row_has_its_scales_and_claims():
    assert len(STUDIES) == 15
    for study in STUDIES:
        assert {"smoke", "paper"} <= set(study.scales)
        assert len({claim.id for claim in study.claims}) == len(study.claims) > 0


SLOW = [pytest.param(study.id, marks=[] if study.id.endswith("fig2") else pytest.mark.slow) for study in STUDIES]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.mark.parametrize("name", SLOW)
def test_smoke(name, networks, tmp_path):
    made = ["reproduce", name, "--out", str(tmp_path / "out"), "--networks", str(networks)]
    assert main(made) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The claims of the paper" in page
    assert ('id="study-listing-1"' in page) == (name.split("/")[1] in ("fig5", "table2", "table3", "table4", "table5"))
    assert list((tmp_path / "out" / "figures").glob("*.png"))
    verdicts = Table.open(tmp_path / "out" / "verdicts.parquet")
    assert set(verdicts.frame["verdict"]) == {"inconclusive"}
