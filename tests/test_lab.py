"""The settings of a training, each against PyTorch's own or against what it promises."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

import layerscope as ls
from layerscope import rng
from layerscope.analyses.session import analyze
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.models.initialisers import initialise
from layerscope.plots import words
from layerscope.report.asked import training as asked_in_words
from layerscope.training import session
from layerscope.training.loop import start

from .test_resume import Unplugged, stop_after

SMALL = ls.TrainSpec(model="fcn-2x16", data="digits?n_train=300&n_test=100", epochs=3, checkpoints=())

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), weight_decay=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95, momentum=0.8, weight_decay=1e-3),
}
SETTINGS = {
    "sgd": {},
    "adam": {"momentum": 0.8, "smoothing": 0.95},
    "rmsprop": {"momentum": 0.8, "smoothing": 0.95},
}
SCHEDULES = {
    "step": (lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.3), {"every": 2, "decay": 0.3}),
    "exponential": (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.7), {"decay": 0.7}),
    "cosine": (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5), {}),
    "constant": (lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0), {}),
}


def asked(**fields) -> ls.TrainSpec:
    return dataclasses.replace(SMALL, **fields)


def final(run: ls.Run) -> dict[str, torch.Tensor]:
    return ls.Trajectory.open(run.checkpoints.path)[ls.FINAL]


def plainly(spec: ls.TrainSpec, optimizer, schedule) -> dict[str, torch.Tensor]:
    """The same training in a few lines that share nothing with the loop but where samples and values are drawn."""
    data = ls.data.load(spec.data)
    model = build(spec.model, data.input_shape, data.classes)
    initialise(model, ls.laws_of(model, spec.initialiser), spec.seed)
    made = optimizer(model.parameters())
    rates = schedule(made)
    inputs, targets = data.train.inputs, data.train.targets
    for epoch in range(1, spec.epochs + 1):
        order = torch.randperm(len(targets), generator=rng.generator(spec.seed, "order", draw=epoch))
        for chosen in order.split(spec.batch_size):
            made.zero_grad()
            cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            made.step()
        rates.step()
    return model.state_dict()


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimisers_are_pytorchs(name, tmp_path):
    spec = asked(optimizer=name, weight_decay=1e-3, schedule="constant", **SETTINGS[name])
    ours, theirs = final(ls.train(spec, tmp_path / "run")), plainly(spec, OPTIMIZERS[name], SCHEDULES["constant"][0])
    for key, value in theirs.items():
        assert torch.allclose(ours[key], value, atol=2e-5), key


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_are_pytorchs(name):
    schedule, fields = SCHEDULES[name]
    spec = asked(schedule=name, epochs=5, lr=0.3, **fields)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    rates = schedule(optimizer)
    for epoch in range(5):
        assert spec.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        rates.step()


CONV = "digits?n_train=200&n_test=80&n_validation=60"
RESUMED = {
    "adam, dropout, batch norm": asked(model="fcn-20-12?norm=batch&dropout=0.3", optimizer="adam", epochs=4),
    "rmsprop, cosine": asked(optimizer="rmsprop", schedule="cosine", lr=0.001, epochs=4),
    "convolutions, augmented": asked(model="alexnet-small?width=0.05", data=CONV, augment="pad-crop-flip", epochs=4),
    "best validation": asked(data=CONV, until="validation", patience=2, epochs=4, lr=0.3),
    "bfloat16": asked(precision="bfloat16", epochs=4),
    "frozen": asked(model="fcn-2x16?norm=batch", freeze=("layer2", "norm1"), epochs=4),
}


@pytest.mark.parametrize("name", list(RESUMED))
def test_every_setting_resumes_with_the_same_bits(name, tmp_path, monkeypatch):
    spec = dataclasses.replace(RESUMED[name], checkpoints=None)
    whole = ls.train(spec, tmp_path / "whole")
    monkeypatch.setattr(session, "EVERY", 0.0)

    with pytest.raises(Unplugged):
        ls.train(spec, tmp_path / "stopped", progress=stop_after(3))
    again = ls.train(spec, tmp_path / "stopped")
    assert again.provenance["training"]["resumed_after_epoch"] == 2
    one, other = (ls.Trajectory.open(run.checkpoints.path) for run in (whole, again))
    assert one.steps == other.steps
    for step in one.steps:
        assert all(torch.equal(value, other[step][key]) for key, value in one[step].items()), step
    assert whole.training().frame.drop(columns="run").equals(again.training().frame.drop(columns="run"))
    assert whole.ending == again.ending


def test_the_global_random_state_is_the_callers(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ls.train(asked(model="fcn-2x16?dropout=0.5"), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_dropout_is_another_in_every_epoch(tmp_path):
    """With a learning rate of nothing, epochs differ only by what was dropped."""
    spec = asked(model="fcn-1x64?dropout=0.5", lr=1e-12, schedule="constant", batch_size=300)
    train = ls.train(spec, tmp_path / "run").training().where(metric="cross_entropy", split="train")["value"]
    assert len({round(loss, 4) for loss in train}) == 3


@pytest.mark.parametrize(
    ("model", "freeze", "by", "changed"),
    [
        ("fcn-3x16?norm=batch", ("layer2", "norm2"), "layer", {"layer1", "layer3", "layer4", "norm1", "norm3"}),
        ("fcn-3x16?norm=batch", ("layer[23]", "norm*"), "layer", {"layer1", "layer4"}),
        ("resnet-v2-18?width=0.05", ("stage*.block2",), "block", {"stage0", "stage1.block1", "final_linear"}),
        ("resnet-v1-18?width=0.05&norm=none", ("stage1.block1", "final_linear"), "block", {"stage1.block2"}),
    ],
)
def test_frozen_parts_stay_as_they_are(model, freeze, by, changed, tmp_path):
    """Parameters and buffers of frozen Parts are those of the start bit for bit, under momentum and weight decay too; those
    of the others move."""
    spec = asked(model=model, freeze=freeze, freeze_by=by, weight_decay=0.1, lr=0.05, epochs=2, checkpoints=None)
    run = ls.train(spec, tmp_path / "run")
    trajectory = ls.Trajectory.open(run.checkpoints.path)
    data = ls.data.load(spec.data)
    network = build(model, data.input_shape, data.classes)
    parts = ls.partition.BY[by](network)
    frozen = set(run.provenance["training"]["frozen"])
    assert frozen
    assert frozen.isdisjoint(changed)
    for part in parts:
        for step in trajectory.steps[1:]:
            same = [torch.equal(trajectory[ls.INIT][name], trajectory[step][name]) for name in part.tensors]
            assert all(same) if part.name in frozen else not all(same), (part.name, step)
    assert changed <= {part.name for part in parts}
    table = ls.evaluate(network, trajectory, [ls.Variant()], data.test.batches())
    recorded = run.training().where(metric="error", split="test", step=2)["value"].item()
    assert table.where(metric="error")["value"].item() == recorded


def test_frozen_statistics_are_those_that_are_used(tmp_path):
    """A frozen norm layer normalises by its initial statistics in training too, so that training and test agree."""
    spec = asked(model="fcn-1x16?norm=batch", freeze=("norm1",), lr=1e-9, epochs=1, batch_size=300)
    run = ls.train(spec, tmp_path / "run")
    data = ls.data.load(spec.data)
    model = start(spec, data).eval()
    loss = cross_entropy(model(data.train.inputs), data.train.targets).item()
    recorded = run.training().where(metric="cross_entropy", split="train", step=1)["value"].item()
    assert recorded == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": ("layer9",)}, "unknown Part to freeze 'layer9'; did you mean layer"),
        ({"freeze": ("*",)}, "nothing would be trained"),
        (
            {"freeze": ("layer1",), "freeze_by": "head"},
            "unknown freeze_by 'head'; .*known: block, layer, module, stage",
        ),
        ({"initialiser": "fixup"}, "fixup is for residual networks"),
        (
            {"model": "resnet-v2-18", "initialiser": "fixup"},
            "fixup stands in for normalisation.*norm=scalar or norm=none",
        ),
        ({"initialiser": "glorott"}, "did you mean glorot"),
        ({"model": "fcn-3x25?nrm=batch"}, "did you mean norm"),
        ({"augment": "flip", "data": "teacher:10", "model": "mlp"}, "augment=flip is for images"),
        ({"until": "validation"}, "until=validation needs validation data"),
        ({"model": "fcn-2x16?norm=batch", "batch_size": 1}, "the smallest has 1 of the 300 samples"),
        (
            {"model": "fcn-2x16?norm=batch", "batch_size": 299},
            r"the smallest has 1 of the 300 samples\): Expected more than 1 value per channel",
        ),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(fields, message, tmp_path):
    with pytest.raises(UseError, match=message):
        ls.train(asked(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(UseError, match="no device 'abacus'"):
        ls.train(SMALL, tmp_path / "run", device="abacus")


def test_training_ends_at_a_loss(tmp_path):
    run = ls.train(asked(until="loss", target_loss=0.5, epochs=100, lr=0.1), tmp_path / "run")
    losses = run.training().where(metric="cross_entropy", split="train")["value"]
    assert losses.iloc[-1] < 0.5 <= min(losses.iloc[:-1])
    assert run.ending == {
        "epoch": len(losses),
        "reason": f"training cross-entropy {losses.iloc[-1]:.4g} fell below 0.5",
        "trained": len(losses),
        "reached": True,
        "diverged": False,
    }
    assert [step.epoch for step in ls.Trajectory.open(run.checkpoints.path).steps] == [0, len(losses)]


@pytest.mark.parametrize("checkpoints", [None, (), (1, 2)])
def test_the_network_of_the_best_validation_error_is_the_trained_one(checkpoints, tmp_path):
    spec = asked(data=CONV, until="validation", patience=3, epochs=40, lr=0.1, checkpoints=checkpoints)
    run = ls.train(spec, tmp_path / "run")
    errors = list(run.training().where(metric="error", split="validation")["value"])[1:]
    chosen = errors.index(min(errors)) + 1
    assert run.ending["epoch"] == chosen
    steps = [step.epoch for step in ls.Trajectory.open(run.checkpoints.path).steps]
    assert steps == sorted(
        {0, chosen, *(range(chosen) if checkpoints is None else (e for e in checkpoints if e < chosen))}
    )
    assert len(errors) in (40, chosen + 3)
    data = ls.data.load(spec.data)
    network = build(spec.model, data.input_shape, data.classes)
    table = ls.evaluate(network, ls.Trajectory.open(run.checkpoints.path), [ls.Variant()], data.validation.batches())
    assert table.where(metric="error")["value"].item() == min(errors)


def test_divergence_is_a_row_and_the_last_good_network_is_kept(tmp_path, capsys):
    spec = asked(epochs=6, lr=1e-3, decay=1e25, every=2)  # the third epoch is taken at a rate of 1e22
    whole = ls.train(asked(epochs=2, lr=1e-3, schedule="constant", checkpoints=None), tmp_path / "two")
    run = ls.train(spec, tmp_path / "run")
    last = run.training().frame.iloc[-1]
    assert (last["status"], last["step"], last["split"]) == ("diverged", 3, "train")
    assert "not finite" in last["reason"]
    assert run.trained
    assert run.ending["epoch"] == 2
    assert run.ending["diverged"]
    assert all(torch.equal(value, final(whole)[key]) for key, value in final(run).items())
    table = analyze(run, ls.RobustnessSpec(draws=1))
    assert (table.frame["status"] == "ok").all()
    settings = [f"--{key}={value}" for key, value in (("lr", 1e-3), ("decay", 1e25), ("every", 2), ("epochs", 6))]
    words = [
        "train",
        "--out",
        str(tmp_path / "again"),
        "--model",
        SMALL.model,
        "--data",
        SMALL.data,
        *settings,
        "--json",
    ]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "diverged in epoch 3" in said.err
    assert json.loads(said.out)["ending"]["diverged"]


def test_a_training_that_diverges_at_once_has_no_trained_network(tmp_path):
    run = ls.train(asked(lr=1e30), tmp_path / "run")
    assert run.ending["epoch"] == 0
    with pytest.raises(UseError, match="no trained network: training ended, but it diverged in epoch 1"):
        analyze(run, ls.RobustnessSpec())


def test_mixed_precision_is_near_full_precision(tmp_path):
    """bfloat16 has 8 bits: losses agree to about a per cent, and are not the same."""
    runs = [ls.train(asked(precision=p, epochs=5), tmp_path / p) for p in ("float32", "bfloat16")]
    full, mixed = (run.training().where(metric="cross_entropy", split="train")["value"].to_numpy() for run in runs)
    assert mixed == pytest.approx(full, rel=0.03)
    assert not (mixed == full).all()
    assert all(value.dtype == torch.float32 for value in final(runs[1]).values())


def test_models_are_listed(capsys):
    assert main(["models", "--json"]) == 0
    found = {family["family"]: family for family in json.loads(capsys.readouterr().out)}
    assert found["fcn"]["parameters"]["fcn-3x256"]["cifar10"] == 3072 * 256 + 256 + 2 * (256 * 256 + 256) + 2570
    assert found["fcn"]["options"]["norm"] == "none|batch [none]"
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(family["form"] in shown for family in found.values())


def test_the_report_says_how_it_was_trained(tmp_path):
    spec = asked(
        data="digits?n_train=300&n_test=100&n_validation=50&shuffled=0.5",
        optimizer="adam",
        schedule="cosine",
        until="validation",
        patience=1,
        epochs=30,
        freeze=("layer2",),
        initialiser="he-uniform",
    )
    run = ls.train(spec, tmp_path / "run")
    said = " ".join(asked_in_words(run.spec, run.provenance))
    noise = run.provenance["training"]["data"]["noise"]
    assert noise["chosen"] == 150
    assert f"50 % of the training labels shuffled among themselves, {noise['differ']} of them wrong now" in said
    assert (
        f"Training took {words.plural(run.ending['trained'], 'epoch')} (of at most 30) of Adam in batches of 128"
        in said
    )
    assert "with learning rate 0.01 (falling to 0 as a cosine)" in said
    assert "These kept their initial values, so that nothing changes where they are put back: layer2." in said
    assert f"The trained network is that after epoch {run.ending['epoch']}: validation error was lowest" in said
    assert f"and after every epoch until {run.ending['epoch']}" in said or "were kept at epochs 0" in said
    assert "300 training, 50 validation and 100 test samples" in said
    assert "Initial values: he-uniform" in said
    plain = " ".join(asked_in_words(SMALL.to_dict(), {}))
    assert "Training took 3 epochs of stochastic gradient descent" in plain
    assert "(times 0.2 after 30 %, 60 % and 90 % of the epochs)" in plain


def test_random_crops_of_pictures(tmp_path):
    """A folder of pictures: training sees random crops of the squares, everything else their middle."""
    pixels = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / kind
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    data = f"imagefolder:{tmp_path / 'pictures'}?size=32&crop=24"
    fields = {"data": data, "model": "resnet-v2-18?width=0.05&norm=none", "batch_size": 4, "epochs": 1}
    runs = [ls.train(asked(augment=how, **fields), tmp_path / how) for how in ("none", "imagenet")]
    starts, ends = ([ls.Trajectory.open(run.checkpoints.path)[step] for run in runs] for step in (ls.INIT, ls.FINAL))
    assert all(torch.equal(value, starts[1][key]) for key, value in starts[0].items())
    assert not all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert ls.data.load(data).input_shape == (3, 24, 24)


def test_a_session_that_could_have_other_bits_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "EVERY", 0.0)

    with pytest.raises(Unplugged):
        ls.train(SMALL, tmp_path / "run", progress=stop_after(2))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run = ls.train(SMALL, tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    found = run.provenance["training"]["sessions"]
    assert [(each["after_epoch"], each["threads"]) for each in found] == [(0, threads), (1, threads + 1)]


def test_a_dry_run_of_what_diverges(capsys):
    assert main(["train", "--lr", "1e30", "--out", "nowhere", "--dry-run"]) == 2
    assert "training diverges within its first" in capsys.readouterr().err


def test_an_error_is_of_the_network_that_analyses_measure(tmp_path):
    """Trained in bfloat16, measured in float32: the error that is recorded is that of the unmodified network."""
    run = ls.train(asked(precision="bfloat16"), tmp_path / "run")
    table = analyze(run, ls.RobustnessSpec(draws=1))
    unmodified = table.where(metric="error", split="test", perturbation="none")["value"].item()
    assert run.training().where(metric="error", split="test", step=3)["value"].item() == unmodified
