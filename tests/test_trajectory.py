"""Checkpoints: what does not fit is refused before anything runs, and the error says which tensor."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import layerscope as ls
from layerscope.checkpoints.safetensors_file import SafetensorsFile
from layerscope.errors import UseError
from layerscope.store import Folder
from layerscope.trajectory import save_state

steps = st.builds(ls.Step, st.integers(0, 99999), st.integers(0, 999999))


@given(steps)
def test_names_of_steps_round_trip(step):
    assert ls.Step.parse(step.name) == step


@given(st.lists(steps, min_size=2))
def test_names_sort_like_steps(some):
    assert [s.name for s in sorted(some)] == sorted(s.name for s in some)
    assert min(some) >= ls.INIT
    assert max(some) < ls.FINAL


def test_bad_steps():
    for name in ("epoch", "epoch-1-it", "final2"):
        with pytest.raises(ValueError, match="is not a step"):
            ls.Step.parse(name)
    with pytest.raises(ValueError, match="negative"):
        ls.Step(-1)


@pytest.fixture
def model():
    return nn.Linear(3, 2)


@pytest.fixture
def folder(tmp_path, model):
    folder = Folder(tmp_path / "checkpoints")
    for epoch in (0, 5, 10):
        save_state(folder, ls.Step(epoch), {k: v + epoch for k, v in model.state_dict().items()})
    return folder


def test_open_reads_lazily_what_was_saved(folder, model):
    trajectory = ls.Trajectory.open(folder.path)
    assert trajectory.steps == (ls.Step(0), ls.Step(5), ls.Step(10))
    assert trajectory.resolve(ls.FINAL) == ls.Step(10)
    assert torch.equal(trajectory[ls.Step(5)]["weight"], model.weight + 5)
    assert list(trajectory.tensors(ls.FINAL, ["bias"])) == ["bias"]
    trajectory.check(ls.state_of(model))
    with pytest.raises(UseError, match="no checkpoint at epoch-00003; there are init, epoch-00005"):
        trajectory[ls.Step(3)]


def test_names_are_looked_up_once(folder, monkeypatch, model):
    seen: list[SafetensorsFile] = []
    shapes = SafetensorsFile.shapes
    monkeypatch.setattr(SafetensorsFile, "shapes", lambda file: seen.append(file) or shapes(file))
    trajectory = ls.Trajectory.open(folder.path).fitted(model)
    for _ in range(2):
        assert list(trajectory.tensors(ls.INIT, ["weight"])) == ["weight"]
    assert len(seen) == 1


def test_no_start():
    trajectory = ls.Trajectory.of(epoch_3={"w": torch.ones(1)})
    assert not trajectory.has_start
    with pytest.raises(UseError, match="no initial state"):
        trajectory[ls.INIT]


def change(tensors, name, value):
    tensors[name] = value
    return tensors


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: {"weight": t["weight"]}, "epoch-00005.*does not fit the model: bias is missing"),
        (lambda t: change(t, "extra", torch.ones(1)), "epoch-00005.*extra is not in the model"),
        (
            lambda t: change(t, "weight", torch.ones(2, 4)),
            r"epoch-00005.*weight has shape \[2, 4\], the model has \[2, 3\]",
        ),
        (
            lambda t: change(t, "bias", t["bias"].double()),
            r"epoch-00005.*bias is torch\.float64, the model has torch\.float32",
        ),
        (
            lambda t: change(t, "bias", torch.tensor([0.0, float("nan")])),
            "epoch-00005.*tensor bias holds NaN",
        ),
        (
            lambda t: change(t, "bias", torch.tensor([0.0, float("inf")])),
            "epoch-00005.*tensor bias holds an infinite",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_first(folder, model, edit, message):
    trajectory = ls.Trajectory.open(folder.path)
    save_state(folder, ls.Step(5), edit(trajectory[ls.Step(5)]))
    with pytest.raises(UseError, match=message):
        ls.evaluate(model, ls.Trajectory.open(folder.path), [ls.Variant()], [])


def test_a_truncated_checkpoint_is_refused(folder):
    path = folder.path / "epoch-00005.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UseError, match=r"epoch-00005\.safetensors is damaged"):
        ls.Trajectory.open(folder.path)[ls.Step(5)]


def test_a_folder_without_checksums_is_read_and_truncation_found(tmp_path):
    save_file({"w": torch.ones(100)}, tmp_path / "epoch-00001.safetensors")
    assert ls.Trajectory.open(tmp_path)[ls.FINAL]["w"].sum() == 100
    path = tmp_path / "epoch-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UseError, match=r"cannot read .*epoch-00001"):
        ls.Trajectory.open(tmp_path)[ls.FINAL]


def test_a_deleted_checkpoint_is_noticed(folder):
    (folder.path / "epoch-00010.safetensors").unlink()
    with pytest.raises(UseError, match=r"epoch-00010\.safetensors is listed in SHA256SUMS but missing"):
        ls.Trajectory.open(folder.path)


def test_no_names_are_no_tensors(folder):
    assert ls.Trajectory.open(folder.path).tensors(ls.INIT, []) == {}


def test_folders_that_are_none(tmp_path):
    with pytest.raises(UseError, match="there is no folder"):
        ls.Trajectory.open(tmp_path / "no")
    with pytest.raises(UseError, match="holds no checkpoint"):
        ls.Trajectory.open(tmp_path)
    save_file({"w": torch.ones(1)}, tmp_path / "best.safetensors")
    with pytest.raises(UseError, match=r"best\.safetensors is not named after a step"):
        ls.Trajectory.open(tmp_path)
