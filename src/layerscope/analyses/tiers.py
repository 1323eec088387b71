"""What can be answered with what there is of a network, and what not. Never imports torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tier:
    """What there is (`name`), what it `answers`, and in sentences what it `cannot`."""

    name: str
    answers: str
    cannot: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the provenance of a table."""
        return {**asdict(self), "cannot": list(self.cannot)}


RANDOM = {
    "law": "Whether random values are those of an initialisation: they come from the laws that modules or the user state, "
    "with no random values to check them against.",
    "permutation": "What the initial law would do: random values are the trained ones in random order, spread as these are.",
    "moments": "What the initial law would do: random values are draws with the moments of the trained ones.",
}
"""Where random values come from -> what cannot be said of them."""


MOVED = "How far layers moved from their start, and whether they can go back to it: the start is not there."


def without_data(start: bool) -> Tier:
    """The Tier of values alone, with a `start` (a random or a pretrained one) or without."""
    matter = "Which layers matter: that takes data, on which a changed network can be measured."
    means = "What these numbers mean for what the network does: a large change may do nothing, and a small one much."
    moved = "how far layers moved, and " if start else ""
    answers = f"{moved}how large their values are, and the spectra of their matrices"
    return Tier("no data", answers, (matter, means, *(() if start else (MOVED,))))


def tier_of(
    steps: Sequence[int], *, start: bool, pretrained: bool = False, redraw: str = "", there: int | None = None
) -> Tier:
    """The Tier of a trajectory with checkpoints at `steps`, with data. `start`: the first is the start, a random or a
    `pretrained` one. `redraw`: where random values come from, if there are any. `there`: how many checkpoints there are,
    looked at or not."""
    random = (RANDOM[redraw],) if redraw and (redraw != "law" or not start or pretrained) else ()
    between = len(steps) > 2
    training = "fine-tuning" if pretrained else "training"
    none = (
        "none of the checkpoints in between was looked at"
        if (there or 0) > 2
        else "there are no checkpoints in between"
    )
    when = () if between else (f"When in {training} a layer became critical: {none}.",)
    if pretrained:
        needed = "Which layers the network needs at all: one that can be put back may hold what pretraining gave it."
        answers = "which layers fine-tuning changed so that it matters, and how far each moved"
        return Tier("pretrained and fine-tuned", answers, (needed, *when, *random))
    if start and between:
        more = "What another training would give: this is one run."
        return Tier(
            "full trajectory", "which layers matter, when they came to, and how far each moved", (more, *random)
        )
    if start:
        return Tier("start and end", "which layers matter, and how far each moved", (*when, *random))
    if len(steps) > 1:
        answers = "since when layers have had what they need, as far back as there are checkpoints"
        return Tier("checkpoints without the start", answers, (MOVED, *when, *random))
    answers = "which layers stand random values" if redraw else "how good the network is"
    return Tier("trained network alone", answers, (MOVED, *when, *random))
