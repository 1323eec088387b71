"""The one result type: a DataFrame with a schema and provenance, in one Parquet file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.errors import UseError
from layerscope.spec import canonical_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

CORE = {
    "run": ("string", "name of the run"),
    "variant": ("string", "id of the Variant in `Table.variants`; empty where no network was evaluated"),
    "part": ("string", "name of the Part that was changed"),
    "perturbation": (
        "string",
        "what was done there: none, rewind, rerandomize, permute, moments, interpolate, noise; empty where nothing was",
    ),
    "metric": ("string", "what was measured"),
    "unit": ("string", "unit of value, low and high"),
    "split": (
        "string",
        "data the metric was measured on: test, train, recovered (train with the labels before label noise); empty where none "
        "was needed",
    ),
    "value": ("float64", "the number"),
    "n": ("Int64", "how many samples, draws or runs the number rests on"),
    "low": ("float64", "lower end of the interval"),
    "high": ("float64", "upper end of the interval"),
    "interval": (
        "string",
        "kind of the interval: population, dataset, draws, runs, numerical (of a computation); empty where there is none",
    ),
    "level": ("float64", "confidence level of the interval"),
    "verdict": ("string", "ambient, critical, destroyed or undecided; empty where none was asked"),
    "status": ("string", "ok, or what went wrong"),
    "reason": ("string", "why, where the status is not ok"),
    "engine": ("string", "what computed the number"),
}
"""Columns that every table has: name -> (dtype, meaning)."""

COORDINATES = {
    "step": (
        "Int64",
        "number of the checkpoint whose values were used, 0 before any data is seen (or the pretrained network); provenance has "
        "the step_unit",
    ),
    "iteration": ("Int64", "minibatches after that epoch, where the checkpoint lies within one"),
    "eps": ("float64", "the error that a criticality allows"),
    "alpha": ("float64", "place on the way from the start (0) to the trained values (1)"),
    "alpha_b": ("float64", "the place nearer the trained values that a place on the way is compared with"),
    "sigma": ("float64", "standard deviation of the noise on each parameter"),
    "side": ("Int64", "the side of the way that the noise lies on: the sign of its inner product with the start"),
    "draw": ("Int64", "index of the random draw, from 0"),
    "rechecked": ("Int64", "samples whose outputs in a shorter number format were computed again in float32"),
    "distance": ("float64", "2-norm of how far a Part's parameters moved from their start, over all of them together"),
    "error": ("float64", "estimated expected error under the noise"),
    "certificate": ("float64", "upper confidence bound of the expected error under the noise, over its draws"),
    "complexity": ("float64", "nats that a bound on new data rests on: what of it grows with the way from the start"),
    "passes": ("Int64", "samples that went through a network for this answer, each as often as it did"),
    "tensor": ("string", "the tensor, or the part of one, that a spectrum is of"),
    "operator": (
        "string",
        "what a number of a layer's linear map is of: itself, or circular, the same weights on inputs that go round in circles",
    ),
    "index": ("Int64", "place of a singular value among all of a layer's, from the largest, 0"),
    "layer": ("string", "the module whose outputs are compared"),
    "layer_b": ("string", "the module of the other network whose outputs they are compared with"),
    "measure": ("string", "the measure whose ranking of networks is compared with that of their generalisation error"),
    "measure_b": ("string", "the measure that it is compared with; the best other: whichever of them ranks best"),
    "given": ("string", "the hyperparameter in which alone the networks that are compared differ"),
    "groups": ("Int64", "groups of networks that differ in one hyperparameter only"),
    "pairs": ("Int64", "pairs of networks within such groups"),
    "to": ("string", "what a distance is measured to, or values are the difference to: start, substituted"),
    "trained": ("Int64", "whole epochs that a member of a sweep was trained for"),
    "reached": ("boolean", "whether its training came to what it was waiting for"),
    "ending": ("string", "why its training ended"),
    "seconds": ("float64", "how long its training took, or its share of a stack's time"),
}
"""Columns that are there only where they apply: name -> (dtype, meaning)."""

COLUMNS = CORE | COORDINATES


def columns(provenance: Mapping[str, Any]) -> dict[str, str]:
    """All columns that a table may have: name -> dtype. Those of a sweep's grid are named by the `grid` of its provenance, and
    come after the run's name."""
    run, *others = ((name, dtype) for name, (dtype, _) in COLUMNS.items())
    return dict([run, *provenance.get("grid", ()), *others])


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of results. `frame` is a pandas DataFrame with the columns of `CORE` and some of `COORDINATES`;
    `provenance` says what it rests on; `variants` maps a variant's id to its JSON description."""

    frame: "pd.DataFrame"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], provenance: Mapping[str, Any] | None = None, **more: Any) -> "Table":
        """A table of rows; a column that no row has is filled with missing values (coordinates: left out)."""
        import pandas as pd

        rows, known = list(rows), columns(provenance or {})
        given = {name for row in rows for name in row}
        if surplus := given - set(known):
            raise ValueError(f"no such column: {', '.join(sorted(surplus))}; see layerscope.table.COLUMNS")
        dtypes = {name: dtype for name, dtype in known.items() if name in CORE or name in given}
        missing = {name: ("" if dtype == "string" else None) for name, dtype in dtypes.items()}
        frame = pd.DataFrame([missing | dict(row) for row in rows], columns=list(dtypes))
        return cls(frame.astype(dtypes), provenance or {}, **more)

    def __len__(self) -> int:
        return len(self.frame)

    def with_facts(self, **facts: Any) -> "Table":
        """The same rows, with more in their provenance, or other values of what is there."""
        return Table(self.frame, {**self.provenance, **facts}, self.variants)

    def where(self, **equal: Any) -> "pd.DataFrame":
        """The rows whose columns equal the given values, in order."""
        frame = self.frame
        for name, value in equal.items():
            if name not in frame:
                raise KeyError(f"this table has no column {name!r}")
            column: pd.Series = frame[name]  # pyright: ignore[reportAssignmentType]
            frame = frame.loc[column.eq(value).fillna(False).astype(bool)]
        return frame

    def _repr_html_(self) -> str:
        """What a notebook shows: the rows, without the columns that are empty throughout."""
        from markupsafe import escape

        empty = self.frame.isin([""]) | self.frame.isna()
        filled = [name for name in self.frame.columns if not bool(empty[name].all())]
        rests = ", ".join(f"{k} {v}" for k, v in self.provenance.items() if isinstance(v, str | int | float))
        caption = f"{len(self)} rows" + (f"; {rests}" if rests else "")
        rows = self.frame[filled].to_html(max_rows=20, index=False, na_rep="", float_format="{:.4g}".format)
        return f"<p>{escape(caption)}</p>{rows}"

    def parts(self) -> list[str]:
        """The names of the Parts in the order they were analysed."""
        return [name for name in self.frame["part"].unique() if name]

    def save(self, path: Path) -> None:
        """Write the table as one Parquet file, with provenance and variants in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {"schema": SCHEMA, "provenance": self.provenance, "variants": self.variants}
        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), b"layerscope": canonical_json(about).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")

    @classmethod
    def open(cls, path: str | Path) -> "Table":
        """Read a table that `save` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = (table.schema.metadata or {}).get(b"layerscope")
        if metadata is None:
            raise UseError(f"{path} is not a table of layerscope")
        about = json.loads(metadata)
        if about["schema"] != SCHEMA:
            raise UseError(f"{path} has table schema {about['schema']}; this version reads {SCHEMA}")
        frame, known = table.to_pandas(), columns(about["provenance"])
        frame = frame.astype({name: known[name] for name in frame.columns})
        return cls(frame, about["provenance"], about["variants"])
