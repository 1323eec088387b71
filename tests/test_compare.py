"""The contest of measures: the paper's own rows, networks made by hand, and what is shown of them."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import kendalltau

import layerscope as ls
from layerscope.errors import UseError
from layerscope.partition import WHOLE
from layerscope.plots import compare as shown
from layerscope.plots.grid import records

# chatterji2020, Table 2: error on CIFAR-10 in per cent, measures, and the paper's tau of each.
NETWORKS = ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "DenseNet121", "VGG11", "VGG16", "FCN I", "FCN II")
GAPS = (4.61, 6.3, 6.6, 6.4, 7.8, 8.51, 7.47, 29.83, 26.45)
PAPER = {
    "log_pfn": ([22.0, 37.3, 56.6, 110.9, 129.3, 11.0, 15.7, 20.5, 21.5], -0.22),
    "log_psn": ([14.6, 24.5, 20.6, 32.5, 42.8, 6.0, 8.3, 7.3, 7.0], -0.33),
    "distance_squared": ([3430.0, 4768, 10018, 18730, 21359, 2106, 2341, 75221, 81258], 0.38),
    "parameters": ([1.1e7, 2.1e7, 2.3e7, 4.2e7, 6.8e6, 2.8e7, 3.4e7, 2.0e7, 5.0e7], 0.16),
    "sosp": ([1.3e9, 3.7e9, 3.3e9, 9.8e9, 2.0e9, 1.3e9, 2.1e9, 4.6e8, 2.0e9], -0.53),
    "pac_bayes": ([6.9e5, 9.1e5, 1.6e6, 2.8e6, 1.2e6, 1.0e6, 1.2e6, 9.0e6, 9.5e6], 0.42),
    "criticality": ([2.2e5, 1.7e5, 1.8e5, 6.3e5, 4.1e5, 2.8e5, 2.7e5, 5.7e6, 6.2e6], 0.55),
}


def network(gap, values, status=None):
    """The table of one network; of a measure without a value, `values` has the reason."""
    rows = [
        {"metric": "generalisation_gap", "unit": "fraction", "value": gap, "n": 1000, "status": "ok"},
        *({"metric": "error", "unit": "fraction", "split": s, "value": gap, "status": "ok"} for s in ("train", "test")),
    ]
    for name, value in values.items():
        ok = {"value": value, "status": (status or {}).get(name, "ok")}
        rows.append({"metric": name, **({"status": "infeasible", "reason": value} if isinstance(value, str) else ok)})
    return ls.Table.of([{"part": WHOLE, **row} for row in rows] + [{"part": "1", "metric": "sosp", "value": 7.0}])


def contest(gaps, hyper=None, spec=None, **measures):
    """The comparison of networks n00, n01, ... with a list of values for each measure."""
    columns = [{name: values[at] for name, values in measures.items()} for at in range(len(gaps))]
    names = [f"n{at:02}" for at in range(len(gaps))]
    tables = {name: network(gap, values) for name, gap, values in zip(names, gaps, columns, strict=True)}
    return ls.compare(tables, hyper and dict(zip(names, hyper, strict=True)), spec)


def inside(figure):
    """Whether all that is drawn of a figure is within its edges."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


def only(table, **equal):
    (row,) = table.where(**equal).to_dict("records")
    return row


@pytest.fixture(scope="module")
def paper():
    values = {name: column for name, (column, _) in PAPER.items()}
    return contest([gap / 100 for gap in GAPS], spec=ls.CompareSpec(against="criticality"), **values)


def test_the_papers_own_rows(paper):
    """The printed values have two digits, so that some networks tie."""
    for name, (values, printed) in PAPER.items():
        row = only(paper, metric="tau", measure=name)
        assert row["value"] == pytest.approx(kendalltau(GAPS, values).statistic)
        assert row["value"] == pytest.approx(printed, abs=0.05)
        assert (row["n"], row["interval"], row["status"]) == (9, "runs", "ok")
        assert row["low"] < row["value"] < row["high"]


def test_the_papers_lead_is_not_decided(paper):
    """0.13 over PAC-Bayes: the percentile interval of nine rows is about -0.3 to 0.8, and ours must not decide either."""
    row = only(paper, metric="tau_difference", measure_b="pac_bayes")
    assert row["value"] == pytest.approx(0.5556 - 0.4226, abs=1e-4)
    assert -0.5 < row["low"] < -0.1
    assert 0.6 < row["high"] < 0.9
    lead = only(paper, metric="tau_difference", measure_b="best other")
    assert lead["value"] == row["value"]  # PAC-Bayes is the best other
    assert lead["low"] <= row["low"]
    assert len(paper.where(metric="tau_difference")) == len(PAPER)
    told = shown.sentences(paper)
    assert any("not decided whether network criticality ranks better than every other measure" in line for line in told)
    assert any("fewer than 20 networks" in line for line in told)
    assert paper.provenance["warnings"] == ["of 9 networks only: two measures are seldom told apart by fewer than 20"]


def test_a_lead_that_is_decided():
    random = np.random.default_rng(0)
    gaps = np.linspace(0.01, 0.3, 24)
    table = contest(gaps, criticality=list(gaps + 0.01 * random.normal(size=24)), sosp=list(random.normal(size=24)))
    row = only(table, metric="tau_difference", measure_b="best other")
    assert row["measure"] == "criticality"
    assert row["low"] > 0.3
    assert any("ranks surely better than every other" in line for line in shown.sentences(table))
    behind = contest(
        gaps,
        spec=ls.CompareSpec(against="sosp"),
        criticality=list(gaps + 0.01 * random.normal(size=24)),
        sosp=list(random.normal(size=24)),
    )
    assert only(behind, metric="tau_difference", measure_b="best other")["high"] < 0
    assert any("ranks surely worse than the best other" in line for line in shown.sentences(behind))


def test_a_lead_of_whichever_is_first_is_no_surer_than_of_one_named_before():
    """Five measures of equal worth: that one of them ranks best is luck, and its interval allows for the choice."""
    names = ("criticality", "sosp", "pac_bayes", "mine", "yours")
    for seed in range(4):
        random = np.random.default_rng(seed)
        gaps = random.normal(size=15)
        values = {name: list(gaps + random.normal(size=15)) for name in names}
        best = max(names, key=lambda name: kendalltau(gaps, values[name]).statistic)
        found, named = (
            only(contest(list(gaps), spec=spec, **values), metric="tau_difference", measure_b="best other")
            for spec in (ls.CompareSpec(resamples=500), ls.CompareSpec(resamples=500, against=best))
        )
        assert (found["measure"], found["value"]) == (best, named["value"])
        assert found["low"] < named["low"]
        assert found["high"] >= named["high"]


def test_a_measure_that_falls_is_turned():
    gaps = [0.1, 0.2, 0.3, 0.4]
    table = contest(gaps, margin_median=[4.0, 3, 2, 1], sosp=[4.0, 3, 2, 1], mine=[1.0, 2, 3, math.inf])
    assert {row["measure"]: row["value"] for row in table.where(metric="tau").to_dict("records")} == {
        "margin_median": 1,
        "sosp": -1,
        "mine": 1,
    }
    assert list(table.where(metric="margin_median")["value"]) == [4, 3, 2, 1]  # as the tables have them
    assert math.isinf(table.where(metric="mine")["value"].iloc[-1])
    assert table.provenance["direction"]["margin_median"] == -1


def test_networks_without_a_value():
    """They are left out of that measure alone; a difference is over networks that have both."""
    gaps = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    holes = {
        "sosp": ["diverged", 2, 1, 4, 5, 6],
        "criticality": [1, 2, 3, 4, 6, "no cell"],
        "pac_bayes": ["no"] * 4 + [1, 2],
    }
    table = contest(gaps, **holes)
    sosp = only(table, metric="tau", measure="sosp")
    assert (sosp["n"], sosp["value"]) == (5, pytest.approx(0.8))
    assert sosp["reason"] == "1 of 6 networks left out (n00: diverged)"
    row = only(table, metric="tau_difference", measure="sosp", measure_b="criticality")
    both = kendalltau(gaps[1:5], [2, 1, 4, 5]).statistic - kendalltau(gaps[1:5], [2, 3, 4, 6]).statistic
    assert (row["n"], row["value"]) == (4, pytest.approx(both))
    few = only(table, metric="tau", measure="pac_bayes")
    assert (few["status"], math.isnan(few["value"])) == ("not applicable", True)
    assert "pac_bayes" not in set(table.where(metric="tau_difference")["measure_b"])
    assert any(line.startswith("Not ranked: PAC-Bayes") for line in shown.sentences(table))
    constant = contest(gaps, sosp=[1.0] * 6)
    assert "of all 6 networks are equal" in only(constant, metric="tau")["reason"]
    assert shown.figures(constant) == {}
    assert "no measure could rank these networks" in constant.provenance["warnings"]


def test_values_at_an_edge_count_and_are_counted():
    tables = {f"n{at}": network(at / 10, {"criticality": at}, {"criticality": "on the edge"}) for at in range(1, 5)}
    row = only(ls.compare(tables), metric="tau")
    assert (row["n"], row["reason"]) == (4, "4 of 4 values lie at an end of what was searched")


def searched(gap, value=1.0, low=1.0, high=1.0, error=0.01, eps=0.1, falls=(), metric="criticality", **facts):
    """The table of one network with a criticality of two modules, the second surely of its value."""
    row = {"metric": metric, "eps": eps, "status": "ok" if value is not None else "infeasible"}
    rows = [
        {"part": WHOLE, "metric": "generalisation_gap", "unit": "fraction", "value": gap, "status": "ok"},
        {"part": WHOLE, "metric": "error", "split": "train", "value": error, "status": "ok"},
        {**row, "part": "a", "value": value, "low": low, "high": high},
        {**row, "part": "b", "value": 2.0, "low": 2.0, "high": 2.0, "status": "ok"},
        {**row, "part": WHOLE, "value": value and value + 2},
    ]
    return ls.Table.of(rows, {"monotonicity": {"falls": list(falls)}, **facts})


def test_values_that_are_in_doubt_are_counted():
    """By draws, by a fall of the error, by a training error above eps; a missing value is not in doubt."""
    fall = {"part": "a", "alpha": 0.5, "sigma": [0.1, 0.2], "error": [0.3, 0.1]}
    tables = {
        "sure": searched(0.1),
        "guess": searched(0.2, 2.0, low=0.5, high=5.0),
        "open": searched(0.3, 3.0, low=3.0, high=None, falls=[fall]),
        "high": searched(0.4, 4.0, low=4.0, high=4.0, error=0.101),
        "none": searched(0.5, None, low=None, high=None, error=0.2, falls=[fall]),
        "equal": searched(0.6, 6.0, low=6.0, high=6.0, error=0.1),
    }
    table = ls.compare(tables)
    row = only(table, metric="tau", measure="criticality")
    assert (row["n"], row["value"]) == (5, 1)
    assert row["reason"].split("; ") == [
        "1 of 6 networks left out (none: infeasible)",
        "2 of 6 values are sums in which draws leave at least one module in doubt, so that an estimate decides",
        "1 of 6 values come with a warning that the error falls somewhere as noise grows, where search=sequential may miss "
        "the best",
        "2 of 6 networks have a training error above eps, where this measure means little",
    ]
    assert any(row["reason"] in said for said in shown.sentences(table))
    assert row["reason"] in shown.remarks(table)[0]
    (said,) = [text for text in table.provenance["warnings"] if "training error" in text]
    assert said.startswith("2 of 6 networks have a training error above the eps of criticality (high and none): ")
    assert said.rstrip(".") in " ".join(shown.remarks(table))
    quiet = ls.compare({name: searched(gap / 10, gap, low=gap, high=gap) for gap, name in enumerate("abc", start=1)})
    assert only(quiet, metric="tau")["reason"] == ""
    assert not any("training error" in text for text in quiet.provenance["warnings"])


@pytest.mark.parametrize(("alpha", "warned"), [(0.5, False), (1.0, True)])
def test_pac_bayes_looks_at_the_trained_values_alone(alpha, warned):
    fall = {"part": "a", "alpha": alpha, "sigma": [0.1, 0.2], "error": [0.3, 0.1]}
    tables = {f"n{at}": searched(at / 10, at, at, at, falls=[fall], metric="pac_bayes") for at in range(1, 4)}
    assert ("falls somewhere" in only(ls.compare(tables), metric="tau")["reason"]) == warned


@pytest.mark.parametrize(
    "facts", [{"changed_labels": 7}, {"data": {"name": "d", "noise": {"kind": "random", "differ": 7}}}]
)
def test_gaps_of_networks_with_label_noise_are_warned_of(facts):
    tables = {f"n{at}": searched(at / 10, at, **(facts if at % 2 else {})) for at in range(1, 5)}
    (said,) = [text for text in ls.compare(tables).provenance["warnings"] if "noise" in text]
    assert said.startswith(
        "2 of 4 networks were trained with label noise (n1 and n3), and test labels have none: their general"
    )
    clean = {
        name: ls.Table(table.frame, {"data": {"name": "d", "noise": {"differ": 0}}}) for name, table in tables.items()
    }
    assert not any("noise" in text for text in ls.compare(clean).provenance["warnings"])
    errors = [{"part": WHOLE, "metric": "error", "split": "test", "value": 0.1, "status": "ok"}]
    tested = {name: ls.Table.of([*records(table.frame), *errors], table.provenance) for name, table in tables.items()}
    by_error = ls.compare(tested, spec=ls.CompareSpec(target="error"))
    assert not any("noise" in text for text in by_error.provenance["warnings"])  # test labels are clean


def test_gaps_against_labels_before_noise_are_not_the_target():
    def with_recovered(table):
        row = {"part": WHOLE, "metric": "generalisation_gap", "split": "recovered", "value": -1.0, "status": "ok"}
        return ls.Table.of([*records(table.frame), row], table.provenance)

    table = ls.compare({f"n{at}": with_recovered(searched(at / 10, at)) for at in range(1, 4)})
    assert list(table.where(metric="generalisation_gap")["value"]) == [0.1, 0.2, 0.3]


def test_a_network_without_a_target():
    tables = {f"n{at}": network(at / 10, {"sosp": at}) for at in range(4)}
    alone = {"metric": "generalisation_gap", "status": "not applicable", "reason": "there are no test data"}
    tables["untested"] = ls.Table.of([{"part": WHOLE, **alone}, {"part": WHOLE, "metric": "sosp", "value": 1.0}])
    table = ls.compare(tables)
    assert only(table, metric="tau")["n"] == 4
    assert table.provenance["left_out"] == {"untested": "there are no test data"}
    assert "untested" not in set(table.frame["run"])
    with pytest.raises(
        UseError, match=r"2 of 3 networks have a generalisation_gap; at least 3 .* untested: there are no"
    ):
        ls.compare({name: tables[name] for name in ("n0", "n1", "untested")})


def test_hyperparameters_one_at_a_time():
    """Width decides both, seeds are noise in one: the measure ranks widths perfectly, and the reverse for rates."""
    hyper = [{"width": w, "lr": r, "seed": s, "epochs": 3} for w in (1, 2, 4) for r in (0.1, 0.2) for s in (0, 1)]
    gaps = [10 * each["width"] + 4 * (each["lr"] == 0.2) + each["seed"] for each in hyper]
    sosp = [10.0 * each["width"] - 4 * (each["lr"] == 0.2) + each["seed"] for each in hyper]
    table = contest(gaps, hyper, sosp=sosp, criticality=[1.0] * 12)
    found = {row["given"]: row for row in table.where(metric="tau_given", measure="sosp").to_dict("records")}
    assert {name: (row["value"], row["groups"], row["pairs"]) for name, row in found.items()} == {
        "width": (1, 4, 12),
        "lr": (-1, 6, 6),
        "seed": (1, 6, 6),
    }
    assert found["lr"]["low"] == -1 < found["lr"]["high"] < 0.5
    mean = only(table, metric="tau_granulated", measure="sosp")
    assert (mean["value"], mean["n"]) == (0, 2)  # of width and lr: not of the seed, and epochs do not vary
    assert mean["low"] < 0 < mean["high"]
    assert table.provenance["hyper"]["n00"] == {"lr": 0.1, "seed": 0, "width": 1}
    assert len(table.where(metric="tau_given", measure="criticality")) == 0  # it ranks nothing
    heads = shown.listings(table)[1].heads
    assert heads == ["measure", "lr", "seed", "width", "mean"]
    assert set(shown.figures(table)) == {"tau", "values", "granulated"}


def test_hyperparameters_that_some_lack():
    hyper = [{"width": 1}, {"width": 2, "milestones": [3, 4]}, {"width": 2}, {"width": 1}]
    table = contest([1, 2, 3, 4], hyper, sosp=[1, 2, 3, 4])
    assert only(table, metric="tau_given", given="milestones")["pairs"] == 1
    with pytest.raises(UseError, match="no hyperparameters of n00, n01"):
        ls.compare({f"n0{at}": network(at, {"sosp": at}) for at in range(3)}, {"n02": {"width": 1}})


def test_the_order_of_tables_does_not_matter():
    random = np.random.default_rng(5)
    tables = {f"n{at}": network(random.normal(), {"sosp": random.normal()}) for at in range(10)}
    one, two = ls.compare(tables), ls.compare(dict(reversed(tables.items())))
    assert one.frame.equals(two.frame)
    other = ls.compare(tables, spec=ls.CompareSpec(seed=1))
    assert only(other, metric="tau")["value"] == only(one, metric="tau")["value"]
    assert only(other, metric="tau")["low"] != only(one, metric="tau")["low"]


def test_what_is_compared():
    gaps = [0.1, 0.2, 0.3]
    table = contest(gaps, sosp=[1, 3, 2], log_sosp=[1, 3, 2], criticality=[1, 2, 3])
    assert table.provenance["measures"] == ["sosp", "criticality"]
    assert table.provenance["left_out"] == {"log_sosp": "it ranks as sosp does"}
    asked = contest(gaps, spec=ls.CompareSpec(against="log_sosp"), sosp=[1, 3, 2], log_sosp=[1, 3, 2])
    assert asked.provenance["measures"] == ["log_sosp"]
    error = contest(gaps, spec=ls.CompareSpec(target="error", measures=("sosp",)), sosp=[1, 3, 2], criticality=gaps)
    assert list(error.where(metric="error")["split"]) == ["test"] * 3
    assert set(error.where(metric="tau")["measure"]) == {"sosp"}
    with pytest.raises(UseError, match="unknown measure 'criticallity'; did you mean criticality"):
        contest(gaps, spec=ls.CompareSpec(measures=("criticallity",)), criticality=gaps)
    twice = ls.Table.of([{"part": WHOLE, "metric": "criticality", "eps": eps, "value": 1.0} for eps in (0.1, 0.2)])
    with pytest.raises(UseError, match="n0 has several values of criticality"):
        ls.compare({"n0": twice})
    for wrong in (
        {"level": 1.0},
        {"resamples": 9},
        {"measures": ("sosp", "sosp")},
        {"measures": ("sosp",), "against": "x"},
    ):
        with pytest.raises(UseError):
            ls.CompareSpec(**wrong)


def test_what_is_shown(paper, tmp_path):
    """From the file alone: measures from the best down, values by network, pictures that can be drawn."""
    paper.save(tmp_path / "compare.parquet")
    table = ls.Table.open(tmp_path / "compare.parquet")
    assert shown.sentences(table) == shown.sentences(paper)
    ranking, values = shown.listings(table)
    assert [row[0] for row in ranking.rows[:2]] == [
        "network criticality",
        "PAC-Bayes, noise around the trained network",
    ]
    assert ranking.rows[0][1] == "0.56"
    assert ranking.rows[1][4] == "0.13"
    assert values.rows[0][:2] == ["n00", "4.61 %"]
    assert values.rows[-1][0] == "n07"  # FCN I, of the largest gap
    figures = shown.figures(table)
    assert set(figures) == {"tau", "values"}
    titles = [axes.get_title("left") for axes in figures["values"].axes if axes.get_visible()]
    assert titles[0] == "network criticality\ntau = 0.56 (n = 9)"
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_all_pairs_are_seen_from_the_first():
    """Each pair is one row; the listing turns those that name the first measure second."""
    gaps = [0.1, 0.2, 0.3, 0.4, 0.5]
    table = contest(gaps, sosp=[2, 1, 3, 4, 5], criticality=gaps, pac_bayes=[1, 2, 3, 5, 4])
    pairs = table.where(metric="tau_difference")
    assert len(pairs) == 3 + 1
    found = only(table, metric="tau_difference", measure="sosp", measure_b="criticality")
    assert found["value"] == pytest.approx(-0.2)
    rows = {row[0]: row for row in shown.listings(table)[0].rows}
    assert rows["parameters x sum of spectral norms of the change"][4] == "0.20"
    assert rows["network criticality"][4] == "-"


SOSP = "parameters x sum of spectral norms of the change"


def test_measures_that_tie_are_all_named():
    gaps = [0.1, 0.2, 0.3, 0.4, 0.5]
    values = {"sosp": [1, 2, 3, 5, 4], "criticality": [2, 1, 3, 4, 5], "pac_bayes": [5, 4, 3, 2, 1]}
    said = shown.sentences(contest(gaps, **values))
    assert f"The orders by 2 measures are the most like it, a tie: {SOSP}; network criticality: tau = 0.80." in said
    (lead,) = [line for line in said if "its lead" in line]
    assert "its lead over the best of them (network criticality) is 0.00, a tie." in lead
    values["pac_bayes"] = gaps
    said = " ".join(shown.sentences(contest(gaps, **values)))
    assert "The order most like it is that by PAC-Bayes, noise around the trained network: tau = 1.00 (95 %" in said
    assert f"its lead over the best of them ({SOSP}; network criticality) is 0.20" in said
    assert "is 0.20, a tie" not in said


def test_the_best_within_hyperparameters():
    """Only those that have networks which differ in nothing else count, and all measures of the same mean tau are named."""
    hyper = [{"width": w, "lr": r} for w, r in ((1, 0.1), (2, 0.1), (4, 0.1), (8, 0.2), (16, 0.3))]
    gaps = [0.1, 0.2, 0.3, 0.4, 0.5]
    table = contest(gaps, hyper, sosp=[1, 2, 3, 0, 0.5], criticality=[1, 2, 3, 4, 5], pac_bayes=[3, 2, 1, 4, 5])
    (line,) = [line for line in shown.sentences(table) if line.startswith("Among networks")]
    begin = "Among networks that differ in one hyperparameter only, 2 measures rank best, a tie: "
    assert line.startswith(f"{begin}network criticality; {SOSP}: mean tau 1.00 (95 % interval ")
    assert line.endswith(" over width (1 group, 3 networks).")


def test_groups_that_a_measure_does_not_order_do_not_count():
    """Of the widths at the second rate it says nothing: its two networks are equal."""
    hyper = [{"width": w, "lr": r} for w, r in ((1, 0.1), (2, 0.1), (4, 0.1), (1, 0.2), (2, 0.2))]
    table = contest([0.1, 0.2, 0.3, 0.4, 0.5], hyper, sosp=[1, 2, 3, 5, 5])
    (line,) = [line for line in shown.sentences(table) if line.startswith("Among networks")]
    assert f"only, the best is {SOSP}: mean tau 1.00" in line
    assert line.endswith("over lr (2 groups, 4 networks) and width (1 group, 3 networks).")


def test_bars_are_spoken_of_where_there_are(paper):
    def below(table):
        figure = shown.figures(table)["tau"]
        bars = [
            line for line in figure.axes[0].lines if line.get_marker() == "None" and len(set(line.get_xdata())) == 2
        ]
        return len(bars), figure.get_supxlabel().replace("\n", " ")

    few = contest([0.1, 0.2, 0.3, 0.4, 0.5], sosp=[1, 2, 3, 5, 4])
    assert below(few) == (0, "1: same order, -1: reverse order. No intervals: 5 networks are too few for any.")
    bars, said = below(paper)
    assert (bars, said.endswith("Bars: 95 % intervals over networks, each for itself.")) == (len(PAPER), True)
    lacking = ["no"] * 4 + [1, 3, 2, 5, 4]
    bars, said = below(contest(list(GAPS), sosp=PAPER["sosp"][0], criticality=lacking))
    assert (bars, said.endswith("each for itself. No bar: too few networks for one.")) == (1, True)


def test_a_panel_rises_where_its_tau_does():
    """Whichever way a measure goes: the places of the points on the paper have the tau that is written above them."""
    random = np.random.default_rng(3)
    gaps = np.linspace(0.01, 0.3, 12)
    falling = list(0.5 - gaps + 0.03 * random.normal(size=12))
    wide = list(np.exp(-40 * gaps + random.normal(size=12)))
    values = {"margin_median": falling, "margin_q10_normalised": wide, "sosp": list(gaps), "flatness_worst": wide[::-1]}
    table = contest(gaps, **values)
    figure = shown.figures(table)["values"]
    figure.draw_without_rendering()
    panels = {axes.get_title("left").split("\n")[0]: axes for axes in figure.axes}
    for axes in panels.values():
        title = axes.get_title("left").replace("\n", " ")
        (line,) = axes.lines
        x, y = axes.transData.transform(line.get_xydata()).T
        assert f"tau = {kendalltau(x, y).statistic:.2f} " in title
        assert (axes.get_xlabel() == "axis turned: smaller to the right") == ("(turned)" in title)
    assert panels["margin, median (turned)"].get_xlabel()
    assert not panels["parameters x sum of spectral"].get_xlabel()


@pytest.mark.parametrize("low", [1e-7, 0.0213, 83_270.0])
@pytest.mark.parametrize("times", [1.3, 9.0, 23.5, 1e6])
def test_labels_of_ticks_are_apart(low, times):
    values = list(low * times ** np.linspace(0, 1, 5))
    measures = dict.fromkeys(("sosp", "criticality", "margin_median", "mine"), values)
    figure = shown.figures(contest([0.1, 0.2, 0.3, 0.4, 0.5], **measures))["values"]
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
        places = axes.get_xlim()
        shown_ = [t for t in axes.get_xticks() if min(places) <= t <= max(places)]
        assert 1 <= len(shown_) <= 5
        assert all(a.x1 + 6 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize("names", [("width",), ("width", "a long name of a setting", "optimizer momentum")])
def test_pictures_are_within_their_edges(names):
    hyper = [{name: at // 2**place % 2 for place, name in enumerate(names)} for at in range(8)]
    gaps = [0.1, 0.2, 0.3, 0.5, 0.4, 0.8, 0.6, 0.7]
    figures = shown.figures(contest(gaps, hyper, margin_q10_normalised=gaps, sosp=gaps))
    assert set(figures) == {"tau", "values", "granulated"}
    assert all(map(inside, figures.values()))
