"""How every figure of matplotlib is made: object API, our style in a context, user's settings untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "layerscope",
}


@contextmanager
def style() -> Iterator[None]:
    """Our style from matplotlib's defaults, so that a picture does not depend on the user's settings."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


def figure(width: float, height: float) -> "Figure":
    """An empty figure (inches) that keeps its labels inside, and shows itself in a notebook without pyplot."""
    import io

    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            with style():
                self.savefig(content, format="png", dpi=110)
            return content.getvalue()

    return Picture(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")


def colormap(stops: tuple[str, ...]) -> "Colormap":
    """A colour scale as matplotlib wants it."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("layerscope", [f"#{stop}" for stop in stops])
