"""A moment of training."""

import re
import sys
from dataclasses import dataclass

_NAME = re.compile(r"epoch-(\d+)(?:-it-(\d+))?")


@dataclass(frozen=True, order=True)
class Step:
    """A moment of training: after `epoch` whole epochs and `iteration` further minibatches. Totally ordered."""

    epoch: int
    iteration: int = 0

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.iteration < 0:
            raise ValueError(f"a step cannot be negative: epoch {self.epoch}, iteration {self.iteration}")

    @property
    def name(self) -> str:
        """The name used in files and JSON: `init`, `final`, `epoch-00012` or `epoch-00012-it-000300`."""
        if self == FINAL:
            return "final"
        return f"epoch-{self.epoch:05d}" + (f"-it-{self.iteration:06d}" if self.iteration else "")

    @classmethod
    def parse(cls, name: str) -> "Step":
        """The step of a name made by `Step.name`; `init` and `final` are understood too."""
        if name in ("init", "final"):
            return INIT if name == "init" else FINAL
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name!r} is not a step; write init, final, epoch-00012 or epoch-00012-it-000300")
        return cls(int(match[1]), int(match[2] or 0))

    def __str__(self) -> str:
        return {INIT: "init", FINAL: "final"}.get(self, self.name)


INIT = Step(0)
"""Before any data is seen."""
FINAL = Step(sys.maxsize)
"""The last step of whatever trajectory it is used with."""
