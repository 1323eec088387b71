"""A training of one's own, recorded: the folder is a run whose analyses are those of the states themselves."""

import contextlib
import gc
import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layerscope as ls
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.recording import folder as folder_of_recording
from layerscope.recording.spec import warnings
from layerscope.report.page import render

from .test_cli import refused

CODE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

def batches(seed, n=60):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator)
    return list(zip(x.split(20), (x[:, 0] * x[:, 1] > 0).long().split(20)))

def loaders():
    return {"test": batches(0), "train": batches(1, 120)}
"""
MADE = ["--model", "mynets:make", "--data", "mynets:loaders"]
FEW = ["--draws", "2"]


@pytest.fixture(scope="module", autouse=True)
def mynets(tmp_path_factory):
    """The user's own module, where Python finds it."""
    place = tmp_path_factory.mktemp("code")
    (place / "mynets.py").write_text(CODE)
    sys.path.insert(0, str(place))
    import mynets  # pyright: ignore[reportMissingImports]

    yield mynets
    sys.path.remove(str(place))
    del sys.modules["mynets"]


def epoch_of(model: nn.Module, optimizer: torch.optim.Optimizer, batches) -> float:
    """One epoch; the loss of its last batch."""
    model.train()
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


def started(mynets) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = mynets.make()
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def steps_of(path: Path) -> list[str]:
    return [step.name for step in ls.Trajectory.open(path / "checkpoints").steps]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, mynets):
    """A training of six epochs, its recording of some of them, and its states of all."""
    path = tmp_path_factory.mktemp("recorded") / "mine"
    model, optimizer = started(mynets)
    data = mynets.loaders()
    recorder = ls.Recorder(path, model, every=3, at=[1])
    states = [ls.state_of(model)]
    for epoch in range(6):
        loss = epoch_of(model, optimizer, data["train"])
        recorder.log(epoch=epoch + 1, split="train", loss=loss)
        recorder.log(epoch=epoch + 1, split="test", error=torch.tensor(0.5), n=60)
        recorder.save(epoch=epoch + 1)
        states.append(ls.state_of(model))
    assert recorder.finish().path == path
    return path, model, states


def test_what_is_recorded_is_what_the_model_held(recorded):
    path, _, states = recorded
    trajectory = ls.Trajectory.open(path / "checkpoints")
    assert [step.epoch for step in trajectory.steps] == [0, 1, 3, 6]
    assert trajectory.unit == "epoch"
    assert all(same(trajectory[step], states[step.epoch]) for step in trajectory.steps)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=path, check=True)
    assert not list(path.rglob("*.json.*"))
    assert not (path / "resume" / "recording.json").exists()


def test_an_analysis_is_that_of_the_states_in_memory(recorded, mynets, capsys):
    path, model, states = recorded
    assert main(["analyze", str(path), *MADE, *FEW]) == 0
    table = ls.Run.open(path).analysis("robustness")
    trajectory = ls.Trajectory.of(initial=states[0], epoch_1=states[1], epoch_3=states[3], epoch_6=states[6])
    expected = ls.robustness(model, trajectory, mynets.loaders(), ls.RobustnessSpec(draws=2))
    assert len(table) > 100
    pd.testing.assert_frame_equal(table.frame.drop(columns="run"), expected.frame.drop(columns="run"), check_exact=True)
    assert table.provenance["warnings"] == expected.provenance["warnings"] == []
    capsys.readouterr()
    assert main(["analyze", str(path), *FEW]) == 0  # the names are kept, and so is the analysis
    assert "evaluate" not in capsys.readouterr().err
    out = path.parent / "put-back.safetensors"
    assert main(["materialize", str(path), "--part", "3", "--buffers", "keep", "--out", str(out)]) == 0
    changed = ls.Trajectory.read([str(out)])[ls.FINAL]
    assert same(changed, states[6] | {name: states[0][name] for name in ("3.weight", "3.bias")})


def test_a_recording_that_does_not_know_how_its_model_is_made_asks(tmp_path, mynets, capsys):
    model, _ = started(mynets)
    with ls.Recorder(tmp_path / "mine", model, data="mynets:loaders"):
        nn.init.ones_(model[0].bias)
    said = refused(capsys, "analyze", tmp_path / "mine")
    assert "was recorded without saying how its model and data are made: add --model package.module:NAME; it is" in said
    assert main(["analyze", str(tmp_path / "mine"), "--model", "mynets:make", *FEW]) == 0
    assert ls.Run.open(tmp_path / "mine").recording["source"] == {"data": "mynets:loaders", "model": "mynets:make"}


def test_the_report_says_where_it_is_from_and_has_the_curves(recorded):
    path, _, _ = recorded
    assert main(["analyze", str(path), *MADE, *FEW]) == 0
    page = render(ls.Run.open(path))
    assert "layerscope did not train it." in page
    assert "Its checkpoints were recorded during its training, the first of them before it." in page
    assert "Loss during training" in page
    assert "The numbers are those that whoever trained it had logged." in page
    assert "How many samples the numbers rest on was not said." in page  # of the losses
    assert "test data: n = 60 samples." in page  # of the errors
    assert "loss, train ()" not in page


def test_a_recording_that_knows_how_model_and_data_are_made_needs_no_more(tmp_path, mynets):
    model, _ = started(mynets)
    made = {"source": "mynets:make", "data": "mynets:loaders"}
    with ls.Recorder(tmp_path / "mine", model, **made), torch.no_grad():
        model[0].weight.add_(1)
    assert main(["analyze", str(tmp_path / "mine"), *FEW]) == 0
    assert main(["analyze", str(tmp_path / "mine"), "--dry-run"]) == 0
    assert ls.Run.open(tmp_path / "mine").analysis("robustness").provenance["data"]["name"] == "mynets:loaders"


def test_what_cannot_be_said_of_a_run_on_the_command_line(recorded, tmp_path, capsys):
    path, _, _ = recorded
    assert "has its own checkpoints" in refused(capsys, "analyze", path, *MADE, "--checkpoints", path / "checkpoints")
    assert "there is no module 'nonets'" in refused(capsys, "analyze", path, *MADE[2:], "--model", "nonets:make")
    ls.train(ls.TrainSpec(model="fcn-1x8", epochs=1), tmp_path / "lab")
    assert "is no recording" in refused(capsys, "analyze", tmp_path / "lab", *MADE)
    assert "say what to analyse" in refused(capsys, "analyze", tmp_path, *MADE)
    assert ls.Run.open(path).recording["source"].get("model") != "nonets:make"  # what failed was not kept


def test_moments_counted_in_iterations(tmp_path, mynets):
    model, optimizer = started(mynets)
    data = mynets.loaders()["train"]
    made = {"source": "mynets:make", "data": "mynets:loaders"}
    with ls.Recorder(tmp_path / "mine", model, every=4, **made) as recorder:
        for iteration in range(1, 11):
            loss = epoch_of(model, optimizer, data[:1])
            recorder.log(iteration=iteration, split="train", loss=loss)
            recorder.save(iteration=iteration)
    trajectory = ls.Trajectory.open(tmp_path / "mine" / "checkpoints")
    assert [trajectory.number(step) for step in trajectory.steps] == [0, 4, 8, 10]
    assert trajectory.unit == "iteration"
    assert main(["analyze", str(tmp_path / "mine"), *FEW]) == 0
    run = ls.Run.open(tmp_path / "mine")
    page = render(run)
    assert "Iteration 0 is before training." in page
    assert "Error and loss by iteration." in page
    assert ls.plots.training_curves(run.training()).axes[0].get_xlabel() == "iteration"


small = st.integers(1, 6)


@settings(max_examples=15, deadline=None)
@given(every=st.none() | small, at=st.sets(small), epochs=st.integers(0, 7))
def test_every_and_at(tmp_path_factory, every, at, epochs):
    """The start, what is asked for, and the end."""
    model, path = nn.Linear(1, 1), tmp_path_factory.mktemp("at") / "mine"
    with ls.Recorder(path, model, every=every, at=at) as recorder:
        for epoch in range(1, epochs + 1):
            nn.init.constant_(model.weight, epoch)
            recorder.save(epoch=epoch)
    asked = {epoch for epoch in range(1, epochs + 1) if epoch in at or (every and epoch % every == 0)}
    asked |= set(range(1, epochs + 1)) if every is None and not at else set()
    found = ls.Trajectory.open(path / "checkpoints")
    assert {step.epoch for step in found.steps} == {0, epochs} | asked
    assert all(found[step]["weight"].item() == step.epoch for step in found.steps[1:])


def test_a_training_is_the_same_whether_it_is_recorded(tmp_path, mynets):
    def trained(recorder) -> tuple[dict, torch.Tensor, list[bool]]:
        model, optimizer = started(mynets)
        model.append(nn.Dropout(0.2))
        with recorder(model) as recording:
            for epoch in range(3):
                epoch_of(model, optimizer, mynets.batches(1))
                recording.save(epoch=epoch + 1)
        gradients = [p.grad for p in model.parameters()]
        hooks = [bool(m._forward_hooks or m._state_dict_hooks) for m in model.modules()]
        state = ls.state_of(model) | {f"grad{i}": grad for i, grad in enumerate(gradients)}
        return state, torch.get_rng_state(), [m.training for m in model.modules()] + hooks

    class Nobody(contextlib.nullcontext):
        def __enter__(self):
            return self

        def save(self, epoch): ...

    (state, chance, about), plain = trained(lambda model: ls.Recorder(tmp_path / "mine", model)), trained(Nobody)
    assert same(state, plain[0])
    assert torch.equal(chance, plain[1])
    assert about == plain[2]


def test_tensors_that_share_memory_or_do_not_lie_in_a_row(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.arange(12.0)
            self.tied = nn.Linear(3, 3)
            self.same = nn.Linear(3, 3)
            self.same.weight = self.tied.weight
            self.across = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
            self.whole, self.within = nn.Parameter(flat), nn.Parameter(flat[3:9])
            self.register_buffer("thin", torch.eye(3).to_sparse())
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("brief", torch.ones(3, dtype=torch.bfloat16))
            self.register_buffer("none", torch.zeros(0))

    model = Odd()
    with ls.Recorder(tmp_path / "mine", model) as recorder:
        recorder.save(epoch=1)
    found = ls.Trajectory.open(tmp_path / "mine" / "checkpoints")[ls.Step(1)]
    there = {name: tensor.to_dense() for name, tensor in model.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in found.items()} == {name: t.dtype for name, t in there.items()}
    assert same(found, there)


def test_values_that_are_not_finite_any_more_are_not_kept(tmp_path, mynets):
    model, _ = started(mynets)
    made = {"source": "mynets:make", "data": "mynets:loaders"}
    with ls.Recorder(tmp_path / "mine", model, **made) as recorder:
        for epoch in range(1, 5):
            with torch.no_grad():
                model[0].bias.add_(1 if epoch < 3 else torch.nan)
            recorder.save(epoch=epoch)
            recorder.log(epoch=epoch, split="train", loss=model[0].bias.sum())
    run = ls.Run.open(tmp_path / "mine")
    assert steps_of(run.path) == ["epoch-00000", "epoch-00001", "epoch-00002"]
    assert main(["analyze", str(run.path), *FEW]) == 0
    told = "the training diverged, 0.bias was not finite at epoch-00004: the last checkpoint before that stands for"
    (said,) = run.analysis("robustness").provenance["warnings"]
    assert told in said
    assert told in render(run).replace("&#39;", "'")
    assert list(run.training().frame["status"]) == ["ok", "ok", "diverged", "diverged"]


def test_the_end_is_what_the_model_holds_then(tmp_path):
    """Of the last moment told, kept or not; or after it, where other values were put into the model."""
    model, path = nn.Linear(1, 1), tmp_path / "mine"
    recorder = ls.Recorder(path, model)
    recorder.save(epoch=1)
    nn.init.constant_(model.weight, 7.0)
    recorder.save(epoch=2)
    nn.init.constant_(model.weight, 5.0)  # averaged, or the best put back
    run = recorder.finish()
    assert recorder.finish() is run
    found = ls.Trajectory.open(path / "checkpoints")
    assert [found[step]["weight"].item() for step in found.steps[-2:]] == [7.0, 5.0]
    assert found.resolve(ls.FINAL) == ls.Step(3)
    assert run.recording["end"] == (
        "epoch-00003 has the values at the end of training, which are not those of epoch-00002: it is one epoch later only for "
        "the order"
    )
    nn.init.constant_(model.bias, 1.0)
    with ls.Recorder(tmp_path / "ends", model):
        nn.init.constant_(model.bias, 2.0)
    assert steps_of(tmp_path / "ends") == ["epoch-00000", "epoch-00001"]
    told = ls.Recorder(tmp_path / "told", model)
    nn.init.constant_(model.bias, 3.0)
    told.finish(iteration=70)
    assert steps_of(tmp_path / "told") == ["epoch-00000", "epoch-00000-it-000070"]


def test_nothing_but_a_start_is_no_trained_network(tmp_path, mynets, capsys):
    model, _ = started(mynets)
    ls.Recorder(tmp_path / "mine", model).finish()
    assert "has no trained network: nothing but the start was recorded" in refused(
        capsys, "analyze", tmp_path / "mine", *MADE
    )


def test_a_model_that_was_trained_before_has_no_start(tmp_path, mynets):
    model, _ = started(mynets)
    made = {"source": "mynets:make", "data": "mynets:loaders"}
    with ls.Recorder(tmp_path / "mine", model, initial=False, **made) as recorder:
        recorder.save(iteration=30)
        nn.init.ones_(model[3].bias)
        recorder.save(iteration=40)
    assert not ls.Trajectory.open(tmp_path / "mine" / "checkpoints").has_start
    assert main(["analyze", str(tmp_path / "mine"), *FEW]) == 0
    page = render(ls.Run.open(tmp_path / "mine"))
    assert "Its checkpoints were recorded during its training, none of them before it." in page
    assert "the values before training are not known" in page


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda r: r.save(epoch=0), r"epoch 0 is before training; count what is done, as in save\(epoch=epoch \+ 1\)"),
        (lambda r: r.save(), "say either epoch=, the whole epochs done, or iteration="),
        (lambda r: r.save(epoch=1, iteration=1), "say either epoch="),
        (lambda r: (r.save(epoch=2), r.save(epoch=2)), "epoch 2 is told after epoch 2: moments go forward"),
        (lambda r: (r.save(epoch=2), r.save(epoch=1)), "epoch 1 is told after epoch 2"),
        (lambda r: (r.save(epoch=1), r.log(iteration=1, split="test", loss=1.0)), "counts epochs: say epoch=, not"),
        (lambda r: r.log(epoch=1, split="test"), "log needs an error"),
        (lambda r: r.log(epoch=1, split="test", error=97.0), "from 0 to 1, not 97"),
        (lambda r: (r.close(), r.save(epoch=1)), "was closed; it goes on with another Recorder, resume=True"),
        (lambda r: (r.close(), r.finish()), "was closed"),
        (lambda r: (r.finish(), r.save(epoch=1)), "was finished"),
        (lambda r: (setattr(r._model, "weight", nn.Parameter(torch.ones(2, 9))), r.save(epoch=1)), "weight has shape"),
    ],
)
def test_wrong_use_of_a_recorder(tmp_path, wrong, said):
    recorder = ls.Recorder(tmp_path / "mine", nn.Linear(3, 2))
    with pytest.raises(UseError, match=said):
        wrong(recorder)
    recorder.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, "every is a number from 1, not 0"),
        ({"source": "Net"}, "source='Net' does not say how the model is made; write package.module:NAME"),
        ({"forward": "f"}, "'f' is not the name of a function"),
        ({"model": nn.LazyLinear(3)}, "weight has no values yet"),
        ({"model": nn.Linear(1, 1, device="meta")}, "weight has no values yet"),
        ({"model": nn.ReLU()}, "ReLU has no tensors: there is nothing to record"),
    ],
)
def test_what_cannot_be_recorded_leaves_nothing_behind(tmp_path, arguments, said):
    with pytest.raises(UseError, match=said):
        ls.Recorder(tmp_path / "mine", **({"model": nn.Linear(1, 1)} | arguments))
    assert not (tmp_path / "mine").exists()


def test_what_else_is_in_a_folder_is_never_changed(tmp_path):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}

    model = nn.Linear(3, 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    ls.train(ls.TrainSpec(model="fcn-1x8", epochs=1), tmp_path / "lab")
    with ls.Recorder(tmp_path / "done", model) as recorder:
        nn.init.ones_(model.weight)
        recorder.save(epoch=1)
    ls.Recorder(tmp_path / "begun", model).close()
    broken = ls.Recorder(tmp_path / "broken", model)
    broken.save(epoch=1)
    broken.close()
    before = contents()
    for place, arguments, network, said in [
        ("other", {}, model, "is not a run of layerscope; choose another folder"),
        (
            "lab",
            {},
            model,
            r"holds a run of another spec \(kind: 'train' there, 'recorded' asked\); choose another fold",
        ),
        ("done", {}, model, "has a finished recording; choose another folder. It goes on only with resume=True and a"),
        ("begun", {}, nn.Linear(3, 2), "has a recording until init; choose another folder, or go on with it: load the"),
        ("broken", {}, model, "has a recording until epoch-00001; choose another folder, or go on with it: load the"),
        ("broken", {"resume": True}, nn.Linear(3, 4), r"of another spec \(tensors: .*; values: 8 there, 16 asked\)"),
        ("broken", {"resume": True}, nn.Conv1d(3, 2, 1), r"of another spec \(network: 'Linear' there, 'Conv1d' asked;"),
        (
            "done",
            {"resume": True},
            nn.Linear(3, 2),
            "only with resume=True and a model that has the values of its last",
        ),
    ]:
        with pytest.raises(UseError, match=said):
            ls.Recorder(tmp_path / place, network, **arguments)
    assert contents() == before


def test_a_begun_recording_of_this_very_start_goes_on(tmp_path):
    model = nn.Linear(3, 2)
    ls.Recorder(tmp_path / "mine", model).close()
    with ls.Recorder(tmp_path / "mine", model) as recorder:
        nn.init.ones_(model.weight)
        recorder.save(epoch=1)
    assert steps_of(tmp_path / "mine") == ["epoch-00000", "epoch-00001"]
    assert warnings(ls.Run.open(tmp_path / "mine").recording) == []


class Training:
    """A training whose values are known: those of every moment are its number."""

    def __init__(self, path: Path, epoch: int = 0, **given) -> None:
        self.model = nn.Linear(2, 2)
        self.to(epoch)
        self.recorder = ls.Recorder(path, self.model, **given)

    def to(self, epoch: int) -> None:
        for parameter in self.model.parameters():
            nn.init.constant_(parameter, epoch)

    def run(self, first: int, last: int) -> "Training":
        for epoch in range(first, last + 1):
            self.to(epoch)
            self.recorder.log(epoch=epoch, split="train", loss=1 / epoch)
            self.recorder.save(epoch=epoch)
        return self


def check_folder(path: Path, at_most: int) -> int:
    """All that is there is whole and right; how far it goes."""
    trajectory = ls.Trajectory.open(path / "checkpoints")
    epochs = [step.epoch for step in trajectory.steps]
    assert epochs == list(range(len(epochs)))
    assert epochs[-1] <= at_most
    assert all((trajectory[step][name] == step.epoch).all() for step in trajectory.steps for name in ("weight", "bias"))
    return epochs[-1]


def test_an_exception_leaves_what_can_go_on_and_says_so(tmp_path, mynets, capsys):
    whole, path = tmp_path / "whole", tmp_path / "mine"
    Training(whole).run(1, 5).recorder.finish()
    training = Training(path)
    with contextlib.suppress(ZeroDivisionError), training.recorder:
        training.run(1, 3)
        raise ZeroDivisionError
    run = ls.Run.open(path)
    assert not run.recording["finished"]
    assert not run.trained
    assert check_folder(path, 3) == 3
    assert json.loads((path / "resume" / "recording.json").read_text())[-1]["step"] == 3
    Training(path, 3, resume=True).run(4, 5).recorder.finish()
    assert check_folder(path, 5) == 5
    assert run.recording["finished"]
    assert [session["after"] for session in run.recording["sessions"]] == ["", "epoch-00003"]
    assert warnings(run.recording) == []
    frames = [ls.Run.open(each).training().frame.drop(columns="run") for each in (path, whole)]
    pd.testing.assert_frame_equal(*frames)


def test_what_is_trained_again_is_replaced(tmp_path):
    """Also what comes later than where the second training ends, and what was logged then."""
    path = tmp_path / "mine"
    Training(path).run(1, 6).recorder.close()
    again = Training(path, 2, resume=True)
    again.recorder.log(epoch=3, split="train", loss=9.0)
    assert again.run(3, 4).recorder.steps == tuple(map(ls.Step, range(5)))
    again.recorder.finish()
    assert check_folder(path, 4) == 4
    assert list(ls.Run.open(path).training().where(metric="loss")["value"]) == [1, 1 / 2, 1 / 3, 1 / 4]


def test_a_finished_recording_goes_on_from_its_end(tmp_path):
    path = tmp_path / "mine"
    Training(path).run(1, 2).recorder.finish()
    Training(path, 2, resume=True).recorder.finish()  # a job that was started again when all was done
    assert ls.Run.open(path).recording["finished"]
    longer = Training(path, 2, resume=True)
    assert not ls.Run.open(path).trained
    longer.run(3, 4).recorder.finish()
    assert check_folder(path, 4) == 4
    assert list(ls.Run.open(path).training().frame["step"]) == [1, 2, 3, 4]


def test_values_that_were_never_recorded_are_told(tmp_path, mynets):
    """The Recorder cannot know whose they are; the analysis says so."""
    path = tmp_path / "mine"
    model, _ = started(mynets)
    with contextlib.suppress(ZeroDivisionError), ls.Recorder(path, model) as recorder:
        nn.init.ones_(model[0].bias)
        recorder.save(epoch=1)
        raise ZeroDivisionError
    recorder = ls.Recorder(path, mynets.make(), resume=True, loaded=True)
    recorder.save(epoch=2)
    recorder.close()
    assert main(["analyze", str(path), *MADE, *FEW]) == 0
    said = ls.Run.open(path).analysis("robustness").provenance["warnings"]
    assert "the recording was not finished: its last checkpoint stands for the trained network" in said[0]
    assert (
        "the recording stopped at epoch-00001 or later and went on with a model that had the values of none" in said[1]
    )


@pytest.mark.parametrize("moments", [3, 0])
def test_a_new_model_does_not_replace_what_is_recorded(tmp_path, moments):
    """Neither one with other values nor one of the same seed, which nobody loaded."""
    path = tmp_path / "mine"
    Training(path).run(1, moments).recorder.close()
    before = {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()}
    new = "the model's values are those of none of its checkpoints, as if it were new: load the checkpoint of yours"
    with pytest.raises(UseError, match=f"has a recording until .*, but {new}"):
        Training(path, 8, resume=True)
    if moments:
        with pytest.raises(UseError, match="but the model's values are those of the start, as if it were new"):
            Training(path, 0, resume=True)
    assert {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()} == before
    loaded = Training(path, 8, resume=True, loaded=True).run(moments + 1, moments + 2)
    loaded.recorder.finish()
    assert check_folder(path, moments + 2) == moments + 2
    assert ls.Run.open(path).recording["sessions"][-1]["held"] == ""
    with pytest.raises(UseError, match=r"loaded=True is for going on with a recording: say resume=True too"):
        Training(tmp_path / "other", loaded=True)


def test_a_report_is_gone_or_says_so_when_its_recording_went_on(tmp_path, mynets):
    path = tmp_path / "mine"
    made = {"source": "mynets:make", "data": "mynets:loaders"}
    model, optimizer = started(mynets)
    with ls.Recorder(path, model, **made) as recorder:
        epoch_of(model, optimizer, mynets.batches(1))
        recorder.save(epoch=1)
    report, told = path / "report.html", "The analysis robustness was made before the recording went on"
    assert main(["analyze", str(path), *FEW]) == 0
    ls.Recorder(path, model, resume=True).finish()  # nothing was trained
    assert told not in report.read_text()
    assert told not in render(ls.Run.open(path))
    with ls.Recorder(path, model, resume=True) as recorder:
        epoch_of(model, optimizer, mynets.batches(1))
        recorder.save(epoch=2)
    assert not report.exists()
    assert main(["report", str(path)]) == 0
    assert told in report.read_text()
    assert main(["analyze", str(path), *FEW, "--name", "longer"]) == 0
    assert report.read_text().count("was made before the recording went on") == 1


def test_a_cell_that_is_run_again_takes_over(tmp_path):
    """The former Recorder of the same process is closed; of another process, it is in the way."""
    model = nn.Linear(2, 2)
    former = ls.Recorder(tmp_path / "mine", model)
    recorder = ls.Recorder(tmp_path / "mine", model)
    with pytest.raises(UseError, match="closed"):
        former.save(epoch=1)
    code = "import sys, layerscope as ls\nfrom torch import nn\nls.Recorder(sys.argv[1], nn.Linear(2, 2), resume=True)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "mine"], capture_output=True, text=True)
    assert "is being written by another process" in done.stderr
    recorder.save(epoch=1)
    recorder.finish()
    subprocess.run([sys.executable, "-c", code, tmp_path / "mine"], capture_output=True, text=True)


class Dies(BaseException):
    """The process ends here: nothing that catches errors catches this."""


def dying(work, monkeypatch: pytest.MonkeyPatch, last: int) -> int:
    """Work, but die before rename or removal number `last`; how many there were."""
    count = [0]

    def before(act):
        def counted(self: Path, *args, **kwargs):
            if act is not Path.unlink or self.exists():
                if count[0] == last:
                    raise Dies
                count[0] += 1
            return act(self, *args, **kwargs)

        return counted

    with monkeypatch.context() as patched, contextlib.suppress(Dies):
        patched.setattr(folder_of_recording, "EVERY", 0.0)
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, before(getattr(Path, name)))
        work()
    folder_of_recording._OPEN.clear()  # with the process its memory and its locks are gone
    gc.collect()
    return count[0]


def test_dying_at_any_rename_or_removal(tmp_path, monkeypatch):
    """Whatever is there then is whole, and goes on to the same end. The work goes on from a recording that was ahead."""
    Training(tmp_path / "ahead").run(1, 3).recorder.close()

    def work(path: Path) -> None:
        Training(path, 1, resume=True).run(2, 3).recorder.finish()

    def prepared(name: str) -> Path:
        return shutil.copytree(tmp_path / "ahead", tmp_path / name)

    whole = prepared("whole")
    total = dying(lambda: work(whole), monkeypatch, last=10**9)
    expected = ls.Run.open(whole).training().frame.drop(columns="run")
    assert total > 40
    for moment in [*range(0, total - 3, 3), total - 3, total - 2, total - 1]:
        path = prepared(f"run{moment}")
        assert dying(lambda path=path: work(path), monkeypatch, moment) == moment
        if moment % 2 == 0:
            folder_of_recording.tidy(ls.Run.open(path).checkpoints)
            check_folder(path, 3)
        if ls.Run.open(path).recording["finished"]:
            assert check_folder(path, 3) == 3
            Training(path, 3, resume=True).recorder.finish()
        else:
            work(path)
        assert check_folder(path, 3) == 3
        assert ls.Run.open(path).training().frame.drop(columns="run").equals(expected), moment
        assert not list(path.rglob(".partial-*"))


def test_what_a_kill_leaves_is_no_checkpoint_and_what_is_deleted_is_missed(tmp_path):
    path = tmp_path / "mine"
    Training(path).run(1, 3).recorder.close()
    files = [path / "checkpoints" / f"epoch-0000{epoch}.safetensors" for epoch in range(5)]
    shutil.copy(files[3], files[4])  # not listed any more: it was being taken away
    assert Training(path, 3, resume=True).recorder.steps == tuple(map(ls.Step, range(4)))
    assert not files[4].exists()
    files[3].unlink()  # listed already: it was about to be written
    assert Training(path, 2, resume=True).recorder.steps == tuple(map(ls.Step, range(3)))
    check_folder(path, 2)
    files[1].unlink()
    with pytest.raises(UseError, match=r"epoch-00001\.safetensors is listed in SHA256SUMS but missing: it was deleted"):
        check_folder(path, 2)


def test_dying_before_it_has_begun(tmp_path, monkeypatch, capsys):
    """What is there is no recording yet or one of the start, and is refused as that; it begins again."""

    def work(path: Path) -> None:
        Training(path)

    total = dying(lambda: work(tmp_path / "all"), monkeypatch, last=10**9)
    assert total > 5
    for moment in range(0, total, 2):
        path = tmp_path / f"run{moment}"
        assert dying(lambda path=path: work(path), monkeypatch, moment) == moment
        refused(capsys, "analyze", path, *MADE)
        training = Training(path)
        assert "There is no finished analysis" in render(ls.Run.open(path))
        training.run(1, 2).recorder.finish()
        assert check_folder(path, 2) == 2


KILLED = """
import sys
import torch
from torch import nn
import layerscope as ls
model = nn.Linear(300, 300)
def to(value):
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
last = int(sys.argv[2])
to(last)
recorder = ls.Recorder(sys.argv[1], model, resume=True)
print("ready", flush=True)
for iteration in range(last + 1, 100_000):
    to(iteration)
    recorder.log(iteration=iteration, split="train", loss=1 / iteration)
    recorder.save(iteration=iteration)
"""


def test_killed_while_it_writes(tmp_path):
    """By a signal that no process can catch. What is there is whole, without anything half written among it."""
    path, chosen, last = tmp_path / "mine", random.Random(0), 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, path, str(last)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chosen.uniform(0.1, 0.4))
            assert process.poll() is None
            process.kill()
        folder_of_recording.tidy(ls.Run.open(path).checkpoints)
        trajectory = ls.Trajectory.open(path / "checkpoints")
        iterations = [trajectory.number(step) for step in trajectory.steps]
        assert iterations == list(range(len(iterations)))
        assert iterations[-1] > last
        for step in trajectory.steps[-3:]:
            assert all((tensor == step.iteration).all() for tensor in trajectory[step].values())
        last = max(1, iterations[-1] - 1)
        assert not ls.Run.open(path).recording["finished"]
    assert [each["held"] != "" for each in ls.Run.open(path).recording["sessions"]] == [True] * 3


def test_the_callbacks_libraries_are_not_loaded():
    code = (
        "import sys, layerscope as ls; ls.Recorder; "
        "print([n for n in ('transformers', 'lightning', 'pytorch_lightning', 'accelerate') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with ls.Recorder(tmp_path / "mine", nn.Linear(1, 1)) as recorder:
        recorder.save(epoch=1)
        recorder.log(epoch=1, split="train", loss=1.0)
        assert recorder.steps == ()
        with pytest.raises(UseError, match="moments go forward"):  # the same errors as in the first
            recorder.save(epoch=1)
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_a_process_that_is_alone(tmp_path, monkeypatch):
    """Without a group: it is recorded, or refused where a launcher began several. Never neither."""
    monkeypatch.setenv("RANK", "1")
    with ls.Recorder(tmp_path / "mine", nn.Linear(1, 1)) as recorder:
        recorder.save(epoch=1)
        assert recorder.steps == (ls.INIT, ls.Step(1))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UseError, match=r"process 1 of 4 .* make the Recorder after init_process_group; or, if each"):
        ls.Recorder(tmp_path / "other", nn.Linear(1, 1))
    assert not (tmp_path / "other").exists()


TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorials" / "own-training.md"


def run_blocks(language: str, names: dict[str, object]) -> None:
    """Run the tutorial's blocks that are marked as of a language; those of libraries that may be missing are `py`."""
    for block in re.findall(rf"^```{language}\n(.*?)```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(TUTORIAL), "exec"), names)


def test_the_tutorial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    run_blocks("python", names)
    printed = capsys.readouterr().out
    assert "whole network" in printed
    assert "\n[0, 1, 2, 5, 10, 20, 50, 100, 120]\n" in printed
    assert "\nepoch-00001\n" in printed
    assert names["recorder"].run.recording["finished"]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_on_libraries(tmp_path, monkeypatch, capsys):
    for library in ("lightning", "transformers", "accelerate"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    run_blocks("python", names)
    capsys.readouterr()
    run_blocks("py", names)
    printed = capsys.readouterr().out
    assert "[0, 20, 40, 60]\n" in printed
    assert "[0, 10, 20, 30, 32]\n" in printed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu(tmp_path):
    model = nn.Linear(3, 2).cuda()
    with ls.Recorder(tmp_path / "mine", model) as recorder:
        nn.init.ones_(model.weight)
        recorder.save(epoch=1)
    end = ls.Trajectory.open(tmp_path / "mine" / "checkpoints")[ls.FINAL]
    assert all(torch.equal(value.cpu(), end[name]) for name, value in model.state_dict().items())
    assert model.weight.is_cuda


def test_counting_from_one_again_takes_nothing_away(tmp_path):
    model = nn.Linear(3, 2)
    with ls.Recorder(tmp_path / "run", model) as recorder:
        for epoch in range(3):
            with torch.no_grad():
                model.weight += 1
            recorder.save(epoch=epoch + 1)
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(UseError, match=r"the values of epoch-00003: count on from there"):
        ls.Recorder(tmp_path / "run", model, resume=True).save(epoch=1)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("number", [-1, -5])
def test_moments_are_whole_numbers(tmp_path, number):
    recorder = ls.Recorder(tmp_path / "run", nn.Linear(3, 2))
    with pytest.raises(UseError, match="whole numbers, counted from 1"):
        recorder.save(epoch=number)
    recorder.close()
