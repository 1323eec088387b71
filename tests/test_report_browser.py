"""The report in a real browser: how it looks, reads and downloads, from the file itself."""

import csv
import io
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from layerscope import report
from layerscope.analyses.spec import SimilaritySpec
from layerscope.plots import figures
from layerscope.plots.grid import RANDOM, layer_grid
from layerscope.table import Table

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

MADE = runpy.run_path(str(Path(__file__).with_name("test_report.py")))  # writes run folders by hand
TABLE = MADE["made_table"](["layer1", "=layer, 2", "<i>layer3</i>"], 101, 3)
MANY = MADE["foreign_table"](
    [*MADE["transformer"](48), *(f"transformer.h.{i}.attn.head{i}" for i in range(10))],
    steps=(0, 1),
    by="head",
    laws={f"{name}.weight": "fitted to the start: normal of scale 0.02" for name in MADE["transformer"](48)},
    probe={"batches": 2, "identical": False, "max_difference": 0.1, "note": "the network draws random numbers"},
)
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync")  # fmt: skip
MAP = "#robustness-map-test"

CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, k, i) => sum + k * linear(rgb[i] / 255), 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const rgb = parse(getComputedStyle(e).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0) return rgb;
    }
    throw Error("no background");
  };
  const speaks = (e) => Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim());
  const skipped = (e) => ["SCRIPT", "STYLE"].includes(e.tagName) || e.classList.contains("in");
  const all = Array.from(document.body.querySelectorAll("*")).filter((e) => speaks(e) && !skipped(e));
  const ratio = (element) => {
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return [all.length, all.filter((e) => ratio(e) < 4.5).map((e) => e.outerHTML.slice(0, 80))];
}"""
"""How many elements have text of their own, and those whose contrast is below 4.5 (WCAG 2.2, AA)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "example"
    return report.make(MADE["write_run"](folder, TABLE, MADE["made_training"](100)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on somebody's language model of 301 Parts."""
    return report.make(MADE["write_foreign"](tmp_path_factory.mktemp("runs") / "many", MANY))


class Opened:
    """A page of the report with all that it said and asked for."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Any]:
    made = Opened(browser, file, viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield made.page
    assert made.said == []
    made.context.close()


def downloaded(page: Any, button: Any) -> tuple[str, str]:
    """Name and content of the file that a button gives."""
    with page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_text()


def column(page: Any, table: str, index: int) -> list[str]:
    return [row.strip() for row in page.locator(f"#{table} tbody tr > :nth-child({index + 1})").all_text_contents()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_page_fits_says_nothing_and_asks_for_nothing(browser: Any, file: Path, width: int, scheme: str) -> None:
    made = Opened(browser, file, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for details in made.page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    assert made.page.evaluate("document.documentElement.scrollWidth") == width
    assert made.page.locator("h1").is_visible()
    assert made.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)"
    )
    seen, bad = made.page.evaluate(CONTRASTS)
    assert seen > 500
    assert bad == []
    assert made.said == []
    assert made.asked == [file.as_uri()]
    made.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_hundreds_of_parts_with_long_names_fit(browser: Any, many: Path, width: int, scheme: str) -> None:
    made = Opened(browser, many, viewport={"width": width, "height": 800}, color_scheme=scheme)
    made.page.evaluate("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    assert made.page.evaluate("document.documentElement.scrollWidth") == width
    assert made.page.locator(".notice").first.is_visible()
    box = made.page.locator(f"{MAP} .picture")
    assert box.evaluate("element => element.clientHeight") < 700 < box.evaluate("element => element.scrollHeight")
    table = made.page.locator("#robustness-verdicts")
    assert table.evaluate("element => element.closest('.scroll').clientHeight") < 700
    assert made.page.locator("#robustness-laws").evaluate("element => element.clientHeight") < 12000
    assert made.page.evaluate(CONTRASTS)[1] == []
    assert made.said == []
    made.context.close()


def similarities(parts: int) -> Table:
    """Similarities whose picture is the wider, the more Parts there are."""
    rows = [
        {
            "part": f"part{p}",
            "layer": layer,
            "step": step,
            "value": step / 2,
            "n": 64,
            "metric": "cka_linear",
            "status": "ok",
        }
        for p in range(parts)
        for layer in ("first", "last")
        for step in (0, 1, 2)
    ]
    return Table.of(rows, {"spec": {"kind": "similarity"}})


def test_wide_pictures_fit_or_can_be_moved_sideways(browser: Any, tmp_path: Path) -> None:
    """They become smaller, but not so small that they cannot be read; a narrow page shows that there is more of them."""
    run = MADE["write_run"](tmp_path / "wide", None)
    run.save_analysis("similarity", similarities(20), SimilaritySpec())
    natural = [round(96 * figure.get_figwidth()) for figure in figures(similarities(20)).values()]
    assert max(natural) > 1150  # more than a page has
    for width, fits in ((1280, True), (375, False)):
        made = Opened(browser, report.make(run), viewport={"width": width, "height": 800})
        assert made.page.evaluate("document.documentElement.scrollWidth") == width
        for wide, figure in zip(natural, made.page.locator("figure.image").all(), strict=True):
            box, picture = figure.locator(".picture"), figure.locator("img")
            assert box.evaluate("element => element.scrollWidth <= element.clientWidth") is fits
            assert box.evaluate("element => getComputedStyle(element).overflowX") == "auto"
            shown = picture.evaluate("element => element.getBoundingClientRect()")
            assert 0.84 * wide < shown["width"] <= wide + 1
            assert shown["height"] / shown["width"] == pytest.approx(
                picture.evaluate("element => element.naturalHeight / element.naturalWidth"), rel=0.01
            )
            assert figure.locator(".swipe").is_visible() is not fits
        made.context.close()
    made = Opened(browser, report.make(run), viewport={"width": 720, "height": 1000})  # A4 with its margins
    made.page.emulate_media(media="print")
    assert made.page.evaluate("document.documentElement.scrollWidth") <= 720
    made.context.close()


def test_maps_of_many_parts_are_read_and_downloaded_the_same_way(browser: Any, many: Path) -> None:
    made = Opened(browser, many, viewport={"width": 1280, "height": 900}, accept_downloads=True)
    grid, name = layer_grid(MANY), "transformer.h.3.mlp.c_fc"
    row, cell = grid.rows.index(name), grid.at(name, 0)
    made.page.locator(f"{MAP} summary").click()
    made.page.locator(f"{MAP}-values thead th button").nth(1).click()  # sorted or not
    square = made.page.locator(f"{MAP} g.r").nth(row).locator("path").nth(1)
    square.hover()
    within = f"95 % interval {cell.low:.1f} to {cell.high:.1f}"
    told = f"{name}, checkpoint 0: {cell.value:.1f} nats/token, {within}, n = 64 test sequences"
    assert made.page.locator(".tip").text_content() == told
    _, text = downloaded(made.page, made.page.locator(f"{MAP} details .tools button"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 302 * 3
    found = {(row["part"], row["values"]): row for row in rows}
    assert found[name, "re-randomised"]["interval"] == "draws"
    assert found[name, "checkpoint 0"]["n"] == "64"
    assert float(found[name, "checkpoint 0"]["value"]) == pytest.approx(cell.value, rel=0.01)
    box = made.page.locator(f"{MAP} .picture")
    box.focus()
    for _ in range(60):
        made.page.keyboard.press("ArrowDown")
    assert box.evaluate("element => element.scrollTop") > 300
    assert made.said == []
    made.context.close()


def test_page_opens_in_less_than_a_second(opened: Any) -> None:
    opened.reload()
    timing = "(() => { const t = performance.timing; return t.loadEventEnd - t.navigationStart; })()"
    assert 0 < opened.evaluate(timing) < 1000


def test_hovering_shows_the_number_of_the_table(opened: Any) -> None:
    grid = layer_grid(TABLE)
    cell = grid.at("layer1", 3)
    opened.locator(f"{MAP} g.r").nth(0).locator("path").nth(4).hover()
    tip = opened.locator(".tip")
    assert tip.is_visible()
    within = f"95 % interval {cell.low:.2f} to {cell.high:.2f}"
    assert tip.text_content() == f"layer1, epoch 3: {cell.value:.2f} % error, {within}, n = 200 test samples"
    opened.locator("h1").hover()
    assert tip.is_hidden()


def test_reading_a_map_by_keyboard(opened: Any) -> None:
    box, said = opened.locator(f"{MAP} .picture"), opened.locator(f"{MAP} .readout")
    assert box.get_attribute("role") == "application"
    assert said.get_attribute("role") == "status"
    opened.locator(f"{MAP} .tools button").first.focus()
    opened.keyboard.press("Tab")
    assert box.evaluate("element => element === document.activeElement")
    grid = layer_grid(TABLE)
    random = grid.at("layer1", RANDOM)
    within = f"95 % interval {random.low:.2f} to {random.high:.2f}"
    assert said.text_content() == f"layer1, re-randomised: {random.value:.2f} % error, {within}, n = 3 draws"
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown"):
        opened.keyboard.press(key)
    assert said.text_content().startswith(f"<i>layer3</i>, epoch 1: {grid.at('<i>layer3</i>', 1).value:.2f} % error")
    opened.keyboard.press("End")
    assert said.text_content().startswith("<i>layer3</i>, epoch 100: 2.00 % error")
    for key in ("ArrowDown", "Home"):
        opened.keyboard.press(key)
    assert said.text_content() == "whole network, re-randomised: no number. not measured (single layers only)"
    opened.keyboard.press("Escape")
    assert opened.locator(".tip").is_hidden()


def test_keyboard_moves_a_wide_map_into_view(browser: Any, file: Path) -> None:
    made = Opened(browser, file, viewport={"width": 375, "height": 800})
    box = made.page.locator(f"{MAP} .picture")
    box.focus()
    made.page.keyboard.press("End")
    assert box.evaluate("element => element.scrollLeft") > 300
    made.context.close()


def test_tables_are_sorted_by_click_and_keyboard(opened: Any) -> None:
    table = "robustness-verdicts"
    head = opened.locator(f"#{table} thead tr:last-child th").nth(2)
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    errors = [float(text) for text in column(opened, table, 2)]
    assert errors == sorted(errors)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    opened.keyboard.press("Enter")
    assert [float(text) for text in column(opened, table, 2)] == sorted(errors, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    size = opened.locator(f"#{table} thead tr:last-child th").nth(1)
    size.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(opened, table, 1) == ["1,000", "2,000", "3,000"]


def test_sorting_the_numbers_of_a_map_keeps_the_map_right(opened: Any) -> None:
    opened.locator(f"{MAP} summary").click()
    opened.locator(f"{MAP}-values thead th button").nth(1).click()
    assert column(opened, "robustness-map-test-values", 0)[0] == "epoch 100"
    opened.locator(f"{MAP} g.r").nth(0).locator("path").nth(1).hover()
    assert opened.locator(".tip").text_content().startswith("layer1, epoch 0: 82.00 % error")


def test_table_of_verdicts_downloads_as_csv(opened: Any) -> None:
    name, text = downloaded(opened, opened.get_by_role("button", name="CSV: Test error"))
    rows = list(csv.reader(io.StringIO(text)))
    assert name == "example-robustness-verdicts.csv"
    assert rows[0][:6] == [
        *(
            "Layer",
            "Parameters",
            "start error (%)",
            "start change (points)",
            "start interval of change",
            "start verdict",
        )
    ]
    assert rows[1][:6] == ["layer1", "1000", "82.00", "80.00", "79.00 to 81.00", "critical"]
    assert rows[2][0] == "'=layer, 2"  # no formula in a spreadsheet
    assert len(rows) == 4


def test_numbers_of_a_map_download_as_csv(opened: Any) -> None:
    opened.locator(f"{MAP} summary").click()
    name, text = downloaded(opened, opened.locator(f"{MAP} details .tools button"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert name == "example-robustness-map-test-values.csv"
    assert len(rows) == 4 * 102
    grid = layer_grid(TABLE)
    found = {(row["part"], row["values"]): row for row in rows}
    cell, row = grid.at("layer1", 7), found["layer1", "epoch 7"]
    assert [float(row[key]) for key in ("value", "low", "high")] == [
        round(v, 2) for v in (cell.value, cell.low, cell.high)
    ]
    assert (row["unit"], row["n"], row["interval"], row["level"]) == ("% error", "200", "population", "95 %")
    assert found["layer1", "re-randomised"]["interval"] == "draws"
    assert found["whole network", "re-randomised"]["missing"] == "not measured (single layers only)"


def test_figures_download_as_svg_that_stand_alone(opened: Any) -> None:
    buttons = opened.get_by_role("button", name="SVG:")
    assert buttons.count() == 4 + 3 + 2
    name, text = downloaded(opened, buttons.first)
    assert name == "example-robustness-map-test.svg"
    tree = ElementTree.fromstring(text)
    assert len(tree.findall("{*}g[@class='r']/{*}path")) == 4 * 102
    assert ".ink { fill: #1b1f24; }" in (tree.findtext("{*}style") or "")
    texts = [element.text for element in tree.findall(".//{*}text")]
    assert texts[0] == "Error on test data with one layer changed"
    assert texts[1] == "digits test data, n = 200 samples, 3 draws re-randomised."
    assert "<i>layer3</i>" in texts


def test_print_has_no_controls_and_fits(opened: Any) -> None:
    assert opened.locator(".tools").first.is_visible()
    opened.set_viewport_size({"width": 720, "height": 1000})  # A4 with its margins
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 720
    for hidden in (".tools", "nav", ".readout", ".js-only"):
        assert opened.locator(hidden).first.is_hidden()
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.locator("#robustness-verdicts").is_visible()


def test_page_reads_without_scripts(browser: Any, file: Path) -> None:
    made = Opened(browser, file, java_script_enabled=False, viewport={"width": 1280, "height": 800})
    assert made.page.locator("button").count() == 0
    assert made.page.locator(".js-only").first.is_hidden()
    made.page.locator(f"{MAP} summary").click()
    assert "82.00" in made.page.locator(f"{MAP}-values").inner_text()
    made.context.close()
