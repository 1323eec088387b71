"""What can be done to a network's Parts. A new perturbation is one file here."""

from layerscope.perturb.interpolate import Interpolate
from layerscope.perturb.moments import Moments
from layerscope.perturb.noise import Noise
from layerscope.perturb.patch import Patch, bind
from layerscope.perturb.permute import Permute
from layerscope.perturb.rerandomize import Rerandomize
from layerscope.perturb.rewind import Rewind
from layerscope.perturb.variant import Edit, Perturbation, Variant, World, perturbation

__all__ = [
    "Edit",
    "Interpolate",
    "Moments",
    "Noise",
    "Patch",
    "Permute",
    "Perturbation",
    "Rerandomize",
    "Rewind",
    "Variant",
    "World",
    "bind",
    "perturbation",
]
