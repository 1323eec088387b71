"""Hand-made networks whose answers can be worked out on paper, and random module trees."""

import torch
from hypothesis import strategies as st
from torch import nn

import layerscope as ls


class Scale(nn.Module):
    """x -> factor * x + offset, with counters and random numbers that a careless tool would disturb."""

    def __init__(self, factor: float, offset: float = 0.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.register_buffer("offset", torch.tensor(offset))
        self.register_buffer("calls", torch.tensor(0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        torch.rand(1)
        return self.factor * x + self.offset


def signs() -> tuple[nn.Module, dict[str, torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """A network of two factors with outputs (z, -z), z = b * a * x: right where the sign of a*b is right.

    Trained: a = b = 1. Start: a = -1 (all wrong when put back), b = 2 (nothing changes). Data: x = 1, 2, 3 of class 0,
    x = -4 of class 1, and x = 5 of class 1 (always an error of the trained network): error 1/5.
    """
    model = nn.Sequential()
    model.add_module("a", Scale(1.0))
    model.add_module("b", Scale(1.0))
    model.add_module("both_signs", BothSigns())
    initial = ls.state_of(model)
    initial["a.factor"], initial["b.factor"] = torch.tensor(-1.0), torch.tensor(2.0)
    x = torch.tensor([[1.0], [2.0], [3.0], [-4.0], [5.0]])
    y = torch.tensor([0, 0, 0, 1, 1])
    return model, initial, [(x[:2], y[:2]), (x[2:4], y[2:4]), (x[4:], y[4:])]


class BothSigns(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, -z], dim=1)


@st.composite
def module_trees(draw: st.DrawFn, depth: int = 3) -> nn.Module:
    """Random trees of modules: nested, with norms and buffers, bare parameters, shared modules and tied weights."""
    made: list[nn.Module] = []
    tree = draw(_branches(made, depth))
    linears = [module for module in made if isinstance(module, nn.Linear)]
    if len(linears) > 1 and draw(st.booleans()):
        linears[-1].weight = linears[0].weight
    return tree


@st.composite
def _branches(draw: st.DrawFn, made: list[nn.Module], depth: int) -> nn.Module:
    branch = nn.ModuleDict()
    if draw(st.booleans()):
        branch.register_parameter("bare", nn.Parameter(torch.zeros(2)))
    if draw(st.booleans()):
        branch.register_buffer("mask", torch.zeros(3))
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["linear", "norm", "shared", "relu", "branch"]))
        if kind == "branch" and depth:
            module: nn.Module = draw(_branches(made, depth - 1))
        elif kind == "norm":
            module = nn.BatchNorm1d(2, affine=draw(st.booleans()))
        elif kind == "shared" and made:
            module = made[draw(st.integers(0, len(made) - 1))]
        else:
            module = nn.ReLU() if kind == "relu" else nn.Linear(2, 2, bias=draw(st.booleans()))
        made.append(module)
        branch[f"m{number}"] = module
    return branch
