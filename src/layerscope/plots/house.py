"""How every figure of matplotlib is made: object API, our style in a context, user's settings untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def headline(figure: "Figure", text: str, size: float = 9.0, weight: str = "bold") -> None:
    """A title over the whole width of a figure, in as many lines as it takes."""
    look: dict[str, Any] = {"fontsize": size, "fontweight": weight, "parse_math": False}
    figure.suptitle(_lines(figure, text, size, weight), x=0.01, ha="left", **look)


def below(figure: "Figure", text: str, size: float = 9.0) -> None:
    """A name of the horizontal axes of all panels, in as many lines as it takes."""
    figure.supxlabel(_lines(figure, text, size, "normal"), fontsize=size)


def footnote(figure: "Figure", text: str, size: float = 7.5) -> None:
    """What to know of a figure, below it, in as many lines as it takes."""
    figure.supxlabel(_lines(figure, text, size, "normal"), x=0.01, ha="left", fontsize=size, color="#333333")


def _lines(figure: "Figure", text: str, size: float, weight: str) -> str:
    width = 0.9 * figure.get_figwidth()  # pictures of few pixels have letters up to 7 % wider than their outlines
    return "\n".join(fitted(text, width, size, weight))


def fitted(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """The lines of a text, none wider than `width` inches at this font size (points): broken between words, and within a word
    that is wider, such as the name of a data set."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] <= 72 * width

    found: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if line and fits(f"{line} {word}"):
                line += f" {word}"
                continue
            found += [line] if line else []
            line = ""
            for character in word:
                if line and not fits(line + character):
                    found.append(line)
                    line = ""
                line += character
        found.append(line)
    return found


def colormap(stops: tuple[str, ...]) -> "Colormap":
    """A colour scale as matplotlib wants it."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("layerscope", [f"#{stop}" for stop in stops])
