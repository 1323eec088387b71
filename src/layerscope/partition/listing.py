"""A Partition as plain values: what a table of it shows."""

from math import prod
from typing import TYPE_CHECKING, Any

from layerscope.partition.coverage import size, sizes
from layerscope.partition.owners import kind
from layerscope.partition.part import Part
from layerscope.partition.partition import Partition
from layerscope.partition.tensors import same, tensors

if TYPE_CHECKING:
    from torch import nn


def rows(model: "nn.Module", partition: Partition) -> dict[str, Any]:
    """What is in each Part, how large it is, and what is left out.

    - `parts`: for each Part a dict of `part` (its name), `modules` (their classes), `tensors` (their names, with ranges
      in brackets where the Part has only some of it), `parameters` and `buffers` (how many scalars; tied ones once) and
      `share` (of all parameters of the model, 0 to 1);
    - `left_out`: for each tensor a dict of `tensor`, `reason` and `size` (how many scalars; 0 for what is no tensor);
    - `parameters`: how many scalars all parameters of the model have.

    Errors: UseError if the Partition does not fit the model.
    """
    partition.check(model)
    shapes = {name: tensor.shape for name, tensor in tensors(model).items()}
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    classes = {path: kind(module).__name__ for path, module in model.named_modules(remove_duplicate=False)}
    groups = set(same(model).values())
    parameters = {group[0] for group in groups if not trained.isdisjoint(group)}
    buffers = {group[0] for group in groups} - parameters
    total = sum(parameter.numel() for parameter in model.parameters())

    def scalars(part: Part, among: set[str]) -> int:
        return sum(size(each, shapes[each.tensor]) for each in part.slices if each.tensor in among)

    parts = [
        {
            "part": part.name,
            "modules": ", ".join(dict.fromkeys(classes[path] for path in part.modules)),
            "tensors": [str(each) for each in part.slices],
            "parameters": scalars(part, parameters),
            "buffers": scalars(part, buffers),
            "share": scalars(part, parameters) / total if total else 0.0,
        }
        for part in partition
    ]
    placed = sizes(partition.parts, shapes)
    left_out = [
        {"tensor": name, "reason": reason, "size": prod(shapes.get(name, (0,))) - placed.get(name, 0)}
        for name, reason in partition.left_out.items()
    ]
    return {"parts": parts, "left_out": left_out, "parameters": total}
