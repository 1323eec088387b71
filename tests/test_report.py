"""The report says what the run's files say: on run folders written by hand, without training."""

import html
import itertools
import math
import re
import runpy
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from layerscope import report
from layerscope.analyses.spec import ModelSpec, RobustnessSpec
from layerscope.plots.grid import RANDOM, WHOLE, changed, layer_grid
from layerscope.report.captions import caption
from layerscope.report.findings import found
from layerscope.run import Run
from layerscope.table import Table
from layerscope.training.spec import TrainSpec

MADE = runpy.run_path(str(Path(__file__).with_name("test_plots.py")))  # the tables made by hand there
made_table, made_training, with_row, failed = (
    MADE[name] for name in ("made_table", "made_training", "with_row", "failed")
)
foreign_table, failed_part, transformer = (MADE[name] for name in ("foreign_table", "failed_part", "transformer"))
HOSTILE = MADE["HOSTILE"]
FACTS = {
    "time": "2026-01-01T00:00:00+00:00",
    "torch": "2.13",
    "device": "cpu",
    "threads": 2,
    "data": MADE["ABOUT"]["data"],
}


def write_run(folder: Path, table: Table | None, training: Table | None = None, **spec: Any) -> Run:
    """A run folder as `train` and `analyze` leave it."""
    run, asked = Run(folder), TrainSpec(**spec)
    with run.claim(asked):
        if training is not None:
            run.folder.write("training.parquet", training.save)
            run.record("training", FACTS)
        if table is not None:
            run.save_analysis("robustness", table, RobustnessSpec(draws=2))
            run.record("analysis robustness", FACTS)
    return run


def write_foreign(folder: Path, table: Table | None, **spec: Any) -> Run:
    """A run folder as the analysis of somebody's model leaves it."""
    run, asked = Run(folder), ModelSpec(model="hf:models/gpt2", data="mylab.data:stories", **spec)
    with run.claim(asked):
        if table is not None:
            run.save_analysis("robustness", table, RobustnessSpec(draws=3, metrics=(table.provenance["metric"],)))
            run.record("analysis robustness", {**FACTS, "data": table.provenance["data"]})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "example", made_table(), made_training(), lr=0.1)


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return report.render(run)


def test_two_maps_are_compared_by_their_numbers(page: str):
    """Their colours need not be of one scale: a number beyond chance has its own dark end."""
    worst = {"part": "layer1", "perturbation": "rewind", "step": 0, "metric": "error", "split": "test"}
    beyond = with_row(made_table(), {"value": 0.99}, **worst)
    ends = [layer_grid(beyond, split=split).scale.high for split in ("test", "train")]
    assert ends == [pytest.approx(99), pytest.approx(90)]
    assert "lighter" not in page
    assert "Where a number is lower here than above, the network knows its training data better" in page
    better = made_table(about={**MADE["ABOUT"], "better": "higher"})
    assert "Where a number is higher here than above" in caption(layer_grid(better, split="train"), again=True)


class Outline(HTMLParser):
    """Tags, attributes and headings of a page; complains about tags that do not match."""

    VOID = ("meta", "link", "br", "wbr", "rect", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<(script|style).*?</\1>|<wbr>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def cells(page: str, identity: str) -> list[list[str]]:
    """The rows of a table as text."""
    table = page[page.index(f'<table id="{identity}"') :]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table[: table.index("</table>")], re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def test_report_is_written_with_its_checksum_and_without_torch(run: Run) -> None:
    code = "import sys; from layerscope import report; from layerscope.run import Run\n"
    code += f"print(report.make(Run({str(run.path)!r}))); print({{'torch', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [str(run.path / "report.html"), "set()"]
    assert Run(run.path).folder.has("report.html")


def test_report_is_the_same_each_time(run: Run, page: str) -> None:
    assert report.make(run).read_text() == page
    assert report.render(Run(run.path)) == page


def test_page_is_well_formed_with_headings_in_order_and_unique_ids(page: str) -> None:
    outline = Outline(page)
    assert not outline.open
    headings = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(a["href"])[1:] for tag, a in outline.tags if tag == "a"}
    assert links <= set(ids)
    assert ("html", {"lang": "en"}) in outline.tags


def test_page_asks_for_nothing_from_outside(page: str) -> None:
    found = re.findall(r'(?:src|href|action)="([^"]*)"|url\(([^)]*)', page)
    assert all(link.startswith(("#", "data:,")) for pair in found for link in pair if link), found
    assert not re.findall(r"@import|@font-face|<iframe|<img|fetch\(|XMLHttpRequest\(", page)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}


def test_only_our_script_may_run(page: str) -> None:
    import base64
    import hashlib

    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(page)
    assert "default-src 'none'" in html.unescape(page)


def test_findings_say_the_numbers_of_the_table(page: str) -> None:
    text = text_of(page)
    assert "The trained network gets 2.00 % of 200 test samples wrong (95 % interval 1.00 to 3.00 %)." in text
    assert "Guessing would get 90 % wrong." in text
    assert "Of 3 layers put back to their start one at a time, all 3 are critical (layer1, layer2 and" in text
    assert "layer3; 28.87 to 82.00 % error)" in text
    assert "re-randomised one at a time (mean over 2 draws), all 3 destroy the network" in text
    assert "below 8.80 percentage points (0.1 of the 88.00 points" in text


def test_what_was_asked_is_said_in_words(page: str) -> None:
    text = text_of(page)
    assert "fcn-3x256 (fully connected, 3 hidden layers of 256 units) was trained on digits (500 training" in text
    assert "learning rate 0.1 (times 0.2 after 30 %, 60 % and 90 % of the epochs), momentum 0.9" in text
    assert "put back to its values of 4 checkpoints, and drawn afresh from its initial law in 2 draws" in text


def test_table_of_verdicts_has_the_numbers_of_the_table(page: str) -> None:
    rows = cells(page, "robustness-verdicts")
    assert [row[0] for row in rows[2:]] == ["layer1", "layer2", "layer3"]
    assert rows[2] == [
        *["layer1", "1,000"],
        *["82.00", "80.00", "79.00 to 81.00", "● critical"],
        *["80.50", "78.50", "77.50 to 79.50", "✕ destroyed"],
    ]


def test_table_of_a_map_has_every_number_with_its_interval(page: str) -> None:
    grid, rows = layer_grid(made_table()), cells(page, "robustness-map-test-values")
    assert rows[0] == ["Values of", "layer1", "layer2", "layer3", WHOLE]
    assert rows[1][:2] == ["re-randomised", "80.50 79.50 to 81.50"]
    assert rows[1][4] == "none"
    for step in range(4):
        cell = grid.at("layer2", step)
        assert rows[2 + step][0] == f"epoch {step}"
        assert rows[2 + step][2] == f"{cell.value:.2f} {cell.low:.2f} to {cell.high:.2f}"


def test_squares_have_the_colours_of_the_numbers(page: str) -> None:
    svg = page[page.index('<figure class="map" id="robustness-map-test"') :]
    svg = svg[svg.index("<svg") : svg.index("</svg>") + 6]
    tree = ElementTree.fromstring(svg)
    rows = tree.findall("{*}g[@class='r']")
    grid = layer_grid(made_table())
    assert len(rows) == len(grid.rows)
    for name, row in zip(grid.rows, rows, strict=True):
        for column, square in zip(grid.columns, row, strict=True):
            cell = grid.at(name, column)
            assert square.get("fill") == (None if cell.missing else grid.shade(cell))
    assert tree.get("role") == "img"
    assert tree.get("aria-label")


def test_every_section_and_figure_is_there(page: str) -> None:
    text = text_of(page)
    wanted = (
        *(
            "What was asked",
            "What was found",
            "Verdicts by layer",
            "Maps of layers and epochs",
            "The same as curves",
        ),
        *("Error on test data with one layer changed", "Error on training data with one layer changed"),
        *("Distance from the start, 2-norm", "Distance from the start, largest entry", "The training"),
        *("What the numbers do not say", "What was not analysed", "Provenance"),
        *("Ambient does not mean removable.", "This is one training run.", "Each interval stands alone."),
        *("train data: mean over the epoch, while the weights moved.", "parameter units", "nats"),
        *("digits test data, n = 200 samples, 2 draws re-randomised.", "train data: n = 500 samples."),
        *("Computed from the parameters; no data were used.", "Intervals are at the 95 % level."),
    )
    assert [phrase for phrase in wanted if phrase not in text] == []
    assert page.count("How to read it.") == page.count("<figure") == 4 + 3 + 2


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    about = {**MADE["ABOUT"], "left_out": {HOSTILE: HOSTILE}, "data": {"name": HOSTILE}}
    table = with_row(made_table([HOSTILE, "b"], about=about), failed(HOSTILE, HOSTILE), step=1, split="test")
    run = write_run(tmp_path / "<script>x", table, made_training(), model=HOSTILE, data=HOSTILE)
    run.record(HOSTILE, {HOSTILE: HOSTILE, "data": {"warnings": [HOSTILE]}})
    page = report.render(run)
    assert page.count("<script") == 1
    assert page.count("</script") == 1
    assert "<script>alert" not in page
    Outline(page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert text_of(page).count(HOSTILE) > 10


def test_missing_cells_are_marked_and_explained(tmp_path: Path) -> None:
    broken = {"value": math.nan, "low": math.nan, "high": math.nan, "verdict": "undecided", **failed()}
    table = with_row(made_table(), broken, part="layer1", step=0, split="test")
    page = report.render(write_run(tmp_path / "broken", table, made_training()))
    assert '<td title="not finite: outputs overflow">none</td>' in page
    assert "layer1, epoch 0 : not finite: outputs overflow" in text_of(page)
    assert cells(page, "robustness-verdicts")[2][2:6] == ["none", "none", "none", "not finite"]
    assert "Of 2 layers put back to their start" in text_of(page)
    assert page.count('class="na"') == 2 + 1  # this one and the whole network re-randomised, on test; that on train


def test_a_run_not_yet_trained_says_so(tmp_path: Path) -> None:
    text = text_of(report.render(write_run(tmp_path / "begun", None)))
    assert "The training is not finished" in text
    assert "layerscope train --out begun" in text


def test_a_run_without_analysis_says_how_to_get_one(tmp_path: Path) -> None:
    text = text_of(report.render(write_run(tmp_path / "trained", None, made_training())))
    assert "layerscope analyze trained" in text
    assert "Error during training" in text
    assert "Nothing was analysed" in text


def test_a_table_without_the_start(tmp_path: Path) -> None:
    table = made_table(steps=[2, 5, 9])
    table = Table(table.frame[table.frame["to"].ne("start")], table.provenance)
    page = report.render(write_run(tmp_path / "late", table, made_training()))
    text = text_of(page)
    assert "The values before training were not kept" in text
    assert "the start : the values before training were not kept" in text
    assert cells(page, "robustness-verdicts")[2][2:6] == ["none", "none", "none", "not measured"]
    assert "Distance from the start" not in text


def test_a_table_without_draws_or_train_data(tmp_path: Path) -> None:
    page = report.render(write_run(tmp_path / "few", made_table(draws=0, splits=("test",)), made_training()))
    text = text_of(page)
    assert "No layer was re-randomised." in text
    assert "the error on training data was not asked for" in text
    assert "re-randomising : no draws were asked for" in text


def test_a_table_without_numbers(tmp_path: Path) -> None:
    rows = [{"part": "a", "perturbation": "rewind", "metric": "error", "split": "test", "step": 0, **failed()}]
    text = text_of(report.render(write_run(tmp_path / "none", Table.of(rows), made_training())))
    assert "No number is known for layers put back" in text
    assert "not finite: outputs overflow" in text
    empty = text_of(report.render(write_run(tmp_path / "empty", Table.of([]), None)))
    assert "This analysis has no numbers" in empty


def test_several_analyses_stand_side_by_side(tmp_path: Path) -> None:
    run = write_run(tmp_path / "two", made_table(), made_training())
    run.save_analysis("by block, again", made_table(2), RobustnessSpec(draws=3))
    page = report.render(run)
    ids = [str(attributes["id"]) for _, attributes in Outline(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not [identity for identity in ids if " " in identity]
    assert "What was found: by block, again" in text_of(page)


def test_findings_with_undecided_and_one_layer() -> None:
    table = with_row(made_table(1), {"verdict": "undecided"}, part="layer1", step=0, metric="error_delta", split="test")
    sentence = found(table, RobustnessSpec().to_dict()).sentences[1]
    assert sentence == "Of 1 layer put back to their start one at a time, 1 is undecided (layer1; 82.00 % error)."


def test_a_network_no_better_than_chance_gets_no_rule() -> None:
    table = made_table(about={"chance": 0.01})
    assert [word for word, _ in found(table, RobustnessSpec().to_dict()).rule] == ["undecided"]


def test_report_of_a_hundred_checkpoints_is_quick_and_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", made_table(4, 101, draws=5), made_training(100))
    began = time.perf_counter()
    size = report.make(run).stat().st_size
    assert time.perf_counter() - began < 5
    assert size < 1_500_000
    assert layer_grid(run.analysis("robustness")).at("layer1", RANDOM).n == 5


def foreign_text(folder: Path, table: Table, **spec: Any) -> str:
    """What a reader sees of the report on somebody's model; the page must be well formed."""
    page = report.render(write_foreign(folder, table, **spec))
    outline = Outline(page)
    assert not outline.open
    ids = [str(a["id"]) for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for tag, a in outline.tags if tag == "a"} <= set(ids)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    return text_of(page)


def test_a_language_model_without_a_start(tmp_path: Path) -> None:
    text = foreign_text(tmp_path / "gpt2", foreign_table(transformer(2)))
    wanted = (
        "The model hf:models/gpt2 was analysed as it was given; layerscope did not train it. Data: mylab.data:stories.",
        "It gave the same outputs twice for the same 2 batches. The network was divided into 15 layers: one for each layer",
        "Each layer alone was drawn afresh from its initial law in 3 draws (seed 0). All other layers kept",
        "Buffers such as running statistics were changed with the layer that they belong to.",
        "The token cross-entropy was measured on test data.",
        "The token cross-entropy of the unmodified network is 3.20 nats/token (n = 64 sequences of test data; 95 % interval",
        "Guessing would give 10.8 nats/token. Lower is better.",
        "There are no values from before training, so it cannot be said what happens when a layer is put back to its own "
        "start. Each layer was re-randomised instead.",
        "lies below 0.762 nats/token (0.1 of the 7.62 nats/token from the unmodified network to chance)",
        "Changes are in nats/token, against the unmodified network on the same sequences.",
        "Map of layers",
        "A row is one layer. The colour is the token cross-entropy on test data when that layer alone is re-randomised",
        "The colours start at 3.20 nats/token and follow the square root of the distance from there",
        "The file analyses/robustness.parquet also has: disagreement.",
        "The layer was drawn afresh, not taken out.",
        "the start : the values before training are not known",
    )
    assert [phrase for phrase in wanted if phrase not in text] == []
    unwanted = ("%  error", "epoch", "percentage", "Put back to the start", "Distance from", "The same as curves")
    unwanted += (
        "The training",
        "training is not finished",
        "A distance is not",
        "training.parquet",
        "under Provenance",
    )
    assert [phrase for phrase in unwanted if phrase in text] == []


def test_two_steps_have_maps_but_no_curves(tmp_path: Path) -> None:
    table = foreign_table(transformer(1), steps=(0, 1), splits=("test", "train"))
    text = foreign_text(tmp_path / "two", table, checkpoints=("init=a.safetensors", "final=b.safetensors"))
    assert "Its checkpoints: init=a.safetensors, final=b.safetensors." in text
    assert "put back to its values of 2 checkpoints, and drawn afresh" in text
    assert "Maps of layers and checkpoints" in text
    assert "Distance from the start, 2-norm" in text
    assert "The same as curves" not in text
    assert "checkpoint whose values the layer is put back to" in text


def test_perplexities_have_no_per_cent_and_their_scale_is_said(tmp_path: Path) -> None:
    table = foreign_table(transformer(2), steps=(0, 1, 2), **MADE["PERPLEXITY"])
    text = foreign_text(tmp_path / "perplexity", table)
    assert (
        "The perplexity of the unmodified network is 23.4 (n = 64 sequences of test data; 95 % interval 22.9 to" in text
    )
    assert "perplexity (logarithmic colour scale; darkest: 50257 or more)" in text
    assert "The colours follow the logarithm, as the values span orders of magnitude." in text
    assert "Test perplexity against the checkpoint a layer is put back to" in text
    assert "lies below 5023 (0.1 of the 50234 from the unmodified network to chance)" in text
    assert "Changes are against the unmodified network on the same sequences." in text
    assert set(re.findall(r"(\S+) %", text)) == {"95"}


def test_unknown_chance_is_said_once(tmp_path: Path) -> None:
    table = foreign_table(transformer(1), steps=(0, 5, 20), **MADE["UNKNOWN"])
    page = report.render(write_foreign(tmp_path / "unknown", table))
    text = text_of(page)
    assert text.count("the value of guessing is not known for squared_error; give chance=.") == 1
    assert "Changes by layer" in text
    assert "There are no verdicts: undecided everything, since the rule needs to know what a guess would score" in text
    assert "transformer.wte = lm_head does most harm (0.92 K²), transformer.ln_f least (0.401 K²)." in text
    assert "? undecided" not in text
    assert cells(page, "robustness-verdicts")[1][2:5] == ["Squared error, K²", "Change", "Interval"]
    assert "The colours span the values of this map alone" in text
    assert "Ambient does not mean" not in text


def test_more_is_better(tmp_path: Path) -> None:
    table = foreign_table(transformer(1), steps=(0, 1, 2), by="block", **MADE["BLEU"])
    text = foreign_text(tmp_path / "higher", table)
    assert "which parts matter" in text
    assert "9 parts: one for each residual or transformer block" in text
    assert "Guessing would give 1.00. Higher is better." in text
    assert "lies above -3.30 (0.1 of the 33.0 from the unmodified network to chance)" in text
    assert "critical the whole interval lies below -3.30." in text
    assert "More is better: the light end of the colours is the high one." in text
    assert "A line that starts high belongs to a part that hardly needed training." in text


def test_a_check_that_the_user_overrode_is_warned_of_first(tmp_path: Path) -> None:
    note = "the network draws random numbers in evaluation mode, and gives other outputs each time: drop (Dropout)"
    probe = {"batches": 2, "identical": False, "max_difference": 0.0123, "note": note}
    text = foreign_text(tmp_path / "noisy", foreign_table(3, probe=probe))
    warning = text.index("Warning. Before the analysis, a check failed, and the user asked to go on: the network draws")
    assert warning < text.index("What was asked")
    assert "Outputs differed by up to 0.0123." in text
    assert "the same outputs" not in text
    rounding = {"batches": 1, "identical": False, "max_difference": 1e-7, "note": ""}
    fine = foreign_text(tmp_path / "fine", foreign_table(3, probe=rounding))
    assert "Warning." not in fine
    assert "It gave the same outputs, up to rounding, twice for the same batch." in fine


def test_failed_variants_and_unused_parts_are_told(tmp_path: Path) -> None:
    unused = {"transformer.wpe": "the network does not use it on these data"}
    table = failed_part(foreign_table(transformer(1), unused=unused), "transformer.h.0.ln_1", "RuntimeError: <bad>")
    page = report.render(write_foreign(tmp_path / "failed", table))
    text = text_of(page)
    assert "transformer.h.0.ln_1, re-randomised : failed: RuntimeError: <bad>" in text
    assert "transformer.wpe (measured in vain) : the network does not use it on these data" in text
    assert "Of 8 layers re-randomised" in text
    assert cells(page, "robustness-verdicts")[4] == ["transformer.h.0.ln_1", "3,000", "none", "none", "none", "failed"]


def test_parts_without_a_law_or_a_start_are_told(tmp_path: Path) -> None:
    reason = "no initial law is known for {}.weight; give one in laws="
    lawless = [
        {
            "part": name,
            "perturbation": "rerandomize",
            "metric": "token_cross_entropy",
            **failed("not applicable", reason),
        }
        for name in ("odd", "even")
    ]
    lawless = [row | {"reason": reason.format(row["part"])} for row in lawless]
    some = foreign_table(2)
    for table in (
        Table.of([*some.frame.to_dict("records"), *lawless], some.provenance),
        Table.of([*some.where(perturbation="none").to_dict("records"), *lawless], some.provenance),
    ):
        page = report.render(write_foreign(tmp_path / str(len(table)), table))
        text = text_of(page)
        assert cells(page, "robustness-verdicts")[-1][-4:] == ["none", "none", "none", "not applicable"]
        assert (
            "odd, re-randomised and even, re-randomised : not applicable: no initial law is known for its own" in text
        )
        assert layer_grid(table).rows[-2:] == ("odd", "even")
    assert "No layer was re-randomised." in text
    assert changed(table) is None


def test_laws_of_one_form_stand_together(tmp_path: Path) -> None:
    laws = {f"h.{i}.weight": f"fitted to the start: normal of scale {0.02 + 0.001 * i:g}" for i in range(12)}
    laws |= {f"h.{i}.bias": "constant 0" for i in range(2)} | {
        "g": "the norms of h.0.weight",
        "v": "normal of scale 0.02",
    }
    page = report.render(write_foreign(tmp_path / "laws", foreign_table(3, laws=laws)))
    text = text_of(page)
    assert "constant 0 , stated by the module or the user: h.0.bias, h.1.bias" in text
    assert "normal of scale 0.02 , stated by the module or the user: v" in text
    assert (
        "normal of scale 0.02 to 0.031 , fitted to the values before training: 12 tensors All 12 h.0.weight, h.1"
        in text
    )
    assert "the norms of another tensor , stated by the module or the user: g" in text
    assert "Fitted laws are guesses." in text
    assert "Fitted laws" not in text_of(report.render(write_foreign(tmp_path / "none", foreign_table(3))))


def test_left_out_tensors_are_grouped_by_reason_and_folded(tmp_path: Path) -> None:
    left_out = {f"h.{i}.attn.mask": "a buffer of a module without parameters" for i in range(40)} | {
        "odd": "it is plain"
    }
    page = report.render(write_foreign(tmp_path / "left", foreign_table(3, left_out=left_out)))
    text = text_of(page)
    assert text.count("a buffer of a module without parameters") == 1
    assert "h.0.attn.mask, h.1.attn.mask, h.2.attn.mask" in text
    assert "and 35 more (never changed)" in text
    assert "All 40" in text
    assert "odd (never changed) : it is plain" in text


def test_hundreds_of_reasons_are_folded(tmp_path: Path) -> None:
    table = foreign_table(transformer(8))
    for i, name in enumerate(transformer(8)[:30]):
        table = failed_part(table, name, f"RuntimeError: size {i}")
    text = foreign_text(tmp_path / "reasons", table)
    assert "RuntimeError: size 29" in text
    assert "20 more" in text


def test_a_model_that_is_not_analysed_yet(tmp_path: Path) -> None:
    text = text_of(report.render(write_foreign(tmp_path / "begun", None)))
    assert "There is no finished analysis" in text
    assert "training is not finished" not in text


def test_hundreds_of_parts(tmp_path: Path) -> None:
    names = [*transformer(48), *(f"transformer.h.{i}.attn.head{i}" for i in range(10))]
    table = foreign_table(names, steps=(0, 1), splits=("test", "train"), by="head")
    began = time.perf_counter()
    page = report.render(write_foreign(tmp_path / "many", table))
    assert time.perf_counter() - began < 20
    assert len(page) < 2_000_000
    rows = cells(page, "robustness-map-test-values")
    assert rows[0] == ["Part", "re-randomised", "checkpoint 0", "checkpoint 1"]
    assert len(rows) == 1 + len(names) + 1
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert svg.count(">random<") == 16  # the heads stand again every 20 rows
    labels = re.findall(r'<text class="ink end"[^>]*>(.*?)</text>', svg)
    assert len(set(labels)) == len(names) + 1


def test_hostile_names_are_text_in_foreign_reports(tmp_path: Path) -> None:
    about = {"left_out": {HOSTILE: HOSTILE}, "laws": {HOSTILE: HOSTILE}, "unused": {HOSTILE: HOSTILE}}
    about |= {"by": HOSTILE, "model": HOSTILE, "data": {"name": HOSTILE}, "metric": HOSTILE, "unit": HOSTILE}
    about |= {"probe": {"note": HOSTILE, "max_difference": HOSTILE}, "chance_reason": HOSTILE, "buffers": HOSTILE}
    table = failed_part(foreign_table([HOSTILE, "b", "c"], steps=(0, 1, 2), chance=None, **about), "c", HOSTILE)
    page = report.render(write_foreign(tmp_path / "<script>x", table))
    assert page.count("<script") == 1
    assert "<script>alert" not in page
    Outline(page)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
