"""Models that are not of the lab: the user's own code, and those of other libraries."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layerscope.errors import UseError, unknown
from layerscope.imported import imported, is_path, made


def _torchvision(name: str, pretrained: bool) -> nn.Module:
    models = _library("torchvision.models", "torchvision")
    if name not in (known := models.list_models()):
        raise unknown("model of torchvision", name, known)
    return models.get_model(name, weights="DEFAULT" if pretrained else None)


def _timm(name: str, pretrained: bool) -> nn.Module:
    timm = _library("timm", "timm")
    if name not in (known := timm.list_models()):
        raise unknown("model of timm", name, known)
    return timm.create_model(name, pretrained=pretrained)


def _hf(path: str, pretrained: bool) -> nn.Module:
    transformers = _library("transformers", "transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as problem:
        raise UseError(
            f"hf:{path} is neither a folder with a config.json nor a model that can be reached: {problem}"
        ) from None
    kinds = config.architectures or []
    if len(kinds) != 1 or not hasattr(transformers, kinds[0]):
        raise UseError(f"the config of hf:{path} names no one class of transformers (architectures: {kinds})")
    kind = getattr(transformers, kinds[0])
    if not pretrained:
        return kind(config)
    try:
        return kind.from_pretrained(path)
    except (OSError, ValueError) as problem:
        raise UseError(f"hf:{path} has no weights that can be loaded: {problem}") from None


FORMS: dict[str, Callable[[str, bool], nn.Module]] = {"torchvision": _torchvision, "timm": _timm, "hf": _hf}
"""What may stand before a colon: a library, which is loaded only then."""


def is_source(name: str) -> bool:
    """Whether a model's name means one that is not of the lab."""
    return name.partition(":")[0] in FORMS or is_path(name)


def open_model(name: str, pretrained: bool = True) -> nn.Module:
    """A model by its source: `package.module:NAME` (a module, or a function without arguments that makes one),
    `torchvision:NAME`, `timm:NAME`, or `hf:PATH` (a folder or name that transformers understands).

    The libraries' models have their published weights, or with `pretrained` off the random values that their code starts
    with, for which nothing is downloaded.
    """
    form, _, rest = name.partition(":")
    if form in FORMS:
        return FORMS[form](rest, pretrained)
    model = imported(name, "a model")
    if not isinstance(model, nn.Module):
        model = made(name, "a model")
    if not isinstance(model, nn.Module):
        raise UseError(f"{name} gives a {type(model).__name__}, not a torch.nn.Module")
    return model


def _library(module: str, package: str) -> Any:
    """A library that is not installed with layerscope; if it cannot be loaded, the line that mends it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise UseError(
            f"{package} is needed, but {problem.name} is not installed: pip install 'layerscope[{package}]'"
        ) from None
    except (RuntimeError, ImportError, OSError) as problem:
        if "torchvision" not in str(problem):
            raise
        raise UseError(wrong_build(str(problem))) from None


def wrong_build(problem: str) -> str:
    """What to do about a torchvision that was built for another torch: it fails when it is loaded."""
    cuda = torch.version.cuda
    backend = f"cu{cuda.replace('.', '')}" if cuda else "cpu"
    return (
        f"torchvision does not fit this torch ({torch.__version__}): {problem.strip()}. Install the one that was built for it: "
        f"uv pip install --reinstall-package torchvision torchvision --torch-backend={backend}"
    )
