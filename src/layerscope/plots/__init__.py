"""Pictures of Tables. Reads tables only; importing this loads neither matplotlib nor pandas nor torch."""

from layerscope.plots.curves import layer_curves, training_curves
from layerscope.plots.files import embedded, save
from layerscope.plots.maps import distance_map, layer_map
from layerscope.plots.population import sweep_curves
from layerscope.plots.terminal import terminal_map

__all__ = [
    "distance_map",
    "embedded",
    "layer_curves",
    "layer_map",
    "save",
    "sweep_curves",
    "terminal_map",
    "training_curves",
]
