"""The command line: bad input gets one clear sentence, exit code 2, and nothing is lost."""

import dataclasses
import gzip
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import layerscope as ls
from layerscope.cli import app, main
from layerscope.entry import COMMANDS
from layerscope.trajectory import save_state

SMALL = ["--model", "fcn-1x8", "--epochs", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    return out


def refused(capsys, *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("layerscope: ")
    return lines[0]


def test_analyze_shows_and_keeps_everything(made, capsys):
    assert main(["analyze", str(made), "--draws", "2"]) == 0
    out = capsys.readouterr().out
    assert "layer1" in out
    assert "layer2" in out
    names = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert names >= {"report.html", "analyses/robustness.parquet", "analyses/robustness.json"}
    assert {
        f"figures/robustness-{f}.{e}" for f in ("error", "distance-l2", "distance-max") for e in ("png", "svg")
    } <= names
    table = ls.Run.open(made).analysis("robustness")
    assert set(table.frame["split"]) == {"test", "train", ""}
    assert table.provenance["data"]["name"] == "digits"


def test_an_analysis_is_not_computed_twice_nor_overwritten(made, capsys):
    main(["analyze", str(made), "--draws", "2"])
    before = (made / "analyses/robustness.parquet").stat().st_mtime_ns
    assert main(["analyze", str(made), "--draws", "2"]) == 0
    assert (
        "has an analysis 'robustness' of another spec or inputs (draws: 2 there, 3 asked); choose another --name"
        in refused(capsys, "analyze", made, "--draws", 3)
    )
    assert (made / "analyses/robustness.parquet").stat().st_mtime_ns == before
    assert main(["analyze", str(made), "--draws", "3", "--name", "other", "--no-train"]) == 0
    assert set(ls.Run.open(made).analysis("other").frame["split"]) == {"test", ""}


def test_names_that_do_not_exist(capsys, tmp_path):
    assert "unknown model 'fnc-3x256'; did you mean fcn-3x256?" in refused(
        capsys, "train", "--model", "fnc-3x256", "--out", tmp_path / "a"
    )
    assert "unknown data set 'digit'; did you mean digits?" in refused(
        capsys, "train", "--data", "digit", "--out", tmp_path / "a"
    )
    assert "unknown initialiser 'xe'" in refused(capsys, "train", "--initialiser", "xe", "--out", tmp_path / "a")
    assert "Did you mean --epochs?" in refused(capsys, "train", "--epoch", 3, "--out", tmp_path / "a")
    assert "trian" in refused(capsys, "trian")
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_missing_and_truncated_data(capsys, tmp_path):
    arguments = ["train", *SMALL, "--data", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "run"]
    said = refused(capsys, *arguments)
    assert "train-images-idx3-ubyte.gz is missing" in said
    assert str(tmp_path / "mnist") in said
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05ab"))
    assert "truncated or damaged" in refused(capsys, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../training", "a/b", "", ".hidden"])
def test_names_of_analyses_stay_in_their_folder(made, capsys, name):
    assert "cannot be the name of an analysis" in refused(capsys, "analyze", made, "--name", name)


@pytest.mark.parametrize(
    "wrong",
    [("--level", "1.5"), ("--level", "nan"), ("--steps", "-1"), ("--draws", "-3"), ("--ambient", "0.9")],
)
def test_impossible_settings(made, capsys, wrong):
    assert wrong[0].strip("-") in refused(capsys, "analyze", made, *wrong)


def test_impossible_settings_claim_no_folder(capsys, tmp_path):
    assert "weight_decay" in refused(capsys, "train", "--weight-decay", "-1", "--out", tmp_path / "a")
    assert "seeds must be at least 1" in refused(
        capsys, "reproduce", "zhang2022/fig1", "--seeds", 0, "--out", tmp_path / "a"
    )
    assert not (tmp_path / "a").exists()


def test_a_folder_of_runs_is_not_a_run(made, capsys):
    assert "is not a run of layerscope" in refused(capsys, "train", *SMALL, "--out", made.parent)
    assert "which is not of a reproduction" in refused(capsys, "reproduce", "zhang2022/fig1", "--out", made)


def test_a_deleted_checkpoint(tmp_path, capsys):
    assert main(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    run = ls.Run.open(tmp_path / "run")
    run.checkpoints.remove("epoch-00002.safetensors")
    assert "lacks the checkpoint of epoch 2" in refused(capsys, "analyze", run.path)


def test_other_data_than_before(tmp_path, capsys, monkeypatch):
    """A finished run of the same spec is not the answer for other data."""
    assert main(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    data = ls.data.load("digits")
    other = dataclasses.replace(data, fingerprint="0" * 16)
    monkeypatch.setattr("layerscope.training.session.load", lambda *_: other)
    assert "was trained on other data than digits is here" in refused(
        capsys, "train", *SMALL, "--out", tmp_path / "run"
    )


def test_damage_is_not_absence(tmp_path, capsys):
    assert main(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    for name in ("provenance.json", "training.parquet", "spec.json"):
        (tmp_path / "run" / name).write_bytes(b"{}")
        assert f"{name} is damaged" in refused(capsys, "analyze", tmp_path / "run")


def test_a_folder_that_is_no_run(capsys, tmp_path):
    assert "is not a run: it has no spec.json" in refused(capsys, "analyze", tmp_path)
    assert f"there is no folder {tmp_path / 'nothing'}" in refused(capsys, "report", tmp_path / "nothing")


def test_the_folder_of_another_run(made, capsys):
    said = refused(capsys, "train", *SMALL, "--seed", 5, "--out", made)
    assert "seed: 0 there, 5 asked" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("layer1.bias"), "layer1.bias is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "extra is not in the model"),
        (lambda t: t.update({"layer1.bias": torch.ones(9)}), "layer1.bias has shape [9], the model has [8]"),
        (lambda t: t["layer2.weight"].fill_(float("nan")), "tensor layer2.weight holds NaN"),
    ],
)
def test_bad_checkpoints(tmp_path, capsys, change, said):
    assert main(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    run = ls.Run.open(tmp_path / "run")
    state = {k: v.clone() for k, v in ls.Trajectory.open(run.checkpoints.path)[ls.Step(1)].items()}
    change(state)
    save_state(run.checkpoints, ls.Step(1), state)
    message = refused(capsys, "analyze", run.path)
    assert said in message
    assert "epoch-00001" in message


def stop(*_):
    raise KeyboardInterrupt


def test_an_unfinished_training_goes_on_by_the_command_that_is_named(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        ls.train(ls.TrainSpec(model="fcn-1x8", epochs=2), tmp_path / "run", progress=stop)
    said = refused(capsys, "analyze", tmp_path / "run")
    assert "is not finished" in said
    command = said.partition("go on with: layerscope ")[2].split()
    assert main(command) == 0
    assert "going on with" in capsys.readouterr().err
    assert ls.Run.open(tmp_path / "run").ending["epoch"] == 2
    assert main([*command, "--lr", "0.1"]) == 2  # what is asked is asked
    assert main(["train", "--model", "fcn-1x8", "--out", str(tmp_path / "run")]) == 2
    assert "epochs: 2 there" in capsys.readouterr().err


def test_what_stopped_says_where_the_command_goes_on(made, monkeypatch, capsys):
    monkeypatch.setattr("layerscope.console.progress", lambda: stop)
    capsys.readouterr()
    assert main(["analyze", str(made), "--name", "stopped", "--draws", "1"]) == 130
    assert capsys.readouterr().err == "layerscope: stopped; the same command goes on from what is there\n"
    assert (made / "resume" / "stopped.json").is_file()
    monkeypatch.setattr("layerscope.models.listing", stop)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "layerscope: stopped\n"


def test_the_parts_of_a_run(made, tmp_path, capsys):
    assert main(["parts", "fcn-1x8"]) == 0
    listed = capsys.readouterr().out
    assert main(["parts", str(made)]) == 0
    assert capsys.readouterr().out == listed
    assert "is not a run" in refused(capsys, "parts", tmp_path)
    ls.Recorder(tmp_path / "mine", torch.nn.Linear(2, 2)).finish()
    assert "does not say how its model is made" in refused(capsys, "parts", tmp_path / "mine")


def test_only_analyze_says_what_it_does_without_data(capsys):
    for name in ("analyze", "spectra", "criticality"):
        assert main([name, "--help"]) == 0
        assert "Only `analyze` does without" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_several_values_stand_behind_one_flag(tmp_path, capsys):
    words = ["train", "--model", "fcn-1x8", "--epochs", "3", "--checkpoints", "1", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    capsys.readouterr()
    steps = ls.Trajectory.open(tmp_path / "run" / "checkpoints").steps
    assert [step.epoch for step in steps] == [0, 1, 2, 3]


def test_stderr_and_exit_code_of_the_real_process(tmp_path):
    done = subprocess.run([sys.executable, "-m", "layerscope", "report", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("layerscope: ")
    helped = subprocess.run([sys.executable, "-m", "layerscope", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0
    assert all(command in helped.stdout for command in ("demo", "train", "analyze", "report", "reproduce"))


def test_the_overview_names_every_command(capsys):
    assert set(COMMANDS) == {name for name in app if not name.startswith("-")}
    for name, answers in COMMANDS.items():
        assert main([name, "--help"]) == 0
        assert answers.split("?")[0] in " ".join(capsys.readouterr().out.split())


def test_the_time_left_follows_the_last_minute(monkeypatch, capsys):
    """Nine units a second at first, then one: what is left goes on at one."""
    from layerscope import console

    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    lines, done = console._Lines(), 0
    for second in range(200):
        done += 9 if second < 100 else 1
        clock[0] += 1
        lines("units", done, 1090)
    *_, last = capsys.readouterr().err.splitlines()
    told = int(last.split()[1])
    left = 1090 - told
    assert told > 990
    assert f"about {left // 60} min {left % 60} s left" in last
