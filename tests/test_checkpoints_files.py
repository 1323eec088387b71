"""Formats: one network written as each, by the libraries that write them, is read as the same trajectory; nothing is executed."""

import argparse
import itertools
import json
import pickle
import re
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import layerscope as ls
from layerscope.checkpoints import FORMATS, Wanted, source_of
from layerscope.checkpoints.fit import Prefix
from layerscope.errors import UseError

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    return Net()


def legacy(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def lightning(state: State, path: Path, step: int, epoch: int = 0) -> None:
    """The layout that Lightning documents for its checkpoints; the module has the network as `self.net`."""
    content = {
        "epoch": epoch,
        "global_step": step,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict((f"net.{name}", tensor) for name, tensor in state.items()),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
    }
    torch.save(content, path)


def sharded(state: State, folder: Path) -> None:
    """Two shards and their index, as Hugging Face wrote them before safetensors."""
    names = list(state)
    files = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    halves = (names[:2], names[2:])
    folder.mkdir()
    for file, half in zip(files, halves, strict=True):
        torch.save({name: state[name] for name in half}, folder / file)
    places = {name: file for file, half in zip(files, halves, strict=True) for name in half}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def in_folder(name: str, write: Callable[[State, Path], None]) -> Callable[[State, Path], None]:
    def written(state: State, path: Path) -> None:
        path.mkdir()
        write(state, path / name)

    return written


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRITERS: dict[str, tuple[str, Callable[[State, Path], None]]] = {
    "safetensors": (".safetensors", save_file),
    "state dict": (".pt", torch.save),
    "before torch 1.6": (".pth", legacy),
    "parameters": (".pt", lambda state, path: torch.save({k: _parameter(v) for k, v in state.items()}, path)),
    "state_dict": (".pth", lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path)),
    "model": (".bin", lambda state, path: torch.save({"model": state, "optimizer": {"state": {}}}, path)),
    "model_state_dict": (".pt", lambda state, path: legacy({"model_state_dict": state, "loss": 0.1}, path)),
    "module, DeepSpeed": (".pt", lambda state, path: torch.save({"module": state, "dp_world_size": 1}, path)),
    "data parallel": (".pt", lambda state, path: torch.save(prefixed(state, "module."), path)),
    "compiled": (".pt", lambda state, path: torch.save({"model": prefixed(state, "_orig_mod.")}, path)),
    "both": (".safetensors", lambda state, path: save_file(prefixed(state, "module._orig_mod."), path)),
    "Lightning": (".ckpt", lambda state, path: lightning(state, path, step=int(path.stem[-1]))),
    "Hugging Face": ("", in_folder("model.safetensors", save_file)),
    "Hugging Face, bin": ("", in_folder("pytorch_model.bin", torch.save)),
    "shards": ("", sharded),
}
DECIDED = {
    "state_dict": ("state_dict", ""),
    "model": ("model", ""),
    "model_state_dict": ("model_state_dict", ""),
    "module, DeepSpeed": ("module", ""),
    "data parallel": ("", "module."),
    "compiled": ("model", "_orig_mod."),
    "both": ("", "module._orig_mod."),
    "Lightning": ("state_dict", "net."),
}
"""Of these, under what key the values are, and what stands before their names."""


def _parameter(tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("kind", WRITERS)
def test_a_format_is_read_as_the_same_values(kind, model, tmp_path):
    suffix, write = WRITERS[kind]
    states = [{name: tensor + step for name, tensor in model.state_dict().items()} for step in (0, 1, 2)]
    for step, state in enumerate(states):
        write(state, tmp_path / f"step-{step}{suffix}")
    trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(model)
    assert trajectory.steps == (ls.INIT, ls.Step(0, 1), ls.Step(0, 2))
    assert trajectory.unit == "iteration"
    trajectory.check(ls.state_of(model))
    for step, state in zip(trajectory.steps, states, strict=True):
        found = trajectory[step]
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert not any(tensor.requires_grad for tensor in found.values())
        (bias,) = trajectory.tensors(step, ["head.bias"]).values()
        assert torch.equal(bias, state["head.bias"])
    plain = ls.Trajectory.of(initial=states[0], step_1=states[1], step_2=states[2]).fitted(model)
    assert trajectory.fingerprint == plain.fingerprint  # of the values, not of how they were written


def test_every_format_of_the_table_is_tested(model, tmp_path):
    seen = set()
    for number, (suffix, write) in enumerate(WRITERS.values()):
        path = tmp_path / f"{number}{suffix}"
        write(model.state_dict(), path)
        paths = [path, *path.glob("*.index.json")] if path.is_dir() else [path]
        seen |= {each.name for each in FORMATS for path in paths if each.is_one(path)}
    assert seen == {each.name for each in FORMATS}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_decided_is_said(kind, model, tmp_path):
    suffix, write = WRITERS[kind]
    write(model.state_dict(), tmp_path / f"1{suffix}")
    trajectory = ls.Trajectory.read([str(tmp_path / f"1{suffix}")]).fitted(model)
    trajectory.check(ls.state_of(model))
    under, prefix = DECIDED.get(kind, ("", ""))
    wanted = [f"of each checkpoint, the values under {under!r} were read"] if under else []
    wanted += [f"of each checkpoint, {prefix!r} was taken off the names of tensors"] if prefix else []
    assert trajectory.facts() == {"step_unit": "checkpoint"} | ({"checkpoints": wanted} if wanted else {})


def test_values_are_those_of_the_moment_they_were_read(model, tmp_path):
    """A training that goes on may write over its file."""
    path = tmp_path / "last.pt"
    torch.save(model.state_dict(), path)
    trajectory = ls.Trajectory.read([str(path)])
    before = trajectory[ls.FINAL]["head.weight"]
    kept = before.clone()
    with path.open("r+b") as file:
        content = bytearray(file.read())
        at = content.find(kept.numpy().tobytes())
        assert at > 0
        file.seek(at)
        file.write(bytes(kept.nbytes))
    assert torch.equal(before, kept)
    with pytest.raises(UseError, match="does not match its checksum"):  # read afresh, not remembered
        trajectory[ls.FINAL]


def test_only_what_is_asked_for_is_read(model, tmp_path):
    """Values are laid out as in a new module, and take the memory of themselves alone."""
    whole = torch.randn(100, 8)
    torch.save({**model.state_dict(), "head.weight": whole.t()[:3, :8]}, tmp_path / "a.pt")
    (found,) = ls.Trajectory.read([str(tmp_path / "a.pt")]).tensors(ls.FINAL, ["head.weight"]).values()
    assert torch.equal(found, whole.t()[:3, :8])
    assert (found.untyped_storage().nbytes(), found.is_contiguous()) == (3 * 8 * 4, True)


# Hugging Face, by its own library


@pytest.fixture(scope="module")
def gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("size", ["1GB", "2KB"])
def test_what_save_pretrained_writes(gpt2, size, tmp_path):
    states = {}
    for number in (0, 500, 1000):
        with torch.no_grad():
            gpt2.transformer.h[0].mlp.c_fc.weight += number
        gpt2.save_pretrained(tmp_path / f"checkpoint-{number}", max_shard_size=size)
        states[number] = ls.state_of(gpt2)
    assert (tmp_path / "checkpoint-500" / "model.safetensors.index.json").exists() == (size == "2KB")
    trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(gpt2)
    trajectory.check(ls.state_of(gpt2))
    assert [trajectory.number(step) for step in trajectory.steps] == [0, 500, 1000]
    for number, state in states.items():
        found = trajectory[trajectory.at(number)]
        assert found.keys() == state.keys()  # lm_head.weight too, which is tied and in no file
        assert all(torch.equal(found[name], state[name]) for name in state)
    one = ls.Trajectory.read([str(tmp_path / "checkpoint-500")]).fitted(gpt2)
    assert one.steps == (ls.Step(1),)
    assert torch.equal(one[ls.FINAL]["lm_head.weight"], states[500]["lm_head.weight"])


def test_masks_of_older_checkpoints_are_not_needed(gpt2, tmp_path):
    """Files on the Hub have buffers that the library's models now compute; its own code says which it does not need."""
    gpt2.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    old = {f"transformer.h.{block}.attn.bias": torch.ones(1, 1, 16, 16) for block in range(2)}
    save_file({**state, **old}, tmp_path / "model.safetensors")
    trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(gpt2)
    trajectory.check(ls.state_of(gpt2))
    (note,) = trajectory.facts()["checkpoints"]
    assert note == (
        "of each checkpoint, not read, as the model's own code says that it does not need them: "
        "transformer.h.0.attn.bias and transformer.h.1.attn.bias"
    )
    base = {name.removeprefix("transformer."): tensor for name, tensor in {**state, **old}.items()}
    save_file(base, tmp_path / "model.safetensors")  # as GPT-2 itself lies on the Hub
    trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(gpt2)
    trajectory.check(ls.state_of(gpt2))
    assert len(trajectory.facts()["checkpoints"]) == 2
    save_file({**state, "transformer.h.0.attn.extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UseError, match=r"transformer\.h\.0\.attn\.extra is not in the model"):
        ls.Trajectory.read([str(tmp_path)]).fitted(gpt2).check(ls.state_of(gpt2))


def test_moved_rotary_frequencies_are_not_needed(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.GPTNeoXForCausalLM(config)
    layer = "gpt_neox.layers.0.attention"
    old = {
        f"{layer}.rotary_emb.inv_freq": torch.ones(1),
        f"{layer}.bias": torch.ones(4, 4),
        f"{layer}.masked_bias": torch.ones(1),
    }
    torch.save(model.state_dict() | old, tmp_path / "pytorch_model.bin")
    trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(model)
    trajectory.check(ls.state_of(model))
    assert all(name in trajectory.facts()["checkpoints"][0] for name in old)


def test_the_folder_of_a_trainer(gpt2, tmp_path):
    """The Trainer's own state lies beside the weights, and the final model in the folder itself."""
    for number in (500, 1000):
        with torch.no_grad():
            gpt2.transformer.wpe.weight += 1
        folder = tmp_path / f"checkpoint-{number}"
        gpt2.save_pretrained(folder)
        torch.save({"state": {}}, folder / "optimizer.pt")
        torch.save({"python": 1}, folder / "rng_state.pth")
        torch.save({"args": 1}, folder / "training_args.bin")
    torch.save({"args": 1}, tmp_path / "training_args.bin")
    (tmp_path / "trainer_state.json").write_text("{}")
    torch.save(ls.state_of(gpt2) | {"transformer.wpe.weight": torch.zeros(16, 8)}, tmp_path / "init.pt")

    def read() -> tuple[list[int], list[str]]:
        trajectory = ls.Trajectory.read([str(tmp_path)]).fitted(gpt2)
        trajectory.check(ls.state_of(gpt2))
        return [trajectory.number(step) for step in trajectory.steps], trajectory.facts()["checkpoints"]

    assert read() == ([0, 500, 1000], ["not read, as they hold no network: training_args.bin"])
    gpt2.save_pretrained(tmp_path)
    numbers, notes = read()
    assert numbers == [0, 500, 1000]
    assert notes[1] == f"{tmp_path} holds the values of {tmp_path / 'checkpoint-1000'} and is that checkpoint"
    with torch.no_grad():
        gpt2.transformer.wpe.weight += 1
    gpt2.save_pretrained(tmp_path)
    numbers, notes = read()
    assert numbers == [0, 500, 1000, 1001]
    assert notes[1] == f"{tmp_path} is the end; that its iteration is 1001 is only for the order"


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"a": "../outside.bin"}, "names outside.bin, but there is no such file beside it"),
        ({"a": "/etc/passwd"}, "names passwd, but there is no such file beside it"),
        ({"a": "absent.bin"}, "names absent.bin, but there is no such file beside it"),
        ({"a": 3}, "is not an index of shards: it has no weight_map"),
        ({}, "is not an index of shards: it has no weight_map"),
        ([], "is not an index of shards: it has no weight_map"),
        ({"a": "one.bin", "c": "one.bin"}, "one.bin has b, unlike what"),
        ({"a": "one.bin", "b": "one.bin", "c": "one.bin"}, "one.bin does not have c, unlike what"),
    ],
)
def test_an_index_that_does_not_fit(places, message, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save({"a": torch.ones(1)}, tmp_path / "outside.bin")
    torch.save({"a": torch.ones(1), "b": torch.ones(1)}, folder / "one.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UseError, match=re.escape(message)):
        source_of(folder).shapes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": 1}', "[" * 100_000])
def test_an_index_that_is_none(text, tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(UseError, match="is not an index of shards"):
        source_of(tmp_path).read(None)


def test_a_shard_alone(model, tmp_path):
    sharded(model.state_dict(), tmp_path / "model")
    index = tmp_path / "model" / "pytorch_model.bin.index.json"
    assert set(ls.Trajectory.read([str(index)])[ls.FINAL]) == set(model.state_dict())
    with pytest.raises(UseError, match="is one of several files of a checkpoint"):
        ls.Trajectory.read([str(tmp_path / "model" / "pytorch_model-00001-of-00002.bin")])
    index.unlink()
    with pytest.raises(UseError, match="is one of several files of a checkpoint"):
        ls.Trajectory.read([str(tmp_path / "model")])


# Prefixes


WORDS = st.sampled_from(["a", "b", "module", "model", "net", "weight"])
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(".".join)


@given(st.sets(NAMES, min_size=1, max_size=6), st.lists(WORDS, max_size=3))
def test_a_prefix_is_taken_off_where_the_names_fit_then_and_only_then(names, words):
    prefix = "".join(f"{word}." for word in words)
    there = {prefix + name for name in names}
    wanted = Wanted({name: name for name in names})
    fit = wanted.fit(there, "x")
    assert set(fit.held) == names
    if names <= there:
        assert fit.prefix == Prefix()
    else:
        assert fit.held == {name: fit.prefix.text + name for name in names}
        assert set(fit.shapes(dict.fromkeys(there, (1,)))) >= names


@given(st.sets(NAMES, min_size=1, max_size=6), st.lists(WORDS, min_size=1, max_size=3))
def test_a_prefix_is_put_before_names_where_all_of_the_model_fit_then(names, words):
    """The other way round: the model has the network within it, under a name that its own file does not have."""
    prefix = "".join(f"{word}." for word in words)
    fit = Wanted({prefix + name: prefix + name for name in names}).fit(names, "x")
    assert fit.prefix.ours
    assert fit.held == {name: name.removeprefix(fit.prefix.text) for name in (prefix + each for each in names)}
    assert set(fit.shapes(dict.fromkeys(names, (1,)))) == set(fit.held)


def heads() -> tuple[nn.Module, nn.Module]:
    """Somebody's base, and a model that has it within, with a head of its own."""
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    return base, nn.Sequential(
        OrderedDict(body=nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)), head=nn.Linear(3, 2))
    )


def test_a_base_model_is_the_pretrained_network_of_one_with_a_head(tmp_path):
    base, model = heads()
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    save_file(model.state_dict(), tmp_path / "tuned.safetensors")
    files = [f"pretrained={tmp_path / 'base.safetensors'}", f"final={tmp_path / 'tuned.safetensors'}"]
    trajectory = ls.Trajectory.read(files).fitted(model)
    trajectory.check(ls.state_of(model))
    assert trajectory.lacking(ls.INIT) == {"head.weight": None, "head.bias": None}
    assert torch.equal(trajectory[ls.INIT]["body.2.weight"], base[2].weight)
    assert "of pretrained, 'body.' was put before the names of tensors" in trajectory.facts()["checkpoints"]
    alone = ls.Trajectory.read([str(tmp_path / "base.safetensors")]).fitted(model)
    with pytest.raises(UseError, match=r"does not fit the model: head\.weight is missing; head\.bias is missing$"):
        alone.check(ls.state_of(model))


def test_what_could_be_several_parts_of_a_model_is_refused():
    model = nn.Sequential(OrderedDict(student=heads()[0], teacher=heads()[0]))
    with pytest.raises(
        UseError, match=r"names that fit the model under 'student\.' and under 'teacher\.': nobody can say"
    ):
        Wanted.of(model).fit(heads()[0].state_dict(), "one.pt")


def test_a_base_model_of_the_library_and_one_with_its_head(gpt2, tmp_path):
    """Both ways: the library reads them so, too."""
    from transformers import GPT2Model

    base = gpt2.transformer
    base.save_pretrained(tmp_path / "base")
    gpt2.save_pretrained(tmp_path / "whole")
    assert load_file(tmp_path / "base" / "model.safetensors").keys() >= {"wte.weight"}
    for folder, model, prefix in (("base", gpt2, "put before"), ("whole", GPT2Model(gpt2.config), "taken off")):
        trajectory = ls.Trajectory.read([str(tmp_path / folder)]).fitted(model)
        trajectory.check(ls.state_of(model))
        theirs = type(model).from_pretrained(tmp_path / folder).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in trajectory[ls.FINAL].items())
        assert trajectory[ls.FINAL].keys() == theirs.keys()
        assert trajectory.facts()["checkpoints"] == [
            f"of each checkpoint, 'transformer.' was {prefix} the names of tensors"
        ]


def test_the_model_decides_what_a_prefix_is(model, tmp_path):
    """A network whose own names begin with module. keeps them."""
    torch.save(prefixed(model.state_dict(), "module."), tmp_path / "a.pt")
    for network, prefix in ((model, "module."), (nn.DataParallel(model), "")):
        trajectory = ls.Trajectory.read([str(tmp_path / "a.pt")]).fitted(network)
        trajectory.check(ls.state_of(network))
        assert ("checkpoints" in trajectory.facts()) == bool(prefix)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: s | {"net.loss.weight": torch.ones(3)},
            r"does not fit the model: net\.loss\.weight is not in the model",
        ),
        (lambda s: s | {"metric.total": torch.ones(1)}, r"does not fit the model: metric\.total is not in the model"),
        (
            lambda s: {k: v for k, v in s.items() if k != "net.head.bias"},
            r"does not fit the model: head\.bias is missing$",
        ),
        (
            lambda s: s | {"head.bias": torch.ones(3)},
            r"does not fit the model: head\.bias \(beside net\.head\.bias\) is not in the model",
        ),
        (
            lambda s: s | prefixed(Net().state_dict(), "teacher."),
            r"has the tensors of the model 2 times, under 'net\.' and",
        ),
        (lambda s: {"x.weight": torch.ones(1)}, r"body\.0\.weight is missing.*"),
    ],
)
def test_what_is_no_tensor_of_the_model_is_an_error(edit, message, model, tmp_path):
    torch.save({"state_dict": edit(prefixed(model.state_dict(), "net."))}, tmp_path / "a.ckpt")
    with pytest.raises(UseError, match=message):
        ls.Trajectory.read([str(tmp_path / "a.ckpt")]).fitted(model).check(ls.state_of(model))


def test_checkpoints_of_one_trajectory_may_have_different_wrappers(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "step_0.pt")
    torch.save({"model": prefixed(model.state_dict(), "module.")}, tmp_path / "step_5.pt")
    trajectory = ls.Trajectory.read([str(tmp_path / "*.pt")]).fitted(model)
    trajectory.check(ls.state_of(model))
    assert trajectory.facts()["checkpoints"] == [
        "of iteration-5, the values under 'model' were read",
        "of iteration-5, 'module.' was taken off the names of tensors",
    ]


def test_tied_tensors_behind_a_prefix(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    torch.save({"module.1.weight": torch.eye(3)}, tmp_path / "one.pt")  # under its second name only
    trajectory = ls.Trajectory.read([str(tmp_path / "one.pt")]).fitted(model)
    trajectory.check(ls.state_of(model))
    assert all(torch.equal(tensor, torch.eye(3)) for tensor in trajectory[ls.FINAL].values())
    torch.save({"0.weight": torch.eye(3), "1.weight": torch.ones(3, 3)}, tmp_path / "two.pt")
    with pytest.raises(
        UseError, match=r"0\.weight and 1\.weight are one tensor in the model, but have different values"
    ):
        ls.Trajectory.read([str(tmp_path / "two.pt")]).fitted(model).check(ls.state_of(model))


# Nothing of a file is executed, and what cannot be read is an error with its path


class Spell:
    """Unpickled in the ordinary way, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, legacy, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("place", ["instead", "beside", "within"])
def test_code_in_a_file_is_refused_and_not_run(write, place, model, tmp_path):
    trap, path = tmp_path / "sprung", tmp_path / "a.pt"
    spell, state = Spell(trap), model.state_dict()
    content = {"instead": spell, "beside": {"state_dict": state, "x": spell}, "within": {**state, "x": spell}}[place]
    write(content, path)
    plain = write not in (torch.save, legacy)
    if not plain:
        torch.load(path, weights_only=False)
        assert trap.exists()  # the trap works
        trap.unlink()
    trajectory = ls.Trajectory.read([str(path)])
    for use in (lambda: trajectory[ls.FINAL], lambda: trajectory.fitted(model).check(ls.state_of(model))):
        with pytest.raises(
            UseError, match=rf"{path}.*" + ("" if plain else "asks for .*, and code of a file is never run")
        ):
            use()
    assert not trap.exists()


@pytest.mark.parametrize("content", [Net(), {"state_dict": {}, "hyper_parameters": argparse.Namespace(lr=1)}])
def test_objects_of_classes_are_refused_by_name(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    name = "test_checkpoints_files.Net" if isinstance(content, Net) else "argparse.Namespace"
    with pytest.raises(UseError, match=rf"asks for .*{name}, and code .* save its state dict alone"):
        source_of(tmp_path / "a.ckpt").shapes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optimizer": {"state": {}}, "epoch": 3}, "a mapping of 'optimizer', 'epoch', but no tensors in it or under state_dict"),
        ([torch.ones(1)], "there is a list, but no tensors"),
        (torch.ones(2), "there is a Tensor, but no tensors"),
        ({}, "there is a dict, but no tensors"),
        ({"model": {"a": torch.ones(1)}, "net": {"a": torch.ones(1)}}, "has tensors under 'model' and under 'net'"),
    ],
)  # fmt: skip
def test_a_file_without_a_state_dict(content, message, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UseError, match=re.escape(message)):
        source_of(tmp_path / "a.pt").shapes()


def test_a_key_that_only_sounds_like_a_state_dict(model, tmp_path):
    torch.save({"model": "resnet", "state_dict": model.state_dict()}, tmp_path / "a.pt")
    assert set(source_of(tmp_path / "a.pt").shapes()) == set(model.state_dict())


def broken(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    return {
        "empty": b"",
        "text": b"<html>404 Not Found</html>",
        "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-40],
        "zeros": bytes(len(whole)),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "git lfs", "cut", "cut at the end", "zeros"])
@pytest.mark.parametrize("format", ["safetensors", "state dict", "before torch 1.6", "Lightning", "shards"])
def test_damaged_files(format, kind, model, tmp_path):
    suffix, write = WRITERS[format]
    path = tmp_path / f"a1{suffix}"
    write(model.state_dict(), path)
    file = next(path.glob("*-00001-*")) if path.is_dir() else path
    file.write_bytes(broken(file)[kind])
    with pytest.raises(UseError, match=rf"cannot read {file}|{file} ") as told:
        ls.Trajectory.read([str(path)]).fitted(model).check(ls.state_of(model))
    assert "set to `False`" not in str(told.value)  # no advice to run what is in the file


def test_other_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("notes.txt", "not a checkpoint")
    with pytest.raises(UseError, match=rf"cannot read {tmp_path / 'a.pt'}: it is damaged, or not of torch.save"):
        source_of(tmp_path / "a.pt").shapes()


def test_a_tensor_without_values(tmp_path):
    torch.save({"w": torch.ones(2, device="meta")}, tmp_path / "a.pt")
    with pytest.raises(UseError, match=r"tensor w of .*a\.pt has no values"):
        source_of(tmp_path / "a.pt").read(None)


# What a user names


def write_all(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"w": torch.full((2,), float(number))}, folder / name)


def named(folder: Path, *texts: str) -> ls.Trajectory:
    return ls.Trajectory.read([text.replace("@", f"{folder}/") for text in texts])


def test_the_start_may_be_called_as_in_python(tmp_path):
    write_all(tmp_path, ["a.pt", "b.pt"])
    assert named(tmp_path, "initial=@a.pt", "final=@b.pt").has_start


def numbers(trajectory: ls.Trajectory) -> list[int]:
    return [trajectory.number(step) for step in trajectory.steps]


@pytest.mark.parametrize(
    ("files", "texts", "unit", "found"),
    [
        (["c/epoch_1.pt", "c/epoch_10.pt", "c/epoch_2.pt"], ["@c"], "epoch", [1, 2, 10]),
        (["c/step_1.pt", "c/step_10.pt", "c/log.txt"], ["@c/*.pt"], "iteration", [1, 10]),
        (["a/step_1.pt", "b/step_10.pt"], ["@a/step_1.pt", "@b/step_10.pt"], "iteration", [1, 10]),
        (["a/step_1.pt", "b/step_10.pt"], ["@*/step_*.pt"], "iteration", [1, 10]),
        (["a/step_1.pt", "b/step_10.pt"], ["@**/*.pt"], "iteration", [1, 10]),
        (["step_1.pt", "step_10.pt"], ["@step_1.pt", "@step_*.pt"], "iteration", [1, 10]),
        (["lr=0.1/epoch=0-step=3.ckpt", "lr=0.1/epoch=1-step=6.ckpt"], ["@lr=0.1"], "iteration", [3, 6]),
        (["epoch=1-step=6.ckpt"], ["@epoch=1-step=6.ckpt"], "checkpoint", [1]),
        (["weights.pt"], ["@*.pt"], "checkpoint", [1]),
        (["c/step_6.pt"], ["@c"], "iteration", [6]),
        (["x.pt", "m_3.pt", "m_5.pt"], ["init=@x.pt", "@m_*.pt"], "checkpoint", [0, 3, 5]),
        (["x.pt", "y.pt"], ["init=@x.pt", "final=@y.pt"], "checkpoint", [0, 1]),
        (["x.pt", "y.pt"], ["step-5=@x.pt", "iteration-9=@y.pt"], "iteration", [5, 9]),
        (["x.pt", "y.pt"], ["epoch-00005=@x.pt", "final=@y.pt"], "epoch", [5, 6]),
        (["x.pt", "y.pt"], ["checkpoint-5=@x.pt", "init=@y.pt"], "checkpoint", [0, 5]),
        (["c/init.pt", "c/step_5.pt", "c/last.pt"], ["@c"], "iteration", [0, 5, 6]),
        (["c/[1]/m_1.pt", "c/[1]/m_2.pt"], ["@c/[1]"], "checkpoint", [1, 2]),
    ],
)
def test_what_is_named_is_found_and_ordered(files, texts, unit, found, tmp_path):
    write_all(tmp_path, files)
    trajectory = named(tmp_path, *texts)
    assert (trajectory.unit, numbers(trajectory)) == (unit, found)
    if len(files) == len(found) > 1 and "log.txt" not in str(files):
        values = {float(trajectory[step]["w"][0]) for step in trajectory.steps}
        assert values == set(map(float, range(len(files))))


@pytest.mark.parametrize(
    ("files", "texts", "message"),
    [
        ([], ["@nowhere.pt"], "there is no file or folder"),
        ([], ["@no*.pt"], "nothing matches"),
        (
            ["a.txt"],
            ["@a.txt"],
            "a.txt is no checkpoint: expected a .safetensors file, or a .pt, .pth, .bin, .ckpt file",
        ),
        (["c/a.txt"], ["@c"], "c holds no checkpoint"),
        (["c/best.pt", "c/m_1.pt"], ["@c"], "best.pt is not named after a step, the best by some measure"),
        (["c/epoch_1.pt", "c/step_1.pt"], ["@c"], "are not of one series"),
        (["c/epoch_1.pt", "d/step_1.pt"], ["@c", "@d"], "are not of one series"),
        (["c/epoch_1.pt", "x.pt"], ["@c/*.pt", "step-5=@x.pt"], "x.pt counts iterations and"),
        (["c/m_1.pt", "d/m_1.pt"], ["@c", "@d"], "m_1.pt are both said to be the checkpoint epoch-00001"),
        (["c/m_1.pt", "c/m_01.pth"], ["@c"], "are both said to be the checkpoint"),
        (["x.pt", "y.pt"], ["init=@x.pt", "init=@y.pt"], "are both said to be the checkpoint init"),
        (["c/last.pt", "c/final.pt", "c/m_1.pt"], ["@c"], "are both said to be the checkpoint final"),
        (["x.pt", "y.pt"], ["first=@x.pt", "final=@y.pt"], "there is no file or folder first="),
    ],
)
def test_what_cannot_be_a_trajectory(files, texts, message, tmp_path):
    write_all(tmp_path, files)
    with pytest.raises(UseError, match=re.escape(message)):
        named(tmp_path, *texts)


def test_epochs_of_lightning_that_count_from_0_are_no_start(model, tmp_path):
    """Files named with the epoch alone: the first is of after the first epoch, which the files know."""
    files = {f"epoch={epoch}.ckpt": epoch + 1 for epoch in range(3)}
    for name, epochs in files.items():
        lightning({key: tensor + epochs for key, tensor in model.state_dict().items()}, tmp_path / name, 10 * epochs)
    trajectory = named(tmp_path, "@")
    assert (trajectory.unit, numbers(trajectory), trajectory.has_start) == ("epoch", [1, 2, 3], False)
    (said,) = trajectory.facts()["checkpoints"]
    assert (
        "epoch=0.ckpt says itself that 10 steps of the optimizer were done, so that it is no start but epoch 1" in said
    )
    (bias,) = trajectory.tensors(ls.Step(3), ["net.head.bias"]).values()
    assert torch.equal(bias, model.state_dict()["head.bias"] + 3)
    lightning(model.state_dict(), tmp_path / "init.ckpt", 0)  # one that was saved before training is the start
    assert numbers(named(tmp_path, "@")) == [0, 1, 2, 3]
    lightning(model.state_dict(), tmp_path / "epoch=0.ckpt", 0)
    assert numbers(named(tmp_path, "@epoch=*.ckpt")) == [0, 1, 2]


@pytest.mark.parametrize(("text", "name"), [("init=@x.ckpt", "x.ckpt"), ("@", "init.ckpt"), ("@", "step=0.ckpt")])
def test_a_start_that_says_itself_that_it_was_trained(text, name, model, tmp_path):
    lightning(model.state_dict(), tmp_path / name, 10)
    lightning(model.state_dict(), tmp_path / "step=20.ckpt", 20)
    with pytest.raises(
        UseError, match=rf"{name} is taken for the start, but says itself that 10 steps .*: write step-10="
    ):
        named(tmp_path, text, "@step=20.ckpt")
    there = named(tmp_path, f"pretrained=@{name}", "@step=20.ckpt")
    assert there.pretrained
    assert numbers(named(tmp_path, f"step-10=@{name}", "@step=20.ckpt")) == [10, 20]


def test_the_last_may_be_a_copy_of_one_that_has_a_number(tmp_path):
    """Lightning keeps the newest checkpoint as last.ckpt too."""
    write_all(tmp_path, ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"])
    shutil.copy(tmp_path / "epoch=1-step=6.ckpt", tmp_path / "last.ckpt")
    trajectory = named(tmp_path, "@")
    assert numbers(trajectory) == [3, 6]
    assert trajectory.facts()["checkpoints"] == [
        f"{tmp_path / 'last.ckpt'} holds the values of {tmp_path / 'epoch=1-step=6.ckpt'} and is that checkpoint"
    ]
    # Where the user says that it is the end, it is one.
    said = named(tmp_path, "@epoch=0-step=3.ckpt", "@epoch=1-step=6.ckpt", "final=@last.ckpt")
    assert numbers(said) == [3, 6, 7]


def test_the_order_of_names_makes_no_difference(tmp_path):
    files = ["init.pt", "m_10.pt", "m_9.pt"]
    write_all(tmp_path, files)
    found = {named(tmp_path, *(f"@{name}" for name in order)).fingerprint for order in itertools.permutations(files)}
    assert len(found) == 1


def test_two_networks_in_one_pretrained_file():
    """Neither has the model's head: nobody can say which is meant."""
    model = nn.Sequential(OrderedDict(a=nn.Linear(3, 3), b=nn.Linear(3, 3), head=nn.Linear(3, 2)))
    there = [f"{who}.{name}.{kind}" for who in ("student", "teacher") for name in "ab" for kind in ("weight", "bias")]
    with pytest.raises(UseError, match=r"2 times, under 'student.' and under 'teacher.'"):
        Wanted.of(model).fit(there, "two.pt")


def test_the_folder_of_a_run_is_not_that_of_its_checkpoints(tmp_path):
    with ls.Recorder(tmp_path / "run", nn.Linear(3, 2)) as recorder:
        recorder.save(epoch=1)
    with pytest.raises(UseError, match="is a run; its checkpoints are in"):
        ls.Trajectory.read([str(tmp_path / "run")])
