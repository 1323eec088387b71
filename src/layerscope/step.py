"""A moment of training."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"(epoch|iteration|step|checkpoint)-(\d+)")
_WITHIN = re.compile(r"epoch-(\d+)-it-(\d+)")
FORM = "init, pretrained, final, epoch-12, step-500 or checkpoint-3"
"""How a step may be written; an iteration is a step too, and a pretrained network the start of a fine-tuning."""
PRETRAINED = "pretrained"


@dataclass(frozen=True, order=True)
class Step:
    """A moment of training: after `epoch` whole epochs and `iteration` further minibatches. Totally ordered.

    A training whose moments are all counted in minibatches has epoch 0 throughout; where nobody knows what a number counts,
    it stands as `epoch`. Which it is, says the `unit` of the trajectory: epoch, iteration or checkpoint.
    """

    epoch: int
    iteration: int = 0

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.iteration < 0:
            raise ValueError(f"a step cannot be negative: epoch {self.epoch}, iteration {self.iteration}")

    @classmethod
    def of(cls, number: int, unit: str) -> "Step":
        """The step of a number of epochs, iterations, or checkpoints."""
        return cls(0, number) if unit == "iteration" else cls(number)

    def number(self, unit: str) -> int:
        """The step as a number of a unit: the inverse of `of`."""
        return self.iteration if unit == "iteration" else self.epoch

    @property
    def name(self) -> str:
        """The name used in files and JSON: `init`, `final`, `epoch-00012` or `epoch-00012-it-000300`."""
        if self == FINAL:
            return "final"
        return f"epoch-{self.epoch:05d}" + (f"-it-{self.iteration:06d}" if self.iteration else "")

    @classmethod
    def parse(cls, name: str) -> "Step":
        """The step of a name made by `Step.name`, and of what a user may write for one: init, final, step-500, ..."""
        return parsed(name)[0]

    def __str__(self) -> str:
        return {INIT: "init", FINAL: "final"}.get(self, self.name)


INIT = Step(0)
"""Before any data is seen."""
FINAL = Step(sys.maxsize)
"""The last step of whatever trajectory it is used with."""
GIVE_START = "give initial= (--checkpoints init=FILE)"
"""How a user says where the start is, for errors."""


def parsed(name: str) -> tuple[Step, str]:
    """The step of a name, and the unit that it is counted in; no unit, where the name does not say."""
    if (named := {"init": INIT, "initial": INIT, PRETRAINED: INIT, "final": FINAL}.get(name)) is not None:
        return named, ""
    if match := _WITHIN.fullmatch(name):
        return Step(int(match[1]), int(match[2])), ""
    if not (match := _NAME.fullmatch(name)):
        raise ValueError(f"{name!r} is not a step; write {FORM}")
    unit = "iteration" if match[1] == "step" else match[1]
    return Step.of(int(match[2]), unit), unit


def unit_of(steps: Iterable[Step]) -> str:
    """In what these steps can be counted: iterations, if all are of one epoch's."""
    known = [step for step in steps if step not in (INIT, FINAL)]
    return "iteration" if known and all(step.epoch == 0 for step in known) else "epoch"
