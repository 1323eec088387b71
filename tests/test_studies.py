"""The study frame: a verdict follows from numbers, and from nothing else."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, ttest_1samp

from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.stats import Interval
from layerscope.studies import catalogue
from layerscope.studies.frame import Claim, Estimate, Replicate, Study, decide, judge, training_errors
from layerscope.studies.session import reproduce, units
from layerscope.studies.zhang2022 import fig1
from layerscope.table import Table


def claim(relation="above", threshold=0.5) -> Claim:
    return Claim("c", "text", "statistic", "unit", relation, threshold, lambda seed: seed.table().provenance["x"])


@cache
def rows(training_error: float) -> Table:
    return Table.of([{"perturbation": "none", "metric": "error", "split": "train", "value": training_error}])


def replicate(x: float, training_error: float = 0.0) -> Replicate:
    return Replicate({("network", "analysis"): Table(rows(training_error).frame, {"x": x})})


def verdict(values, relation="above", training_error=0.0) -> dict:
    study = Study("p/f", "t", "s", (claim(relation),), {})
    return judge(study, [replicate(x, training_error) for x in values]).frame.iloc[0].to_dict()


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.7, "holds", "does not hold"),
        (0.3, 0.4, "does not hold", "holds"),
        (0.4, 0.6, "inconclusive", "inconclusive"),
        (0.5, 0.6, "inconclusive", "inconclusive"),
        (float("nan"), float("nan"), "inconclusive", "inconclusive"),
    ],
)
def test_the_rule(low, high, above, below):
    assert decide(claim("above"), Interval(low, high)) == above
    assert decide(claim("below"), Interval(low, high)) == below


def test_the_interval_is_over_runs():
    values = [0.6, 0.7, 0.8, 0.65, 0.75]
    row = verdict(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
    assert (row["verdict"], row["n"], row["interval"], row["reason"]) == ("holds", 5, "runs", "")


def test_few_runs_and_undertrained_networks_decide_nothing():
    assert verdict([0.9] * 4)["reason"] == "4 runs; at least 5 are needed"
    assert verdict([0.9] * 4)["verdict"] == "inconclusive"
    row = verdict([0.9, 0.91] * 5, training_error=0.051)
    assert row["verdict"] == "inconclusive"
    assert row["reason"].startswith("undertrained: training error up to 5.1 %")
    assert verdict([0.9, 0.91] * 5, training_error=float("nan"))["verdict"] == "inconclusive"
    assert verdict([0.9, float("nan")] * 5)["reason"] == "the statistic is not defined for at least one run"


def test_a_claim_over_networks_brings_its_own_interval():
    def overall(found):
        return Estimate(0.7, 0.6, 0.8, len(found[0].networks), "too few" if len(found) < 2 else "")

    study = Study("p/f", "t", "s", (Claim("c", "text", "statistic", "unit", "above", 0.5, overall=overall),), {})
    one, two = (judge(study, [replicate(0.0)] * n).frame.iloc[0] for n in (1, 2))
    assert (one["verdict"], one["reason"], one["n"]) == ("inconclusive", "too few", 1)
    assert (two["verdict"], two["low"], two["high"]) == ("holds", 0.6, 0.8)


def test_any_analysis_may_say_the_training_error():
    bare, fact = Table.of([{"metric": "x", "value": 1.0}]), Table.of([], {"error": 0.2})
    assert training_errors(Replicate({("a", "1"): bare, ("a", "2"): fact})) == {"a": 0.2}
    assert np.isnan(training_errors(Replicate({("a", "1"): bare}))["a"])


def test_error_rate_of_verdicts_at_the_threshold():
    """Exactly at the threshold both wrong verdicts together come in at most about 5 % of studies (here normal, 5 runs)."""
    random = np.random.default_rng(0)
    verdicts = [verdict(random.normal(0.5, 0.1, 5))["verdict"] for _ in range(600)]
    wrong = sum(v != "inconclusive" for v in verdicts) / len(verdicts)
    assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


ERRORS = {"layer1": 0.5, "layer2": 0.06, "layer3": 0.03}
RANDOM = {"layer1": (0.85, 0.87), "layer2": (0.90, 0.94), "layer3": (0.93, 0.99)}
MOVED = {"layer1": 0.1, "layer2": 0.3, "layer3": 0.2}


def fig1_table() -> Table:
    """Unmodified error 0.02, chance 0.9: the gap is 0.88."""
    rows = [{"perturbation": "none", "metric": "error", "split": "test", "value": 0.02}]
    for part, error in {**ERRORS, "whole network": 0.9}.items():
        place = {"part": part, "perturbation": "rewind", "step": 0, "split": "test"}
        rows += [place | {"metric": "error_delta", "value": error - 0.02}]
        if part in MOVED:
            for draw, value in enumerate(RANDOM[part]):
                random = {"part": part, "perturbation": "rerandomize", "split": "test", "draw": draw}
                rows += [random | {"metric": "error", "value": value}]
            for step in (0, 3):
                far = {"part": part, "perturbation": "rewind", "step": step, "to": "start"}
                rows += [far | {"metric": "distance_l2", "value": MOVED[part] * step}]
    return Table.of(rows, {"chance": 0.9})


def test_statistics_of_fig1_by_hand():
    table = fig1_table()
    assert fig1.first_layer(table) == pytest.approx(0.48 / 0.88)
    assert fig1.worst_other_layer(table) == pytest.approx(0.04 / 0.88)
    assert fig1.farthest_from_chance(table) == pytest.approx(6.0)  # layer 3; layer 1 is 4 below
    by_hand = kendalltau([0.3, 0.9, 0.6], [0.5, 0.06, 0.03])[0]
    assert by_hand == pytest.approx(-1 / 3)
    assert fig1.order_agreement(table, "distance_l2") == pytest.approx(by_hand)


def test_every_scale_has_the_same_claims_and_more_seeds_only_replicate():
    study = fig1.STUDY
    assert set(study.scales) == {"smoke", "small", "paper"}
    for scale in study.scales.values():
        asked = units(scale, 3)
        assert [(unit.name, unit.training.seed) for unit in asked] == [("seed-0", 0), ("seed-1", 1), ("seed-2", 2)]
        assert asked[0].training.checkpoints == scale.networks["seed"].checkpoints
        assert asked[1].training.checkpoints == ()
        assert asked[1].analyses["robustness"].steps == ()


def test_the_catalogue_has_every_row_of_the_papers():
    ids = {row.id for row in catalogue.rows()}
    papers = Path(__file__).parents[2] / "shared" / "PAPERS.md"
    if not papers.is_file():
        pytest.skip("the list of figures and tables is not beside this checkout")
    paper, missing = "", []
    for line in papers.read_text().splitlines():
        if match := re.match(r"## (\w+20\d\d)", line):
            paper = match[1]
        elif paper and re.match(r"\| (fig|table|sec|bounds|rollback|emc|hypothesis|constructions)", line):
            for name in re.split(r", (?=fig|table)", line.split("|")[1].strip()):
                first = name.split(",")[0].split(" ")[0]
                missing += [f"{paper}/{first}"] if f"{paper}/{first}" not in ids else []
    assert missing == []


def test_names(capsys):
    with pytest.raises(UseError, match="unknown study 'zhang2022/fig99'; did you mean"):
        catalogue.find("zhang2022/fig99")
    with pytest.raises(UseError, match="cannot be reproduced yet; ready: zhang2022/fig1, "):
        catalogue.find("wang2022/fig1")
    with pytest.raises(UseError, match="has no scale 'huge'; there are smoke, small, paper"):
        fig1.STUDY.scale("huge")
    assert main(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in listed if row["state"] == "ready"][:2] == ["zhang2022/fig1", "chatterji2020/fig1"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "fig1"
    assert main(["reproduce", "zhang2022/fig1", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_smoke(smoke):
    verdicts = Table.open(smoke / "verdicts.parquet")
    assert list(verdicts.frame["metric"]) == [c.id for c in fig1.CLAIMS]
    assert set(verdicts.frame["reason"]) == {"2 runs; at least 5 are needed"}
    page = (smoke / "report.html").read_text()
    assert "The claims of the paper" in page
    assert "2 runs; at least 5 are needed" in page
    assert {path.name for path in (smoke / "figures").iterdir()} >= {"seed-0-error.png", "seed-0-error.svg"}


def test_more_seeds_later_keep_what_is_there(smoke):
    before = (smoke / "seed-0" / "training.parquet").stat().st_mtime_ns
    made = reproduce(fig1.STUDY, "smoke", smoke, seeds=3)
    assert len(made.runs) == 3
    assert set(made.verdicts.frame["n"]) == {3}
    assert (smoke / "seed-0" / "training.parquet").stat().st_mtime_ns == before
