"""Which tensors are changed together: Parts, and the Partition of a network into Parts. Names only: never loads torch.

Every file is one rule or one idea: `part` the words, `tensors` and `owners` what a network has, `layers` the Parts that
all other rules put together (`groups`, `blocks`, `joint`) or divide (`cuts`), `coverage` that nothing is forgotten.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerscope.partition.listing import rows
from layerscope.partition.part import ROOT, WHOLE, Part, Slice, overlap
from layerscope.partition.partition import Partition
from layerscope.partition.tensors import every_tensor, first_names, whole

if TYPE_CHECKING:
    from torch import nn

BY: dict[str, "Callable[[nn.Module], Partition]"] = {
    "layer": Partition.by_layer,
    "module": Partition.by_module,
    "block": Partition.by_block,
    "stage": Partition.by_stage,
    "projection": Partition.by_projection,
    "head": Partition.by_head,
}
"""Name -> the way to make a Partition that needs the model alone, as the command line knows it."""

__all__ = [
    "BY",
    "ROOT",
    "WHOLE",
    "Part",
    "Partition",
    "Slice",
    "every_tensor",
    "first_names",
    "overlap",
    "rows",
    "whole",
]
