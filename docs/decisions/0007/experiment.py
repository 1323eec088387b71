"""What to do with batch norm's statistics when a layer is put back: the experiment behind decision 0007.

    LAYERSCOPE_DATA=... python docs/decisions/0007/experiment.py     writes table.md beside this file; about 15 minutes on 2 cores

Two networks with batch norm, three seeds each. Every layer is put back to its start under each of the three rules, and the
error is compared with that of a network which uses no stored statistics at all: the same values, with the statistics of the
test batch itself (512 samples), as in training. That one is computed here without layerscope's engine.
"""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

import layerscope as ls

RULES = ("rewind", "keep", "recalibrate")
SEEDS, TEST = 3, 4000


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.skip = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.skip(x) + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


def plain() -> nn.Module:
    """Four convolutions, each with batch norm."""
    layers: list[nn.Module] = []
    for inside, outside in ((1, 16), (16, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inside, outside, 3, 2 if inside != 16 or outside != 16 else 1, 1, bias=False)]
        layers += [nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def residual() -> nn.Module:
    """Three residual blocks of two convolutions, each with batch norm."""
    stem = (nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    blocks = (Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


CASES = {
    "plain on MNIST": (plain, "mnist", 10_000, 6),
    "residual on CIFAR-10": (residual, "cifar10", 10_000, 15),
}


def trained(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def with_batch_statistics(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """The error of a network whose batch norms look at the batch alone."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    wrong = [(model(x).argmax(1) != y).double() for x, y in batches]
    return torch.cat(wrong).mean().item()


def run() -> pd.DataFrame:
    rows = []
    for case, (make, data_name, n, epochs) in CASES.items():
        data = ls.data.load(data_name)
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            chosen = torch.randperm(len(data.train))[:n]
            x, y = data.train.inputs[chosen], data.train.targets[chosen]
            model = make()
            start = ls.state_of(model)
            trained(model, x, y, epochs)
            trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
            batches = list(zip(data.test.inputs[:TEST].split(512), data.test.targets[:TEST].split(512), strict=True))
            training = list(zip(x.split(512), y.split(512), strict=True))
            parts = ls.Partition.by_layer(model)
            blocks = [part for part in ls.Partition.by_block(model) if len(part.modules) and "Block" in type(model.get_submodule(part.modules[0])).__name__]
            for part in (*parts, *blocks):
                kind = type(model.get_submodule(part.modules[0])).__name__
                variants = [ls.Variant.of(part, ls.Rewind(), buffers=rule) for rule in RULES]
                table = ls.evaluate(model, trajectory, [ls.Variant(), *variants], batches, [ls.ErrorRate()], calibration=training)
                unmodified, *errors = table.where(metric="error")["value"]
                oracle = with_batch_statistics(ls.materialize(model, trajectory, variants[1]), batches)
                rows.append({"network": case, "seed": seed, "part": part.name, "kind": kind, "unmodified": unmodified}
                            | dict(zip(RULES, errors, strict=True)) | {"batch": oracle})  # fmt: skip
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def text(rows: pd.DataFrame) -> str:
    """Means over seeds, in per cent."""
    columns = ["unmodified", *RULES, "batch"]
    mean = rows.groupby(["network", "kind", "part"], sort=False)[columns].mean().mul(100).round(1).reset_index()
    lines = ["| network | kind | part | unmodified | rewind | keep | recalibrate | batch statistics |", "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in mean.itertuples(index=False)]
    apart = {rule: rows.groupby(["network", "kind"], sort=False).apply(lambda g, r=rule: (g[r] - g["batch"]).abs().mean() * 100, include_groups=False) for rule in RULES}
    gaps = pd.DataFrame(apart).round(1).reset_index()
    more = ["", f"Mean distance to the error with batch statistics, percentage points ({SEEDS} seeds, {TEST} test samples):", "",
            "| network | kind | rewind | keep | recalibrate |", "|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*lines, *more, *(f"| {' | '.join(map(str, row))} |" for row in gaps.itertuples(index=False))]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("table.md").write_text(text(run()))
