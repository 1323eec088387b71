"""A sweep on disk: its members are ordinary runs, nothing is done twice or lost, and its status is true while it works."""

import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import layerscope as ls
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.runtime import UnitsFailed
from layerscope.sweeps import session
from layerscope.sweeps.status import status

DATA = "digits?n_train=150&n_test=100&shuffled={noise}"
BASE = {"model": "fcn-1x{hidden}", "data": DATA, "epochs": 4, "checkpoints": []}
GRID = {"hidden": [2, 8], "noise": [0, 0.2], "seed": [0, 1]}
SPEC = ls.SweepSpec(BASE, GRID)
NAMES = [f"hidden={h},noise={n},seed={s}" for h, n, s in itertools.product(*GRID.values())]
ALL = 4 * len(NAMES)
MEASURED = ["run", "hidden", "noise", "seed", "step", "split", "metric", "value", "n", "status", "trained", "ending"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> ls.Sweep:
    return ls.sweep(SPEC, tmp_path_factory.mktemp("sweeps") / "made")


def same_run(a: ls.Run, b: ls.Run) -> bool:
    one, other = (ls.Trajectory.open(run.checkpoints.path) for run in (a, b))
    assert one.steps == other.steps
    for step in one.steps:
        assert all(torch.equal(t, other[step][name]) for name, t in one[step].items()), (a.path, step)
    pd.testing.assert_frame_equal(a.training().frame, b.training().frame, check_exact=True)
    assert a.ending == b.ending
    return True


def same_sweep(a: ls.Sweep, b: ls.Sweep) -> bool:
    assert [run.name for run in a.runs] == [run.name for run in b.runs]
    pd.testing.assert_frame_equal(a.table.frame[MEASURED], b.table.frame[MEASURED], check_exact=True)
    return all(same_run(one, other) for one, other in zip(a.runs, b.runs, strict=True))


def test_members_are_ordinary_runs(made, tmp_path):
    assert list(made.members["name"]) == NAMES == [run.name for run in made.runs]
    assert list(made.members["noise"]) == [0.0, 0.0, 0.2, 0.2] * 2
    for run, member in zip(made.runs, SPEC.members(), strict=True):
        assert ls.TrainSpec.from_dict({k: v for k, v in run.spec.items() if k != "fingerprint"}) == member.spec
        assert ls.Trajectory.open(run.checkpoints.path).steps == (ls.INIT, ls.Step(4))
        assert ls.train(member.spec, run.path).path == run.path  # complete: it is left as it is
    names = {path.name for path in made.path.iterdir()} - {".lock", "SHA256SUMS", "resume"}
    assert names == {"spec.json", "plan.json", "provenance.json", "sweep.parquet", "members"}
    assert not list((made.path / "resume").iterdir())


def test_alone_each_has_the_bits_of_its_own_training(tmp_path):
    alone = ls.sweep(SPEC, tmp_path / "alone", stacked=False)
    assert [block["why"] for block in alone.blocks] == ["stacks were not asked for"] * 8
    for run, member in zip(alone.runs[::3], SPEC.members()[::3], strict=True):
        assert same_run(ls.train(member.spec, tmp_path / "solo" / run.name), run)


def test_the_summary_has_the_numbers_of_the_trained_networks(made):
    table = made.table
    assert list(table.frame.columns[:4]) == ["run", "hidden", "noise", "seed"]
    for run, (hidden, noise, seed) in zip(made.runs, itertools.product(*GRID.values()), strict=True):
        rows = table.where(run=run.name)
        assert set(zip(rows["hidden"], rows["noise"], rows["seed"], strict=True)) == {(hidden, noise, seed)}
        of_run = run.training().where(step=4)
        assert {(r.split, r.metric): r.value for r in rows.itertuples()} == {
            (r.split, r.metric): r.value for r in of_run.itertuples()
        }
        assert set(rows["trained"]) == {4}
        assert set(rows["ending"]) == {"all epochs"}
    assert len(table) == 8 * 4
    assert ls.Table.open(made.path / "sweep.parquet").frame.equals(table.frame)


def test_what_is_complete_is_not_done_again(made, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*") if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(session, "each", None)
    ls.sweep(SPEC, made.path)
    assert {p: p.stat().st_mtime_ns for p in made.path.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_another_sweep_and_other_folders_are_refused(made, tmp_path):
    with pytest.raises(UseError, match=r"holds a run of another spec \(grid: "):
        ls.sweep(ls.SweepSpec(BASE, {**GRID, "seed": [0]}), made.path)
    with pytest.raises(UseError, match="another spec"):
        ls.sweep(SPEC, made.runs[0].path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UseError, match="is not a run of layerscope"):
        ls.sweep(SPEC, tmp_path)
    with pytest.raises(UseError, match="is not a sweep"):
        ls.Sweep.open(made.runs[0].path)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"model": "fnc-1x{hidden}"}, "member hidden=2,noise=0,seed=0: unknown model 'fnc-1x2'"),
        ({"data": "digit?shuffled={noise}"}, "unknown data set 'digit'"),
        ({"freeze": ["layer7"]}, "member hidden=2,noise=0,seed=0: .*layer7"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(tmp_path, base, message):
    with pytest.raises(UseError, match=message):
        ls.sweep(ls.SweepSpec({**BASE, **base}, GRID), tmp_path / "sweep")
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_made_once(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.sweep(SPEC, tmp_path / "sweep", progress=stop)
    with pytest.raises(UseError, match="was begun with stacks: say the same again"):
        ls.sweep(SPEC, tmp_path / "sweep", stacked=False)
    monkeypatch.setattr(session, "blocks_of_sets", None)
    assert ls.sweep(SPEC, tmp_path / "sweep").complete


def test_a_pool_gives_the_same_bits(made, tmp_path):
    told = []
    pool = ls.sweep(
        SPEC, tmp_path / "pool", workers=2, threads=torch.get_num_threads(), progress=lambda *t: told.append(t)
    )
    assert same_sweep(made, pool)
    assert told[0] == ("epochs of 8 networks", 0, ALL)
    assert told[-1] == ("epochs of 8 networks", ALL, ALL)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


def test_one_failure_does_not_lose_the_others(tmp_path):
    """Somebody's file stands where a member belongs. Without it, the sweep goes on with that member alone."""
    path = tmp_path / "sweep"
    file = path / "members" / NAMES[2] / "thesis.txt"
    whole = ls.sweep(SPEC, tmp_path / "whole", stacked=False)
    with pytest.raises(KeyboardInterrupt):
        ls.sweep(SPEC, path, stacked=False, progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(
        UseError, match=rf"1 of 8 blocks of the sweep failed, the others are complete: {NAMES[2]}: .*is not a run"
    ):
        ls.sweep(SPEC, path, stacked=False)
    found = status(path)
    assert found["members"] == {"all": 8, "done": 7, "diverged": 0, "running": 0, "failed": 1, "waiting": 0}
    assert found["each"][NAMES[2]] == "failed"
    assert "is not a run" in found["failed"][NAMES[2]]
    assert found["epochs"] == {"done": ALL - 4, "all": ALL}
    file.unlink()
    told = []
    assert same_sweep(whole, ls.sweep(SPEC, path, stacked=False, progress=lambda *t: told.append(t[1])))
    assert told == [ALL - 4, *range(ALL - 3, ALL + 1)]


def test_a_fault_of_the_code_is_told_with_its_place(tmp_path, monkeypatch):
    train = session.train

    def faulty(spec, *args, **kwargs):
        if spec.seed == 1:
            raise ZeroDivisionError("oops")
        return train(spec, *args, **kwargs)

    monkeypatch.setattr(session, "train", faulty)
    with pytest.raises(UnitsFailed, match=r"(?s)4 of 8 blocks .*ZeroDivisionError: oops; and 1 more.*in faulty"):
        ls.sweep(SPEC, tmp_path / "sweep", stacked=False)
    assert status(tmp_path / "sweep")["members"]["done"] == 4


def test_a_member_that_diverges_is_a_row(tmp_path):
    base = {"model": "fcn-1x8", "data": "digits?n_train=150", "epochs": 3}
    found = ls.sweep(ls.SweepSpec(base, {"lr": [0.1, 1e38]}), tmp_path / "sweep")
    rows = found.table.where(run="lr=1e+38")
    assert set(rows["status"]) == {"diverged"}
    assert set(rows["step"]) == set(rows["trained"]) == {0}
    assert all("it diverged in epoch 1" in reason for reason in rows["reason"])
    assert set(found.table.where(run="lr=0.1")["status"]) == {"ok"}
    assert status(found.path)["members"] | {"all": 2, "done": 1, "diverged": 1} == status(found.path)["members"]
    assert status(found.path)["epochs"] == {"done": 6, "all": 6}


def test_status_of_runs_and_of_anything_else(tmp_path):
    spec = ls.TrainSpec(model="fcn-1x4", data="digits?n_train=150", epochs=3)

    def stop(_what, done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.train(spec, tmp_path / "run", progress=stop)
    found = status(tmp_path / "run")
    assert (found["stage"], found["writing"]) == ("training", False)
    assert found["training"] == {"complete": False, "epochs": 2, "of": 3}
    run = ls.train(spec, tmp_path / "run")
    assert status(run.path)["training"] == {"complete": True, "epochs": 3, "of": 3, "ending": "all epochs"}
    assert (status(run.path)["stage"], status(run.path)["checkpoints"]) == ("trained", 4)
    with run.folder.lock():
        assert status(run.path)["writing"]
        assert status(run.path)["writing"]
    assert not status(run.path)["writing"]
    run.save_partial("half", "key", {})
    assert (status(run.path)["stage"], status(run.path)["begun"]) == ("analysing", ["half"])
    assert main(["analyze", str(run.path), "--draws", "1", "--name", "half"]) == 0
    found = status(run.path)
    assert (found["stage"], found["analyses"], found["report"]) == ("reported", ["half"], True)
    with pytest.raises(UseError, match="is neither a run nor a sweep"):
        status(tmp_path)


YAML = f"""
base:
  model: fcn-1x{{hidden}}
  data: {DATA}
  epochs: 30
  checkpoints: []
grid:
  hidden: [2, 8]
  noise: [0, 0.2]
  seed: [0, 1]
"""


def test_the_command(tmp_path, capsys):
    file, out = tmp_path / "sweep.yaml", tmp_path / "sweep"
    file.write_text(YAML.replace("30", "2"))
    assert main(["sweep", str(file), "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["members"], cost["epochs"]) == (8, 16)
    assert cost["disk_bytes"] > 0
    assert not out.exists()
    assert main(["sweep", str(file)]) == 2
    assert "--out runs/NAME, or out: runs/NAME" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["networks"], found["diverged"], len(found["rows"])) == (8, 0, 8)
    errors = ls.Sweep.open(out).table.where(split="test", metric="error")["value"]
    assert [row["test_error"] for row in found["rows"]] == list(errors)
    assert Path(found["figure"]).is_file()
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert "test error" in capsys.readouterr().out
    assert main(["status", str(out), str(out / "members" / NAMES[0]), "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both[0]["members"]["done"] == 8
    assert both[1]["stage"] == "trained"
    assert main(["status", str(out)]) == 0
    assert "done: 8" in capsys.readouterr().out
    assert main(["report", str(out)]) == 2
    assert "is a sweep, not a run; its runs are in" in capsys.readouterr().err


def test_many_members_are_listed_by_the_mean_over_seeds(made, monkeypatch):
    from scipy.stats import ttest_1samp

    from layerscope.sweeps import summary

    monkeypatch.setattr(summary, "MOST", 7)
    rows = summary.listing(made.table)
    assert [(row["hidden"], row["noise"], row["n"]) for row in rows] == [(2, 0, 2), (2, 0.2, 2), (8, 0, 2), (8, 0.2, 2)]
    values = np.array(made.table.where(hidden=8, noise=0.2, split="test", metric="error")["value"])
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    found = [rows[3][f"test_error{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx([values.mean(), interval.low, interval.high], rel=1e-9)


KILLED = """
import sys
from layerscope.training import session
from layerscope import runtime
from layerscope.cli import main
from layerscope.sweeps import session as sweeps
session.EVERY = runtime.EVERY = sweeps.EVERY = 0.0
if __name__ == "__main__":
    import pandas, torch, sklearn.datasets  # so that "ready" means that the work begins
    print("ready", flush=True)
    sys.exit(main(["sweep", *sys.argv[1:]]))
"""


def kill_at_random_moments(folder: Path, kills: int, seed: int, workers: int) -> int:
    """Start the command again and again, killing it some time after it began; how many were at work then. Status is asked
    just before each kill."""
    chosen, hits, script, file = random.Random(seed), 0, folder / "killed.py", folder / "sweep.yaml"
    script.write_text(KILLED)
    file.write_text(YAML)
    command = [sys.executable, str(script), str(file), "--out", str(folder / "sweep"), "--workers", str(workers)]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while workers > 1 and process.poll() is None and not list(folder.glob("sweep/members/*/checkpoints/*")):
                time.sleep(0.02)  # processes of a pool begin later
            time.sleep(chosen.uniform(0, 0.5 if workers > 1 else 1.5))
            if (folder / "sweep" / "spec.json").exists():
                found = status(folder / "sweep")
                assert sum(count for state, count in found["members"].items() if state != "all") == 8
                assert 0 <= found["epochs"]["done"] <= found["epochs"]["all"] == 240
            hits += process.poll() is None
            process.kill()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return hits


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> ls.Sweep:
    folder = tmp_path_factory.mktemp("whole")
    assert kill_at_random_moments(folder, kills=0, seed=0, workers=1) == 0
    return ls.Sweep.open(folder / "sweep")


@pytest.mark.parametrize(("workers", "kills"), [(1, 3), (2, 2)])
def test_killed_at_random_moments(uninterrupted, tmp_path, workers, kills):
    assert kill_at_random_moments(tmp_path, kills, seed=workers, workers=workers) > 0
    assert same_sweep(uninterrupted, ls.Sweep.open(tmp_path / "sweep"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_twenty_random_moments(uninterrupted, tmp_path, workers):
    hits = 0
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        hits += kill_at_random_moments(folder, kills=4, seed=100 * workers + attempt, workers=workers)
        assert same_sweep(uninterrupted, ls.Sweep.open(folder / "sweep"))
    print(f"{hits} of 20 kills while at work")
    assert hits >= 10


def test_status_while_a_sweep_runs(tmp_path):
    script, file = tmp_path / "run.py", tmp_path / "sweep.yaml"
    script.write_text(KILLED)
    file.write_text(YAML.replace("30", "100000"))
    command = [sys.executable, str(script), str(file), "--out", str(tmp_path / "sweep")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        found = {}
        while not found.get("epochs", {}).get("done") and time.monotonic() < until and process.poll() is None:
            time.sleep(0.1)
            if (tmp_path / "sweep" / "spec.json").exists():
                found = status(tmp_path / "sweep")
        assert found["writing"]
        assert found["members"]["running"] >= 1
        assert found["epochs"]["done"] > 0
        assert found["last_save"]
        process.kill()
    found = status(tmp_path / "sweep")
    assert (found["writing"], found["members"]["running"]) == (False, 0)
    assert found["members"]["waiting"] == 8
