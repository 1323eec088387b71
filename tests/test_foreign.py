"""Other people's networks, end to end: trained here for a moment, analysed in Python and on the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import layerscope as ls
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.models.sources import open_model
from layerscope.trajectory import save_state

from .test_cli import refused

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def trained(model: nn.Module, loss_of: Any, batches: list[Any], steps: int = 60, lr: float = 0.01) -> ls.Trajectory:
    """A short training, and its trajectory."""
    start = ls.state_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, batches[step % len(batches)]).backward()
        optimizer.step()
    return ls.Trajectory.of(initial=start, final=ls.state_of(model))


def value(table: ls.Table, **where: Any) -> float:
    (found,) = table.where(**where)["value"].tolist()
    return found


def bracket_batches(n: int = 256, length: int = 12) -> list[dict[str, torch.Tensor]]:
    """Sequences of 8 tokens, of class 1 where token 3 occurs."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 12, (n, length), generator=generator)
    with_three = torch.rand(n, generator=generator) < 0.5
    ids[with_three, torch.randint(length, (n,), generator=generator)[with_three]] = 3
    mask = torch.ones_like(ids)
    return [
        {"input_ids": i, "attention_mask": m, "labels": y}
        for i, m, y in zip(ids.split(64), mask.split(64), with_three.long().split(64), strict=True)
    ]


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=12, max_position_embeddings=16, num_labels=2, **SMALL)
    model = transformers.BertForSequenceClassification(config)
    data = bracket_batches()
    trajectory = trained(model, lambda model, batch: model(**batch).loss, data, steps=200, lr=0.003)
    return model, trajectory, data


def test_an_encoder_with_batches_of_its_tokenizer(bert):
    transformers = pytest.importorskip("transformers")
    model, trajectory, data = bert
    batches = [transformers.BatchEncoding(batch) for batch in data]
    spec = ls.RobustnessSpec(draws=2, by="block")
    table = ls.robustness(model, trajectory, batches, spec)
    blocks = [name for name in table.parts() if name.startswith("bert.encoder.layer.")]
    assert blocks == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    unmodified = value(table, perturbation="none", metric="error")
    assert unmodified < 0.05
    assert value(table, part="whole network", metric="error", step=0) > 0.3
    # It was initialised by its own code, from a law that is not PyTorch's: ours is fitted to what it started from.
    assert table.provenance["laws"]["bert.encoder.layer.0.output.dense.weight"].startswith(
        "fitted to the start: normal"
    )
    weight = trajectory.tensors(ls.INIT, ["bert.encoder.layer.0.output.dense.weight"])
    (law,) = [table.provenance["laws"][name] for name in weight]
    assert float(law.split("scale ")[1]) == pytest.approx(0.02, rel=0.15)


def test_heads_of_an_encoder_are_parts_of_their_own(bert):
    model, trajectory, data = bert
    parts = ls.Partition.by_head(model)
    heads = [part for part in parts if ".head" in part.name]
    assert len(heads) == 4
    table = ls.evaluate(model, trajectory, [ls.Variant.of(part, ls.Rewind()) for part in heads], data)
    by_hand = ls.materialize(model, trajectory, ls.Variant.of(heads[1], ls.Rewind()))
    with torch.no_grad():
        wrong = [
            by_hand.eval()(**{k: v for k, v in b.items() if k != "labels"}).logits.argmax(1) != b["labels"]
            for b in data
        ]
    assert table.where(metric="error")["value"].tolist()[1] == torch.cat(wrong).double().mean().item()


def test_a_causal_language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    start = torch.randint(20, (64, 1), generator=torch.Generator().manual_seed(1))
    ids = (start + 3 * torch.arange(12)) % 20  # each token is the last one plus 3
    batches = [{"input_ids": ids[:40], "labels": ids[:40]}, {"input_ids": ids[40:], "labels": ids[40:]}]
    trajectory = trained(model, lambda model, batch: model(**batch).loss, batches, steps=150)
    metrics = [ls.Perplexity(), ls.TokenCrossEntropy(), ls.TokenError()]
    table = ls.robustness(model, trajectory, batches, ls.RobustnessSpec(draws=1, by="block"), metrics=metrics)
    loss = torch.stack([model.eval()(**batch).loss.detach() for batch in batches])
    found = value(table, perturbation="none", metric="token_cross_entropy")
    assert found == pytest.approx(((40 * loss[0] + 24 * loss[1]) / 64).item(), rel=1e-4)
    assert value(table, perturbation="none", metric="perplexity") < 2
    assert value(table, part="whole network", step=0, metric="perplexity") == pytest.approx(20, rel=0.2)
    assert table.provenance["chance"] == 20
    (tied,) = [part for part in ls.Partition.by_layer(model) if " = " in part.name]
    assert set(tied.tensors) == {"transformer.wte.weight", "lm_head.weight"}
    judged = table.where(metric="perplexity_delta", step=0)
    assert set(judged["verdict"]) <= {"ambient", "critical", "destroyed", "undecided", ""}


class Digits(nn.Module):
    """Reads a digit row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(8, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.rows(images.flatten(1, 2))[0][:, -1])


def test_a_recurrent_classifier_on_digits():
    data = ls.data.load("digits")
    torch.manual_seed(0)
    model = Digits()
    batches = list(data.train.batches(128))
    loss = lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    trajectory = trained(model, loss, batches, steps=150)
    table = ls.robustness(model, trajectory, {"test": data.test.batches()}, ls.RobustnessSpec(draws=2))
    assert table.parts() == ["rows.l0", "rows.l1", "head", "whole network"]
    assert value(table, perturbation="none", metric="error") < 0.25
    by_hand = Digits()
    by_hand.load_state_dict(trajectory[ls.FINAL] | {n: t for n, t in trajectory[ls.INIT].items() if n.endswith("_l0")})
    with torch.no_grad():
        wrong = (by_hand(data.test.inputs).argmax(1) != data.test.targets).double().mean().item()
    assert value(table, part="rows.l0", perturbation="rewind", metric="error", step=0) == wrong
    assert table.provenance["laws"]["rows.weight_hh_l1"] == f"uniform of scale {24**-0.5:g}"


# --- On the command line ---------------------------------------------------------------------------------------------

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(2, 32), nn.BatchNorm1d(32), nn.Linear(32, 2)

    def forward(self, x):
        return {"logits": self.head(self.norm(self.first(x)).relu())}

def net():
    torch.manual_seed(0)
    return Net()

def points(n, seed):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] > 0).long()

def loader():
    return {"test": [points(1500, 1)], "train": [points(500, 2), points(500, 3)]}

def triples():
    x, y = points(1500, 1)
    return [(x, x, y)]

def first(network, batch):
    return network(batch[0])["logits"]

def last(batch):
    return batch[2]

def margin(outputs, targets):
    own = outputs.gather(1, targets[:, None]).squeeze(1)
    return own - outputs.gather(1, 1 - targets[:, None]).squeeze(1)

def shuffled():
    data = torch.utils.data.TensorDataset(*points(600, 1))
    return torch.utils.data.DataLoader(data, batch_size=50, shuffle=True)

needs_arguments = lambda size: Net()
not_a_model = 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with somebody's package and checkpoints."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "theirs.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    import theirs  # pyright: ignore[reportMissingImports]

    model, (x, y) = theirs.net(), theirs.points(1000, 2)
    states = [ls.state_of(model)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(1, 101):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x)["logits"], y).backward()
        optimizer.step()
        if step % 50 == 0:
            states.append(ls.state_of(model))
    from layerscope.store import Folder

    for epoch, state in enumerate(states):
        save_state(Folder(folder / "checkpoints"), ls.Step(epoch), state)
    save_file(states[0], folder / "before.safetensors")
    save_file(states[-1], folder / "after.safetensors")
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["theirs"]


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


ASKED = ["--model", "theirs:net", "--data", "theirs:loader", "--draws", "2"]


def asking(data: str, *more: str) -> list[str]:
    return ["analyze", "--model", "theirs:net", "--data", data, "--checkpoints", "checkpoints", "--draws", "1", *more]


def test_analyze_a_model_of_ones_own(here, capsys):
    out = ["--out", "runs/net"]
    assert main(["analyze", *ASKED, "--checkpoints", "checkpoints", *out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["part"] for entry in found["parts"]} == {"first", "norm", "head"}
    run = ls.Run.open("runs/net")
    table = run.analysis("robustness")
    assert set(table.frame["step"].dropna()) == {0, 1, 2}
    assert set(table.frame["split"]) == {"test", "train", ""}
    assert (run.path / "report.html").stat().st_size > 20_000
    assert table.provenance["model"] == "theirs:net"
    # Again: nothing is computed twice; another question about the same model goes into the same run.
    assert main(["analyze", *ASKED, "--checkpoints", "checkpoints", *out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["analyze", "runs/net", "--name", "pairs", "--join", "ends=first|head", "--draws", "1"]) == 0
    assert "ends" in run.analysis("pairs").parts()
    assert "holds a run of another spec" in refused(capsys, "analyze", *ASKED, *out)


def test_two_files_and_metrics_of_ones_own(here, capsys):
    files = ["--checkpoints", "init=before.safetensors", "--checkpoints", "final=after.safetensors"]
    assert (
        main(["analyze", *ASKED, *files, "--out", "runs/two", "--metrics", "error", "--metrics", "theirs:margin"]) == 0
    )
    table = ls.Run.open("runs/two").analysis("robustness")
    assert {"margin", "margin_delta"} <= set(table.frame["metric"])
    one = ["--checkpoints", "after.safetensors", "--out", "runs/one"]
    assert main(["analyze", *ASKED, *one]) == 0
    frame = ls.Run.open("runs/one").analysis("robustness").frame
    assert not (frame["perturbation"] == "rewind").any()  # nothing to put back to


def test_batches_that_need_help(here, capsys):
    asked = asking("theirs:triples", "--buffers", "keep")
    assert "a batch is a tuple of 3" in refused(capsys, *asked, "--out", "runs/x")
    assert main([*asked, "--out", "runs/helped", "--forward", "theirs:first", "--targets", "theirs:last"]) == 0


def test_statistics_cannot_be_recalibrated_without_training_data(here, capsys):
    helped = asking("theirs:triples", "--forward", "theirs:first", "--targets", "theirs:last")
    line = refused(capsys, *helped, "--out", "runs/w")
    assert "the network has batch norm" in line
    assert "--buffers keep" in line


def test_the_probe_on_the_command_line(here, capsys):
    asked = asking("theirs:shuffled", "--buffers", "keep")
    line = refused(capsys, *asked, "--out", "runs/y")
    assert "other batches on each pass" in line
    assert "--anyway" in line


def test_dry_run_of_a_model_of_ones_own(here, capsys):
    assert main(["analyze", *ASKED, "--checkpoints", "checkpoints", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["parts"], plan["variants"]) == (3, 1 + 2 * 2 + 1 + 4 * 3)  # a norm layer has but one draw
    assert plan["forwards"] == 18 * 2500 + 17 * 2 * 1000  # both splits, and recalibration on 1,000 samples for each
    assert not Path("runs/theirs-net").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "theirs:nett", "--data", "theirs:loader"], "unknown name in theirs 'nett'; did you mean net"),
        (["--model", "thairs:net", "--data", "theirs:loader"], "there is no module 'thairs'"),
        (["--model", "theirs:needs_arguments", "--data", "theirs:loader"], "when called without arguments"),
        (["--model", "theirs:not_a_model", "--data", "theirs:loader"], "theirs:not_a_model"),
        (["--model", "theirs", "--data", "theirs:loader"], "is not the source of a model; write package.module:NAME"),
        (["--model", "theirs:net", "--draws", "3"], "--draws needs --data too"),
        (["--model", "theirs:net", "--data", "nonsense"], "unknown data set 'nonsense'"),
        (["--model", "theirs:net", "--data", "theirs:loader", "--checkpoints", "nowhere.pt"], "no file or folder nowhere.pt"),
        (["--model", "theirs:net", "--data", "theirs:loader", "--checkpoints", "before.safetensors", "--checkpoints",
          "after.safetensors"], "before.safetensors is not named after a step, it has no number: write STEP=FILE"),
        (["--model", "timm:resnet18", "--data", "theirs:loader"], "timm is needed, but timm is not installed: pip install"),
        (["--model", "hf:nowhere/at-all", "--data", "theirs:loader"], "hf:nowhere/at-all is neither a folder"),
        (["--model", "theirs:net", "--data", "theirs:loader", "--by", "leyer"], "unknown way to divide a network 'leyer'"),
        (["--model", "theirs:net", "--data", "theirs:loader", "--metrics", "eror"], "unknown metric 'eror'; did you mean error"),
    ],
)  # fmt: skip
def test_wrong_use(here, capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert message in refused(capsys, "analyze", *arguments, "--out", "runs/never")
    assert not (here / "runs/never/analyses").exists()


def test_neither_or_both(here, capsys):
    assert "say what to analyse" in refused(capsys, "analyze")
    assert "say what to analyse" in refused(capsys, "analyze", "checkpoints", *ASKED)


def test_parts(here, capsys):
    assert main(["parts", "theirs:net", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [part["part"] for part in found["parts"]] == ["first", "norm", "head"]
    assert found["parameters"] == 2 * 32 + 32 + 64 + 64 + 2
    assert main(["parts", "fcn-3x256"]) == 0
    out = capsys.readouterr().out
    assert "layer4" in out
    assert "left out: nothing" in out


def test_materialize_writes_the_network_of_the_numbers(here, capsys):
    import theirs  # pyright: ignore[reportMissingImports]

    main(["analyze", *ASKED, "--checkpoints", "checkpoints", "--out", "runs/made"])
    table = ls.Run.open("runs/made").analysis("robustness")
    rows = table.where(part="first", metric="error", split="test")
    chosen = rows.loc[rows["draw"].eq(1).fillna(False) | rows["step"].eq(0).fillna(False)]
    for number, row in enumerate(chosen.to_dict("records")):
        path = Path(f"made-{number}.safetensors")
        assert main(["materialize", "runs/made", "--variant", row["variant"][:8], "--out", str(path)]) == 0
        model = theirs.net()
        model.load_state_dict(load_file(path))
        x, y = theirs.points(1500, 1)
        with torch.no_grad():
            assert (model.eval()(x)["logits"].argmax(1) != y).double().mean().item() == row["value"]
    assert main(["materialize", "runs/made", "--part", "first", "--part", "head", "--out", "both.safetensors"]) == 0
    both, start = load_file("both.safetensors"), load_file("before.safetensors")
    assert all(torch.equal(both[name], start[name]) == ("norm" not in name) for name in both if "num" not in name)
    assert "both.safetensors exists" in refused(
        capsys, "materialize", "runs/made", "--part", "first", "--out", "both.safetensors"
    )
    wrong = ["materialize", "runs/made", "--out", "c.safetensors"]
    assert "unknown Part 'frist'; did you mean first" in refused(capsys, *wrong, "--part", "frist")
    assert "say what to change" in refused(capsys, *wrong)
    assert "has no variant whose id begins with 'zzz'" in refused(capsys, *wrong, "--variant", "zzz")
    assert not Path("c.safetensors").exists()


def test_a_torchvision_for_another_torch_is_told_with_the_line_that_mends_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    line = refused(capsys, "parts", "torchvision:resnet18")
    assert "torchvision does not fit this torch" in line
    assert "uv pip install --reinstall-package torchvision torchvision --torch-backend=cpu" in line


def test_hf_folders(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=12, max_position_embeddings=16, num_labels=2, **SMALL)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    capsys.readouterr()
    assert main(["parts", f"hf:{tmp_path / 'bert'}", "--by", "block", "--json"]) == 0
    names = [part["part"] for part in json.loads(capsys.readouterr().out)["parts"]]
    assert {"bert.encoder.layer.0", "bert.encoder.layer.1", "classifier"} <= set(names)
    config.architectures = []
    config.save_pretrained(tmp_path / "none")
    with pytest.raises(UseError, match="names no one class"):
        open_model(f"hf:{tmp_path / 'none'}")


def test_an_analysis_is_not_taken_for_that_of_other_code(here, capsys):
    code = here / "other.py"
    code.write_text("from theirs import *\n" + "def mine(): return net()\n")
    asked = asking("theirs:loader")
    assert main([*asked, "--metrics", "other:margin", "--metrics", "error", "--out", "runs/code"]) == 0
    (here / "theirs.py").write_text(CODE + "\n# changed\n")
    try:
        line = refused(capsys, *asked, "--metrics", "other:margin", "--metrics", "error", "--out", "runs/code")
        assert "of another spec or inputs" in line
    finally:
        (here / "theirs.py").write_text(CODE)


def test_what_is_refused_leaves_nothing_behind(here, capsys):
    refused(capsys, *asking("theirs:shuffled", "--buffers", "keep", "--out", "runs/nothing"))
    assert not Path("runs/nothing").exists()


def test_an_exception_of_their_code_has_an_exit_code_of_its_own(here, capsys):
    assert main(["analyze", "--model", "theirs:net", "--data", "digits", "--out", "runs/unfit"]) == 3
    assert "RuntimeError, see above" in capsys.readouterr().err
    assert not Path("runs/unfit").exists()


def test_tied_weights_that_a_checkpoint_has_under_one_name_only(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    trajectory = ls.Trajectory.read([str(tmp_path / "model.safetensors")])
    ids = torch.randint(20, (6, 9))
    table = ls.evaluate(
        model, trajectory, [ls.Variant()], [{"input_ids": ids, "labels": ids}], [ls.TokenCrossEntropy()]
    )
    found = value(table, metric="token_cross_entropy")
    assert found == pytest.approx(model.eval()(input_ids=ids, labels=ids).loss.item(), rel=1e-5)


def test_an_encoder_decoder_decodes_its_labels():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    config = transformers.BartConfig(
        vocab_size=20, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, **sizes
    )
    model = transformers.BartForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(4, 20, (5, 8)), "labels": torch.randint(4, 20, (5, 6))}
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    table = ls.evaluate(model, trajectory, [ls.Variant()], [batch], [ls.TokenCrossEntropy(next_token=False)])
    assert value(table, metric="token_cross_entropy_same_place") == pytest.approx(model(**batch).loss.item(), rel=1e-5)
