"""Architectures by name. Each is one short file here and one row in `FAMILIES`."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import torch
from torch import nn

from layerscope.errors import UseError, unknown
from layerscope.models.alexnet import alexnet
from layerscope.models.densenet import densenet
from layerscope.models.fcn import fcn
from layerscope.models.inception import inception
from layerscope.models.mlp import mlp
from layerscope.models.recurrent import recurrent
from layerscope.models.resnet import resnet
from layerscope.models.transformer import transformer
from layerscope.models.vgg import vgg
from layerscope.query import parse


@dataclass(frozen=True)
class Family:
    """Architectures of one builder, `builder(*groups, input_shape, classes, *, options)`: the groups of the pattern come
    first, whole numbers as such; keyword-only arguments are the options of a name, `NAME?norm=none&width=0.5`."""

    form: str
    pattern: str
    names: tuple[str, ...]
    builder: Callable[..., nn.Module]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Option -> what the builder says of it: its type and default."""
        parameters = inspect.signature(self.builder).parameters
        return {name: p for name, p in parameters.items() if p.kind == inspect.Parameter.KEYWORD_ONLY}

    @property
    def answers(self) -> str:
        """What the family is, in one line: the first of the builder's docstring."""
        return (inspect.getdoc(self.builder) or "").partition("\n")[0]


FAMILIES: dict[str, Family] = {
    "fcn": Family("fcn-DxH or fcn-H-H-...", r"fcn-(\d+x\d+|\d+(?:-\d+)+)", ("fcn-3x256", "fcn-5000-1000"), fcn),
    "mlp": Family("mlp", r"mlp", ("mlp",), mlp),
    "vgg": Family("vgg-D", r"vgg-(11|13|16|19)", ("vgg-11", "vgg-13", "vgg-16", "vgg-19"), vgg),
    "alexnet": Family("alexnet-small", r"alexnet-small", ("alexnet-small",), alexnet),
    "resnet": Family(
        "resnet-v1-D, resnet-v2-D, resnet-v2-B^S",
        r"resnet-v([12])-(\d+(?:\^\d+)?)",
        (
            *(f"resnet-v{version}-{depth}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)),
            *("resnet-v1-20", "resnet-v1-56", "resnet-v1-110", "resnet-v2-4^2", "resnet-v2-4^4"),
        ),
        resnet,
    ),
    "densenet": Family("densenet-D", r"densenet-(\d+)", ("densenet-121", "densenet-169", "densenet-201"), densenet),
    "inception": Family("inception-v3", r"inception-v3", ("inception-v3",), inception),
    "recurrent": Family(
        "lstm-H, gru-H or rnn-H", r"(lstm|gru|rnn)-(\d+)", ("lstm-128", "gru-128", "rnn-128"), recurrent
    ),
    "transformer": Family("transformer-DxW", r"transformer-(\d+)x(\d+)", ("transformer-2x64",), transformer),
}
"""Family -> how its names look, what they mean, the usual ones, and who builds them."""


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of a name such as `fcn-3x256` or `resnet-v2-18?norm=none&width=0.5`, for inputs of a shape and a number of
    classes.

    Its values are PyTorch's defaults; `initialise` sets them to draws from stated laws. Raises `UseError` for a name or an
    option that does not exist (with the nearest), and for options that do not go together.
    """
    base, mark, text = name.partition("?")
    family, groups = _family(base)
    _, given = parse(f"model {base}", f"?{text}" if mark else "", family.options)
    options = {key: _value(f"{base}: option {key}", text, family.options[key]) for key, text in given.items()}
    try:
        return family.builder(*groups, input_shape, classes, **options)
    except UseError as problem:
        raise UseError(f"model {name} for inputs {list(input_shape)}: {problem}") from None


def parameters_of(name: str, input_shape: tuple[int, ...], classes: int) -> int:
    """How many parameters the network of a name has; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, input_shape, classes).parameters())


SHAPES = {"cifar10": ((3, 32, 32), 10), "imagenet": ((3, 224, 224), 1000)}
"""Data -> shape of inputs and number of classes by which `listing` counts."""


def listing() -> list[dict[str, Any]]:
    """All architectures: what each family is, how names look, their options, and how many parameters the usual ones have on
    CIFAR-10 and ImageNet (None where they cannot be built for such images)."""
    return [
        {
            "family": name,
            "form": family.form,
            "what": family.answers,
            "options": {key: _described(option) for key, option in family.options.items()},
            "parameters": {
                usual: {data: _count(usual, *shape) for data, shape in SHAPES.items()} for usual in family.names
            },
        }
        for name, family in FAMILIES.items()
    ]


def _described(option: inspect.Parameter) -> str:
    """What an option may be, and what it is where it is not given."""
    kind = option.annotation
    if get_origin(kind) is Literal:
        values = "|".join(get_args(kind))
    else:
        values = {bool: "yes|no", int: "whole number", float: "number"}.get(kind, "names, with commas between")
    default = ("no", "yes")[option.default] if kind is bool else ("none" if option.default == () else option.default)
    return f"{values} [{default}]"


def _count(name: str, input_shape: tuple[int, ...], classes: int) -> int | None:
    try:
        return parameters_of(name, input_shape, classes)
    except UseError:
        return None


def _family(base: str) -> tuple[Family, list[Any]]:
    for family in FAMILIES.values():
        if match := re.fullmatch(family.pattern, base):
            return family, [int(group) if group.isdigit() else group for group in match.groups()]
    known = [name for family in FAMILIES.values() for name in family.names]
    forms = ", ".join(family.form for family in FAMILIES.values())
    raise unknown("model", base, known, f"Forms: {forms}; `layerscope models` lists all.")


def _value(what: str, text: str, parameter: inspect.Parameter) -> Any:
    """The text of an option as the type that the builder annotates."""
    kind = parameter.annotation
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UseError(f"{what} is one of {', '.join(get_args(kind))}, not {text!r}")
        return text
    if kind == tuple[str, ...]:
        return tuple(text.split(","))
    try:
        return {"yes": True, "no": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError):
        form = {bool: "yes or no", int: "a whole number", float: "a number"}[kind]
        raise UseError(f"{what} is {form}, not {text!r}") from None
