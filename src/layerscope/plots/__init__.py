"""Pictures of Tables. Reads tables only; importing this loads neither matplotlib nor pandas nor torch.

`figures(table)` draws what any analysis found. Each kind of analysis has a module here, loaded when it is first used, with
`figures`, `sentences` and `listings` of its tables, and pictures of its own: `plots.landscape.sentences(table)`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from layerscope.plots.curves import layer_curves, training_curves
from layerscope.plots.files import embedded, save
from layerscope.plots.kinds import KINDS, figures
from layerscope.plots.maps import distance_map, layer_map
from layerscope.plots.population import sweep_curves
from layerscope.plots.terminal import terminal_map

if TYPE_CHECKING:
    from layerscope.plots import bounds, cka, compare, criticality, landscape, measures, similarity, spectra

__all__ = [
    "bounds",
    "cka",
    "compare",
    "criticality",
    "distance_map",
    "embedded",
    "figures",
    "landscape",
    "layer_curves",
    "layer_map",
    "measures",
    "save",
    "similarity",
    "spectra",
    "sweep_curves",
    "terminal_map",
    "training_curves",
]


def __getattr__(name: str) -> Any:
    if name not in {kind.module for kind in KINDS.values()}:
        raise AttributeError(f"module 'layerscope.plots' has no attribute {name!r}")
    return importlib.import_module(f"layerscope.plots.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
