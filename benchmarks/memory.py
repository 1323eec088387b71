"""How much memory an analysis takes beyond the user's own, and a trajectory that is opened: peak resident memory of a process
that does it."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.frame import Result

LAYERS, WIDTH, BATCH, REPEATS = 6, 3000, 16, 3
CHECKPOINTS, SIDE = 100, 600
MODEL = LAYERS * WIDTH * (WIDTH + 1) * 4
PART = WIDTH * (WIDTH + 1) * 4
REST = 40e6
"""Bytes for what does not grow with model or data: Python objects, the table, pandas."""

CODE = """
import sys
import torch
from torch import nn
import layerscope as ls
from layerscope.memory import peak
from layerscope.store import Folder
from layerscope.trajectory import save_state

do, folder, layers, width, batch, repeats = *sys.argv[1:3], *map(int, sys.argv[3:])
torch.set_num_threads(1)  # each thread has an arena of its own, that holds back what it likes
with torch.no_grad():
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)])
    data = [(torch.randn(batch, width), torch.zeros(batch, dtype=torch.long))]
    model(data[0][0])
    if do == "save":
        save_state(Folder(folder), ls.Step(0), model.state_dict())
        save_state(Folder(folder), ls.Step(1), {k: 1.1 * v for k, v in model.state_dict().items()})
        sys.exit()
spec, reference, replay = ls.RobustnessSpec(draws=1), ls.Plan(engine="reference"), ls.Plan(memory="200MB")
small = nn.Sequential(nn.Linear(4, 4))
states = ls.state_of(small)
for plan in (reference, replay):  # imports, and what libraries hold from their first use on
    few = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))]
    ls.robustness(small, ls.Trajectory.of(initial=states, final=states), few, spec, plan=plan)
trajectory = ls.Trajectory.open(folder)
parts = list(ls.Partition.by_layer(model))
variants = [v for part in parts for v in (ls.Variant.of(part, ls.Rewind()), ls.Variant.of(part, ls.Rerandomize()))]
for what, work in {
    "evaluate": lambda: ls.evaluate(model, trajectory, variants, data, plan=reference),
    "robustness": lambda: ls.robustness(model, trajectory, data, spec, plan=reference),
    "replay": lambda: ls.evaluate(model, trajectory, variants, data, plan=replay),
}.items():
    for _ in range(repeats):
        print(what, peak(work)[1])
"""

OPEN = """
import sys
import torch
from torch import nn
import layerscope as ls
from layerscope.memory import peak
from pathlib import Path
from safetensors.torch import save_file

folder, count, side = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.set_num_threads(1)
model = nn.Linear(side, side, bias=False)
values = {"weight": model.weight.detach()}
for step in range(count):
    values["weight"] += 1
    save_file(values, folder / f"step_{step}.safetensors")
    torch.save(values, folder / f"step_{step}.pt")

def opened(pattern):
    trajectory = ls.Trajectory.read([str(folder / pattern)]).fitted(model)
    trajectory.check(model.state_dict())
    assert not trajectory.warnings() and trajectory.fingerprint
    return trajectory

for suffix in ("safetensors", "pt"):
    opened(f"step_[01].{suffix}")  # imports, and what libraries hold from their first use on
    many, most = peak(lambda: opened(f"step_*.{suffix}"))
    assert len(many.steps) == count
    print(suffix, most)
"""


def run() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        _process(CODE, "save", folder, LAYERS, WIDTH, BATCH, REPEATS)
        lines = _process(CODE, "measure", folder, LAYERS, WIDTH, BATCH, REPEATS)
    took: dict[str, list[int]] = {}
    for what, count in map(str.split, lines):
        took.setdefault(what, []).append(int(count))
    yield _row("evaluate", "each layer put back and drawn afresh", took, PART)
    yield _row("robustness", "all", took, MODEL)
    yield _row("replay", "as evaluate, memory 200MB", took, PART, 200_000_000)
    with tempfile.TemporaryDirectory() as folder:
        lines = _process(OPEN, folder, CHECKPOINTS, SIDE)
    yield from (_opened(suffix, int(most)) for suffix, most in map(str.split, lines))


def _row(what: str, about: str, took: dict[str, list[int]], largest: int, asked: int = 0) -> Result:
    """The largest Part is a layer, or for `robustness`, which puts the whole network back too, the network; `asked` is what
    the exact engine may use besides."""
    most = min(took[what])  # an operating system that takes pages away and gives them again only adds
    allowed = MODEL + largest + asked + REST
    return Result(
        f"memory of {what} ({about}): {LAYERS} layers of {PART / 1e6:.0f} MB, checkpoints in files",
        f"{most / 1e6:.0f} MB beyond model and data, the least of {REPEATS}",
        f"the model is {MODEL / 1e6:.0f} MB, the largest Part {largest / 1e6:.0f} MB",
        f"<= one copy + one Part + {(REST + asked) / 1e6:.0f} MB = {allowed / 1e6:.0f} MB",
        most <= allowed,
        REPEATS,
    )


def _opened(suffix: str, most: int) -> Result:
    """Of a trajectory that is opened: each checkpoint is read and its pages in the file are mapped, one at a time."""
    one = 4 * SIDE * SIDE
    allowed = 2 * one + REST
    return Result(
        f"memory of opening {CHECKPOINTS} checkpoints of {one / 1e6:.1f} MB, .{suffix} (found, checked, compared)",
        f"{most / 1e6:.0f} MB",
        f"all together are {CHECKPOINTS * one / 1e6:.0f} MB",
        f"<= two checkpoints + {REST / 1e6:.0f} MB = {allowed / 1e6:.0f} MB",
        most <= allowed,
        1,
    )


def _process(code: str, *arguments: str | int) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
