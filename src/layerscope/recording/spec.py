"""What is recorded, and what the folder says about how the recording went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from layerscope.spec import Spec

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class RecordSpec(Spec):
    """A training that was not ours, recorded while it ran: of which network. How it was trained, only its owner knows."""

    KIND: ClassVar[str] = "recorded"

    network: str = ""
    """The class of the model."""
    values: int = 0
    """How many numbers a checkpoint has."""
    tensors: str = ""
    """Fingerprint of the names, shapes and dtypes of its tensors."""


def warnings(facts: Facts) -> list[str]:
    """What has to be known before a recording is believed, given what its provenance says of it."""
    said = []
    if why := facts.get("diverged"):
        said.append(f"the training diverged, {why}: the last checkpoint before that stands for the trained network")
    if not facts.get("finished"):
        said.append("the recording was not finished: its last checkpoint stands for the trained network")
    unsure = [each["after"] for each in facts.get("sessions", ()) if each["after"] and not each["held"]]
    return said + [
        f"the recording stopped at {after} or later and went on with a model that had the values of none of its checkpoints: "
        "that both are of one training is known only to who recorded them"
        for after in unsure
    ]


def notes(facts: Facts, has_start: bool) -> list[str]:
    """How checkpoints came to be, in words."""
    start = "the first of them before it" if has_start else "none of them before it"
    return [f"its checkpoints were recorded during its training, {start}", *filter(None, [facts.get("end")])]
