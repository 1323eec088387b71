"""The verdicts of a study, as text for the report."""

from dataclasses import dataclass
from typing import Any

from layerscope.table import Table


@dataclass(frozen=True)
class ClaimText:
    """One claim: what it says, how it was decided."""

    id: str
    text: str
    verdict: str
    reason: str
    mean: str
    interval: str
    condition: str
    unit: str
    n: int
    statistic: str


@dataclass(frozen=True)
class StudyText:
    """A study and its claims."""

    title: str
    sentence: str
    source: str
    level: str
    floor: str
    claims: list[ClaimText]
    counted: str
    note: str
    several: bool
    lean: bool


def study(verdicts: Table) -> StudyText:
    """What the report says of a reproduction."""
    about = verdicts.provenance
    claims = [_claim(row, about["claims"][row["metric"]]) for row in verdicts.frame.to_dict("records")]
    counts = [f"{sum(c.verdict == word for c in claims)} {word}" for word in ("holds", "does not hold", "inconclusive")]
    networks = about.get("networks", about["runs"])
    runs = f"{networks} training run{'s' if networks > 1 else ''}"
    over = {claim.get("over", "seeds") for claim in about["claims"].values()}
    seeds = (
        "Over seeds: one number a seed; mean and 95 % interval (Student's t) over training runs with different seeds."
    )
    every = "Over networks: one number of all networks; its 95 % interval is over them, as its statistic says."
    runs_of = "Over runs: one number of all seeds; how its 95 % interval comes about is said below."
    counted = {"seeds": seeds, "runs": runs_of, "networks": every}
    sentence = (
        f"The paper's figure: {about['title']}. Here: {about['about']}; {runs}. Of its claims: {', '.join(counts)}."
    )
    return StudyText(
        f"{about['study']} at {about['scale']} scale",
        sentence,
        about["source"],
        "95 %",
        f"{100 * about['floor']:g} %",
        claims,
        " ".join(text for key, text in counted.items() if key in over),
        str(about.get("note", "")),
        networks > about["runs"],
        bool(about.get("lean", True)),
    )


def _claim(row: dict[str, Any], about: dict[str, Any]) -> ClaimText:
    return ClaimText(
        id=row["metric"],
        text=about["text"],
        verdict=row["verdict"],
        reason=row["reason"],
        mean=f"{row['value']:.3g}",
        interval=f"{row['low']:.3g} to {row['high']:.3g}" if row["interval"] else "none",
        condition=f"{about['relation']} {about['threshold']:g}",
        unit=row["unit"],
        n=int(row["n"]),
        statistic=about["statistic"],
    )
