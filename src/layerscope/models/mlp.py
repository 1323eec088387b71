"""The multilayer perceptron of casper2019's synthetic data, `mlp`."""

from torch import nn

from layerscope.models.fcn import fcn


def mlp(input_shape: tuple[int, ...], classes: int, *, width: float = 1.0) -> nn.Module:
    """Multilayer perceptron of casper2019: one hidden layer of 128 units with ReLU, layer1 and layer2.

    Inputs `[n, *input_shape]`, outputs `[n, classes]`. The 128 units are times `width`. It is the network `fcn-1x128`. The
    teachers that label its data, `teacher:D` of D dimensions, are networks of this form with width=0.25, 32 units.

    Source: casper2019, Sec. 3 and App. A, "MLPs".

    Differs from the paper: its binary output is two logits here, not one. There weights start normal of scale 0.01; here, as
    for all networks, the initialiser says how.
    """
    return fcn("1x128", input_shape, classes, width=width)
