"""A recorded model that is wrapped, compiled, or trained by several processes: what is written is the plain model."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

import layerscope as ls
from layerscope.errors import UseError
from layerscope.recording.network import plain


def made() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    """Wrapped, but never run, so that nothing is compiled."""
    return torch.compile(model, backend="eager")  # pyright: ignore[reportReturnType]


class Holder(nn.Module):
    """A module of the user's own that calls its inside `module`: no wrapper, and part of the names."""

    def __init__(self) -> None:
        super().__init__()
        self.module = made()


WRAPPED = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compiled": compiled,
    "both": lambda model: nn.parallel.DistributedDataParallel(compiled(model)),
    "the other way round": lambda model: compiled(nn.parallel.DistributedDataParallel(model)),
}


@pytest.mark.parametrize("name", list(WRAPPED))
def test_wrappers_leave_no_trace(alone, tmp_path, name):
    model = made()
    wrapped = WRAPPED[name](model)
    assert wrapped.state_dict().keys() != model.state_dict().keys()
    with ls.Recorder(tmp_path / "mine", wrapped) as recorder:
        nn.init.ones_(model[0].weight)
        recorder.save(epoch=1)
    end = ls.Trajectory.open(tmp_path / "mine" / "checkpoints")[ls.FINAL]
    assert end.keys() == model.state_dict().keys()
    assert all(torch.equal(value, end[key]) for key, value in model.state_dict().items())
    assert ls.Run.open(tmp_path / "mine").spec["network"] == "Sequential"


def test_a_part_of_it_that_is_compiled(tmp_path):
    model = made()
    model[2] = compiled(model[2])
    assert "2._orig_mod.weight" in model.state_dict()
    ls.Recorder(tmp_path / "mine", model).finish()
    assert ls.Trajectory.open(tmp_path / "mine" / "checkpoints")[ls.INIT].keys() == made().state_dict().keys()


def test_no_wrapper_is_no_wrapper():
    model = Holder()
    assert plain(model) is model


def test_a_model_that_is_spread_over_processes_is_refused(alone, tmp_path):
    from torch.distributed.fsdp import fully_shard

    model = made()
    fully_shard(model)
    with pytest.raises(UseError, match=r"0\.weight is spread over several processes"):
        ls.Recorder(tmp_path / "mine", model)

    class FullyShardedDataParallel(nn.Module):
        """Stands for the older one, which needs an accelerator."""

    with pytest.raises(UseError, match=r"0 is spread over several processes"):
        ls.Recorder(tmp_path / "mine", nn.Sequential(FullyShardedDataParallel()))
    assert not (tmp_path / "mine").exists()


TWO = """
import sys
import torch
from torch import distributed, nn
import layerscope as ls
folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(rank)  # the wrapper gives all the values of the first
model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with ls.Recorder(f"{folder}/mine", model) as recorder:
    for epoch in range(3):
        optimizer.zero_grad()
        model(torch.full((4, 2), float(rank + 1))).sum().backward()
        optimizer.step()
        recorder.log(epoch=epoch + 1, split="train", loss=float(rank))
        recorder.save(epoch=epoch + 1)
    assert len(recorder.steps) == (4 if rank == 0 else 0)
torch.save(model.module.state_dict(), f"{folder}/end-{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()
"""


def test_of_two_processes_the_first_one_writes(tmp_path):
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, tmp_path, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode)[1] for process in both] == [0, 0]
    run = ls.Run.open(tmp_path / "mine")
    trajectory = ls.Trajectory.open(run.checkpoints.path)
    torch.manual_seed(0)
    start = nn.Linear(2, 1).state_dict()
    assert [step.epoch for step in trajectory.steps] == [0, 1, 2, 3]
    assert all(torch.equal(value, trajectory[ls.INIT][key]) for key, value in start.items())
    for rank in (0, 1):
        end = torch.load(Path(tmp_path) / f"end-{rank}.pt", weights_only=True)
        assert all(torch.equal(value, trajectory[ls.FINAL][key]) for key, value in end.items())
    moved = trajectory[ls.FINAL]["weight"] - start["weight"]
    assert torch.allclose(moved, torch.full((1, 2), -0.1 * 3 * 4 * 1.5))  # the mean of both gradients
    assert set(run.training().frame["value"]) == {0.0}
