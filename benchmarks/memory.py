"""How much memory an analysis takes beyond the user's own: peak resident memory of processes that do it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.frame import Result

LAYERS, WIDTH, BATCH = 6, 3000, 64
MODEL = LAYERS * WIDTH * (WIDTH + 1) * 4
PART = WIDTH * (WIDTH + 1) * 4
REST = 40e6
"""Bytes for what does not grow with model or data: Python objects, the table, pandas."""

CODE = """
import gc, sys, threading, time
import pandas, torch
from torch import nn
import layerscope as ls
from layerscope.store import Folder
from layerscope.trajectory import save_state

what, folder, layers, width, batch = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(2)

def resident():  # pages of mapped files too: checkpoints are read by mapping them
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

class Peak(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.ends = 0, False
    def run(self):
        while not self.ends:
            self.peak = max(self.peak, resident())
            time.sleep(0.001)

model = nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)])
data = [(torch.randn(batch, width), torch.zeros(batch, dtype=torch.long)) for _ in range(4)]
if what == "save":
    save_state(Folder(folder), ls.Step(0), model.state_dict())
    save_state(Folder(folder), ls.Step(1), {k: 1.1 * v for k, v in model.state_dict().items()})
    sys.exit()
spec = ls.RobustnessSpec(draws=1)
small = nn.Sequential(nn.Linear(4, 4))
states = ls.state_of(small)
ls.robustness(small, ls.Trajectory.of(initial=states, final=states), [(torch.randn(8, 4), torch.zeros(8).long())], spec)
trajectory = ls.Trajectory.open(folder)
with torch.no_grad():
    model(data[0][0])
gc.collect()
before, watch = resident(), Peak()
watch.start()
parts = [part for part in ls.Partition.by_layer(model)]
variants = [v for part in parts for v in (ls.Variant.of(part, ls.Rewind()), ls.Variant.of(part, ls.Rerandomize()))]
if what == "evaluate":
    ls.evaluate(model, trajectory, variants, data, plan=ls.Plan(engine="reference"))
elif what == "replay":
    ls.evaluate(model, trajectory, variants, data, plan=ls.Plan(memory="200MB"))
else:
    ls.robustness(model, trajectory, data, spec, plan=ls.Plan(engine="reference"))
watch.ends = True
watch.join()
print(watch.peak - before)
"""


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "checkpoints")
        _process("save", path)
        return [
            _row(path, "evaluate", "each layer put back and drawn afresh", PART),
            _row(path, "robustness", "all", MODEL),
            _row(path, "replay", "as evaluate, memory 200MB", PART, 200_000_000),
        ]


def _row(path: str, what: str, about: str, largest: int, asked: int = 0) -> Result:
    """The largest Part is a layer, or for `robustness`, which puts the whole network back too, the network; `asked` is what
    the exact engine may use besides."""
    took = sorted(int(_process(what, path)) for _ in range(3))[1]
    allowed = MODEL + largest + asked + REST
    return Result(
        f"memory of {what} ({about}): {LAYERS} layers of {PART / 1e6:.0f} MB, checkpoints in files",
        f"{took / 1e6:.0f} MB beyond model and data",
        f"the model is {MODEL / 1e6:.0f} MB, the largest Part {largest / 1e6:.0f} MB",
        f"<= one copy + one Part + {(REST + asked) / 1e6:.0f} MB = {allowed / 1e6:.0f} MB",
        took <= allowed,
        3,
    )


def _process(what: str, path: str) -> str:
    command = [sys.executable, "-c", CODE, what, path, str(LAYERS), str(WIDTH), str(BATCH)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
