"""Figures on disk."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerscope.plots import house
from layerscope.store import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 300_000
"""Bytes a picture may have; one taller than a page in proportion more."""
_PAGE = 12
"""Inches."""


def save(figure: "Figure", path: str | Path) -> tuple[Path, Path]:
    """Write a figure as PATH.png and PATH.svg: the same bytes for the same figure.

    Text of the SVG stays text. A PNG of more than 300 kB (a page) is drawn with fewer dots per inch.
    """
    path = Path(path)
    png, svg = (path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg"))
    with house.style():
        write_file(png, _small_png(figure))
        write_file(svg, _drawn(figure, "svg", metadata={"Date": None, "Creator": None}))
    return png, svg


def embedded(figure: "Figure") -> str:
    """A figure as the address of an image that holds the picture itself: SVG, or PNG where that is shorter than a long SVG."""
    import base64

    with house.style():
        kind, content = "svg+xml", _drawn(figure, "svg", metadata={"Date": None, "Creator": None})
        if len(content) > LIMIT // 2:
            kind, content = min((kind, content), ("png", _small_png(figure)), key=lambda found: len(found[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _small_png(figure: "Figure") -> bytes:
    content, limit = b"", LIMIT * max(1.0, figure.get_figheight() / _PAGE)
    for dpi in (160, 110, 80):
        content = _drawn(figure, "png", dpi=dpi, metadata={"Software": None})
        if len(content) < limit:
            break
    return content


def _drawn(figure: "Figure", kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
