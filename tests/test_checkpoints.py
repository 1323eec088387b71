"""Trajectories of anyone's checkpoints: counted in what their names say, checked to differ and to begin at a start, never all in
memory."""

import json
import math
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import layerscope as ls
from layerscope.analyses.start import LEARNED, odd_start
from layerscope.checkpoints.repeats import LARGE, equal, repeats, returned
from layerscope.checkpoints.safetensors_file import SafetensorsFile
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.partition import WHOLE
from layerscope.trajectory import Trajectory

State = dict[str, Tensor]


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def points(n: int = 500, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long()


@pytest.fixture(scope="module")
def states() -> list[State]:
    """A training, every 25 steps."""
    model, (x, y) = net(), points(seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    found = [ls.state_of(model)]
    for step in range(1, 101):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        found += [ls.state_of(model)] if step % 25 == 0 else []
    return found


STEPS = (0, 25, 50, 75, 100)


def write(folder: Path, states: list[State], name: str = "step_{}.pt") -> Path:
    folder.mkdir()
    for step, state in zip(STEPS, states, strict=True):
        torch.save(state, folder / name.format(step))
    return folder


def mapped(trajectory: Trajectory, **more: Any) -> ls.Table:
    return ls.robustness(net(), trajectory, [points()], ls.RobustnessSpec(draws=1, **more))


# Counted in iterations


def test_a_map_of_iterations_has_the_numbers_of_one_of_epochs(states, tmp_path):
    """What steps are called changes nothing else: the same states as epochs, in memory, give the same table."""
    iterations = mapped(Trajectory.read([str(write(tmp_path / "a", states))]))
    epochs = mapped(Trajectory.of(**{f"epoch_{step}": state for step, state in zip(STEPS, states, strict=True)}))
    assert (iterations.provenance["step_unit"], epochs.provenance["step_unit"]) == ("iteration", "epoch")
    kept = [column for column in epochs.frame if column != "variant"]  # its id has the step's name in it
    assert "iteration" not in iterations.frame
    assert iterations.frame[kept].equals(epochs.frame[kept])
    assert sorted(set(iterations.frame["step"].dropna())) == list(STEPS)


def test_some_iterations_only(states, tmp_path):
    trajectory = Trajectory.read([str(write(tmp_path / "a", states))])
    table = mapped(trajectory, steps=(50,))
    assert set(table.frame["step"].dropna()) == {0, 50, 100}
    with pytest.raises(UseError, match="no checkpoint at iteration-60; there are init, iteration-25, iteration-50"):
        mapped(trajectory, steps=(60,))
    variant = ls.Variant.of(ls.Partition.by_layer(net())["2"], ls.Rewind(ls.Step.parse("step-50")))
    row = ls.evaluate(net(), trajectory, [variant], [points()]).frame.iloc[0]
    assert (row["step"], "iteration" in row) == (50, False)


def test_the_word_for_steps_is_in_every_text(states, tmp_path):
    table = mapped(Trajectory.read([str(write(tmp_path / "a", states))]))
    assert "iteration" in str(ls.plots.terminal_map(table))
    assert ls.plots.layer_map(table).axes[0].get_xlabel() == "iteration whose values the layer is put back to"
    counted = mapped(Trajectory.read([str(write(tmp_path / "b", states, "net_{}.pt"))]))
    assert ls.plots.layer_map(counted).axes[0].get_xlabel() == "checkpoint whose values the layer is put back to"
    assert counted.provenance["step_unit"] == "checkpoint"


def test_long_numbers_do_not_touch(states):
    """Labels of a map of iterations: as wide as they are, they lie apart."""
    from layerscope.plots.scales import early, early_ticks

    for last in (3, 100, 5000, 20_000, 143_000, 10**7):
        ticks = early_ticks(last)
        assert (ticks[0], ticks[-1]) == (0, last)
        assert ticks == sorted(set(ticks))
        assert len(ticks) >= 3
        width = early(last)
        assert all(early(b) - early(a) > len(str(b)) * width / 100 for a, b in pairwise(ticks))


def test_states_in_memory_may_be_of_iterations(states):
    trajectory = Trajectory.of(initial=states[0], step_25=states[1], final=states[-1])
    assert (trajectory.unit, [trajectory.number(step) for step in trajectory.steps]) == ("iteration", [0, 25, 26])
    assert trajectory.where(ls.Step(0, 25)) == "checkpoint iteration-25"
    with pytest.raises(UseError, match="counted in one thing, not in epoch and iterations"):
        Trajectory.of(epoch_1=states[0], step_25=states[1])


# Checked to differ


def test_checkpoints_that_hold_the_same_values_are_told(states, tmp_path):
    folder = write(tmp_path / "a", states)
    trajectory = Trajectory.read([str(folder)]).fitted(net())
    assert trajectory.warnings() == []
    torch.save({"model": states[-1]}, folder / "step_50.pt")  # written otherwise, the same values
    assert trajectory.warnings() == [
        "checkpoints iteration-50 and iteration-100 hold the same values: one may be mislabelled"
    ]
    torch.save(states[-1], folder / "step_0.pt")
    table = mapped(Trajectory.read([str(folder)]))
    same, first, learned = table.provenance["warnings"]
    assert same == "checkpoints init, iteration-50 and iteration-100 hold the same values: one may be mislabelled"
    assert first == "the first checkpoint holds the values of the last: nothing changes where a part is put back to it"
    assert learned.startswith(f"the network of checkpoint init ({folder / 'step_0.pt'}) has ")


def test_a_shard_of_another_checkpoint_is_told(states, tmp_path):
    """As published: one file of several is that of the end."""
    mixed = {**states[2], "2.weight": states[-1]["2.weight"], "0.bias": states[-1]["0.bias"]}
    folder = write(tmp_path / "a", [*states[:2], mixed, *states[3:]])
    assert mapped(Trajectory.read([str(folder)])).provenance["warnings"] == [
        "checkpoints iteration-50 and iteration-100 hold the same values in 1 of 6 tensors (2.weight), and those in between "
        "do not: one may be mislabelled"
    ]


def test_frozen_tensors_are_the_same_throughout(states, tmp_path):
    frozen = [{**state, "2.weight": states[0]["2.weight"]} for state in states]
    assert Trajectory.read([str(write(tmp_path / "a", frozen))]).fitted(net()).warnings() == []
    until = [{**state, "2.weight": states[min(i, 2)]["2.weight"]} for i, state in enumerate(states)]
    assert Trajectory.read([str(write(tmp_path / "b", until))]).fitted(net()).warnings() == []


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=7))
def test_what_is_told_is_what_comparing_all_pairs_finds(rows):
    """Against the definition: two checkpoints are told together if they are equal in all tensors, or in one that differs from
    that of a checkpoint between them."""
    hashes = [{name: str(value) for name, value in zip("abc", row, strict=True)} for row in rows]
    pairs = [(i, j) for j in range(len(rows)) for i in range(j)]
    assert {(i, j) for group in equal(hashes) for i in group for j in group if i < j} == {
        (i, j) for i, j in pairs if rows[i] == rows[j]
    }
    told = {
        (i, j, name)
        for places, names in returned(hashes, list("abc")).items()
        for name in names
        for i in places
        for j in places
        if i < j
    }
    for i, j in pairs:
        for column, name in enumerate("abc"):
            back = rows[i][column] == rows[j][column] and any(rows[k][column] != rows[i][column] for k in range(i, j))
            if back and rows[i] != rows[j]:
                assert (i, j, name) in told
    for i, j, name in told:
        assert hashes[i][name] == hashes[j][name]


def test_many_are_told_in_one_line():
    """The published case: 86 of 154."""
    names = [f"step-{number}" for number in range(154)]
    hashes = {name: {"w": "final" if number < 85 or number == 153 else name} for number, name in enumerate(names)}
    (line,) = repeats(hashes, ["w"])
    assert line == (
        "checkpoints step-0, step-1, step-2, step-3, step-4, step-5, step-6 and 79 more hold the same values: one may be "
        "mislabelled"
    )


def test_small_tensors_may_come_back():
    assert LARGE > 100
    a, b = {"w": torch.zeros(LARGE), "b": torch.zeros(3)}, {"w": torch.ones(LARGE), "b": torch.ones(3)}
    model = nn.Module()
    model.w, model.b = nn.Parameter(torch.zeros(LARGE)), nn.Parameter(torch.zeros(3))
    small = Trajectory.of(initial=a, epoch_1=b, epoch_2={"w": 2 * b["w"], "b": a["b"]}).fitted(model)
    assert small.warnings() == []
    large = Trajectory.of(initial=a, epoch_1=b, epoch_2={"w": a["w"], "b": 2 * b["b"]}).fitted(model)
    assert len(large.warnings()) == 1


# Checked to begin at a start


def rows(metric: str, unmodified: float, start: tuple[float, float, float], unit: str = "") -> list[dict[str, Any]]:
    value, low, high = start
    common = {"metric": metric, "split": "test", "status": "ok", "unit": unit, "n": 100, "level": 0.95}
    return [
        common | {"perturbation": "none", "value": unmodified},
        common | {"perturbation": "rewind", "part": "fc", "step": 0, "value": unmodified, "low": 0.0, "high": 0.0},
        common | {"perturbation": "rewind", "part": WHOLE, "step": 0, "value": value, "low": low, "high": high},
    ]


@pytest.mark.parametrize(
    ("better", "chance", "unmodified", "start", "odd"),
    [
        ("lower", 0.9, 0.0, (0.50, 0.45, 0.55), True),
        ("lower", 0.9, 0.0, (0.90, 0.85, 0.95), False),
        ("lower", 0.9, 0.0, (0.71, 0.70, 0.7199), True),  # a fifth of 0.9 is 0.18
        ("lower", 0.9, 0.0, (0.71, 0.70, 0.7201), False),
        ("lower", 0.9, 0.8, (0.85, 0.84, 0.86), True),
        ("lower", 0.9, 0.95, (0.5, 0.45, 0.55), False),  # a network that is no better than guessing has gained nothing
        ("lower", None, 0.0, (0.1, 0.0, 0.2), False),
        ("higher", 10.0, 90.0, (50.0, 45.0, 55.0), True),
        ("higher", 10.0, 90.0, (30.0, 25.0, 35.0), False),  # a fifth of 80 is 16
    ],
)
def test_the_rule_for_a_start(better, chance, unmodified, start, odd):
    assert LEARNED == 0.2
    assert bool(odd_start(rows("m", unmodified, start), "m", better, chance, "it")) == odd


def test_what_is_said_of_a_start_that_has_learned():
    (line,) = odd_start(
        rows("error", 0.01, (0.5, 0.4, 0.6), "fraction"), "error", "lower", 0.9, "checkpoint init (a.pt)"
    )
    assert line == (
        "the network of checkpoint init (a.pt) has 50.00 % error (95 % interval 40.00 to 60.00, n = 100), guessing 90.00: it has "
        "learned already, so that it may not be the start of this training"
    )
    failed = [row | {"status": "failed"} for row in rows("error", 0.01, (0.5, 0.4, 0.6))]
    without = [{k: v for k, v in row.items() if k not in ("value", "low", "high")} for row in failed]
    assert odd_start(without, "error", "lower", 0.9, "it") == []


def test_a_start_that_has_learned_is_told_of_a_map(states):
    """Guessing among four classes gets 75 % wrong; the start of this training is there, its middle is not."""
    whole = Trajectory.of(initial=states[0], final=states[-1])
    assert mapped(whole).provenance["warnings"] == []
    late = mapped(Trajectory.of(initial=states[1], final=states[-1]))
    (line,) = late.provenance["warnings"]
    start = late.where(part=WHOLE, step=0, metric="error", split="test").iloc[0]
    assert f"has {100 * start['value']:.2f} % error" in line
    assert start["high"] < 0.75 - 0.2 * (0.75 - late.where(perturbation="none", metric="error")["value"].iloc[0])
    assert "Warning: the network of checkpoint init has" in str(ls.plots.terminal_map(late))
    unnamed = mapped(Trajectory.of(epoch_1=states[1], final=states[-1]))
    assert unnamed.provenance["warnings"] == []  # it does not say that it is the start


# Read once, and never all at once


def test_each_file_is_read_once_for_checks_and_hashes(states, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    for step, state in zip(STEPS, states, strict=True):
        save_file(state, folder / f"step_{step}.safetensors")
    seen: list[Any] = []
    read = SafetensorsFile.read

    def counting(self: SafetensorsFile, names: Any) -> Any:
        wanted = None if names is None else set(names)
        seen.append(self.where if wanted is None or len(wanted) == len(states[0]) else "")
        return read(self, wanted)

    monkeypatch.setattr(SafetensorsFile, "read", counting)
    trajectory = Trajectory.read([str(folder)]).fitted(net())
    for _ in range(2):
        trajectory.check(states[0])
        before = trajectory.fingerprint
        trajectory.warnings()
        trajectory = trajectory.fitted(net())  # another network of the same names
    assert len(seen) == len(set(seen)) == len(STEPS)
    save_file(states[0] | {"4.bias": torch.ones(4)}, folder / "step_25.safetensors")
    trajectory.check(states[0])
    assert trajectory.fingerprint != before
    assert len(seen) == len(STEPS) + 1
    time.sleep(
        0.02
    )  # the system's clock for files ticks every few milliseconds: a write within one of them is not seen
    save_file(states[0] | {"4.bias": torch.full((4,), math.nan)}, folder / "step_25.safetensors")
    for _ in range(2):
        with pytest.raises(UseError, match=r"iteration-25.*4\.bias holds NaN"):
            trajectory.check(states[0])


MEASURE = """
import sys, torch
from torch import nn
import layerscope as ls

def peak():
    # MiB at most; getrusage would count those of the process that started it
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

def use(glob):
    trajectory = ls.Trajectory.read([glob]).fitted(model)
    trajectory.check(model.state_dict())
    assert not trajectory.warnings() and trajectory.fingerprint
    variants = [ls.Variant.of(ls.Part("bias", ("3.bias",)), ls.Rewind(step)) for step in trajectory.steps]
    ls.evaluate(model, trajectory, variants, [(torch.ones(4, 256), torch.zeros(4, dtype=torch.long))])
    return trajectory

model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))
for pattern in (".safetensors", ".pt"):
    use(f"{sys.argv[1]}/step_[01]{pattern}")  # what the libraries take
    before = peak()
    many = use(f"{sys.argv[1]}/step_*{pattern}")
    print(len(many.steps), peak() - before)
held = [many[step] for step in many.steps]
print(len(held), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_a_hundred_checkpoints_never_sit_in_memory(tmp_path):
    """100 of 2 MiB: what a process takes grows by a few at most; by all of them, where somebody does hold them."""
    state = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8))).state_dict()
    for step in range(100):
        values = {name: tensor + step for name, tensor in state.items()}
        save_file(values, tmp_path / f"step_{step}.safetensors")
        torch.save({"model": values}, tmp_path / f"step_{step}.pt")
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (n, safetensors), (m, pickled), (_, held) = (map(float, line.split()) for line in out.splitlines())
    assert n == m == 100
    assert held > 180
    assert max(safetensors, pickled) < 30


# On the command line

CODE = """
from test_checkpoints_theirs import net, points
def make(): return net()
def loader(): return {"test": [points()], "train": [points(200, 5)]}
"""


def test_analyze_checkpoints_of_ones_own(states, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "test_checkpoints_theirs", sys.modules[__name__])
    (tmp_path / "owners.py").write_text(CODE)
    pairs = zip(STEPS, states, strict=True)
    content = [
        {"state_dict": {f"model.{k}": v for k, v in state.items()}, "global_step": step} for step, state in pairs
    ]
    write(tmp_path / "logs", content, "epoch=0-step={}.ckpt")
    asked = ["analyze", "--model", "owners:make", "--data", "owners:loader", "--draws", "1"]
    assert main([*asked, "--checkpoints", "logs/*.ckpt", "--dry-run", "--steps", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"] == 1 + 3 + 4 * 3
    assert main([*asked, "--checkpoints", "logs/*.ckpt", "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert "warning" not in err.lower()
    assert "iteration" in out
    run = ls.Run.open("run")
    notes = [
        "of each checkpoint, the values under 'state_dict' were read",
        "of each checkpoint, 'model.' was taken off the names of tensors",
    ]
    table = run.analysis("robustness")
    assert (table.provenance["checkpoints"], table.provenance["step_unit"]) == (notes, "iteration")
    assert run.provenance["analysis robustness"]["checkpoints"] == notes
    page = re.sub(r"\s+", " ", (run.path / "report.html").read_text())
    assert "Maps of layers and iterations" in page
    assert "of each checkpoint, &#39;model.&#39; was taken off" in page.lower().replace("of each", "of each")
    assert "Warning." not in page
    assert main(["materialize", "run", "--part", "2", "--to", "step-50", "--out", "half.safetensors"]) == 0
    capsys.readouterr()

    torch.save(content[-1] | {"global_step": 0}, "logs/epoch=0-step=0.ckpt")
    assert main([*asked, "--checkpoints", "logs", "--out", "other", "--json"]) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert "warning: checkpoints init and iteration-100 hold the same values: one may be mislabelled" in err
    assert "it has learned already" in err
    page = (Path("other") / "report.html").read_text()
    assert page.index("<strong>Warning.</strong> checkpoints init and iteration-100 hold") < page.index(
        "What was asked"
    )
