"""The networks that the figures of chatterji2020 are about, at each scale."""

from dataclasses import replace

from layerscope.spec import Spec
from layerscope.studies.frame import Scale
from layerscope.training.spec import TrainSpec

SOURCE = (
    "Chatterji, Neyshabur, Sedghi: The intriguing role of module criticality in the generalization of deep networks. "
    "ICLR 2020"
)

SMOKE = TrainSpec(
    model="resnet-v2-1^2?norm=none&width=0.125",
    data="digits",
    epochs=40,
    batch_size=64,
    lr=0.05,
    schedule="constant",
    until="loss",
    target_loss=0.19,
    checkpoints=(1, 4),
)
"""Two residual blocks on embedded digits."""

SMALL = TrainSpec(
    model="resnet-v2-2^3?norm=none&width=0.125",
    data="mnist?n_train=1000&n_test=2000",
    epochs=80,
    batch_size=64,
    lr=0.02,
    schedule="constant",
    until="loss",
    target_loss=0.1,
    checkpoints=(1, 2, 4, 8),
)
"""Six residual blocks, 16 linear maps, on 1,000 images of MNIST, for ResNet18-V1 takes too long on two cores, and without batch
norm and of such a width does not learn with every seed. Learning rate, batch size and the end of training are ours: at a
cross-entropy of 0.19 training errors of such networks are about 5 %, the floor."""

PAPER = TrainSpec(
    model="resnet-v1-18?norm=none",
    data="cifar10",
    epochs=400,
    batch_size=128,
    lr=0.1,
    every=60,
    decay=0.2,
    weight_decay=5e-4,
    augment="pad-crop-flip",
    until="loss",
    target_loss=0.19,
    checkpoints=(1, 2, 5, 10, 20, 40, 80, 160),
)
"""App. C of the paper. It does not state the initialiser."""

BASE = {"smoke": SMOKE, "small": SMALL, "paper": PAPER}
SEEDS = {"smoke": 2, "small": 5, "paper": 5}
ABOUT = {
    "smoke": "a residual network of two blocks on embedded digits: shows that everything runs, decides nothing",
    "small": "a residual network (V2) of six blocks without batch norm on 1,000 images of MNIST, until training cross-entropy is "
    "below 0.1",
    "paper": "ResNet18-V1 without batch norm on CIFAR-10, as in the paper's appendix C",
}


def corrupt(spec: TrainSpec) -> TrainSpec:
    """The same with 20 % random labels, without augmentation and weight decay (App. C)."""
    mark = "&" if "?" in spec.data else "?"
    return replace(spec, data=f"{spec.data}{mark}random=0.2", augment="none", weight_decay=0.0, epochs=2 * spec.epochs)


def adam(spec: TrainSpec) -> TrainSpec:
    """The same with Adam; its learning rate is ours."""
    return replace(spec, optimizer="adam", lr=0.001)


def fixup(spec: TrainSpec) -> TrainSpec:
    """The same with Fixup's initial values, and the scalars that belong to them."""
    return replace(spec, model=spec.model.replace("norm=none", "norm=scalar"), initialiser="fixup")


def scales(analyses: dict[str, Spec], **changes: dict[str, Spec]) -> dict[str, Scale]:
    """The three scales of a study of the one network, with these analyses; with `changes`, others at a scale."""
    return {
        name: Scale({"resnet": spec}, changes.get(name, analyses), SEEDS[name], ABOUT[name], lean=True)
        for name, spec in BASE.items()
    }
