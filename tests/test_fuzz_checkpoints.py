"""Damaged files of all formats: each gives an error that names the file, or the very values that were written; no crash."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FILES = 300
"""Damaged files of each format."""
CODE = """
import io, json, pickle, random, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import save, save_file
from layerscope.checkpoints import source_of
from layerscope.errors import UseError

kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
state = {"first.weight": torch.randn(7, 5), "first.bias": torch.randn(7), "count": torch.tensor(3), "half": torch.randn(4).half()}

def written():
    stream = io.BytesIO()
    if kind == "safetensors" or kind == "sharded":
        return save(state)
    if kind == "ckpt":
        content = {"epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "state_dict": state,
                   "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(7, 5)}}}]}
        torch.save(content, stream)
    else:
        torch.save(state, stream, _use_new_zipfile_serialization=kind != "legacy")
    return stream.getvalue()

def damaged(content, random):
    content, what = bytearray(content), random.choice(["cut", "bits", "bytes", "zeros", "more", "moved", "swapped"])
    if not content:
        return bytes(content), what
    at = random.randrange(len(content))
    if what == "cut":
        del content[at:]
    elif what == "bits":
        for _ in range(random.randint(1, 4)):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif what == "bytes":
        for _ in range(random.randint(1, 8)):
            content[random.randrange(len(content))] = random.randrange(256)
    elif what == "zeros":
        content[at:at + 64] = bytes(len(content[at:at + 64]))
    elif what == "more":
        content[at:at] = random.randbytes(random.randint(1, 64))
    elif what == "moved":
        del content[at:at + random.randint(1, 64)]
    else:
        other = random.randrange(len(content))
        content[at:at + 16], content[other:other + 16] = content[other:other + 16], content[at:at + 16]
    return bytes(content), what

random, whole, counts = random.Random(seed), written(), {}
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    names = {"safetensors": "a.safetensors", "zip": "a.pt", "legacy": "a.pth", "ckpt": "a.ckpt"}
    name = names.get(kind, "model.safetensors.index.json")
    path = folder / name
    for number in range(count):
        target = path
        if kind == "sharded":
            half = list(state)[:2]
            save_file({n: state[n] for n in half}, folder / "model-00001-of-00002.safetensors")
            save_file({n: state[n] for n in state if n not in half}, folder / "model-00002-of-00002.safetensors")
            index = {"metadata": {}, "weight_map": {n: f"model-0000{1 if n in half else 2}-of-00002.safetensors" for n in state}}
            path.write_text(json.dumps(index))
            target = random.choice(sorted(folder.iterdir()))
        else:
            path.write_bytes(whole)
        content, what = damaged(target.read_bytes(), random)
        target.write_bytes(content)
        print(number, file=sys.stderr, flush=True)
        try:
            source = source_of(path)
            shapes = source.shapes()
            found = source.read(None)
            same = found.keys() == state.keys() and all(
                f.dtype == s.dtype and torch.equal(f.view(-1).view(torch.uint8), s.view(-1).view(torch.uint8))
                for f, s in ((found[n], state[n]) for n in state)
            )
            fits = {n: tuple(v.shape) for n, v in found.items()} == {n: tuple(v.shape) for n, v in state.items()}
            result = "same" if same else "other values" if fits else "other shapes or names"
            assert shapes == {n: tuple(v.shape) for n, v in found.items()}
        except UseError as problem:
            assert str(folder) in str(problem), problem
            result = "error"
        counts[result] = counts.get(result, 0) + 1
print(json.dumps(counts))
"""


def fuzzed(kind: str, count: int, seed: int) -> Counter[str]:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", CODE, kind, str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Counter(json.loads(done.stdout))


@pytest.mark.parametrize("kind", ["zip", "ckpt", "legacy", "safetensors", "sharded"])
def test_damaged_files(kind: str):
    """Files of `torch.save` carry checksums of their records. A safetensors file has none, nor has the format before torch 1.6:
    other values of the same shape cannot be told from those that were written, unless the folder lists checksums."""
    counts = fuzzed(kind, FILES, seed=1)
    assert counts.total() == FILES
    assert counts["error"] > FILES // 4
    if kind in ("zip", "ckpt"):
        assert not counts["other values"] + counts["other shapes or names"], counts


def test_with_checksums_nothing_else_is_ever_read(tmp_path: Path):
    import torch

    from layerscope.checkpoints import source_of
    from layerscope.errors import UseError
    from layerscope.step import Step
    from layerscope.store import Folder
    from layerscope.trajectory import save_state

    state = {"weight": torch.randn(7, 5)}
    save_state(Folder(tmp_path), Step(0), state)
    path = tmp_path / "epoch-00000.safetensors"
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UseError, match="damaged"):
            source_of(path).read(None)
