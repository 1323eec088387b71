"""What machines get, and the checks a user can ask for."""

import json
import math
import runpy
import time
from pathlib import Path

import pytest

import layerscope as ls
from layerscope.analyses.summary import condition, summary
from layerscope.cli import main
from layerscope.console import lines, plain_json
from layerscope.errors import UseError

from .networks import signs

MADE = runpy.run_path(str(Path(__file__).with_name("test_plots.py")))  # tables made by hand, without training
foreign_table, failed_part = MADE["foreign_table"], MADE["failed_part"]


@pytest.fixture(scope="module")
def found():
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    many = [(x.repeat(100, 1), y.repeat(100)) for x, y in data]
    return summary(ls.robustness(model, trajectory, many, ls.RobustnessSpec(draws=0)))


def test_by_hand(found):
    assert found["unmodified"]["error"] == 0.2
    resets = {entry["part"]: entry for entry in found["parts"] if entry["change"] == "reset"}
    assert resets["a"]["delta"] == pytest.approx(0.6)
    assert (resets["a"]["verdict"], resets["b"]["verdict"]) == ("destroyed", "ambient")
    assert resets["a"]["n"] == 500
    json.loads(plain_json(found))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("delta>0.02", ["a"]),
        ("part=b, delta>0.02", []),
        ("part=[ab], delta>=0", ["a", "b"]),
        ("verdict=ambient", ["b"]),
        ("low>0.5", ["a"]),
        ("error<0.5", ["b"]),
    ],
)
def test_conditions(found, text, parts):
    assert [entry["part"] for entry in condition(text).failures(found)] == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("delta", "cannot read 'delta'"),
        ("dleta>0", "unknown field in --fail-if 'dleta'; did you mean delta"),
        ("delta>much", "'much' is not a number"),
        ("part>a", "unknown field in --fail-if 'part'"),
        ("verdict=ambiant", "unknown verdict in --fail-if 'ambiant'; did you mean ambient"),
        ("change=restart", "unknown change in --fail-if 'restart'"),
    ],
)
def test_bad_conditions(text, message):
    with pytest.raises(UseError, match=message):
        condition(text)


def test_the_deciding_metric_is_said_and_its_value_is_there(found):
    assert (found["metric"], found["unit"], found["better"]) == ("error", "fraction", "lower")
    assert all(entry["value"] == entry["error"] for entry in found["parts"])
    told = summary(foreign_table(3, steps=(0, 1), **MADE["PERPLEXITY"]))
    assert (told["metric"], told["unit"], told["better"]) == ("perplexity", "", "lower")
    assert told["unmodified"]["value"] == 23.4
    first = told["parts"][0]
    assert (first["part"], first["change"]) == ("transformer.h.0.mlp", "reset")
    assert first["value"] - 23.4 == pytest.approx(first["delta"])
    assert "error" not in first
    json.loads(plain_json(told))


def test_conditions_on_any_metric():
    told = summary(foreign_table(4, steps=(0, 1)))
    assert [entry["part"] for entry in condition("value>8").failures(told)] == ["transformer.h.0.mlp"]
    assert condition("verdict=destroyed").failures(told)[0]["verdict"] == "destroyed"
    with pytest.raises(UseError, match="this analysis measured token_cross_entropy; write value, not error"):
        condition("error>0.5").failures(told)


def test_where_more_is_better_a_bad_change_is_negative():
    told = summary(foreign_table(4, steps=(0, 1), **MADE["BLEU"]))
    assert told["better"] == "higher"
    (worst,) = condition("delta<-20").failures(told)
    assert (worst["part"], worst["verdict"]) == ("transformer.h.0.mlp", "destroyed")


def test_without_a_start_or_chance():
    told = summary(foreign_table(4, **MADE["UNKNOWN"]))
    assert {entry["change"] for entry in told["parts"]} == {"rerandomize"}
    assert {entry["verdict"] for entry in told["parts"]} == {"undecided"}
    with pytest.raises(UseError, match="means no layer that was measured"):
        condition("delta>0").failures(told)
    many = summary(foreign_table(300))
    with pytest.raises(UseError, match=r"and 289 more") as problem:
        condition("delta>0").failures(many)
    assert len(str(problem.value)) < 600
    assert len(condition("change=rerandomize, value>0").failures(many)) == 300


def test_failed_parts_say_why():
    told = summary(failed_part(foreign_table(3, steps=(0, 1)), "transformer.h.1.mlp", "RuntimeError: no"))
    entries = [entry for entry in told["parts"] if entry["part"] == "transformer.h.1.mlp"]
    assert [entry["change"] for entry in entries] == ["reset", "rerandomize"]
    assert (entries[0]["status"], entries[0]["reason"]) == ("failed", "RuntimeError: no")
    assert "value" not in entries[0]
    with pytest.raises(UseError, match=r"transformer.h.1.mlp has no number with an interval"):
        condition("part=*1.mlp, delta>0").failures(told)
    assert math.isfinite(told["unmodified"]["low"])


@pytest.mark.parametrize("text", ["part=fc, delta>0", "change=rerandomize, delta>0"])
def test_a_check_that_could_never_fail_is_refused(found, text):
    with pytest.raises(UseError, match=r"means no layer that was measured|no number with an interval"):
        condition(text).failures(found)


def test_not_finite_is_null():
    assert json.loads(plain_json({"a": [float("nan"), 1.0, (float("inf"),)]})) == {"a": [None, 1.0, [None]]}
    assert lines({"seconds": 75, "disk_bytes": 2e6, "n": 10000}) == "about 1 min 15 s\ndisk: about 2 MB\nn: 10,000"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("summary") / "run"
    assert main(["train", "--model", "fcn-1x8", "--epochs", "30", "--lr", "0.1", "--out", str(out)]) == 0
    return out


def test_dry_runs_write_nothing_and_are_about_right(run, tmp_path, capsys):
    capsys.readouterr()
    assert main(["analyze", str(run), "--dry-run", "--json", "--draws", "2"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not (run / "analyses").exists()
    assert planned["variants"] == 1 + 2 * 2 + 3 * 31
    assert planned["forwards"] == planned["variants"] * 1797
    began = time.perf_counter()
    assert main(["analyze", str(run), "--draws", "2"]) == 0
    assert planned["seconds"] < 3 * (time.perf_counter() - began)
    capsys.readouterr()
    assert main(["train", "--dry-run", "--out", str(tmp_path / "none"), "--epochs", "7"]) == 0
    assert "steps: 84" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    assert main(["reproduce", "zhang2022/fig1", "--dry-run", "--seeds", "3", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["training_runs"] == 3
    assert planned["steps"] == 3 * 60 * 12
    assert planned["forwards"] == ((1 + 8 + 5 * 4) + 2 * (1 + 8 + 5 * 2)) * 1797


def test_json_and_fail_if(run, capsys):
    capsys.readouterr()
    arguments = ["analyze", str(run), "--draws", "2", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    worst = max(entry["delta"] for entry in found["parts"] if entry["change"] == "reset")
    assert main([*arguments, "--fail-if", f"delta>{worst + 0.01}"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--fail-if", f"delta>={worst}"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == found
    assert "failed: delta>=" in err
    assert main([*arguments, "--fail-if", "dleta>0"]) == 2


def test_settings_from_files(tmp_path, capsys):
    yaml, toml = tmp_path / "a.yaml", tmp_path / "a.toml"
    yaml.write_text("model: fcn-1x4\nepochs: 2\nmilestones: [0.5]\n")
    toml.write_text('model = "fcn-1x4"\nepochs = 2\nmilestones = [0.5]\n')
    for path in (yaml, toml):
        out = tmp_path / path.suffix[1:]
        assert main(["train", "--spec", str(path), "--seed", "7", "--epochs", "1", "--out", str(out)]) == 0
        spec = ls.Run.open(out).spec
        assert (spec["model"], spec["epochs"], spec["milestones"], spec["seed"]) == ("fcn-1x4", 1, [0.5], 7)
    yaml.write_text("epoch: 2\n")
    capsys.readouterr()
    assert main(["train", "--spec", str(yaml), "--out", str(tmp_path / "b")]) == 2
    assert "epoch" in capsys.readouterr().err
    for wrong in (["--spec"], ["--spec", "a.txt"], ["--spec", "no.yaml"]):
        assert main(["train", "--out", str(tmp_path / "b"), *wrong]) == 2


def test_notebook_display():
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    table = ls.robustness(model, trajectory, data)
    assert "<table" in table._repr_html_()
    assert "cross_entropy" in table._repr_html_()
    drawn = ls.plots.terminal_map(table)
    assert drawn._repr_html_().startswith("<pre>")
    assert "whole network" in str(drawn)
    assert ls.plots.layer_map(table)._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
