"""All maps of a population in one call: the numbers of each member's own analysis, with what it has of the grid."""

import json
import shutil

import pandas as pd
import pytest

import layerscope as ls
from layerscope.analyses.material import material_of
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.runtime import UnitsFailed
from layerscope.sweeps import maps as maps_module

ASKED = ls.RobustnessSpec(draws=2)
SPEC = ls.SweepSpec(
    {"model": "fcn-2x{hidden}", "data": "digits?n_train=150&n_test=100", "epochs": 3, "checkpoints": []},
    {"hidden": [2, 8], "seed": [0, 1]},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> ls.Sweep:
    return ls.sweep(SPEC, tmp_path_factory.mktemp("maps") / "sweep")


@pytest.fixture
def sweep(trained, tmp_path) -> ls.Sweep:
    """A copy without analyses."""
    return ls.Sweep.open(shutil.copytree(trained.path, tmp_path / "sweep"))


def without(frame: pd.DataFrame, *more: str) -> pd.DataFrame:
    return frame.drop(columns=["run", *more]).reset_index(drop=True)


def test_maps_are_those_of_separate_calls(sweep):
    table = sweep.maps(ASKED)
    for run, (hidden, seed) in zip(sweep.runs, [(2, 0), (2, 1), (8, 0), (8, 1)], strict=True):
        material = material_of(run, ASKED)
        alone = ls.robustness(material.model, material.trajectory, material.splits, ASKED, laws=material.laws)
        rows = table.where(run=run.name, hidden=hidden, seed=seed)
        pd.testing.assert_frame_equal(without(rows, "hidden", "seed"), without(alone.frame), check_exact=True)
        assert set(alone.variants) <= set(table.variants)
        pd.testing.assert_frame_equal(
            run.analysis("robustness").frame, rows[alone.frame.columns].reset_index(drop=True)
        )
    assert table.provenance["metric"] == "error"
    assert table.provenance["data"] == {"name": "digits?n_train=150&n_test=100"}
    assert sweep.own.analyses() == ["robustness"]


def test_what_is_complete_is_read(sweep, monkeypatch):
    first = sweep.maps(ASKED)
    monkeypatch.setattr(maps_module, "analyze", None)
    assert sweep.maps(ASKED).frame.equals(first.frame)
    with pytest.raises(UseError, match=r"of another spec or inputs \(draws: 2 there, 3 asked\)"):
        sweep.maps(ls.RobustnessSpec(draws=3))


def test_a_pool_gives_the_same(sweep, tmp_path):
    other = ls.Sweep.open(shutil.copytree(sweep.path, tmp_path / "other"))
    pool = other.maps(ASKED, workers=2, threads=1)
    pd.testing.assert_frame_equal(sweep.maps(ASKED, threads=1).frame, pool.frame, check_exact=True)


def test_stopped_maps_go_on(sweep, monkeypatch):
    analyze, calls = maps_module.analyze, []

    def faulty(run, *args, **kwargs):
        calls.append(run.name)
        if run.name == "hidden=2,seed=1" and len(calls) == 2:
            raise ZeroDivisionError("oops")
        return analyze(run, *args, **kwargs)

    monkeypatch.setattr(maps_module, "analyze", faulty)
    told = []
    with pytest.raises(UnitsFailed, match=r"1 of 4 maps failed, the others are complete: hidden=2,seed=1: Zero"):
        sweep.maps(ASKED, progress=lambda *t: told.append(t))
    assert told == [("maps of 4 networks", done, 4) for done in (1, 2, 3, 4)]
    kept = {
        run.name: (run.path / "analyses/robustness.parquet").stat().st_mtime_ns for run in sweep.runs if run.analyses()
    }
    assert len(kept) == 3
    table = sweep.maps(ASKED)
    assert {name: (sweep.run(name).path / "analyses/robustness.parquet").stat().st_mtime_ns for name in kept} == kept
    assert len(set(table.frame["run"])) == 4


def test_a_member_that_diverged_says_so(tmp_path):
    base = {"model": "fcn-1x8", "data": "digits?n_train=150&n_test=100", "epochs": 2}
    sweep = ls.sweep(ls.SweepSpec(base, {"lr": [0.1, 1e38]}), tmp_path / "sweep")
    table = sweep.maps(ls.RobustnessSpec(draws=0))
    (row,) = table.where(run="lr=1e+38").to_dict("records")
    assert (row["status"], row["lr"]) == ("diverged", 1e38)
    assert "it diverged in epoch 1" in row["reason"]
    assert set(table.where(run="lr=0.1")["status"]) == {"ok"}
    opened = ls.Table.open(sweep.path / "analyses" / "robustness.parquet")
    pd.testing.assert_frame_equal(opened.frame, table.frame)


def test_a_sweep_that_is_not_complete_has_no_maps(sweep):
    sweep.own.folder.remove("sweep.parquet")
    with pytest.raises(UseError, match="is not complete; go on with: layerscope sweep"):
        sweep.maps(ASKED)


def test_the_command(sweep, capsys):
    path = str(sweep.path)
    assert main(["analyze", path, "--draws", "1", "--no-train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["networks"] == 4
    assert found["figure"].endswith("robustness-start.png")
    assert len(ls.Table.open(found["table"])) == found["rows"]
    for wrong in (["--fail-if", "part=layer1, delta>0.1"], ["--out", "x"], ["--dry-run"]):
        assert main(["analyze", path, *wrong]) == 2
        assert "is for a single run or model" in capsys.readouterr().err
    assert main(["analyze", str(sweep.runs[0].path), "--workers", "2"]) == 2
    assert "--workers and --threads are for the folder of a sweep" in capsys.readouterr().err
