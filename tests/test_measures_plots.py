"""What is shown of measures: every number in words, tables and pictures is one of the table."""

import pytest

import layerscope as ls
from layerscope.measures.catalogue import LABELS, MEASURES
from layerscope.plots import measures as shown
from layerscope.plots.grid import records
from layerscope.table import Table

WHOLE = "whole network"
FACTS = {"spec": {"rise": 0.1, "climb": 0.5}, "left_out": {"a.bias": "a bias", "b.bias": "a bias"}}


def table() -> Table:
    """Two modules; one criticality is on the edge, and one distance is missing."""
    ok, numeric = {"status": "ok", "reason": ""}, {"interval": "numerical", "level": 1 - 1e-6}
    whole = {"part": WHOLE, **ok}
    error = {**whole, "metric": "error", "unit": "fraction"}
    draws = {"interval": "draws", "level": 0.95}
    lacking = {"status": "not applicable", "reason": "no way"}
    rows = [
        {**error, "split": "train", "value": 0.02, "n": 500},
        {**error, "split": "test", "value": 0.17, "n": 200},
        {**whole, "metric": "generalisation_gap", "value": 0.15, "low": 0.1, "high": 0.21, "n": 200, "level": 0.95},
        {**whole, "metric": "parameters", "value": 12345, "n": 12345},
        {"part": "a", "metric": "log_pfn", "unit": "nats", "value": 1.5, **ok},
        {"part": "b", "metric": "log_pfn", "unit": "nats", "value": -0.5, **ok},
        {**whole, "metric": "log_pfn", "unit": "nats", "value": 1.0},
        {**whole, "metric": "log_psn", "unit": "nats", "value": 2.0, "low": 2.0, "high": 2.5, **numeric},
        {"part": "a", "metric": "criticality", "value": 30.0, **ok},
        {"part": "b", "metric": "criticality", "value": 10.0, "status": "on the edge", "reason": "alpha = 1"},
        {"part": WHOLE, "metric": "criticality", "value": 40.0, "status": "on the edge", "reason": "on the edge: b"},
        {"part": "a", "metric": "distance_squared", "unit": "squared parameter units", "value": 4.0, **ok},
        {"part": "b", "metric": "distance_squared", "unit": "squared parameter units", **lacking},
        {"part": WHOLE, "metric": "distance_squared", **lacking},
        {**whole, "metric": "flatness_gaussian", "value": 0.05, "low": 0.04, "high": 0.06, "n": 10, **draws},
        {**whole, "metric": "flatness_worst", "value": 0.03, "n": 100},
    ]
    return Table.of(rows, FACTS)


def test_sentences_say_what_was_found():
    said = " ".join(shown.sentences(table()))
    for text in (
        "wrong on 17.00 % of 200 test samples and 2.00 % of 500 training samples",
        "gap of 15.00 percentage points (95 % interval 10.00 to 21.00",
        "12,345 parameters",
        "weights of 2 linear maps; 2 other tensors",
        "criticality (40.0), 75 % is that of a.",
        "standard deviation 0.05 before",
        "more than 10 percentage points (10 draws of the noise, 95 % interval 0.04 to 0.06)",
        "training loss is 0.5 nats higher within 3 % of each parameter tensor's norm",
        "network criticality (on the edge: b)",
        "Without a value: squared distance from the start (no way)",
    ):
        assert text in said


def test_a_gap_of_label_noise_is_told_beside_that_of_true_labels():
    found = table()
    recovered = {"part": WHOLE, "split": "recovered", "unit": "fraction", "status": "ok"}
    more = [
        {**recovered, "metric": "error", "value": 0.12, "n": 500},
        {
            **recovered,
            "metric": "generalisation_gap",
            "value": 0.05,
            "low": 0.01,
            "high": 0.11,
            "n": 200,
            "level": 0.95,
        },
    ]
    noisy = Table.of([*_rows(found), *more], FACTS | {"changed_labels": 60})
    first, second, *_ = shown.sentences(noisy)
    assert "gap of 15.00 percentage points" in first
    assert second == (
        "That gap is clean test error less the error on noisy labels, for 60 training labels had been changed. Against the "
        "labels before that 12.00 % of the training samples are wrong, and the gap is 5.00 percentage points (95 % interval "
        "1.00 to 11.00)."
    )
    assert not any("noisy labels" in text for text in shown.sentences(found))


def _rows(found: Table) -> list[dict]:
    """The rows of a table, as they can be given to another."""
    return [{key: of for key, of in row.items() if of is not None} for row in records(found.frame)]


def test_without_test_data_no_gap_is_claimed():
    rows = [{"part": WHOLE, "metric": "error", "split": "train", "value": 0.02, "n": 500, "status": "ok"}]
    assert shown.sentences(Table.of(rows, FACTS)) == [
        "The trained network is wrong on 2.00 % of 500 training samples. Without test data there is no generalisation gap."
    ]


def test_listings_have_a_row_a_measure_and_a_row_a_module():
    network, modules = shown.listings(table())
    assert [row[0] for row in network.rows] == [LABELS[name] for name in MEASURES if len(table().where(metric=name))]
    by = {row[0]: row[1:] for row in network.rows}
    assert by[LABELS["log_psn"]][:3] == ["2.00", "2.00 to 2.50", "larger values"]
    assert by[LABELS["flatness_gaussian"]][2] == "smaller values"
    assert by[LABELS["distance_squared"]][0] == "-"
    assert by[LABELS["distance_squared"]][-1] == "not applicable: no way"
    assert all(len(row) == len(listing.heads) for listing in (network, modules) for row in listing.rows)
    assert modules.rows == [["a", "1.50", "4.00", "30.0"], ["b", "-0.5", "-", "10.0 *"], ["all", "1.00", "-", "40.0"]]


def test_bars_are_the_shares_of_modules():
    figure = shown.figures(table())["modules"]
    found = {axes.get_title(loc="left"): [bar.get_width() for bar in axes.patches] for axes in figure.axes}
    assert found == {
        "Log 2-norm of weights": [1.5, -0.5],
        "Squared distance from the start": [4.0],
        "Criticality": [30.0, 10.0],
    }
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert "not applicable" in [text.get_text() for text in figure.axes[1].texts]
    assert [bool(bar.get_hatch()) for bar in figure.axes[2].patches] == [False, True]


def test_what_has_no_modules_has_no_figure():
    assert shown.figures(Table.of([{"part": WHOLE, "metric": "margin_q10", "value": 1.0, "status": "ok"}], FACTS)) == {}


@pytest.mark.parametrize("which", [("log_pfn", "margin_q10"), ("margin_median",)])
def test_a_real_table_is_shown_whatever_was_asked(which):
    import torch

    model = torch.nn.Linear(3, 2)
    x = torch.randn(20, 3)
    data = {"train": [(x, model(x).argmax(1))]}
    found = ls.measure(model, ls.Trajectory.of(final=ls.state_of(model)), data, ls.MeasuresSpec(which=which))
    assert shown.sentences(found)
    assert len(shown.listings(found)[0].rows) == len(which)
    assert bool(shown.figures(found)) == ("log_pfn" in which)
