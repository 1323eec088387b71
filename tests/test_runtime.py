"""Units of work, here and in a pool of processes: what comes back, what fails, and what is left when all is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from layerscope.errors import UseError
from layerscope.runtime import Failed, Pool, UnitsFailed, apart, each, tell

SCRIPT = """
import os, sys, time
from pathlib import Path
from layerscope.errors import UseError
from layerscope.runtime import Failed, Pool, each


def work(unit, progress):
    if unit == "use":
        raise UseError("not like this")
    if unit == "bug":
        raise ZeroDivisionError("oops")
    if unit == "die":
        os._exit(7)
    if unit == "memory":
        os.kill(os.getpid(), 9)
    if unit == "long":
        Path(sys.argv[1], str(os.getpid())).touch()
        time.sleep(60)
    import torch

    progress("", 1, 2)
    progress("", 2, 2)
    return unit, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getpid() != parent


parent = int(os.environ.setdefault("PARENT", str(os.getpid())))
"""
MAIN = """
if __name__ == "__main__":
    {}
"""


def script(tmp_path: Path, main: str) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + main)
    return [sys.executable, str(path), str(tmp_path)]


def test_a_pool_gives_every_result_and_every_failure(tmp_path):
    """One worker dies by itself, one is killed for its memory: others take over."""
    units = ["a", "use", "die", "b", "bug", "memory", "c", "d"]
    main = MAIN.format(f"told = []; found = dict(each({units}, work, Pool(2, 3), lambda *t: told.append(t)))")
    main += "    print(repr(found)); print(repr(told))\n"
    done = subprocess.run(script(tmp_path, main), capture_output=True, text=True, check=True)
    found, told = (eval(line, {"Failed": Failed}) for line in done.stdout.splitlines())
    assert sorted(found) == list(range(8))
    assert {found[k] for k in (0, 3, 6, 7)} == {(name, 3, "3", True) for name in "abcd"}
    assert found[1] == Failed("not like this")
    assert found[2].why.startswith("the process that worked on it ended with exit code 7")
    assert found[4].why == "ZeroDivisionError: oops"
    assert 'raise ZeroDivisionError("oops")' in found[4].trace
    assert found[5].why.startswith("the process that worked on it was ended by signal 9")
    assert {(number, 2, 2) for number in (0, 3, 6, 7)} <= set(told)


def test_here_is_the_same_without_processes():
    def work(unit, progress):
        if unit < 0:
            raise ValueError(unit)
        progress("", unit, 9)
        return unit, torch.get_num_threads()

    before, told = torch.get_num_threads(), []
    found = dict(each([1, -1, 2], work, Pool(1, 2), lambda *t: told.append(t)))
    assert found[0] == (1, 2)
    assert found[2] == (2, 2)
    assert found[1].why == "ValueError: -1"
    assert told == [(0, 1, 9), (2, 2, 9)]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_that_compute_alone(threads):
    """In order, whoever is first; what one raises is raised; and afterwards PyTorch has as many threads as before."""

    def work(piece):
        time.sleep(0.02 * (piece == 0))
        if piece == 9:
            raise KeyError(piece)
        return piece, threading.get_ident(), torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with apart(6) as each_of:
            found = each_of(work, range(6))
            assert each_of(work, []) == []
        with pytest.raises(KeyError), apart(3) as each_of:
            each_of(work, [1, 9, 2])
        with apart(1) as each_of:
            assert each_of(work, [4]) == [(4, threading.get_ident(), threads)]
        assert torch.get_num_threads() == threads
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert [piece for piece, _, _ in found] == list(range(6))
    assert {count for _, _, count in found} == {1}
    assert (len({where for _, where, _ in found}) > 1) == (threads > 1)
    assert later == [threads]


@pytest.mark.parametrize("wrong", [(0, None), (1, 0), (-2, 1)])
def test_impossible_pools_are_refused(wrong):
    with pytest.raises(UseError, match="must be at least 1"):
        Pool(*wrong)


def test_what_failed_is_told_after_all():
    tell({}, 3, "units")
    with pytest.raises(UseError, match="2 of 3 units failed, the others are complete: a: no; b: neither"):
        tell({"a": Failed("no"), "b": Failed("neither")}, 3, "units")
    with pytest.raises(UnitsFailed, match=r"(?s)1 of 3 units failed.*Traceback"):
        tell({"a": Failed("KeyError: 1", "Traceback")}, 3, "units")


def test_a_script_without_the_guard_is_told_so(tmp_path):
    done = subprocess.run(script(tmp_path, "list(each([1, 2], work, Pool(2)))\n"), capture_output=True, text=True)
    assert done.returncode != 0
    assert 'must do so below `if __name__ == "__main__":`' in done.stderr


def alive(group: int) -> list[str]:
    """The commands of the processes of a group that are there and not only waiting to be buried."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":
            found.append(name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc to look for processes in")
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_no_process_outlives_the_first(tmp_path, how):
    # What was started in the background, as tests may be, has Ctrl-C ignored, and so have its processes.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    main = MAIN.format(heard + 'list(each(["long", "long"], work, Pool(2, 1)))')
    with subprocess.Popen(script(tmp_path, main), start_new_session=True, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while len([p for p in tmp_path.iterdir() if p.name.isdigit()]) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert len(alive(process.pid)) >= 3
        if how == "killed":
            process.kill()  # the first alone, which can do nothing any more
        else:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(20)
    until = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(process.pid) == []
