"""Which layers did fine-tuning change that matter? Networks trained on the digits 0 to 4, then on 5 to 9 with a new head.

    python experiment.py conv OUT           # pretrain and fine-tune; the checkpoints go to OUT
    layerscope analyze --model experiment:conv --data experiment:data --checkpoints pretrained=OUT/pretrained.pt final=OUT/final.pt

`transformer` in place of `conv` for the other network. MNIST is read from LAYERSCOPE_DATA.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from layerscope import data as sets
from layerscope import models

PRETRAINED, TUNED = range(5), range(5, 10)
TRAIN, EPOCHS, BATCH = 20_000, {"pretrained": 6, "final": 3}, 64
RATES = {"conv": 0.03, "transformer": 1e-3}


def conv() -> nn.Module:
    return models.build("alexnet-small?width=0.25", (1, 28, 28), len(TUNED))


def transformer() -> nn.Module:
    return models.build("transformer-4x64", (1, 28, 28), len(TUNED))


def of(digits: range) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """The digits of MNIST, numbered from 0, in batches."""
    found = sets.load("mnist")
    splits = {}
    for name, split in (("train", found.train), ("test", found.test)):
        inputs, targets = (torch.cat(parts) for parts in zip(*split.batches(), strict=True))
        mine = (targets >= digits.start) & (targets < digits.stop)
        inputs, targets = inputs[mine][:TRAIN], targets[mine][:TRAIN] - digits.start
        splits[name] = list(zip(inputs.split(500), targets.split(500), strict=True))
    return splits


def data() -> dict[str, list[tuple[Tensor, Tensor]]]:
    return of(TUNED)


def train(model: nn.Module, digits: range, epochs: int, rate: float, adam: bool) -> float:
    """Trains the model; its test error."""
    inputs, targets = (torch.cat(parts) for parts in zip(*of(digits)["train"], strict=True))
    optimizer = (
        torch.optim.AdamW(model.parameters(), rate) if adam else torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    )
    steps = epochs * -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        wrong = [(model(x).argmax(1) != y) for x, y in of(digits)["test"]]
    model.train()
    return float(torch.cat(wrong).float().mean())


def main(kind: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = {"conv": conv, "transformer": transformer}[kind]()
    adam = kind == "transformer"
    error = train(model, PRETRAINED, EPOCHS["pretrained"], RATES[kind], adam)
    print(f"{kind}: digits 0 to 4, test error {100 * error:.2f} %", flush=True)
    state = model.state_dict()
    heads = ("final_linear.weight", "final_linear.bias")
    torch.save({name: tensor for name, tensor in state.items() if name not in heads}, out / "pretrained.pt")
    with torch.no_grad():
        for name in heads:
            state[name].copy_(torch.randn(state[name].shape) * 0.05 if state[name].ndim > 1 else torch.zeros(len(state[name])))
    error = train(model, TUNED, EPOCHS["final"], RATES[kind] / 3, adam)
    print(f"{kind}: digits 5 to 9, test error {100 * error:.2f} %", flush=True)
    torch.save(model.state_dict(), out / "final.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
