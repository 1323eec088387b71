"""Many networks of one form as one: their values stacked, so that one product does the work of many."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from layerscope.state import State


@dataclass(frozen=True)
class Flow:
    """What goes from layer to layer, in one of three forms: `inputs` of each feed, `[feeds, n, *shape]`, as long as all members
    that share them see the same; then `units`, `[members, units, n]`, or `channels`, `[n, members * channels, height, width]`.

    `counts` has how many members each feed has.
    """

    values: Tensor
    form: str
    counts: Sequence[int]

    def become(self, values: Tensor, form: str = "") -> "Flow":
        return replace(self, values=values, form=form or self.form)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Flow":
        """Changed sample by sample and channel by channel."""
        if self.form == "inputs":
            feeds, n, *shape = self.values.shape
            found = change(self.values.reshape(feeds * n, *shape))
            return self.become(found.reshape(feeds, n, *found.shape[1:]))
        return self.become(change(self.values))


class Stack:
    """Networks of one form, each with values of its own: `values` has every parameter of all of them, `[members, *shape]`.

    Members that see the same inputs (a *feed*) stand side by side. Their first layer is one product: the inputs times all
    their weights. Each later layer is a batched product, a convolution one with as many groups as members.
    """

    def __init__(self, form: nn.Module, values: Mapping[str, Tensor]) -> None:
        self.form = form
        still = {name for name, parameter in form.named_parameters() if not parameter.requires_grad}
        self.values = {name: value.detach().requires_grad_(name not in still) for name, value in values.items()}

    @classmethod
    def of(cls, models: Sequence[nn.Module]) -> "Stack":
        """The stack of these networks; their values are copied."""
        each = [dict(model.named_parameters()) for model in models]
        return cls(models[0], {name: torch.stack([own[name].detach() for own in each]) for name in each[0]})

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def trained(self) -> list[Tensor]:
        """The values that are not frozen, in the order of the form's parameters."""
        return [value for value in self.values.values() if value.requires_grad]

    def outputs(self, feeds: Tensor, counts: Sequence[int]) -> Tensor:
        """`[members, classes, n]`, for the inputs of each feed, `[feeds, n, *shape]`; it has so many members, in their order."""
        flow = Flow(feeds, "inputs", counts)
        for path, module in _leaves(self.form):
            own = {name: self.values[f"{path}.{name}" if path else name] for name, _ in module.named_parameters()}
            flow = LAYERS[type(module)](module, own, flow)
        return flow.values

    def member(self, at: int) -> State:
        """The values of one network, copied."""
        return {name: value[at].detach().clone() for name, value in self.values.items()}

    def only(self, chosen: Tensor) -> "Stack":
        """The stack of some members (`[any]`, int64)."""
        return Stack(self.form, {name: value.detach()[chosen] for name, value in self.values.items()})


def why_not(model: nn.Module) -> str:
    """Why networks of this form cannot be stacked; nothing if they can."""
    if unknown := next((module for _, module in _leaves(model) if type(module) not in LAYERS), None):
        return f"it has a layer of a kind that is not stacked, {type(unknown).__name__}"
    for path, module in _leaves(model):
        if why := _unusual(module):
            return f"{path} {why}"
    if not any(isinstance(module, nn.Linear) for _, module in _leaves(model)):
        return "it has no linear layer at its end"
    return ""


def work_of(form: nn.Module, shape: tuple[int, ...], n: int) -> tuple[int, int, int]:
    """Of one network: its values, and the outputs of layers and the multiplications of a forward of `n` samples of a shape.
    Nothing is computed."""
    form, outputs = copy.deepcopy(form).to("meta", torch.float32), 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    for _, module in _leaves(form):
        module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        form(torch.empty(n, *shape, device="meta"))
    return sum(parameter.numel() for parameter in form.parameters()), outputs, flops.get_total_flops() // 2


def _leaves(model: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """The layers of nested `nn.Sequential`s in the order in which they run; anything else is a layer."""
    if type(model) is not nn.Sequential:
        return [(path, model)]
    return [
        leaf for name, child in model.named_children() for leaf in _leaves(child, f"{path}.{name}" if path else name)
    ]


def _unusual(module: nn.Module) -> str:
    """What a layer of a known kind has that is not stacked."""
    if isinstance(module, nn.Dropout) and module.p:
        return "drops units at random"
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        return "has groups or does not pad with zeros"
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
        return "does not flatten all but the samples"
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return "returns indices"
    return ""


def _linear(module: nn.Module, own: Mapping[str, Tensor], flow: Flow) -> Flow:
    weight = own["weight"]
    bias = own["bias"] if "bias" in own else weight.new_zeros(weight.shape[:2])
    if flow.form == "units":
        return flow.become(torch.baddbmm(bias.unsqueeze(2), weight, flow.values))
    return flow.become(_first_linear(weight, bias, flow.values, flow.counts), "units")


def _first_linear(weight: Tensor, bias: Tensor, feeds: Tensor, counts: Sequence[int]) -> Tensor:
    """`[members, units, n]`: where all feeds have as many members, one product; else one a feed."""
    if len(set(counts)) > 1:
        parts = zip(weight.split(list(counts)), bias.split(list(counts)), feeds.split(1), counts, strict=True)
        return torch.cat([_first_linear(w, b, inputs, [count]) for w, b, inputs, count in parts])
    members, units, width = weight.shape
    wide = torch.baddbmm(bias.view(len(feeds), -1, 1), weight.view(len(feeds), -1, width), feeds.transpose(1, 2))
    return wide.view(members, units, -1)


def _conv(module: nn.Module, own: Mapping[str, Tensor], flow: Flow) -> Flow:
    assert isinstance(module, nn.Conv2d)
    weight, bias = own["weight"], own.get("bias")
    how = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}

    def product(inputs: Tensor, some: Tensor, its: Tensor | None, groups: int) -> Tensor:
        return functional.conv2d(
            inputs, some.flatten(0, 1), None if its is None else its.flatten(), groups=groups, **how
        )

    if flow.form == "channels":
        return flow.become(product(flow.values, weight, bias, len(weight)))
    weights = weight.split(list(flow.counts))
    biases = [None] * len(flow.counts) if bias is None else bias.split(list(flow.counts))
    parts = [product(x, w, b, 1) for x, w, b in zip(flow.values, weights, biases, strict=True)]
    return flow.become(torch.cat(parts, 1), "channels")


def _flatten(module: nn.Module, own: Mapping[str, Tensor], flow: Flow) -> Flow:
    if flow.form == "inputs":
        return flow.become(flow.values.flatten(2))
    if flow.form == "units":
        return flow
    n = len(flow.values)
    return flow.become(flow.values.reshape(n, sum(flow.counts), -1).permute(1, 2, 0), "units")


def _each(module: nn.Module, own: Mapping[str, Tensor], flow: Flow) -> Flow:
    """What treats values, or channels, one by one."""
    return flow.each(module)


def _among_channels(module: nn.Module, own: Mapping[str, Tensor], flow: Flow) -> Flow:
    """What makes one channel depend on others: members are samples for it."""
    if flow.form == "inputs":
        return flow.each(module)
    n, _, *sides = flow.values.shape
    apart = flow.values.reshape(n * sum(flow.counts), -1, *sides)
    return flow.become(module(apart).reshape(flow.values.shape))


Layer = Callable[[nn.Module, Mapping[str, Tensor], Flow], Flow]
EACH = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.Identity,
    nn.Dropout,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
LAYERS: dict[type[nn.Module], Layer] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.Flatten: _flatten,
    nn.LocalResponseNorm: _among_channels,
    **dict.fromkeys(EACH, _each),
}
"""Kind of layer -> what it makes of what the layer before gave, with its stacked values."""
