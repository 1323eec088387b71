"""What machines get, and the checks a user can ask for."""

import json
import time

import pytest

import layerscope as ls
from layerscope.analyses.summary import condition, summary
from layerscope.cli import main
from layerscope.console import lines, plain_json
from layerscope.errors import UseError

from .networks import signs


@pytest.fixture(scope="module")
def found():
    model, initial, data = signs()
    trajectory = ls.Trajectory.of(initial=initial, final=ls.state_of(model))
    return summary(ls.robustness(model, trajectory, [(x.repeat(100, 1), y.repeat(100)) for x, y in data]))


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
    assert "not applicable" in table._repr_html_()
    drawn = ls.plots.terminal_map(table)
    assert drawn._repr_html_().startswith("<pre>")
    assert "whole network" in str(drawn)
    assert ls.plots.layer_map(table)._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]
