"""Whether the values that are put into a model are those that it computes with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from layerscope.engine.batches import mark
from layerscope.engine.subject import Subject
from layerscope.engine.tape import storage_of
from layerscope.errors import UseError
from layerscope.perturb.swap import arranged, parameters, places, within


class _Seen(TorchDispatchMode):
    """Notes the storage of every tensor that an operation is given."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs or {})):
            if isinstance(value, Tensor) and (storage := storage_of(value)):
                self.storages.add(storage)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Reach:
    """Of the tensors that were put into a model: which its forward used, and to which it wrote."""

    used: frozenset[str]
    written: frozenset[str]


def reach(subject: Subject, batches: Iterable[Any]) -> Reach:
    """What one pass over some batches uses of the values that are put into the model.

    They are copies where the trajectory is in memory: then they may be the model's own, or be spoiled. Raises `UseError` if
    the network computes with tensors of the model's own instead (a reference that was kept when the model was made):
    whatever is put in their place would have no effect, and all numbers would be those of the unmodified network.
    """
    values = subject.unmodified()
    if not subject.private:
        once = {id(tensor): tensor for tensor in values.values()}
        copies = {key: tensor.clone() for key, tensor in once.items()}
        values = {name: copies[id(tensor)] for name, tensor in values.items()}
    inside = arranged(subject.model, values, lambda _n, own, value: value.detach().requires_grad_(own.requires_grad))
    trained = {name: inside[name] for name in parameters(subject.model) & inside.keys()}
    own = {storage_of(tensor): name for name, tensor, _ in places(subject.model) if name in trained}
    before = {name: mark(tensor) for name, tensor in trained.items()}

    def work(network: nn.Module) -> set[int]:
        with _Seen() as seen:
            for batch in batches:
                subject.outputs(network, batch)
        return seen.storages

    storages = within(subject.model, inside, work)
    if bypassed := sorted(own[storage] for storage in own.keys() & storages if storage):
        raise UseError(
            f"the model computes with a reference of its own to {', '.join(bypassed[:5])}, not with what lies under that name; "
            "values put there do not reach its outputs. Let its forward take the tensor from the module (self.NAME)"
        )
    written = frozenset(name for name, tensor in trained.items() if mark(tensor) != before[name])
    if written and subject.private:
        subject.reload()
    used = frozenset(name for name, tensor in inside.items() if storage_of(tensor) in storages or not tensor.numel())
    return Reach(used, written)
