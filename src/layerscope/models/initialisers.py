"""The law each tensor of a network was drawn from at the start, so that re-randomisation can draw from the same law again."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from layerscope import rng
from layerscope.errors import UseError, unknown
from layerscope.models.laws import AnyLaw, Law, Laws, Magnitude, Singular, fitted
from layerscope.query import parse

__all__ = ["INITIALISERS", "AnyLaw", "Law", "Laws", "initialise", "laws_of", "settled"]

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.modules.linear.NonDynamicallyQuantizableLinear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORM = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_EMBEDDING = (nn.Embedding, nn.EmbeddingBag)
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)


Weights = Callable[[int, int], tuple[Law, Law]]
"""(fan in, fan out) -> laws of weight and bias of a linear map or convolution."""


def _pytorch(fan_in: int, _fan_out: int) -> tuple[Law, Law]:
    bound = 1 / math.sqrt(fan_in)
    return Law("uniform", bound), Law("uniform", bound)


def _of_variance(kind: Literal["normal", "uniform"], variance: Callable[[int, int], float]) -> Weights:
    """Weights of a variance, zero biases. `scale` is a half width of sqrt(3) standard deviations, or one of them."""
    factor = 3 if kind == "uniform" else 1
    return lambda i, o: (Law(kind, math.sqrt(factor * variance(i, o))), Law("constant", 0.0))


VARIANCES: dict[str, Callable[[int, int], float]] = {
    "glorot": lambda i, o: 2 / (i + o),
    "he": lambda i, _: 2 / i,
    "lecun": lambda i, _: 1 / i,
    "lecun-printed": lambda i, _: math.sqrt(3) / i,
}
"""Variance of the weights. lecun-printed is what casper2019 prints for LeCun's (Sec. 3); the standard one is 1/(fan in)."""

INITIALISERS: dict[str, Weights] = {
    "pytorch": _pytorch,
    **{f"{name}-normal": _of_variance("normal", variance) for name, variance in VARIANCES.items()},
    **{f"{name}-uniform": _of_variance("uniform", variance) for name, variance in VARIANCES.items()},
}
INITIALISERS |= {
    "glorot": INITIALISERS["glorot-uniform"],
    "he": INITIALISERS["he-normal"],
    "lecun": INITIALISERS["lecun-normal"],
    "lecun-printed": INITIALISERS["lecun-printed-normal"],
}
"""Name -> laws of weight and bias of linear maps and convolutions.

pytorch: uniform on +-1/sqrt(fan in), bias too (the default of `nn.Linear` and `nn.Conv*`). The others have zero biases and
the variance of `VARIANCES`, normal or uniform; without a word for the shape glorot is uniform, he and lecun normal.
"""

STATED: dict[str, Literal["normal", "truncated"]] = {"normal": "normal", "truncated-normal": "truncated"}
"""Initialisers of one standard deviation for all weights: `normal?std=0.1`. truncated-normal is cut at two of them."""

FIXUP = "fixup"
"""He's normal weights, made small in residual branches (see `_fixup`)."""


def check_initialiser(name: str) -> None:
    """Refuse an initialiser that does not exist; the error names the nearest."""
    base, _, text = name.partition("?")
    if base in STATED:
        _std(name)
    elif text or base not in {*INITIALISERS, FIXUP}:
        raise unknown("initialiser", name, [*INITIALISERS, FIXUP, *(f"{stated}?std=0.1" for stated in STATED)])


def _weights(initialiser: str) -> Weights:
    """The laws of linear maps by the name of an initialiser."""
    check_initialiser(initialiser)
    base = initialiser.partition("?")[0]
    if base in STATED:
        law = Law(STATED[base], _std(initialiser))
        return lambda _i, _o: (law, Law("constant", 0.0))
    return INITIALISERS["he" if base == FIXUP else base]


def _std(initialiser: str) -> float:
    """The standard deviation that the name of an initialiser states: never a variance."""
    base, options = parse("initialiser", initialiser, ("std",))
    try:
        std = float(options["std"])
    except (KeyError, ValueError):
        raise UseError(f"{base} needs the standard deviation of the weights: {base}?std=0.1") from None
    if not 0 < std < math.inf:
        raise UseError(f"{base}: std is a standard deviation above 0, not {std:g}")
    return std


def laws_of(model: nn.Module, initialiser: str = "pytorch") -> dict[str, AnyLaw]:
    """The initial laws of a model's tensors, as far as the kind of module says: linear maps and convolutions (transposed
    ones too) by the named initialiser; norm layers, embeddings, recurrent and attention modules as PyTorch starts them;
    the tensors of weight norm and spectral norm as they follow from the law of their weight.

    A tensor of any other module has no entry: nobody has said which law it was drawn from. A subclass has the law of its
    parent only among norm layers: one that draws its weights otherwise would be given a wrong law.
    """
    weights = _weights(initialiser)
    laws: dict[str, AnyLaw] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        stored = {name: stored for stored, name in _normed(module)}
        laws |= {f"{prefix}{stored.get(n, n)}": law for n, law in _laws_of_module(module, weights).items()}
    if initialiser == FIXUP:
        laws |= _fixup(model)
    laws |= following(model, laws)
    state = model.state_dict(keep_vars=True)
    return {name: law for name, law in laws.items() if name in state}


def settled(
    model: nn.Module, start: Callable[[Iterable[str]], Mapping[str, Tensor]] | None, laws: Laws | None = None
) -> dict[str, AnyLaw]:
    """The laws to re-randomise by: those that were given, and for all other tensors those of `laws_of`.

    Where the values at the start are known, `start(names)` gives them; a law of `laws_of` that could not have given them
    is not used, and it and those that nobody knows are fitted to them (see `Law.fitted`). So a model that was initialised
    by its own code is not drawn from a law it never had. Laws that were given are taken as they are; what is computed from
    a tensor (weight norm's magnitudes, spectral norm's vectors) follows the law that it has in the end.
    """
    state, given = model.state_dict(), dict(laws or {})
    for name in given:
        if name not in state:
            raise unknown("tensor in laws=", name, state)
    found = laws_of(model) | given
    for name in (name for name, _ in model.named_parameters(remove_duplicate=False) if name in state):
        law = found.get(name)
        if start is None or name in given or (law is not None and law.computed):
            continue
        (values,) = start([name]).values()
        if values.is_floating_point() and not (isinstance(law, Law) and law.could_give(values)):
            found[name] = fitted(values, getattr(law, "zero", None))
    return found | _fitting(following(model, found), start) | given


def _fitting(
    laws: Mapping[str, AnyLaw], start: Callable[[Iterable[str]], Mapping[str, Tensor]] | None
) -> dict[str, AnyLaw]:
    """Laws of magnitudes that did not start as the norms of their directions are fitted to what they started as."""
    found = dict(laws)
    for name, law in laws.items():
        if start is not None and isinstance(law, Magnitude):
            values = start([name, law.direction])
            norms = torch.norm_except_dim(values[law.direction].float(), 2, law.dim)
            if not torch.allclose(values[name].float().flatten(), norms.flatten(), rtol=1e-2):
                found[name] = fitted(values[name])
    return found


def _laws_of_module(module: nn.Module, weights: Weights) -> dict[str, Law]:
    """The laws of a module's own tensors, by the names that they have without any parametrisation."""
    if (stated := getattr(module, "initial_laws", None)) is not None:
        return stated
    kind = parametrize.type_before_parametrizations(module)
    if kind in _LINEAR:
        laws = weights(*_fans(_weight(module).shape))
        bias = Law("constant", 0.0) if kind is nn.modules.linear.NonDynamicallyQuantizableLinear else laws[1]
        return {"weight": laws[0], "bias": bias}
    if kind in _TRANSPOSED:  # PyTorch takes the second axis for fan in here too, though it is the outputs'
        return dict(zip(("weight", "bias"), weights(*_fans(_weight(module).shape)), strict=True))
    if kind is nn.Bilinear:
        bound = 1 / math.sqrt(_weight(module).shape[1])
        return {name: Law("uniform", bound) for name in ("weight", "bias")}
    if isinstance(module, _NORM):
        values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}
        return {name: Law("constant", value) for name, value in values.items()}
    if kind in _EMBEDDING:
        padding = getattr(module, "padding_idx", None)
        return {"weight": Law("normal", 1.0, zero=padding)}
    if kind in _RECURRENT:
        bound = 1 / math.sqrt(int(module.hidden_size))  # type: ignore[arg-type]
        cell = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {name: Law("uniform", bound) for name in getattr(module, "_flat_weights_names", cell)}
    if kind is nn.MultiheadAttention:
        return _attention(module)
    if kind is nn.PReLU:
        return {"weight": Law("constant", 0.25)}
    return {}


def _fixup(model: nn.Module) -> dict[str, AnyLaw]:
    """What Fixup says of a residual network: the last linear map of each branch and the last of the network start at zero;
    the others of a branch of m maps are He's times L^(-1/(2m - 2)), L the number of branches.

    Source: Zhang, Dauphin, Ma: Fixup initialization, 2019, Sec. 3. Its scalars are the architecture's (`norm=scalar`).
    """
    branches: dict[str, Any] = {path: block for path, block in model.named_modules() if hasattr(block, "branch")}
    if not branches:
        raise UseError(
            "fixup is for residual networks, such as resnet-v2-18?norm=scalar; this one has no residual block"
        )
    if norms := [path for path, module in model.named_modules() if isinstance(module, _NORM)]:
        raise UseError(
            f"fixup stands in for normalisation, and the network has {len(norms)} norm layers ({norms[0]}, ...); "
            "take norm=scalar or norm=none, or another initialiser"
        )
    laws: dict[str, AnyLaw] = {}
    for path, block in branches.items():
        *inner, last = block.branch
        factor = len(branches) ** (-1 / (2 * len(inner))) if inner else 1.0
        for name in inner:
            weight = _weight(block.get_submodule(name))
            law = INITIALISERS["he"](*_fans(weight.shape))[0]
            laws[f"{path}.{name}.weight"] = replace(law, scale=law.scale * factor)
        laws[f"{path}.{last}.weight"] = Law("constant", 0.0)
    head = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    return laws | {f"{head}.weight": Law("constant", 0.0)}


def _attention(module: nn.Module) -> dict[str, Law]:
    laws: dict[str, Law] = {"in_proj_bias": Law("constant", 0.0)}
    for name, tensor in module.named_parameters(recurse=False):
        if name.endswith("_weight"):  # Glorot, uniform, on the packed matrix where it is packed
            laws[name] = Law("uniform", math.sqrt(6 / sum(tensor.shape)))
        elif name in ("bias_k", "bias_v"):  # Glorot, normal
            fan_in, fan_out = _fans(tensor.shape)
            laws[name] = Law("normal", math.sqrt(2 / (fan_in + fan_out)))
    return laws


def _weight(module: nn.Module) -> Tensor:
    """The weight, or what is stored for it under a parametrisation: it has the same shape. The weight itself is not asked
    for then: computing it may change the module."""
    stored = module.parametrizations["weight"] if parametrize.is_parametrized(module, "weight") else module  # type: ignore[index]
    for name in ("original1", "original", "weight_orig", "weight_v", "weight"):
        if isinstance(tensor := getattr(stored, name, None), Tensor):
            return tensor
    raise AssertionError(f"{type(module).__name__} without a weight")


def _fans(shape: torch.Size) -> tuple[int, int]:
    receptive = math.prod(shape[2:]) if len(shape) > 2 else 1
    return shape[1] * receptive, shape[0] * receptive


def _normed(module: nn.Module) -> Iterator[tuple[str, str]]:
    """(stored name, name) of a module's tensors under weight norm or spectral norm: what is stored has the tensor's law."""
    for name, maps in getattr(module, "parametrizations", {}).items() if parametrize.is_parametrized(module) else ():
        if len(maps) == 1 and (kind := type(maps[0]).__name__) in ("_WeightNorm", "_SpectralNorm"):
            yield f"parametrizations.{name}.original{'1' if kind == '_WeightNorm' else ''}", name
    for hook in module._forward_pre_hooks.values():  # the older functions, which work by hooks
        if type(hook).__name__ == "WeightNorm":
            yield f"{hook.name}_v", hook.name  # type: ignore[attr-defined]
        elif type(hook).__name__ == "SpectralNorm":
            yield f"{hook.name}_orig", hook.name  # type: ignore[attr-defined]


def following(model: nn.Module, laws: Laws | None = None) -> dict[str, AnyLaw]:
    """The tensors that are computed from another one: magnitudes of weight norm, vectors of spectral norm. With `laws`, only
    of those whose law is known."""
    found: dict[str, AnyLaw] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        for stored, name in _normed(module):
            law = Law("constant", 0.0) if laws is None else laws.get(f"{prefix}{stored}")
            if isinstance(law, Law) and stored in tensors:
                shape, source = tuple(tensors[stored].shape), f"{prefix}{stored}"
                norm = _norm(module, stored, name)
                if stored.endswith(("original1", "_v")):
                    follower = stored[:-1] + "0" if stored.endswith("1") else f"{name}_g"
                    found[f"{prefix}{follower}"] = Magnitude(source, law, shape, norm.dim)
                else:
                    before = f"parametrizations.{name}.0._" if stored.startswith("parametrizations") else f"{name}_"
                    for vector in "uv":
                        left = vector == "u"
                        found[f"{prefix}{before}{vector}"] = Singular(source, law, shape, norm.dim, left)
    return found


def _norm(module: nn.Module, stored: str, name: str) -> Any:
    """What norms a tensor of a module; its `dim` is the axis that is kept."""
    if stored.startswith("parametrizations"):
        return module.parametrizations[name][0]  # type: ignore[index]
    return next(hook for hook in module._forward_pre_hooks.values() if getattr(hook, "name", None) == name)


def initialise(model: nn.Module, laws: Laws, seed: int) -> None:
    """Set a model's tensors to draws from their laws; each draw depends on seed and tensor name only."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in laws:
                tensor.copy_(laws[name].draw(name, tensor, lambda name: rng.generator(seed, "initialise", name)))
