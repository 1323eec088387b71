"""The commands for modules and whole networks: each makes its analysis, its figures and its section of the report."""

import html
import importlib
import json
import shutil
import sys

import pandas as pd
import pytest

from layerscope.analyses.contest import settings
from layerscope.analyses.session import analyze
from layerscope.analyses.spec import (
    BoundsSpec,
    CompareSpec,
    CriticalitySpec,
    LandscapeSpec,
    MeasuresSpec,
    SimilaritySpec,
    SpectraSpec,
)
from layerscope.cli import main
from layerscope.console import listings_tables, print_table
from layerscope.entry import COMMANDS
from layerscope.plots.kinds import KINDS
from layerscope.plots.weights import Listing
from layerscope.run import Run
from layerscope.store import Folder
from layerscope.studies.session import VERDICTS

ASKED = {
    "criticality": ["--eps", "0.1", "0.3", "--most", "16"],
    "landscape": ["--alphas", "0", "1"],
    "spectra": ["--steps", "1"],
    "similarity": ["--n", "64", "--steps", "1"],
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
    assert main([name, str(path), *ASKED[name]]) == 0
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
    for figure in KINDS[name].figures(table):
        assert f"<strong>How to read it.</strong> {KINDS[name].reading(figure)}" in plain
    before = (path / "analyses" / f"{name}.parquet").stat().st_mtime_ns
    assert main([name, str(path), *ASKED[name], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == len(table)
    assert (path / "analyses" / f"{name}.parquet").stat().st_mtime_ns == before  # read, not made again


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
        assert main([name]) == 2
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


def test_a_model_of_ones_own(tmp_path, monkeypatch, capsys):
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
