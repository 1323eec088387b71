"""Recurrent classifiers that read a picture row by row: `lstm-H`, `gru-H` and `rnn-H`."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from layerscope.errors import UseError
from layerscope.models import pieces

CELLS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def recurrent(
    cell: str,
    units: int,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Recurrent network (LSTM, GRU or tanh) that reads a picture row by row: lstm (gru, rnn), final_linear.

    Inputs `[n, channels, height, width]`, read as `height` steps of `channels * width` numbers, from the top; outputs
    `[n, classes]`, linear in the last layer's hidden state after the last step. `units` is the size of that state, `layers` how
    many cells are stacked. A `bidirectional` one also has cells that read from the bottom; the two directions' states after
    their last step stand side by side. Dropout stands between layers and before final_linear.

    Source: the four papers have none. Hochreiter & Schmidhuber 1997 (LSTM), Cho et al. 2014 (GRU), Elman 1990, as in PyTorch,
    which differs from Cho et al. in where the reset gate acts and has two biases a gate.
    """
    channels = pieces.image_channels(input_shape)
    if units < 1 or layers < 1:
        raise UseError("a recurrent network has at least one unit and at least one layer")
    directions = 2 if bidirectional else 1
    before = OrderedDict(dropout=pieces.dropped(dropout)) if dropout else OrderedDict()
    between = dropout if layers > 1 else 0.0  # PyTorch warns of dropout where nothing is between layers
    stack = CELLS[cell](
        channels * input_shape[2], units, layers, batch_first=True, bidirectional=bidirectional, dropout=between
    )
    final = nn.Linear(directions * units, classes)
    return nn.Sequential(
        OrderedDict({"rows": Rows(), cell: stack, "last": LastState(directions), **before, "final_linear": final})
    )


class Rows(nn.Module):
    """Pictures `[n, channels, height, width]` as sequences of rows, `[n, height, channels * width]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class LastState(nn.Module):
    """Of what a recurrent module returns, the last layer's hidden states at the end, `[n, directions * units]`."""

    def __init__(self, directions: int) -> None:
        super().__init__()
        self.directions = directions

    def forward(self, returned: tuple[Tensor, Any]) -> Tensor:
        state = returned[1][0] if isinstance(returned[1], tuple) else returned[1]  # an LSTM's are (hidden, cell)
        return state[-self.directions :].transpose(0, 1).flatten(1)
