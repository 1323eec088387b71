"""Where tensors lie and products are computed."""

import torch
from torch import nn

from layerscope.errors import UseError


def device_of(network: nn.Module) -> torch.device:
    """The one device of a network; an error if it lies on several, or its values are nowhere."""
    named = [*network.named_parameters(), *network.named_buffers()]
    devices = {tensor.device: name for name, tensor in named}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise UseError(f"the model lies on several devices ({places}); move it to one with model.to(...)")
    device = next(iter(devices), torch.device("cpu"))
    if device.type == "meta":
        raise UseError("the model's tensors have no values (device meta); make it on a real device")
    return device


def device_named(name: str) -> torch.device:
    """A device by its name; an error if PyTorch does not have it here."""
    if name.partition(":")[0] == "meta":
        raise UseError("nothing can be computed on the device meta; cpu is always there")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).partition("\n")[0]
        raise UseError(f"there is no device {name!r} here ({reason}); cpu is always there") from None
