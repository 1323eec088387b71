"""What can be said of networks by what people have of them: fine-tuned ones, those without a start, those without data."""

import html
import json
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import layerscope as ls
from layerscope.analyses.tiers import tier_of
from layerscope.cli import main
from layerscope.errors import UseError
from layerscope.measures.norm import norms
from layerscope.measures.spectrum import spectrum
from layerscope.models.initialisers import laws_of
from layerscope.perturb import Moments, Permute
from layerscope.run import Run

from .test_cli import refused

SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


class Net(nn.Module):
    """Two maps of the plane: right where the larger coordinate is that of the class, if both are the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def fine_tuned() -> tuple[nn.Module, dict[str, torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """The network, the one it was pretrained as (with its body swapped, for three classes, and a tensor of its own), and data."""
    net = Net()
    for tensor in net.parameters():
        tensor.data = torch.eye(2)
    pretrained = {"body.weight": SWAP, "head.weight": torch.ones(3, 2), "aux.weight": torch.ones(1)}
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    return net, pretrained, [(x.repeat(100, 1), torch.tensor([0, 1, 0]).repeat(100))]


def one(table: ls.Table, **where: object) -> dict:
    (row,) = table.where(**where).to_dict("records")
    return row


@pytest.fixture(scope="module")
def pretrained_table() -> ls.Table:
    net, pretrained, data = fine_tuned()
    trajectory = ls.Trajectory.of(pretrained=pretrained, final=ls.state_of(net))
    return ls.robustness(net, trajectory, data, ls.RobustnessSpec(draws=2))


# Pretrained and fine-tuned


def test_parts_are_put_back_to_the_pretrained_network(pretrained_table):
    """With its body swapped again, all three inputs get the other class."""
    body = one(pretrained_table, part="body", step=0, metric="error")
    assert (body["value"], body["status"]) == (1.0, "ok")
    assert one(pretrained_table, part="body", step=0, metric="error_delta")["verdict"] == "destroyed"
    assert one(pretrained_table, part="body", step=0, metric="distance_l2", to="substituted")["value"] == 1.0
    assert one(pretrained_table, part="body", step=1, metric="distance_max", to="start")["value"] == 1.0


@pytest.mark.parametrize("part", ["head", "whole network"])
def test_what_the_pretrained_network_lacks_is_not_put_back_to_it(pretrained_table, part):
    row = one(pretrained_table, part=part, step=0, metric="error")
    assert row["status"] == "not applicable"
    assert row["reason"] == "head.weight ([3, 2] there) had another shape in the pretrained network"
    assert one(pretrained_table, part=part, step=1, metric="error")["value"] == 0.0


def test_what_is_not_there_is_said_in_a_sentence():
    """Of the tensors by name in the table, and of those of several Parts together in pictures and reports."""
    pretrained = ls.Trajectory.of(pretrained={"body.weight": SWAP}, final=ls.state_of(Net()))
    table = ls.robustness(Net(), pretrained, fine_tuned()[2], ls.RobustnessSpec(draws=0))
    said = "cannot be found in the pretrained network"
    assert one(table, part="head", step=0, metric="error")["reason"] == f"head.weight {said}"
    shown = " ".join(str(ls.plots.terminal_map(table)).split())
    assert f"-: head, pretrained: not applicable: its own tensors {said}" in shown


def test_a_part_without_pretrained_values_has_no_distance_to_them(pretrained_table):
    rows = pretrained_table.where(part="head", to="start")
    assert set(rows["status"]) == {"not applicable"}
    assert rows["value"].isna().all()
    assert one(pretrained_table, part="head", step=1, metric="distance_l2", to="substituted")["value"] == 0.0


def test_what_differs_is_in_the_facts(pretrained_table):
    assert pretrained_table.provenance["checkpoints"] == [
        "the pretrained network has tensors that this one does not have: aux.weight",
        "the pretrained network has tensors of this one in other shapes: head.weight",
    ]
    assert pretrained_table.provenance["start"] == "pretrained"
    missing = ls.Trajectory.of(pretrained={"body.weight": SWAP}, final=ls.state_of(Net())).fitted(Net())
    assert missing.facts()["checkpoints"] == ["the pretrained network does not have tensors of this one: head.weight"]


def test_pretrained_values_say_nothing_about_initial_laws(pretrained_table):
    """A swap could not have been drawn from PyTorch's law: as a start it replaces the law, as a pretrained network not."""
    net, _, data = fine_tuned()
    assert pretrained_table.provenance["laws"]["body.weight"] == str(laws_of(net)["body.weight"])
    start = {"body.weight": SWAP, "head.weight": SWAP}
    table = ls.robustness(net, ls.Trajectory.of(initial=start, final=ls.state_of(net)), data)
    assert table.provenance["laws"]["body.weight"].startswith("fitted to the start")


def test_a_pretrained_network_may_be_better_than_guessing():
    net, _, data = fine_tuned()
    good = {"body.weight": 2 * torch.eye(2), "head.weight": torch.eye(2)}
    many = {"initial": 1, "pretrained": 0}
    for name, warned in many.items():
        table = ls.robustness(net, ls.Trajectory.of(**{name: good}, final=ls.state_of(net)), data)
        assert one(table, part="whole network", step=0, metric="error")["value"] == 0.0
        assert len(table.provenance["warnings"]) == warned, name


def test_a_buffer_that_the_pretrained_network_lacks_stays():
    """As those that count batches, which files of old versions of PyTorch do not have."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    final = ls.state_of(net) | {"1.num_batches_tracked": torch.tensor(7)}
    old = {name: tensor + 1 for name, tensor in ls.state_of(net).items() if "num_batches" not in name}
    (part,) = ls.Partition.by_pattern(net, {"norm": "1.*"})
    trajectory = ls.Trajectory.of(pretrained=old, final=final)
    changed = ls.materialize(net, trajectory, ls.Variant.of(part, ls.Rewind(), buffers="rewind")).state_dict()
    assert changed["1.num_batches_tracked"] == 7
    assert torch.equal(changed["1.running_mean"], old["1.running_mean"])


def test_edits_of_ones_own_are_refused_where_the_pretrained_network_lacks_the_part():
    net, pretrained, data = fine_tuned()
    trajectory = ls.Trajectory.of(pretrained=pretrained, final=ls.state_of(net))
    head = ls.Partition.by_layer(net)["head"]
    with pytest.raises(UseError, match=r"head cannot be put back: head\.weight \(\[3, 2\] there\) had another shape"):
        ls.evaluate(net, trajectory, [ls.Variant.of(head, ls.Rewind())], data)


def test_wrong_starts_are_refused():
    net, pretrained, data = fine_tuned()
    final = ls.state_of(net)
    with pytest.raises(UseError, match="one start"):
        ls.Trajectory.of(initial=final, pretrained=pretrained, final=final)
    with pytest.raises(UseError, match="the pretrained network has no tensor of the model"):
        ls.robustness(net, ls.Trajectory.of(pretrained={"other": SWAP}, final=final), data)
    with pytest.raises(UseError, match="the fine-tuned one is missing"):
        ls.Trajectory.of(pretrained=pretrained)
    with pytest.raises(UseError, match=r"does not fit the model: head.weight has shape"):  # only a pretrained one may
        ls.robustness(net, ls.Trajectory.of(initial=final | {"head.weight": torch.ones(3, 2)}, final=final), data)
    with pytest.raises(UseError, match=r"does not fit the model: head.weight is missing"):
        ls.robustness(net, ls.Trajectory.of(pretrained=pretrained, final={"body.weight": SWAP}), data)


def test_every_word_says_pretrained(pretrained_table):
    shown = str(ls.plots.terminal_map(pretrained_table))
    assert "pre-" in shown
    assert "trained" in shown
    assert "start" not in shown
    assert (
        "-: head, pretrained: not applicable: its own tensors ([3, 2] there) had another shape in the pretrained network"
        in " ".join(shown.split())
    )
    labels = [text.get_text() for text in ls.plots.layer_map(pretrained_table).axes[0].get_xticklabels()]
    assert labels == ["re-ran-\ndomised", "pre-\ntrained", "1\nfinal"]
    assert "from the pretrained values" in ls.plots.distance_map(pretrained_table).axes[0].get_title(loc="left")


# No start: random values made of the trained ones


class Packed(nn.Module):
    """A tied weight under two names, a packed attention and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.attn = nn.MultiheadAttention(4, 2)
        self.out = nn.Linear(4, 5)
        self.out.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x))


def changed(part: ls.Part, what: ls.perturb.variant.Perturbation, draw: int = 0) -> tuple[dict, dict]:
    """The values of `Packed` before and after a change."""
    torch.manual_seed(0)
    net = Packed()
    before = ls.state_of(net)
    made = ls.materialize(
        net, ls.Trajectory.of(final=before), ls.Variant.of(part, what, draw, buffers="keep")
    ).state_dict()
    return before, made


@pytest.mark.parametrize("what", [Permute(), Moments()])
def test_only_the_part_is_changed_and_draws_differ(what):
    part = ls.Partition.by_layer(Packed())["norm"]
    net = Packed()
    part = next(p for p in ls.Partition.by_layer(net) if "attn.out_proj" in p.name or p.name == "attn")
    before, after = changed(part, what)
    mine = {name for name in part.tensors if before[name].unique().numel() > 1}
    assert mine
    assert {name for name in before if not torch.equal(before[name], after[name])} == mine
    again, other = changed(part, what)[1], changed(part, what, draw=1)[1]
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert not any(torch.equal(after[name], other[name]) for name in mine)


def test_a_permutation_keeps_the_values_of_each_tensor():
    for part in ls.Partition.by_layer(Packed()):
        if part.name != "norm":
            before, after = changed(part, Permute())
            for name in before:
                assert torch.equal(before[name].flatten().sort().values, after[name].flatten().sort().values), name


def test_a_slice_is_permuted_within_itself():
    net = Packed()
    for part in (part for part in ls.Partition.by_head(net) if "head" in part.name):
        before, after = changed(part, Permute())
        for where in part.slices:
            old, new = (ls.perturb.patch.take(state[where.tensor], where) for state in (before, after))
            assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
            if old.unique().numel() > 3:
                assert not torch.equal(old, new), where
        untouched = ls.perturb.patch.changed(
            after, ls.Patch.of(part, before), ls.perturb.patch.first_names(net)
        )  # with its slices put back, all is as before
        assert all(torch.equal(untouched[name], before[name]) for name in before)


def test_a_tied_tensor_is_one():
    part = next(part for part in ls.Partition.by_layer(Packed()) if "embed" in part.name)
    for what in (Permute(), Moments()):
        _, after = changed(part, what)
        assert torch.equal(after["embed.weight"], after["out.weight"])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 5))
def test_any_shape_is_permuted(shape, draw):
    net = nn.Module()
    net.weight = nn.Parameter(torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape))
    part = ls.Part("all", (ls.Slice("weight"),))
    world = ls.World.of(net, ls.Trajectory.of(final=ls.state_of(net)), {})
    if net.weight.numel() == 1:
        assert Permute().refused(part, world)
        return
    (values,) = Permute().patch(part, world, draw).slices.values()
    assert values.shape == net.weight.shape
    assert sorted(values.flatten().tolist()) == list(range(net.weight.numel()))


def test_moments_are_those_of_the_trained_values():
    """Normal, uniform and constant; of a slice its own. Six standard errors of 20,000 draws."""
    net = nn.Module()
    generator = torch.Generator().manual_seed(0)
    net.normal = nn.Parameter(3 + 0.5 * torch.randn(20_000, generator=generator))
    net.uniform = nn.Parameter(2 * torch.rand(20_000, generator=generator) - 1)
    net.constant = nn.Parameter(torch.full((7,), 4.0))
    world = ls.World.of(net, ls.Trajectory.of(final=ls.state_of(net)), {})
    part = ls.Part("all", tuple(map(ls.Slice, ("normal", "uniform", "constant"))))
    drawn = {where.tensor: values for where, values in Moments().patch(part, world, 0).slices.items()}
    assert drawn["normal"].mean().item() == pytest.approx(3, abs=6 * 0.5 / math.sqrt(20_000))
    assert drawn["normal"].std().item() == pytest.approx(0.5, rel=0.05)
    assert drawn["uniform"].abs().max() <= 1.001
    assert drawn["uniform"].square().mean().item() == pytest.approx(1 / 3, rel=0.05)
    assert (drawn["constant"] == 4).all()
    assert not torch.equal(drawn["normal"], net.normal)


@pytest.mark.parametrize("what", [Permute(), Moments()])
def test_spectral_norm_follows_the_weight(what):
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)))
    part = ls.Part("all", tuple(ls.Slice(name) for name in net.state_dict()))
    made = ls.materialize(net, ls.Trajectory.of(final=ls.state_of(net)), ls.Variant.of(part, what, buffers="keep"))
    values = {name.rsplit(".", 1)[-1]: tensor.double().numpy() for name, tensor in made.state_dict().items()}
    sigma = np.linalg.svd(values["original"], compute_uv=False)[0]
    assert values["_u"] @ values["original"] @ values["_v"] == pytest.approx(sigma, rel=1e-5)
    made.eval()
    assert np.linalg.norm(made[0].weight.detach().numpy(), 2) == pytest.approx(1, rel=1e-5)


def own() -> nn.Module:
    """A network whose first map is of a kind that nobody knows a law of."""

    class Mine(nn.Linear):
        pass

    torch.manual_seed(0)
    return nn.Sequential(Mine(2, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize(("redraw", "kind"), [("permutation", "permute"), ("moments", "moments")])
def test_without_a_law_trained_values_give_random_ones(redraw, kind):
    net, data = own(), [(torch.randn(64, 2), torch.randint(2, (64,)))]
    trajectory = ls.Trajectory.of(final=ls.state_of(net))
    lawless = one(ls.robustness(net, trajectory, data), part="0", perturbation="rerandomize")
    assert lawless["reason"].endswith("or draw from the trained values: redraw permutation or moments")
    tables = {
        engine: ls.robustness(
            net, trajectory, data, ls.RobustnessSpec(draws=3, redraw=redraw), plan=ls.Plan(engine=engine)
        )
        for engine in ("replay", "reference")
    }
    table = tables["replay"]
    rows = table.where(part="0", perturbation=kind, metric="error")
    assert rows["draw"].dropna().tolist() == [0, 1, 2]
    assert (
        rows["value"].tolist()
        == tables["reference"].where(part="0", perturbation=kind, metric="error")["value"].tolist()
    )
    (by_hand,) = [
        ls.evaluate(net, trajectory, [ls.Variant.from_dict(table.variants[v])], data)
        .where(metric="error")["value"]
        .item()
        for v in rows["variant"].tolist()[:1]
    ]
    assert by_hand == rows["value"].tolist()[0]
    assert set(table.provenance["laws"]) == (set() if redraw == "permutation" else set(net.state_dict()))
    moved = table.where(part="0", perturbation=kind, metric="distance_l2", to="substituted")
    assert (moved["value"] > 0).all()


def test_what_a_permutation_cannot_change_is_said():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2))
    table = ls.robustness(
        net,
        ls.Trajectory.of(final=ls.state_of(net)),
        [(torch.randn(8, 1), torch.randint(2, (8,)))],
        ls.RobustnessSpec(redraw="permutation"),
    )
    row = one(table, part="0", perturbation="permute")
    assert (row["status"], row["reason"][:45]) == ("not applicable", "in each of its tensors the trained values are")
    assert len(table.where(part="1", perturbation="permute", metric="error")) == 6


def test_laws_are_for_the_initial_law_alone():
    net, _, data = fine_tuned()
    trajectory = ls.Trajectory.of(final=ls.state_of(net))
    with pytest.raises(UseError, match="laws= are for redraw='law'"):
        ls.robustness(net, trajectory, data, ls.RobustnessSpec(redraw="moments"), laws=laws_of(net))
    with pytest.raises(UseError, match=r"way to re-randomise 'permute'; did you mean permutation"):
        ls.RobustnessSpec(redraw="permute")


# What each cannot answer


@pytest.mark.parametrize(
    ("asked", "name", "cannot"),
    [
        ({"steps": [0, 1, 2], "start": True, "redraw": "law"}, "full trajectory", ["What another training"]),
        ({"steps": [0, 2], "start": True, "redraw": "law"}, "start and end", ["When in training"]),
        (
            {"steps": [0, 1], "start": True, "pretrained": True, "redraw": "permutation"},
            "pretrained and fine-tuned",
            ["Which layers the network needs at all", "When in fine-tuning", "What the initial law would do"],
        ),
        ({"steps": [0, 1, 2], "start": True, "pretrained": True}, "pretrained and fine-tuned", ["Which layers the"]),
        ({"steps": [1, 2], "start": False, "redraw": "law"}, "checkpoints without the start", ["How far", "When in", "Whether"]),
        (
            {"steps": [], "start": False, "redraw": "moments"},
            "trained network alone",
            ["How far layers moved", "When in training", "What the initial law would do"],
        ),
    ],
)  # fmt: skip
def test_the_tiers(asked, name, cannot):
    found = tier_of(**asked)
    assert found.name == name
    assert len(found.cannot) == len(cannot)
    assert all(sentence.startswith(begin) for sentence, begin in zip(found.cannot, cannot, strict=True))


# On the command line

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return self.head(self.body(x))

def net():
    return Net()

x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
data = [(x.repeat(100, 1), torch.tensor([0, 1, 0]).repeat(100))]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with somebody's code, and checkpoints of every kind."""
    folder = tmp_path_factory.mktemp("tiered")
    (folder / "tiered.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    net, pretrained, _ = fine_tuned()
    save_file(pretrained, folder / "base.safetensors")
    save_file(ls.state_of(net), folder / "tuned.safetensors")
    save_file({name: 0.5 * tensor for name, tensor in ls.state_of(net).items()}, folder / "half.safetensors")
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["tiered"]


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


def text_of(page: Path) -> str:
    """The words of a report."""
    plain = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(plain).split())


FILES = {
    "full": ["init=half.safetensors", "epoch-1=half.safetensors", "final=tuned.safetensors"],
    "ends": ["init=half.safetensors", "final=tuned.safetensors"],
    "tuned": ["pretrained=base.safetensors", "final=tuned.safetensors"],
    "late": ["epoch-1=half.safetensors", "final=tuned.safetensors"],
    "alone": ["tuned.safetensors"],
}
TIERS = {
    "full": ("full trajectory", "Cannot say: what another training would give"),
    "ends": ("start and end", "Cannot say: when in training a layer became critical"),
    "tuned": ("pretrained and fine-tuned", "Cannot say: which layers the network needs at all"),
    "late": ("checkpoints without the start", "Cannot say: how far layers moved from their start"),
    "alone": ("trained network alone", "Cannot say: how far layers moved from their start"),
}


@pytest.mark.parametrize("tier", FILES)
def test_every_tier_on_the_command_line(here, capsys, tier):
    asked = ["analyze", "--model", "tiered:net", "--data", "tiered:data", "--checkpoints", *FILES[tier]]
    asked += ["--draws", "2", "--out", f"runs/{tier}"]
    assert main(asked) == 0
    shown, (name, cannot) = capsys.readouterr().out, TIERS[tier]
    assert f"There was: {name}." in shown
    assert cannot in shown
    said = text_of(here / "runs" / tier / "report.html")
    assert "What these inputs cannot answer" in said
    assert f"There was: {name}." in said
    assert cannot.removeprefix("Cannot say: ")[1:] in said
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tier"]["name"] == name


def test_the_report_of_a_fine_tuned_network(here):
    """Every place that otherwise speaks of a start."""
    said = text_of(here / "runs/tuned/report.html")
    for phrase in (
        "put back to its values of 2 checkpoints, the first of them the pretrained network",
        "Of 1 layer put back to pretrained one at a time, 1 destroys the network",
        "Put back to pretrained",
        "Distance from pretrained, 2-norm",
        "from their pretrained values",
        "The first checkpoint is the pretrained network.",
        "put back to its pretrained values, not taken out",
        "The pretrained network has tensors that this one does not have: aux.weight",
        "not applicable: its own tensors ([3, 2] there) had another shape in the pretrained network",
    ):
        assert phrase in said, phrase
    for phrase in ("its start", "the start", "before training", "random start"):
        assert phrase not in said, phrase


@pytest.mark.parametrize(
    ("redraw", "asked", "head"),
    [
        ("permutation", "given its own trained values in random order in 2 draws", "Permuted (2 draws)"),
        (
            "moments",
            "drawn afresh from laws with the moments of its trained values in 2 draws",
            "Re-randomised (2 draws)",
        ),
    ],
)
def test_the_report_says_where_random_values_came_from(here, capsys, redraw, asked, head):
    out = ["--out", "runs/alone", "--name", redraw]
    model = ["--model", "tiered:net", "--data", "tiered:data", "--checkpoints", "tuned.safetensors"]
    assert main(["analyze", *model, "--draws", "2", "--redraw", redraw, *out]) == 0
    shown = capsys.readouterr().out
    assert ("per-" if redraw == "permutation" else "re-ran-") in shown
    sources = ("Permuted: mean of 2 draws.", "mean of 2 draws, from laws with the moments of the trained values.")
    assert any(text in " ".join(shown.split()) for text in sources)
    said = text_of(here / "runs/alone/report.html")
    assert asked in said
    assert head in said
    table = Run.open("runs/alone").analysis(redraw)
    variant = next(v for v in table.where(part="body", draw=1)["variant"] if v)
    assert main(["materialize", "runs/alone", "--variant", variant, "--out", str(here / f"{redraw}.safetensors")]) == 0
    kept, eye = load_file(here / f"{redraw}.safetensors"), torch.eye(2)
    assert torch.equal(kept["head.weight"], eye)
    if redraw == "permutation":
        assert kept["body.weight"].sum() == 2


def test_a_tensor_that_a_checkpoint_lacks_is_an_error_as_before(here, capsys):
    model = ["analyze", "--model", "tiered:net", "--data", "tiered:data", "--out", "runs/never"]
    line = refused(capsys, *model, "--checkpoints", "init=base.safetensors", "final=tuned.safetensors")
    assert "does not fit the model: aux.weight is not in the model; head.weight has shape [3, 2]" in line
    line = refused(capsys, *model, "--checkpoints", "init=half.safetensors", "pretrained=base.safetensors")
    assert "are both said to be the checkpoint init" in line


# No data


def test_norms_by_hand():
    rows = norms({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]]), "counts": torch.tensor([7])})
    assert [(row["metric"], row["value"], row["n"]) for row in rows] == [
        ("norm_frobenius", 5.0, 3),
        ("norm_rms", 5 / math.sqrt(3), 3),
    ]
    (largest, _) = norms({"c": torch.tensor([3 + 4j])})
    assert (largest["value"], largest["n"]) == (5.0, 2)
    assert all(math.isnan(row["value"]) for row in norms({}))


def spectra(tensor: torch.Tensor) -> list[float]:
    return [row.get("value", math.nan) for row in spectrum(tensor)]


def test_spectra_by_hand():
    """diag(3, 4): stable rank 25/16; shares 3/7 and 4/7. Equal values: both ranks are their number. One value: both are 1."""
    entropy = -(3 / 7) * math.log(3 / 7) - (4 / 7) * math.log(4 / 7)
    assert spectra(torch.diag(torch.tensor([3.0, -4.0]))) == pytest.approx([4, 25 / 16, math.exp(entropy)])
    assert spectra(2 * torch.eye(5)[:3]) == pytest.approx([2, 3, 3])
    assert spectra(torch.ones(4, 9)) == pytest.approx([6, 1, 1])
    assert spectra(torch.ones(4)) == []
    assert spectra(torch.ones(2, 2, dtype=torch.long)) == []
    zero = spectrum(torch.zeros(2, 2))
    assert [(row["status"], row.get("value")) for row in zero] == [("ok", 0.0), *[("not applicable", None)] * 2]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16))
def test_a_convolution_is_the_matrix_of_its_outputs(outputs, inputs, seed):
    """Against numpy, and scaled: only the largest follows."""
    weight = torch.randn(outputs, inputs, 3, 2, generator=torch.Generator().manual_seed(seed))
    values = np.linalg.svd(weight.double().numpy().reshape(outputs, -1), compute_uv=False)
    share = values / values.sum()
    expected = [values[0], (values**2).sum() / values[0] ** 2, np.exp(-(share * np.log(share)).sum())]
    assert spectra(weight) == pytest.approx(expected)
    assert spectra(2 * weight) == pytest.approx([2 * expected[0], *expected[1:]])
    assert all(1 - 1e-9 <= rank <= min(outputs, 6 * inputs) + 1e-9 for rank in expected[1:])


def test_values_alone():
    net, pretrained, _ = fine_tuned()
    trajectory = ls.Trajectory.of(pretrained=pretrained, step_5=ls.state_of(net), step_9=ls.state_of(net))
    table = ls.weights(net, trajectory)
    assert one(table, part="body", step=9, metric="distance_l2", to="start")["value"] == 1.0
    assert one(table, part="body", step=0, metric="norm_frobenius")["value"] == pytest.approx(math.sqrt(2))
    assert one(table, part="head", step=0, metric="norm_rms")["status"] == "not applicable"
    assert set(table.where(part="head", to="start")["status"]) == {"not applicable"}
    assert one(table, tensor="head.weight", step=9, metric="spectrum_stable_rank")["value"] == pytest.approx(2)
    assert set(table.where(tensor="body.weight")["step"]) == {0, 9}  # spectra of the ends alone
    assert set(table.where(tensor="head.weight")["step"]) == {9}
    assert table.provenance["tier"]["cannot"][0].startswith("Which layers matter")
    alone = ls.weights(net, ls.Trajectory.of(final=ls.state_of(net)), ls.WeightsSpec(groups=("all=*",)))
    assert alone.parts() == ["all"]
    assert "to" not in alone.frame
    assert alone.provenance["tier"]["cannot"][-1].startswith("How far layers moved")


def test_buffers_and_tied_tensors_do_not_count_twice():
    net = Packed()
    table = ls.weights(net, ls.Trajectory.of(final=ls.state_of(net)))
    embed = next(name for name in table.parts() if "embed" in name)
    tied = net.embed.weight.detach().square().sum()  # under two names
    tied += net.out.bias.detach().square().sum() * ("out.bias" in ls.Partition.by_layer(net)[embed].tensors)
    assert one(table, part=embed, metric="norm_frobenius")["value"] == pytest.approx(math.sqrt(tied), rel=1e-6)
    assert one(table, part="norm", metric="norm_rms")["n"] == 8  # weight and bias


def test_values_alone_on_the_command_line(here, capsys):
    asked = ["analyze", "--model", "tiered:net", "--checkpoints", *FILES["tuned"], "--out", "runs/values"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "There was: no data." in shown
    assert "Cannot say: which layers matter: that takes data" in shown
    assert "not the norm of the map from image to image" in " ".join(shown.split())
    body = next(line for line in shown.splitlines() if line.strip().startswith("body "))
    assert body.split() == ["body", "4", "0.707", "0.707", "1.00", "1.00"]
    said = text_of(here / "runs/values/report.html")
    for phrase in (
        "values: how far layers moved",
        "What the values alone say",
        "Norm of the values, root mean square",
        "Distance from pretrained, 2-norm",
        "It cannot say: Which layers matter",
        "head, pretrained : not applicable",
    ):
        assert phrase in said, phrase
    assert "Ambient" not in said
    assert main([*asked, "--json"]) == 0  # read, not computed again
    found = json.loads(capsys.readouterr().out)
    (moved,) = [
        r["value"] for r in found["weights"] if (r["part"], r["metric"], r["step"]) == ("body", "distance_l2", 1)
    ]
    assert moved == 1.0
    assert main(["analyze", "--model", "tiered:net"]) == 0  # the values that the model comes with
    assert (here / "runs/tiered-net-weights/report.html").exists()


@pytest.mark.parametrize(
    "more",
    [["--draws", "3"], ["--fail-if", "delta>0"], ["--dry-run"], ["--forward", "tiered:net"], ["--redraw", "moments"]],
)
def test_what_takes_data_is_refused_without(here, capsys, more):
    assert f"{more[0]} needs --data too" in refused(capsys, "analyze", "--model", "tiered:net", *more)


def test_a_run_without_data_cannot_be_analysed_further(here, capsys):
    assert main(["analyze", "--model", "tiered:net", "--out", "runs/bare"]) == 0
    capsys.readouterr()
    told = "was made without data, and to change layers takes some; that needs a folder of its own: layerscope analyze --model"
    for command in (
        ["analyze"],
        ["analyze", "--dry-run"],
        ["bench"],
        *(["materialize", "--out", "x.safetensors", *more] for more in (["--part", "body"], ["--variant", "abc"])),
    ):
        assert told in refused(capsys, command[0], "runs/bare", *command[1:])
    line = refused(capsys, "analyze", "runs/bare", "--data", "tiered:data")
    words = shlex.split(line.partition("layerscope analyze ")[2])
    assert words[-2:] == ["--out", "runs/bare-data"]
    assert main(["analyze", *words]) == 0  # the command that is told works


def test_a_recording_without_data_has_values_that_can_be_looked_at(here, capsys):
    net = fine_tuned()[0]
    with ls.Recorder("runs/recorded", net), torch.no_grad():
        net.head.weight.add_(1)
    line = refused(capsys, "analyze", "runs/recorded", "--model", "tiered:net")
    assert (
        "add --data package.module:NAME; it is kept. Without data, its values alone can be looked at: layerscope"
        in line
    )
    assert main(["analyze", *shlex.split(line.partition("at: layerscope analyze ")[2])]) == 0
    assert "Norm of the values" in text_of(here / "runs/recorded-weights/report.html")


@pytest.mark.parametrize("analysis", [lambda m, t: ls.weights(m, t), lambda m, t: ls.robustness(m, t, [])])
def test_a_start_alone_is_not_taken_for_the_trained_network(analysis):
    model = torch.nn.Linear(3, 2)
    with pytest.raises(UseError, match="the trained network is missing"):
        analysis(model, ls.Trajectory.of(initial=ls.state_of(model)))
