"""What was found, in words computed from the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import RANDOM, Cell, Column, Grid, changed, has, layer_grid, unmodified
from layerscope.plots.names import counted, shown_unit
from layerscope.table import Table

_VERBS = {
    "ambient": ("is ambient", "are ambient"),
    "critical": ("is critical", "are critical"),
    "destroyed": ("destroys the network", "destroy the network"),
    "undecided": ("is undecided", "are undecided"),
}


@dataclass(frozen=True)
class Findings:
    """A few sentences, and the rule behind the verdicts: words and meanings."""

    sentences: list[str]
    rule: list[tuple[str, str]]


def found(table: Table, spec: Mapping[str, Any]) -> Findings:
    """What an analysis found."""
    values, deltas = layer_grid(table) if has(table) else None, changed(table)
    sentences = [_unmodified_sentence(table)]
    if values is not None:
        sentences += [_start_sentence(values, deltas), _random_sentence(values, deltas)]
    return Findings(sentences, _rule(table, spec))


def _unmodified_sentence(table: Table) -> str:
    about, cell = About.of(table), unmodified(table)
    if cell.missing:
        return f"The {about.noun} of the unmodified network is not known ({cell.missing})."
    factor, unit = shown_unit(about.metric, _unit(table))
    if about.metric == "error":
        return _wrong(cell, factor * about.chance, about)
    unit = "%" if unit.startswith("%") else unit
    ends = f"{words.interval(cell, unit)} {unit}".rstrip()
    within = f"; {words.level(cell)} interval {ends}" if cell.has_interval else ""
    guess = f" Guessing would give {words.quantity(factor * about.chance, unit)}." if about.knows_chance else ""
    return (
        f"The {about.noun} of the unmodified network is {words.quantity(cell.value, unit)} "
        f"(n = {words.plural(cell.n, counted(about.metric))} of test data{within}).{guess} "
        f"{'Higher' if about.higher else 'Lower'} is better."
    )


def _wrong(cell: Cell, chance: float, about: About) -> str:
    """The same for the error of a classifier."""
    within = f" ({words.level(cell)} interval {words.interval(cell, '%')} %)" if cell.has_interval else ""
    guess = f" Guessing would get {chance:.4g} % wrong." if about.knows_chance else ""
    number = words.number(cell.value, "%")
    return f"The trained network gets {number} % of {words.count(cell.n)} test samples wrong{within}.{guess}"


def _start_sentence(values: Grid, deltas: Grid | None) -> str:
    part = values.about.part
    if 0 in values.columns:
        origin = "pretrained" if values.about.pretrained else "their start"
        return _sentence(values, deltas, 0, f"put back to {origin} one at a time")
    if values.steps:
        return f"The values before training were not kept, so no {part} could be put back to its start."
    instead = f" Each {part} was {values.about.randomised} instead." if values.has_random else ""
    return (
        f"There are no values from before training, so it cannot be said what happens when a {part} is put back to its "
        f"own start.{instead}"
    )


def _random_sentence(values: Grid, deltas: Grid | None) -> str:
    draws = values.rests_on(True)
    if not values.has_random or not draws:
        return f"No {values.about.part} was {values.about.randomised}."
    how = f"mean over {words.plural(draws, 'draw')}" if draws > 1 else "one draw"
    return _sentence(values, deltas, RANDOM, f"{values.about.randomised} one at a time ({how})")


def _sentence(values: Grid, deltas: Grid | None, column: Column, how: str) -> str:
    """Counts, names and values by verdict; where there can be no verdicts, the least and the most harmful."""
    part = values.about.part
    names = [name for name in values.parts if not values.at(name, column).missing]
    if not names:
        return f"No number is known for {part}s {how}."
    counted = f"Of {words.plural(len(names), part)} {how}"
    if not values.about.knows_chance and not _decided(deltas):
        return f"{counted}, {_ends(values, column, names)}."
    groups: dict[str, list[str]] = {}
    for name in names:
        verdict = deltas.at(name, column).verdict if deltas else ""
        groups.setdefault(verdict or "without a verdict", []).append(name)
    said = [_group(values, column, v, groups[v], len(names)) for v in (*_VERBS, "without a verdict") if v in groups]
    return f"{counted}, {'; '.join(said)}."


def _decided(deltas: Grid | None) -> bool:
    return deltas is not None and any(cell.verdict not in ("", "undecided") for cell in deltas.flat())


def _ends(values: Grid, column: Column, names: Sequence[str]) -> str:
    ranked = _ranked(values, column, names)
    worst, best = ranked[0], ranked[-1]
    most, least = (words.quantity(values.at(name, column).value, values.amount) for name in (worst, best))
    return f"{worst} does most harm ({most})" + (f", {best} least ({least})" if best != worst else "")


def _ranked(values: Grid, column: Column, names: Sequence[str]) -> list[str]:
    """Names from the worst to the best."""
    return sorted(names, key=lambda name: values.at(name, column).value, reverse=not values.higher)


def _group(values: Grid, column: Column, verdict: str, names: Sequence[str], of: int) -> str:
    verb = _VERBS.get(verdict, ("is without a verdict", "are without a verdict"))[len(names) > 1]
    numbers = [values.at(name, column).value for name in names]
    low, high = (words.number(end(numbers), values.unit) for end in (min, max))
    span = low if low == high else f"{low} to {high}"
    every = "all " if len(names) == of > 1 else ""
    told = words.listed(names) if len(names) <= 6 else f"worst first: {words.listed(_ranked(values, column, names), 4)}"
    return f"{every}{len(names)} {verb} ({told}; {span} {values.amount})"


def _unit(table: Table) -> str:
    """The table's own unit of the deciding metric."""
    units = table.where(metric=About.of(table).metric)["unit"]
    return next((str(unit) for unit in units if isinstance(unit, str) and unit), "")


def _rule(table: Table, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The words of the verdicts with their thresholds in the metric's own unit."""
    about, cell = About.of(table), unmodified(table)
    if not about.knows_chance and about.why_no_chance:
        why = f"everything, since the rule needs to know what a guess would score: {words.no_chance(about)}"
        return [("undecided", why)]
    factor, unit = shown_unit(f"{about.metric}_delta", _unit(table))
    gap = factor * about.gap(cell.value / factor)
    if not gap > 0:
        return [("undecided", f"all {about.part}s: the unmodified network is not known to be better than chance")]
    return _thresholds(gap, unit, spec, about)


def _thresholds(gap: float, unit: str, spec: Mapping[str, Any], about: About) -> list[tuple[str, str]]:
    """A bad change is negative where higher is better."""
    below, above, sign = ("above", "below", -1) if about.higher else ("below", "above", 1)
    ambient, destroyed = (words.number(sign * spec[name] * gap, unit) for name in ("ambient", "destroyed"))
    points = "points" if unit == "percentage points" else unit
    whole = f"{words.number(gap, unit)} {points}".strip()
    share = f"{spec['ambient']:g} of the {whole} from the unmodified network to chance"
    return [
        ("ambient", f"the whole interval of the change lies {below} {f'{ambient} {unit}'.strip()} ({share})"),
        ("critical", f"the whole interval lies {above} {f'{ambient} {unit}'.strip()}"),
        (
            "destroyed",
            f"the whole interval lies {above} {f'{destroyed} {points}'.strip()} ({spec['destroyed']:g} of the same)",
        ),
        ("undecided", "none of these: the data are too few to tell, or there is no interval"),
    ]
