"""Checkpoints of every kind: files and folders of others, their moments, their tensors' names. Nothing of them is run."""

from layerscope.checkpoints.fit import Fit, Wanted
from layerscope.checkpoints.formats import FORMATS, Format, source_of
from layerscope.checkpoints.found import Found, find
from layerscope.checkpoints.safetensors_file import SUFFIX
from layerscope.checkpoints.source import Memory, Source

__all__ = ["FORMATS", "SUFFIX", "Fit", "Format", "Found", "Memory", "Source", "Wanted", "find", "source_of"]
