"""The one result type."""

import pandas as pd
import pytest

from layerscope.errors import UseError
from layerscope.table import COLUMNS, CORE, Table

ROWS = [
    {"part": "b", "value": 0.5, "n": 3, "step": 0},
    {"part": "a", "value": float("nan"), "status": "not finite"},
]


def test_schema_and_missing_values():
    table = Table.of(ROWS)
    assert list(table.frame.columns) == [*CORE, "step"]
    assert table.parts() == ["b", "a"]
    assert table.frame["n"].isna().tolist() == [False, True]
    assert len(table.where(step=0)) == 1
    assert set(table.frame.dtypes.astype(str)) <= {dtype for dtype, _ in COLUMNS.values()}


def test_round_trip(tmp_path):
    table = Table.of(ROWS, {"chance": 0.9}, variants={"id": {"draw": 0}})
    table.save(tmp_path / "t.parquet")
    again = Table.open(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert (again.provenance, again.variants) == ({"chance": 0.9}, {"id": {"draw": 0}})


def test_wrong_columns_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="no such column: epoch"):
        Table.of([{"epoch": 3}])
    with pytest.raises(KeyError, match="no column 'draw'"):
        Table.of(ROWS).where(draw=0)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(UseError, match="is not a table of layerscope"):
        Table.open(tmp_path / "foreign.parquet")


def test_an_empty_table():
    assert len(Table.of([])) == 0
