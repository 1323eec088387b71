"""The reference engine against a hand-written loop of the same forwards."""

import copy

import torch

import layerscope as ls
from benchmarks.data import mnist_or_like
from benchmarks.frame import Result, ratio
from layerscope.models import build


def run() -> list[Result]:
    data, name = mnist_or_like()
    model = build("fcn-3x256", data.input_shape, data.classes)
    trajectory = ls.Trajectory.of(initial=ls.state_of(model), final={k: 1.1 * v for k, v in ls.state_of(model).items()})
    batches = data.test.batches()
    variants = [ls.Variant.of(part, ls.Rewind()) for part in ls.Partition.by_layer(model)] * 5

    def by_hand() -> None:
        """The unmodified network once, then each layer in turn: swap, count errors, swap back."""
        network = copy.deepcopy(model)
        with torch.inference_mode():
            network.load_state_dict(trajectory[ls.FINAL])
            errors = [(network(x).argmax(1) != y).sum() for x, y in batches]
            for variant in variants:
                for tensor in variant.edits[0].part.tensors:
                    network.state_dict()[tensor].copy_(trajectory[ls.INIT][tensor])
                errors += [(network(x).argmax(1) != y).sum() for x, y in batches]
                network.load_state_dict(trajectory[ls.FINAL])

    a, b, quotient = ratio(lambda: ls.evaluate(model, trajectory, variants, batches), by_hand)
    measured = f"{a:.2f} s for {len(variants)} variants, overhead {100 * (quotient - 1):.1f} %"
    return [
        Result(
            f"reference engine, error and loss with intervals, 10,000 samples ({name})",
            measured,
            f"hand-written loop, error only, same batches {b:.2f} s",
            "none yet (issue 4: <= 3 %)",
            True,
        )
    ]
