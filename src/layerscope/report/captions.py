"""What stands over and under the pictures, in the words of the table."""

from layerscope.plots import names, words
from layerscope.plots.grid import WHOLE, Grid
from layerscope.plots.series import Panel

DATA = {"test": "test", "train": "training"}
"""Split -> how sentences call it."""
_DISTANCES = {
    "distance_l2": (
        "Distance from {origin}, 2-norm",
        "Map of the distance of each {part} from {its_origin}, 2-norm divided by the square root of the number of "
        "parameters. Rows are {part}s, columns are {step}s.",
        "The colour is how far a {part}'s parameters at {a_step} are from {where}: the 2-norm of the difference, "
        "divided by the square root of the number of parameters. It is the typical change of one parameter. {compare}",
    ),
    "distance_max": (
        "Distance from {origin}, largest entry",
        "Map of the largest change of any parameter of each {part} from {its_origin}. Rows are {part}s, columns are {step}s.",
        "As above, but the colour is the largest change of any single parameter of the {part}.",
    ),
    "norm_rms": (
        "Norm of the values, root mean square",
        "Map of the root mean square of the parameters of each {part}. Rows are {part}s, columns are {step}s.",
        "The colour is the root mean square of a {part}'s parameters at {a_step}: its Frobenius norm, divided by the square "
        "root of their number.",
    ),
}
"""Metric -> heading, label and caption of its map."""


def heading(grid: Grid) -> str:
    """The title of a map."""
    if not grid.split:
        return _DISTANCES[grid.metric][0].format(**_words(grid))
    return f"{names.title(grid.metric)} on {DATA[grid.split]} data with one {grid.about.part} changed"


def label(grid: Grid) -> str:
    """What a map is, for those who hear it."""
    if not grid.split:
        return _DISTANCES[grid.metric][1].format(**_words(grid))
    part, step = grid.about.part, grid.about.step
    columns = (
        f"columns are the {step}s they are put back to"
        if grid.steps
        else f"the column has the {part} {grid.about.randomised}"
    )
    return f"Map of the {names.noun(grid.metric)} on {DATA[grid.split]} data. Rows are {part}s, {columns}."


def caption(grid: Grid, again: bool = False) -> str:
    """How to read a map; `again` for one on training data below that on test data."""
    if not grid.split:
        return _DISTANCES[grid.metric][2].format(**_words(grid))
    noun, data = names.noun(grid.metric), DATA[grid.split]
    if again:
        return (
            f"As above, but with the {noun} on the data that the network was trained on. Where a number is "
            f"{'higher' if grid.higher else 'lower'} here than above, the network knows its training data better than new data. "
            "Read this from the numbers: each map has its own scale of colours."
            + (_colours(grid) if grid.scale.kind == "log" else "")
        )
    return (_rows_and_columns(grid, noun, data) if grid.steps else _rows_alone(grid, noun, data)) + _colours(grid)


def axis(grid: Grid) -> str:
    """What the columns of a map are; empty if they are no steps."""
    step, part = grid.about.step, grid.about.part
    if not grid.split:
        return step
    return f"{step} whose values the {part} is put back to" if grid.steps else ""


def curve_heading(panel: Panel) -> str:
    """The title of a picture of lines."""
    step, part = panel.about.step, panel.about.part
    if panel.metric == "distance_l2":
        return f"Distance from {panel.about.origin} over {step}s, 2-norm"
    if panel.metric == "distance_max":
        return f"Distance from {panel.about.origin} over {step}s, largest entry"
    return f"Test {names.noun(panel.metric)} against the {step} a {part} is put back to"


def curve_caption(panel: Panel) -> str:
    """How to read such a picture."""
    step, part, noun = panel.about.step, panel.about.part, names.noun(panel.metric)
    some = f" {panel.chosen()}" if panel.others else ""
    if panel.metric.startswith("distance_"):
        return (
            f"One line a {part}.{some} Its height is how far the {part}'s parameters are from {panel.about.origin} at that "
            f"{step}, in units of a parameter. A flat end means that the {part} no longer moved. Distances are computed, not "
            "sampled, so they have no interval."
        )
    return (
        f"One line a {part}.{some} Its height is the test {noun} when that {part} alone has its values of that {step}. "
        f"A line that starts {'high' if panel.scale.flipped else 'low'} belongs to a {part} that hardly needed "
        f"{'fine-tuning' if panel.about.pretrained else 'training'}. "
        f"All lines end at the {noun} of the unmodified network."
    )


def _rows_and_columns(grid: Grid, noun: str, data: str) -> str:
    part, step = grid.about.part, grid.about.step
    random = (
        f" The column on the left, set apart, has the {part} {grid.about.randomised} (mean over draws)."
        if grid.has_random
        else ""
    )
    first = f" The first {step} is the pretrained network." if grid.about.pretrained and 0 in grid.steps else ""
    whole = f" The last row has the whole network at that {step}." if WHOLE in grid.rows else ""
    return (
        f"A row is one {part}, a column one {step}. The colour is the {noun} on {data} data when that {part} alone has its "
        f"values of that {step} and all others are as trained.{first}{random} A row that stays light can be put back "
        f"alone without harm.{whole}"
    )


def _rows_alone(grid: Grid, noun: str, data: str) -> str:
    part = grid.about.part
    return (
        f"A row is one {part}. The colour is the {noun} on {data} data when that {part} alone is {grid.about.randomised} (mean "
        f"over draws) and all others are as trained. A {part} that stays light can be {grid.about.again} alone without harm."
    )


def _colours(grid: Grid) -> str:
    """How the colours follow the numbers."""
    scale, noun = grid.scale, names.noun(grid.metric)
    said = []
    if scale.flipped:
        said.append("More is better: the light end of the colours is the high one.")
    if not grid.about.knows_chance or grid.metric != grid.about.metric:
        said.append("The colours span the values of this map alone: dark is the worst there is, which may be little.")
    if scale.kind == "log":
        said.append("The colours follow the logarithm, as the values span orders of magnitude.")
    elif scale.flipped or scale.low != 0:
        good = words.quantity(scale.high if scale.flipped else scale.low, grid.unit)
        said.append(
            f"The colours start at {good} and follow the square root of the distance from there, so that small changes can "
            "be told apart."
        )
    else:
        said.append(
            f"The colours follow the square root of the {noun}, so that small {_plural(noun)} can be told apart."
        )
    if scale.clipped:
        said.append("What is worse than the dark end has its colour.")
    return " " + " ".join(said)


def _plural(noun: str) -> str:
    return f"{noun}s" if noun.endswith("error") else "values"


def _words(grid: Grid) -> dict[str, str]:
    step = grid.about.step
    return {
        "part": grid.about.part,
        "step": step,
        "a_step": f"{'an' if step[0] in 'aeiou' else 'a'} {step}",
        "compare": f"Compare with the {names.noun(grid.about.metric)} map: a {grid.about.part} may move far and still be "
        "ambient, or move little and be critical."
        if grid.about.measured
        else f"It says nothing about whether the {grid.about.part} matters.",
        "origin": grid.about.origin,
        "its_origin": "its pretrained values" if grid.about.pretrained else "its start",
        "where": "their pretrained values" if grid.about.pretrained else "where they began",
    }
