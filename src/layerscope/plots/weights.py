"""What values alone say, as rows of text: for the terminal and the report."""

from dataclasses import dataclass

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import Grid, Record, column_name, distance_grid, has_distances, norm_grid, records
from layerscope.table import Table

CONVOLUTIONS = (
    "A weight with more than two axes, such as a convolution, counts as the matrix of its first axis x all others (outputs x "
    "inputs and kernel): its largest singular value is not the norm of the map from image to image. Vectors have no spectrum."
)


@dataclass(frozen=True)
class Listing:
    """A table of text: its caption, the heads of its columns, and its rows, which begin with a name."""

    caption: str
    heads: list[str]
    rows: list[list[str]]


def listings(table: Table) -> list[Listing]:
    """Norms and distances of Parts, and spectra of their matrices, at the first checkpoint and the last."""
    return [_parts(table), *filter(None, [_matrices(table)])]


def _parts(table: Table) -> Listing:
    """One row a Part."""
    norms, about = norm_grid(table), About.of(table)
    ends = list(dict.fromkeys((norms.steps[0], norms.steps[-1])))
    sizes = {row["part"]: words.count(row["n"]) for row in records(table.where(metric="norm_rms")) if row["n"]}
    columns = [(f"RMS, {_called(table, step)}", norms, step) for step in ends]
    if has_distances(table) and len(ends) > 1:
        l2, largest = distance_grid(table), distance_grid(table, "max")
        columns += [("moved, RMS", l2, ends[-1]), ("moved, largest", largest, ends[-1])]
    rows = [
        [part, sizes.get(part, "0"), *(_number(grid, part, step) for _, grid, step in columns)] for part in norms.parts
    ]
    caption = f"How large the values of each {about.part} are; RMS is the root mean square of all entries."
    if len(columns) > len(ends):
        caption += f" How far they moved from {about.origin}: RMS and largest entry of the difference."
    return Listing(caption, [about.part, "parameters", *(head for head, _, _ in columns)], rows)


def _matrices(table: Table) -> Listing | None:
    """One row a matrix and checkpoint; None if there is none."""
    found: dict[tuple[str, int], dict[str, Record]] = {}
    for row in records(table.frame):
        if row.get("tensor"):
            found.setdefault((row["tensor"], row["step"]), {})[row["metric"]] = row
    if not found:
        return None
    what = {
        "spectrum_largest": "largest",
        "spectrum_stable_rank": "stable rank",
        "spectrum_effective": "effective number",
    }
    rows = [
        [
            name,
            _called(table, step),
            words.count(cells["spectrum_largest"]["n"]),
            *(_cell(cells[metric]) for metric in what),
        ]
        for (name, step), cells in found.items()
    ]
    caption = (
        "Singular values of each matrix: how many there are, the largest, the stable rank (sum of squares / largest square) and "
        "the effective number of them (exponential of the entropy of their shares of the sum)."
    )
    return Listing(f"{caption} {CONVOLUTIONS}", ["matrix", "checkpoint", "values", *what.values()], rows)


def _called(table: Table, step: int) -> str:
    """The first checkpoint and the last in a word."""
    about, steps = About.of(table), sorted(set(table.frame["step"].dropna()))
    if step == steps[-1]:
        return "trained"
    return about.start if step == 0 else column_name(step, about)


def _number(grid: Grid, part: str, step: int) -> str:
    cell = grid.at(part, step)
    return "-" if cell.missing else words.number(cell.value, "")


def _cell(row: Record) -> str:
    return words.number(row["value"], "") if row["status"] == "ok" else "-"
