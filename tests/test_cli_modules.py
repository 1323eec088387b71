"""The commands for modules and whole networks: each makes its analysis, its figures and its section of the report."""

import html
import importlib
import json
import shutil
import sys

import pandas as pd
import pytest

from layerscope import plots
from layerscope.analyses.contest import settings
from layerscope.analyses.material import material_of
from layerscope.analyses.pair import pair_of
from layerscope.analyses.session import analyze
from layerscope.analyses.similarity import cka
from layerscope.analyses.spec import (
    BoundsSpec,
    CkaSpec,
    CompareSpec,
    CriticalitySpec,
    LandscapeSpec,
    MeasuresSpec,
    RobustnessSpec,
    SimilaritySpec,
    SpectraSpec,
)
from layerscope.cli import main
from layerscope.console import listings_tables, print_table
from layerscope.data import load
from layerscope.entry import COMMANDS
from layerscope.errors import UseError
from layerscope.models import build
from layerscope.plots.kinds import KINDS
from layerscope.plots.weights import Listing
from layerscope.run import Run
from layerscope.step import FINAL, INIT
from layerscope.store import Folder
from layerscope.studies.session import VERDICTS
from layerscope.table import Table
from layerscope.trajectory import Trajectory

ASKED = {
    "criticality": ["--eps", "0.1", "0.3", "--most", "16"],
    "landscape": ["--alphas", "0", "1"],
    "spectra": ["--steps", "1"],
    "similarity": ["--n", "64", "--steps", "1"],
    "cka": ["--with", "{runs}/w6", "--n", "64", "--name", "cka"],
    "measures": ["--most", "16", "--samples", "200"],
    "bounds": ["--most", "16", "--draws", "20"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    common = ["--data", "digits", "--epochs", "8", "--lr", "0.05", "--checkpoints", "1"]
    for width in (6, 12, 24):
        assert main(["train", "--model", f"fcn-1x{width}", *common, "--out", str(folder / f"w{width}")]) == 0
    return folder


@pytest.mark.parametrize("name", ASKED)
def test_a_command_makes_its_analysis(name, runs, capsys):
    path = runs / "w12"
    asked = [word.format(runs=runs) for word in ASKED[name]]
    assert main([name, str(path), *asked]) == 0
    said = capsys.readouterr().out
    run = Run.open(path)
    table = run.analysis(name)
    assert run.analysis_spec(name)["kind"] == name
    assert table.provenance["spec"]["kind"] == name
    for sentence in KINDS[name].sentences(table):
        assert sentence in said
    assert list((path / "figures").glob(f"{name}-*.png"))
    page = (path / "report.html").read_text()
    assert f'id="{name}-shown"' in page
    assert KINDS[name].question in page.replace("&#39;", "'")
    assert "data:image/" in page
    plain = html.unescape(page)
    made = Table(table.frame, {key: fact for key, fact in table.provenance.items() if key != "spec_kind"})
    drawn = plots.figures(made)  # what Python made has the spec alone
    assert {file.stem.removeprefix(f"{name}-") for file in (path / "figures").glob(f"{name}-*.png")} == set(drawn)
    assert getattr(plots, KINDS[name].module).sentences(table) == KINDS[name].sentences(table)
    for figure in drawn:
        assert f"<strong>How to read it.</strong> {KINDS[name].reading(figure)}" in plain
    before = (path / "analyses" / f"{name}.parquet").stat().st_mtime_ns
    assert main([name, str(path), *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == len(table)
    assert (path / "analyses" / f"{name}.parquet").stat().st_mtime_ns == before  # read, not made again


def loaded(run, step=FINAL):
    """The network of a run."""
    data = load("digits")
    model = build(run.spec["model"], data.input_shape, data.classes)
    model.load_state_dict(Trajectory.open(run.checkpoints.path)[step])
    return model


def test_the_layers_of_two_runs_are_compared(runs, capsys):
    a, b = Run.open(runs / "w24"), Run.open(runs / "w12")
    assert main(["cka", str(a.path), "--with", str(b.path), "--step-with", "init", "--kernel", "rbf", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    table, test = a.analysis("cka-w12"), load("digits").test.batches()
    expected = cka(loaded(a), loaded(b, INIT), test, kernel="rbf").frame
    assert list(table.frame["value"]) == list(expected["value"])
    assert [row["value"] for row in found["rows"]] == list(expected["value"])
    assert set(table.frame["n"]) == {360}
    assert set(table.frame["split"]) == {"test"}
    assert table.provenance["layers"] == table.provenance["layers_b"] == ["layer1", "layer2"]
    assert [network["run"] for network in table.provenance["networks"]] == ["w24", "w12"]
    assert [network["model"] for network in table.provenance["networks"]] == ["fcn-1x24", "fcn-1x12"]
    assert table.provenance["steps"] == ["", "init"]
    assert "w24" in found["found"][1]
    assert "w12 at init: layer1 → layer" in found["found"][1]
    page = (a.path / "report.html").read_text()
    assert "Similarity of two networks: cka-w12" in page
    assert 'id="cka-w12-shown"' in page
    assert "networks" in json.dumps(a.provenance["analysis cka-w12"])


def test_a_run_with_itself(runs, capsys):
    path = str(runs / "w6")
    assert main(["cka", path, "--with", path]) == 0
    assert "compared with those of 2 layers of itself" in capsys.readouterr().out
    values = Run.open(path).analysis("cka-w6").frame.set_index(["layer", "layer_b"])["value"]
    assert values["layer1", "layer1"] == values["layer2", "layer2"] == 1
    assert main(["cka", path, "--with", path, "--layers", "layer2", "--layers-with", "layer1", "--name", "one"]) == 0
    assert len(Run.open(path).analysis("one")) == 1


def test_another_network_in_the_same_folder_is_another_analysis(runs, tmp_path, capsys):
    other = [str(tmp_path / "one" / "same"), str(tmp_path / "two" / "same")]
    for seed, path in enumerate(other):
        assert main(["train", "--model", "fcn-1x6", "--epochs", "1", "--seed", str(seed), "--out", path]) == 0
    assert main(["cka", str(runs / "w24"), "--with", other[0]]) == 0
    assert main(["cka", str(runs / "w24"), "--with", other[1]]) == 2
    assert "has an analysis 'cka-same' of another spec or inputs (inputs:" in capsys.readouterr().err
    assert main(["cka", other[0], "--with", other[1]]) == 0
    assert f"most similar one of {other[1]}: layer1" in capsys.readouterr().out  # both are called the same


def test_networks_for_other_inputs_are_refused(runs, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["train", "--model", "fcn-1x6", "--data", "teacher:5", "--epochs", "1", "--out", str(other)]) == 0
    assert main(["cka", str(runs / "w24"), "--with", str(other)]) == 2
    said = capsys.readouterr().err
    assert f"the network of {other} is for inputs of shape [5], and the test data of {runs / 'w24'} are" in said
    assert "of shape [1, 8, 8]" in said
    assert main(["cka", str(runs / "w24"), "--with", str(tmp_path / "nowhere")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert main(["cka", str(runs / "w24"), "--with", str(runs / "w12"), "--step", "epoch-77", "--name", "x"]) == 2
    assert "no checkpoint at epoch-00077" in capsys.readouterr().err
    with pytest.raises(UseError, match="layerscope cka RUN --with OTHER_RUN"):
        analyze(Run.open(runs / "w24"), CkaSpec(), name="x")
    assert "x" not in Run.open(runs / "w24").analyses()


@pytest.mark.parametrize("debiased", ["--debiased", "--no-debiased"])
def test_what_a_comparison_would_take(debiased, runs, capsys):
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("*")}
    words = ["cka", str(runs / "w24"), "--with", str(runs / "w12"), "--name", "new", debiased, "--dry-run", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["layers"], found["layers_with"], found["forwards"]) == (2, 2, 2 * 360)
    assert 0 <= found["seconds"] < 60
    assert found["memory_bytes"] > 8 * (360 if debiased == "--no-debiased" else 128) ** 2 * 4
    assert {file: file.stat().st_mtime_ns for file in runs.rglob("*")} == before


def test_a_comparison_goes_on_where_it_was_stopped(runs, tmp_path):
    a, b = Run(tmp_path / "a"), Run.open(runs / "w24")
    shutil.copytree(runs / "w12", a.path)
    pair = pair_of(a, material_of(a, RobustnessSpec()), b)
    told: list[int] = []

    def stop(_what: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    expected = analyze(a, CkaSpec(), name="whole", material=pair)
    with pytest.raises(KeyboardInterrupt):
        analyze(a, CkaSpec(), name="again", material=pair, progress=stop)
    found = analyze(a, CkaSpec(), name="again", material=pair, progress=lambda _what, done, _total: told.append(done))
    assert told == [2, 3]
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    assert found.provenance["layers"] == expected.provenance["layers"]


def test_another_setting_needs_another_name(runs, capsys):
    assert main(["similarity", str(runs / "w12"), *ASKED["similarity"]]) == 0
    assert main(["similarity", str(runs / "w12"), "--n", "65"]) == 2
    assert "choose another --name" in capsys.readouterr().err
    assert main(["similarity", str(runs / "w12"), "--n", "65", "--steps", "1", "--name", "more"]) == 0
    assert 'id="more-shown"' in (runs / "w12" / "report.html").read_text()


def test_the_contest_of_runs(runs, tmp_path, capsys):
    few = ["--which", "log_pfn", "distance_squared", "parameters"]
    paths = [str(runs / f"w{width}") for width in (6, 12, 24)]
    assert main(["compare", *paths, "--out", str(runs / "contest"), "--name", "cheap", *few]) == 0
    assert "3 networks were ranked" in capsys.readouterr().out
    table = Run.open(runs / "contest").analysis("compare")
    assert set(table.where(metric="tau")["measure"]) == {"log_pfn", "distance_squared", "parameters"}
    assert table.provenance["hyper"]["w6"] == {"model": "fcn-1x6"}
    page = (runs / "contest" / "report.html").read_text()
    assert "The contest of measures" in page
    assert "There is no finished analysis" not in page

    beside = [str(runs / "contest"), str(tmp_path / "fig1-smoke")]
    Folder(tmp_path / "fig1-smoke").write_json(VERDICTS, {})
    assert main(["compare", *paths, *beside, "--out", str(runs / "contest"), "--name", "cheap", *few]) == 0
    said = capsys.readouterr()
    assert "3 networks were ranked" in said.out
    assert f"left out: {runs / 'contest'} is a comparison" in said.err
    assert f"left out: {tmp_path / 'fig1-smoke'} is a reproduction" in said.err
    assert main(["compare", *paths, str(tmp_path), "--name", "cheap", *few]) == 2
    assert f"{tmp_path} is not a run" in capsys.readouterr().err


def test_label_noise_is_told_by_measures_and_by_the_contest(runs, tmp_path, capsys):
    few = ["--which", "log_pfn", "criticality", "--most", "16"]
    shorter = ["--data", "digits?random=0.5", "--epochs", "2", "--lr", "0.05", "--checkpoints", "1"]
    assert main(["train", "--model", "fcn-1x6", *shorter, "--out", str(tmp_path / "noisy")]) == 0
    capsys.readouterr()
    assert main(["measures", str(tmp_path / "noisy"), *few]) == 0
    said = "training labels were changed at random, and no test label was"
    seen = capsys.readouterr()
    assert said in seen.err
    assert "That gap is clean test error less the error on noisy labels" in seen.out
    assert said in (tmp_path / "noisy" / "report.html").read_text()
    paths = [str(tmp_path / "noisy"), *(str(runs / f"w{width}") for width in (12, 24))]
    given = ["--out", str(tmp_path / "contest"), "--name", "noise", *few]
    assert main(["compare", *paths, *given]) == 0
    page = (tmp_path / "contest" / "report.html").read_text()
    seen = capsys.readouterr()
    for said in (
        "1 of 3 networks were trained with label noise (noisy), and test labels have none",
        "1 of 3 networks have a training error above the eps of criticality (noisy)",
    ):
        assert f"warning: {said}" in seen.err
        assert said in page
    assert "networks have a training error above eps, where this measure means little" in seen.out


@pytest.mark.parametrize(
    ("few", "wrong", "said"),
    [
        (3, ["--target", "gap"], "unknown target 'gap'"),
        (3, ["--measures", "log_pfm"], "unknown measure 'log_pfm'; did you mean log_pfn"),
        (3, ["--which", "log_pfn", "--measures", "parameters"], "unknown measure 'parameters'; known: log_pfn"),
        (3, ["--against", "criticalitty"], "unknown measure 'criticalitty'; did you mean criticality"),
        (2, [], "at least 3 are needed"),
    ],
)
def test_what_cannot_be_compared_is_not_measured_first(few, wrong, said, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("layerscope.analyses.contest.analyze", None)
    paths = [str(runs / f"w{width}") for width in (6, 12, 24)][:few]
    assert main(["compare", *paths, "--out", str(tmp_path / "none"), *wrong]) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_network_is_refused(runs, tmp_path, capsys):
    for name in ASKED:
        assert main([name, *(["--with", str(runs / "w6")] if name == "cka" else [])]) == 2
        assert "say what to look at: RUN, the folder of a run, or your own model" in capsys.readouterr().err
    assert main(["criticality", str(tmp_path / "nowhere")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    with Run(tmp_path / "contest").claim(CompareSpec()):
        assert main(["criticality", str(tmp_path / "contest")]) == 2
    assert "has no network: it holds a compare" in capsys.readouterr().err


ROW = ["a layer of a long name", "1.313e+04 (1.2e+04 to 1.4e+04)", "-1.95 to 1.95"]


@pytest.mark.parametrize("heads", [["layer", "x", "y"], ["layer", "a head that is longer than its numbers are", "y"]])
def test_no_cell_is_broken_in_a_pipe(heads, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    print_table(listings_tables([Listing("What it is, in words.", heads, [ROW])]))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in lines[-2] if cell.strip()] == ROW
    assert [cell.strip() for line in lines for cell in line if cell.strip() in heads] == heads


def test_settings_are_those_that_decide_a_network(runs):
    found = settings(Run.open(runs / "w6"))
    assert (found["model"], found["data"], found["lr"]) == ("fcn-1x6", "digits", 0.05)
    assert not {"checkpoints", "fingerprint", "kind"} & set(found)


def test_a_model_of_ones_own(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_for_modules.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))\n"
        "def data():\n    torch.manual_seed(1)\n    x = torch.randn(64, 4)\n    some = [(x, (x[:, 0] > 0).long())]\n"
        "    return {'train': some, 'test': some}\n"
        "def only():\n    return data()['test']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    mine = ["--model", "mine_for_modules:net", "--data", "mine_for_modules:data"]
    assert main(["measures", *mine, "--which", "log_pfn", "parameters", "distance_squared", "--json"]) == 0
    rows = {(row["part"], row["metric"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["whole network", "parameters"]["value"] == 58
    assert rows["whole network", "distance_squared"]["status"] == "not applicable"
    with_a_run = ["cka", *mine, "--with", str(runs / "w6")]
    assert main([*with_a_run, "--out", "runs/cka"]) == 2
    assert "is for inputs of shape [1, 8, 8], and the test data of runs/cka are of shape [4]" in capsys.readouterr().err
    assert main(["cka", *mine, "--out", "runs/cka", "--with", "runs/mine_for_modules-net", "--dry-run"]) == 0
    assert main(["cka", *mine, "--out", "runs/cka", "--with", "runs/mine_for_modules-net"]) == 0
    assert "2 layers of cka are compared with those of 2 layers of mine_for_modules-net" in capsys.readouterr().out
    for name in ("criticality", "bounds", "landscape", "similarity"):
        assert main([name, *mine, "--out", f"runs/{name}"]) == 2
        assert "--checkpoints init=FILE" in capsys.readouterr().err
    assert (
        main(["bounds", "--model", "mine_for_modules:net", "--data", "mine_for_modules:only", "--out", "runs/b"]) == 2
    )
    assert "training data" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(KINDS))
def test_readings_are_whole_sentences(name):
    readings = importlib.import_module(f"layerscope.plots.{KINDS[name].module}").READING
    assert all(text.endswith(".") and "  " not in text for text in readings.values())
    with pytest.raises(ValueError, match="empty"):
        KINDS[name].reading("a figure that nobody knows")


def test_every_kind_has_its_command():
    assert set(ASKED) | {"compare"} == set(KINDS)
    assert set(KINDS) <= set(COMMANDS)


@pytest.mark.parametrize(
    "spec",
    [
        BoundsSpec(eps=(0.3, 0.5), most=16, draws=20),
        CriticalitySpec(eps=(0.1, 0.3), most=16),
        LandscapeSpec(alphas=(0.0, 0.5, 1.0), sigmas=(0.1,), draws=2),
        MeasuresSpec(most=16, samples=200),
        SimilaritySpec(n=64, steps=()),
        SpectraSpec(),
    ],
    ids=lambda spec: spec.KIND,
)
def test_what_was_stopped_goes_on(spec, runs, tmp_path):
    """From the last unit, however short a time ago it was done."""
    run = Run(tmp_path / "stopped")
    shutil.copytree(runs / "w12", run.path)
    whole: list[tuple[str, int]] = []
    again: list[tuple[str, int]] = []

    def stop(_what: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    expected = analyze(run, spec, name="whole", progress=lambda what, done, _total: whole.append((what, done))).frame
    with pytest.raises(KeyboardInterrupt):
        analyze(run, spec, name="again", progress=stop)
    found = analyze(run, spec, name="again", progress=lambda what, done, _total: again.append((what, done))).frame
    assert again == whole[1:]  # one unit was there
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(("data", "said"), [("digits", False), ("digits?random=0.2", True)])
def test_bounds_say_that_labels_of_training_and_test_differ(data, said, tmp_path, capsys):
    words = ["--model", "fcn-1x6", "--data", data, "--epochs", "2", "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 0
    assert main(["bounds", str(tmp_path / "run"), "--eps", "0.9", "--most", "8", "--draws", "8"]) == 0
    assert ("training labels were changed at random" in capsys.readouterr().err) is said
    assert ("training labels were changed at random" in (tmp_path / "run" / "report.html").read_text()) is said
