"""Stopped at any moment and started again: the same bits as without a stop."""

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import layerscope as ls
from layerscope import runtime
from layerscope.analyses.session import analyze
from layerscope.errors import UseError
from layerscope.training import session
from layerscope.trajectory import save_state

SPEC = ls.TrainSpec(model="fcn-2x32", epochs=6, weight_decay=1e-4)
ASKED = ls.RobustnessSpec(draws=2)


class Unplugged(Exception):  # noqa: N818 (not an error)
    pass


def stop_after(count: int):
    """A progress that pulls the plug."""

    def progress(what: str, done: int, total: int) -> None:
        if done == count:
            raise Unplugged

    return progress


def same_run(a: Path, b: Path) -> bool:
    one, other = (ls.Trajectory.open(path / "checkpoints") for path in (a, b))
    assert one.steps == other.steps
    for step in one.steps:
        assert all(torch.equal(t, other[step][name]) for name, t in one[step].items()), step
    for table in ("training.parquet", "analyses/robustness.parquet"):
        frames = [ls.Table.open(path / table).frame.drop(columns="run") for path in (a, b)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    return True


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    run = ls.train(SPEC, tmp_path_factory.mktemp("runs") / "whole")
    analyze(run, ASKED)
    return run.path


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_training_goes_on_with_the_same_bits(uninterrupted, tmp_path, monkeypatch, epoch):
    monkeypatch.setattr(session, "EVERY", 0.0)
    with pytest.raises(Unplugged):
        ls.train(SPEC, tmp_path / "run", progress=stop_after(epoch))
    run = ls.train(SPEC, tmp_path / "run")
    assert run.provenance["training"]["resumed_after_epoch"] == (epoch - 1 if epoch > 1 else 0)
    analyze(run, ASKED)
    assert same_run(uninterrupted, run.path)
    assert not (run.path / session.RESUME).exists()


@pytest.mark.parametrize("units", [1, 17])
def test_an_analysis_goes_on_from_the_rows_it_has(uninterrupted, tmp_path, monkeypatch, units):
    monkeypatch.setattr(runtime, "EVERY", 0.0)
    run = ls.train(SPEC, tmp_path / "run")
    with pytest.raises(Unplugged):
        analyze(run, ASKED, progress=stop_after(units))
    left = []
    analyze(run, ASKED, progress=lambda what, done, total: left.append(done))
    assert left[0] == units + 1
    assert same_run(uninterrupted, run.path)
    assert not list((run.path / "resume").glob("*.json"))


LIMITED = """
import resource, sys
import layerscope as ls
from layerscope.errors import UseError
data = ls.data.load("digits")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    ls.train(ls.TrainSpec(model="fcn-2x32", epochs=6, weight_decay=1e-4), sys.argv[1])
except UseError as problem:
    print(problem)
"""


def test_a_disk_that_takes_no_more_leaves_the_run_resumable(uninterrupted, tmp_path):
    """The operating system refuses a write in the middle of a file, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "run"), "9000"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write" in done.stdout
    assert "run the same command again" in done.stdout
    assert not list(tmp_path.rglob(".partial-*"))
    run = ls.train(SPEC, tmp_path / "run")
    analyze(run, ASKED)
    assert same_run(uninterrupted, run.path)


def test_a_second_process_is_refused(tmp_path):
    run = ls.Run(tmp_path / "run")
    code = f"import layerscope as ls; ls.train(ls.TrainSpec(model='fcn-2x32', epochs=6, weight_decay=1e-4), {str(run.path)!r})"
    with run.claim(SPEC):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is being written by another process" in done.stderr


KILLED = """
import sys
import layerscope as ls
from layerscope import runtime
from layerscope.analyses.session import analyze
from layerscope.training import session
from layerscope.trajectory import save_state
session.EVERY = runtime.EVERY = 0.0
import pandas, torch, sklearn.datasets  # so that "ready" means that the work begins
print("ready", flush=True)
run = ls.train(ls.TrainSpec(model="fcn-2x32", epochs=6, weight_decay=1e-4), sys.argv[1])
analyze(run, ls.RobustnessSpec(draws=2))
"""


def kill_at_random_moments(path: Path, kills: int, seed: int) -> int:
    """Start again and again, killing each process some time after it began its work; how many were at work then."""
    chosen = random.Random(seed)
    hits = 0
    for _ in range(kills):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chosen.uniform(0, 1.2))
            hits += process.poll() is None
            process.kill()
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=True, stdout=subprocess.DEVNULL)
    return hits


def test_killed_at_random_moments(uninterrupted, tmp_path):
    assert kill_at_random_moments(tmp_path / "run", kills=3, seed=1) > 0
    assert same_run(uninterrupted, tmp_path / "run")


class Dies(BaseException):
    """The process ends here: nothing that catches errors catches this."""


def work_until_rename(path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> int:
    """Train and analyse, but die before rename number `last`; how many renames there were."""
    rename, count = Path.replace, [0]

    def counted(self: Path, target: Path) -> Path:
        if count[0] == last:
            raise Dies
        count[0] += 1
        return rename(self, target)

    with monkeypatch.context() as patched, contextlib.suppress(Dies):
        patched.setattr(session, "EVERY", 0.0)
        patched.setattr(runtime, "EVERY", 0.0)
        patched.setattr(Path, "replace", counted)
        analyze(ls.train(SPEC, path), ASKED)
    return count[0]


def test_dying_at_any_rename(uninterrupted, tmp_path, monkeypatch):
    """Renames are the only moments at which a file appears or changes. Eleven of them, the last ones among them."""
    total = work_until_rename(tmp_path / "whole", monkeypatch, last=10**9)
    assert total > 100
    for moment in [*range(3, total, total // 8), total - 3, total - 2, total - 1]:
        path = tmp_path / f"run{moment}"
        assert work_until_rename(path, monkeypatch, moment) == moment
        analyze(ls.train(SPEC, path), ASKED)
        assert same_run(uninterrupted, path)


VALIDATED = "digits?n_train=150&n_validation=50&n_test=50"
ENDINGS = {
    "validation": ls.TrainSpec(
        model="fcn-1x8", data=VALIDATED, until="validation", patience=2, epochs=6, lr=0.3, checkpoints=(2,)
    ),
    "diverged": ls.TrainSpec(model="fcn-1x8", data=VALIDATED, epochs=6, lr=1e-3, decay=1e25, every=2, checkpoints=()),
}


def dying(spec: ls.TrainSpec, path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> int:
    """Train, but die before rename or removal number `last`; how many there were."""
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
        patched.setattr(session, "EVERY", 0.0)
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, before(getattr(Path, name)))
        ls.train(spec, path)
    return count[0]


@pytest.mark.parametrize("name", list(ENDINGS))
def test_dying_at_any_rename_or_removal(name, tmp_path, monkeypatch):
    """Checkpoints come and go here: the best so far is kept, and taken away when there is a better one."""
    spec = ENDINGS[name]
    whole = ls.train(spec, tmp_path / "whole")
    expected = ls.Trajectory.open(whole.checkpoints.path)
    total = dying(spec, tmp_path / "all", monkeypatch, last=10**9)
    assert total > 25
    for moment in range(total):
        path = tmp_path / f"run{moment}"
        assert dying(spec, path, monkeypatch, moment) == moment
        run = ls.train(spec, path)
        found = ls.Trajectory.open(run.checkpoints.path)
        assert found.steps == expected.steps, moment
        assert all(torch.equal(t, found[step][key]) for step in found.steps for key, t in expected[step].items())
        assert run.ending == whole.ending
        assert run.training().frame.drop(columns="run").equals(whole.training().frame.drop(columns="run"))


def test_the_best_network_is_there_until_the_resume_point_has_passed_it(tmp_path, monkeypatch):
    """Killed after a better epoch whose repetition comes out otherwise (another device): the one before is still there."""
    spec = ENDINGS["validation"]
    monkeypatch.setattr(session, "EVERY", 1e9)

    def stop(_what, done, _total):
        if done == 4:
            raise Dies

    with pytest.raises(Dies):
        ls.train(spec, tmp_path / "run", progress=stop)
    there = {step.epoch for step in ls.Trajectory.open(tmp_path / "run" / "checkpoints").steps}
    assert len(there) > 2  # nothing was saved to resume from, so nothing was taken away


@pytest.mark.slow
def test_killed_at_twenty_random_moments(uninterrupted, tmp_path):
    hits = 0
    for attempt in range(5):
        path = tmp_path / f"run{attempt}"
        hits += kill_at_random_moments(path, kills=5, seed=attempt)
        assert same_run(uninterrupted, path)
    assert hits >= 20
    print(f"{hits} kills")


def test_a_disk_error_names_the_file(tmp_path):
    from layerscope.store import Folder

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(
        UseError, match=r"cannot write .*a\.bin: No space left on device; .* run the same command again"
    ):
        Folder(tmp_path).write("a.bin", full)


def test_an_analysis_of_other_checkpoints_is_not_taken_for_this(uninterrupted, tmp_path):
    """The fingerprint of an analysis covers the content of the checkpoints, not only what was asked."""
    run = ls.train(SPEC, tmp_path / "run")
    analyze(run, ASKED)
    state = ls.Trajectory.open(run.checkpoints.path)[ls.FINAL]
    save_state(run.checkpoints, ls.Step(6), {name: 2 * tensor for name, tensor in state.items()})
    with pytest.raises(UseError, match=r"of another spec or inputs \(inputs: "):
        analyze(run, ASKED)
