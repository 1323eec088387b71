"""Folders as `save_pretrained` and Hugging Face's Trainer write them: `checkpoint-500/` and the like."""

import re
from pathlib import Path

from layerscope.checkpoints.safetensors_file import SafetensorsFile
from layerscope.checkpoints.sharded import Sharded
from layerscope.checkpoints.source import Source
from layerscope.checkpoints.torch_file import TorchFile

KINDS = {
    "model.safetensors": SafetensorsFile,
    "model.safetensors.index.json": Sharded,
    "pytorch_model.bin": TorchFile,
    "pytorch_model.bin.index.json": Sharded,
}
"""Name of the file that has the values -> how it is read; of several, the first."""
WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
"""Files with the values, or shards of them and their index."""
OTHERS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*)\.(bin|pt|pth)")
"""Files beside them that hold no values of a network."""


def weights_of(folder: Path) -> Path | None:
    """The file of a folder that has the values, or leads to them; None if it has no such file."""
    return next((folder / name for name in KINDS if (folder / name).is_file()), None)


def hugging_face(folder: Path) -> Source:
    """The state in a folder that has weights."""
    weights = weights_of(folder)
    assert weights is not None
    return KINDS[weights.name](weights)
