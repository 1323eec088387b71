"""Training with its trajectory."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import layerscope as ls
from layerscope import rng
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.models.initialisers import initialise

SPEC = ls.TrainSpec(model="fcn-2x16", epochs=3, checkpoints=(1,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ls.train(SPEC, tmp_path_factory.mktemp("runs") / "a")


def bare_loop(spec):
    """The same steps in plain PyTorch, written without the package's loop: its oracle."""
    data = ls.data.load(spec.data)
    model = build(spec.model, data.input_shape, data.classes)
    initialise(model, ls.laws_of(model, spec.initialiser), spec.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum, foreach=False)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 3], spec.decay)  # 30, 60, 90 % of 3 epochs
    losses = []
    for epoch in range(1, spec.epochs + 1):
        order = torch.randperm(len(data.train), generator=rng.generator(spec.seed, "order", draw=epoch))
        total = 0.0
        for start in range(0, len(order), spec.batch_size):
            chosen = order[start : start + spec.batch_size]
            loss = cross_entropy(model(data.train.inputs[chosen]), data.train.targets[chosen])
            model.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        schedule.step()
        losses.append(total / len(order))
    return model, losses


def test_against_a_plain_loop(run):
    model, losses = bare_loop(SPEC)
    final = ls.Trajectory.open(run.checkpoints.path)[ls.FINAL]
    for name, tensor in model.state_dict().items():
        assert torch.allclose(final[name], tensor, atol=1e-5), name
    ours = run.training().where(metric="cross_entropy", split="train")["value"]
    assert list(ours) == pytest.approx(losses, rel=1e-4)


def test_what_a_run_holds(run):
    trajectory = ls.Trajectory.open(run.checkpoints.path)
    assert [step.epoch for step in trajectory.steps] == [0, 1, 3]
    data = ls.data.load("digits")
    start = build(SPEC.model, data.input_shape, 10)
    initialise(start, ls.laws_of(start, SPEC.initialiser), SPEC.seed)
    assert all(torch.equal(trajectory[ls.INIT][k], v) for k, v in start.state_dict().items())
    tests = run.training().where(metric="error", split="test")
    assert list(tests["step"]) == [0, 1, 2, 3]
    assert list(tests["n"]) == [360] * 4
    assert run.provenance["training"]["data"]["fingerprint"] == data.fingerprint
    assert run.spec["epochs"] == 3


def test_the_last_checkpoint_has_the_error_that_was_recorded(run):
    data = ls.data.load("digits")
    model = build(SPEC.model, data.input_shape, 10)
    trajectory = ls.Trajectory.open(run.checkpoints.path)
    table = ls.evaluate(model, trajectory, [ls.Variant()], data.test.batches())
    recorded = run.training().where(metric="error", split="test", step=3)["value"].item()
    assert table.where(metric="error")["value"].item() == recorded


def test_the_same_spec_gives_the_same_bits(run, tmp_path):
    again = ls.train(SPEC, tmp_path / "b")
    a, b = (ls.Trajectory.open(r.checkpoints.path)[ls.FINAL] for r in (run, again))
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = ls.train(ls.TrainSpec(**{**vars(SPEC), "seed": 1}), tmp_path / "c")
    assert not torch.equal(ls.Trajectory.open(other.checkpoints.path)[ls.FINAL]["layer1.weight"], a["layer1.weight"])


def test_a_finished_run_is_left_as_it_is(run):
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}
    ls.train(SPEC, run.path)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}


def test_a_folder_with_another_spec_is_never_touched(run):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(
        UseError, match=r"holds a run of another spec \(lr: 0.01 there, 0.2 asked\); choose another --out"
    ):
        ls.train(ls.TrainSpec(**{**vars(SPEC), "lr": 0.2}), run.path)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_a_foreign_folder_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UseError, match="exists and is not a run of layerscope"):
        ls.train(SPEC, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
