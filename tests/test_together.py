"""A stack of trainings on disk: each run is what its own training would have left, and a stop loses nothing."""

import dataclasses
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import layerscope as ls
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.store import Folder
from layerscope.training import session, together
from layerscope.training.blocks import blocks_of, loaded
from layerscope.training.together import train_together

BASE = ls.TrainSpec(
    model="fcn-2x8", data="digits?n_train=300", epochs=6, batch_size=64, lr=0.1, checkpoints=(2,), schedule="constant"
)
DATA = ("digits?n_train=300", "digits?n_train=300&shuffled=0.5")


def specs(base: ls.TrainSpec = BASE) -> list[ls.TrainSpec]:
    """Two seeds times two ratios of noise; not in the order of a stack."""
    return [dataclasses.replace(base, data=data, seed=seed) for data in DATA for seed in (1, 0)]


def population(path: Path, asked: list[ls.TrainSpec], **how) -> list[ls.Run]:
    outs = [path / f"run-{i}" for i in range(len(asked))]
    return train_together(asked, outs, Folder(path), "block-0", **how)


def close(a: ls.Run, b: ls.Run) -> None:
    """The same trajectory and losses, but for rounding."""
    one, other = (ls.Trajectory.open(run.path / "checkpoints") for run in (a, b))
    assert one.steps == other.steps
    for step in one.steps:
        for name, tensor in one[step].items():
            assert torch.allclose(tensor, other[step][name], rtol=1e-3, atol=1e-4), (step, name)
    mine, its = (run.training().frame.drop(columns="run") for run in (a, b))
    pd.testing.assert_frame_equal(mine.drop(columns="value"), its.drop(columns="value"), check_exact=True)
    errors = (mine["metric"] == "error").to_numpy()
    values, known = mine["value"].to_numpy(), its["value"].to_numpy()
    np.testing.assert_allclose(values[~errors], known[~errors], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(values[errors], known[errors], atol=0.01)
    ends = [run.ending for run in (a, b)]
    assert {k: v for k, v in ends[0].items() if k != "reason"} == {k: v for k, v in ends[1].items() if k != "reason"}


ENDINGS = {
    "all epochs": {},
    "a loss that some reach": {"until": "loss", "target_loss": 1.0, "epochs": 12},
    "the best validation error": {"until": "validation", "patience": 2, "data": "digits?n_train=300&n_validation=100"},
    "convergence": {"until": "convergence", "patience": 2, "tolerance": 0.2, "epochs": 12},
    "frozen": {"freeze": ("layer2",)},
    "Adam": {"optimizer": "adam", "lr": 0.01},
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_run_is_that_of_its_own_training(ending, tmp_path):
    fields = {**ENDINGS[ending]}
    data = fields.pop("data", None)
    asked = specs(dataclasses.replace(BASE, **fields))
    if data:
        asked = [dataclasses.replace(one, data=data + one.data.partition("300")[2]) for one in asked]
    runs = population(tmp_path, asked)
    last = {run.ending["trained"] for run in runs}
    if ending in ("a loss that some reach", "the best validation error", "convergence"):
        assert len(last) > 1, "members leave at different times"
    for i, (run, spec) in enumerate(zip(runs, asked, strict=True)):
        close(run, ls.train(spec, tmp_path / f"alone-{i}"))
        facts = run.provenance["training"]
        assert facts["stack"] == {"name": "block-0", "members": 4}
        assert facts["spec"] == spec.fingerprint
        assert facts["frozen"] == (["layer2"] if spec.freeze else [])
    assert not list((tmp_path / "resume").glob("*"))


def test_one_that_diverges_keeps_the_network_before(tmp_path):
    asked = specs(dataclasses.replace(BASE, lr=1e18, momentum=0.0))
    runs = population(tmp_path, asked)
    for i, (run, spec) in enumerate(zip(runs, asked, strict=True)):
        alone = ls.train(spec, tmp_path / f"alone-{i}")
        assert run.ending["diverged"]
        assert run.ending["epoch"] == alone.ending["epoch"]
        row = run.training().where(status="diverged").iloc[0]
        assert np.isnan(row["value"])
        assert row["step"] == alone.training().where(status="diverged").iloc[0]["step"]


class Unplugged(Exception):  # noqa: N818 (not an error)
    pass


def same(a: Path, b: Path) -> None:
    """The same bits in all runs."""
    names = sorted(path.name for path in a.glob("run-*"))
    assert names == sorted(path.name for path in b.glob("run-*"))
    for name in names:
        one, other = (ls.Run.open(path / name) for path in (a, b))
        trajectories = [ls.Trajectory.open(run.path / "checkpoints") for run in (one, other)]
        assert trajectories[0].steps == trajectories[1].steps
        for step in trajectories[0].steps:
            values = trajectories[1][step]
            assert all(torch.equal(tensor, values[key]) for key, tensor in trajectories[0][step].items())
        pd.testing.assert_frame_equal(one.training().frame, other.training().frame, check_exact=True)
        assert one.ending == other.ending


LEAVING = dataclasses.replace(BASE, until="loss", target_loss=1.0, epochs=12)


@pytest.mark.parametrize("tells", [1, 4, 7, 9])
def test_a_stack_goes_on_with_the_same_bits(tells, tmp_path, monkeypatch):
    """Also after a stop between a member's end and the next save."""
    population(tmp_path / "whole", specs(LEAVING))
    monkeypatch.setattr(together, "EVERY", 0.0)
    monkeypatch.setattr(together, "SHARE", 1e9)
    told = []

    def progress(what: str, done: int, total: int) -> None:
        told.append((what, done, total))
        if len(told) == tells:
            raise Unplugged

    with pytest.raises(Unplugged):
        population(tmp_path / "part", specs(LEAVING), progress=progress)
    assert told[-1][0] == "train"
    assert told[-1][2] == 4 * 12
    ends = []
    population(tmp_path / "part", specs(LEAVING), progress=lambda *told: ends.append(told))
    assert ends[-1][1:] == (48, 48)
    same(tmp_path / "whole", tmp_path / "part")


def stopped(path: Path, asked: list[ls.TrainSpec], monkeypatch, last: int, saves: set[int]) -> None:
    """Train, save after these epochs only, and end after epoch `last` (after what it brought is kept)."""
    take, save, count = together._Session._take, together._Session._save, [-1]

    def counted(self, laps, seconds):
        take(self, laps, seconds)
        count[0] += 1
        if count[0] == last:
            raise Unplugged

    def chosen(self, epoch):
        if epoch in saves:
            save(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(together, "EVERY", 0.0)
        patched.setattr(together, "SHARE", 1e9)
        patched.setattr(together._Session, "_take", counted)
        patched.setattr(together._Session, "_save", chosen)
        with pytest.raises(Unplugged):
            population(path, asked)


def test_a_member_that_ended_after_the_save_keeps_its_network(tmp_path, monkeypatch):
    """It is trained again with the others; the saves of that session leave its checkpoints alone."""
    population(tmp_path / "whole", specs(LEAVING))
    ends = sorted(ls.Run.open(tmp_path / "whole" / f"run-{i}").ending["trained"] for i in range(4))
    assert ends[0] < ends[-1]
    stopped(tmp_path / "part", specs(LEAVING), monkeypatch, last=ends[0], saves={1})
    monkeypatch.setattr(together, "EVERY", 0.0)
    monkeypatch.setattr(together, "SHARE", 1e9)
    population(tmp_path / "part", specs(LEAVING))
    same(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize("width", [5, 9, 13, 33])
def test_the_same_bits_at_widths_that_fill_no_line_of_memory(width, tmp_path, monkeypatch):
    asked = specs(dataclasses.replace(BASE, model=f"fcn-2x{width}"))
    population(tmp_path / "whole", asked)
    stopped(tmp_path / "part", asked, monkeypatch, last=3, saves={3})
    monkeypatch.undo()
    stopped(tmp_path / "part", asked, monkeypatch, last=1, saves={4})
    population(tmp_path / "part", asked)
    same(tmp_path / "whole", tmp_path / "part")


def test_a_complete_member_whose_folder_is_gone_is_said(tmp_path, monkeypatch):
    asked = specs(LEAVING)
    population(tmp_path / "whole", asked)
    trained = [ls.Run.open(tmp_path / "whole" / f"run-{i}").ending["trained"] for i in range(4)]
    first = trained.index(min(trained))
    stopped(tmp_path / "part", asked, monkeypatch, last=min(trained) + 1, saves={min(trained) + 1, min(trained)})
    shutil.rmtree(tmp_path / "part" / f"run-{first}")
    with pytest.raises(UseError, match=r"was complete and is gone.*delete .*block-0\.safetensors"):
        population(tmp_path / "part", asked)


def test_a_member_that_is_complete_can_be_written_to_while_the_others_go_on(tmp_path):
    free = []

    def progress(what: str, done: int, total: int) -> None:
        runs = [ls.Run(tmp_path / f"run-{i}") for i in range(4)]
        free.append([run.folder.held for run in runs if run.trained])

    population(tmp_path, specs(LEAVING), progress=progress)
    assert any(free)
    assert not any(held for some in free for held in some)


def test_stacks_are_what_their_members_would_be_to_within_the_spread_of_seeds(tmp_path):
    """float32, long enough for roundings to grow: means over seeds differ by less than seeds do."""
    base = dataclasses.replace(BASE, epochs=40)
    asked = [dataclasses.replace(base, data=data, seed=seed) for data in DATA for seed in range(6)]
    runs = population(tmp_path, asked)
    alone = [ls.train(spec, tmp_path / f"alone-{i}") for i, spec in enumerate(asked)]
    for metric in ("error", "cross_entropy"):
        found, known = (
            np.array([run.training().where(metric=metric, split="test", step=40)["value"].iloc[0] for run in some])
            for some in (runs, alone)
        )
        for some in (slice(0, 6), slice(6, 12)):
            spread = known[some].std(ddof=1) / np.sqrt(6)
            assert abs(found[some].mean() - known[some].mean()) < spread


def test_what_is_complete_is_left_alone(tmp_path):
    population(tmp_path, specs())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    population(tmp_path, specs())
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    with pytest.raises(UseError, match="holds a run of another spec"):
        population(tmp_path, specs(dataclasses.replace(BASE, lr=0.2)))


KILLED = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests import test_together
from layerscope.training import together
together.EVERY, together.SHARE = 0.0, 1e9
import pandas, sklearn.datasets  # so that "ready" means that the work begins
print("ready", flush=True)
told = lambda *_: time.sleep(0.1)  # so that it lasts as long as the latest kill, however fast the machine is
test_together.population(Path(sys.argv[1]), test_together.specs(test_together.LEAVING), progress=told)
"""


def killed_at_random_moments(path: Path, kills: int, seed: int) -> int:
    """Start again and again, killing each process some time after it began its work; how many were at work then."""
    chosen, hits = random.Random(seed), 0
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parents[1])]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chosen.uniform(0, 0.6))
            hits += process.poll() is None
            process.kill()
    return hits


def test_killed_at_random_moments(tmp_path):
    population(tmp_path / "whole", specs(LEAVING))
    assert killed_at_random_moments(tmp_path / "part", kills=3, seed=0)
    population(tmp_path / "part", specs(LEAVING))
    same(tmp_path / "whole", tmp_path / "part")
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    population(tmp_path / "whole", specs(LEAVING))
    hits = 0
    for attempt in range(20):  # a kill, then all the rest: each of the twenty is of a training under way
        path = tmp_path / f"part-{attempt}"
        hits += killed_at_random_moments(path, kills=2, seed=attempt)
        population(path, specs(LEAVING))
        same(tmp_path / "whole", path)
    assert hits >= 20


def test_blocks_have_members_of_one_form():
    whole = blocks_of([dataclasses.replace(BASE, batch_size=100_000, seed=seed) for seed in range(2)])
    assert [block.members for block in whole] == [(0, 1)]  # a step has 300 samples, not 100,000
    widths = [dataclasses.replace(one, model=f"fcn-2x{h}") for h in (4, 8) for one in specs()]
    others = [
        dataclasses.replace(BASE, model="fcn-2x8?dropout=0.5"),
        dataclasses.replace(BASE, lr=0.3),
        dataclasses.replace(BASE, data="digits?n_train=200"),
        dataclasses.replace(BASE, precision="bfloat16"),
    ]
    blocks = blocks_of([*widths, *others])
    assert [block.members for block in blocks[:2]] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [block.members for block in blocks[2:]] == [(8,), (9,), (10,), (11,)]
    whys = [block.why for block in blocks]
    assert whys[:2] == ["", ""]
    for why, part in zip(
        whys[2:], ["drops units at random", "no other member", "no other member", "bfloat16"], strict=True
    ):
        assert part in why
    assert blocks_of([]) == []
    assert blocks[1].work > blocks[0].work > blocks[2].work > 0  # wider; four of them; one


def test_large_populations_are_cut_into_blocks_of_about_equal_size():
    many = [dataclasses.replace(BASE, seed=seed) for seed in range(300)]
    blocks = blocks_of(many)
    assert [len(block.members) for block in blocks] == [100, 100, 100]
    assert sorted(i for block in blocks for i in block.members) == list(range(300))
    wide = [dataclasses.replace(BASE, model="fcn-2x900", seed=seed) for seed in range(10)]  # 870,000 values each
    assert [len(block.members) for block in blocks_of(wide)] == [4, 4, 2]
    huge = blocks_of([dataclasses.replace(BASE, model="fcn-2x1100", seed=seed) for seed in range(2)])
    why = "a step takes 83 million multiplications, and stacks pay below 60"  # 64 samples x (64 + 1100 + 10) x 1100
    assert [(block.members, block.why) for block in huge] == [((i,), why) for i in range(2)]


def test_a_stack_of_convolutions_is_cut_by_what_its_layers_give():
    spec = dataclasses.replace(BASE, model="vgg-11?width=0.05&hidden=40", batch_size=300)
    data = loaded([spec.data], None)[spec.data]
    given = 0
    flow = data.train.inputs
    for layer in build(spec.model, data.input_shape, data.classes).children():
        flow = layer(flow)
        given += flow.numel()
    sizes = [len(block.members) for block in blocks_of([dataclasses.replace(spec, seed=seed) for seed in range(100)])]
    assert sum(sizes) == 100
    assert max(sizes) * given <= 32_000_000
    assert len(sizes) == -(-100 // (32_000_000 // given)) > 1


def test_equal_inputs_are_held_once():
    sets = loaded(["digits", "digits?shuffled=0.5", "digits?n_train=100"], None)
    assert sets["digits"].train.source is sets["digits?shuffled=0.5"].train.source
    assert not torch.equal(sets["digits"].train.targets, sets["digits?shuffled=0.5"].train.targets)
    assert sets["digits"].test.source is sets["digits?n_train=100"].test.source
    assert len(sets["digits?n_train=100"].train) == 100
    assert session.EVERY > 0
