"""Recording a training of Lightning. This module alone imports it: as `lightning`, or else as `pytorch_lightning`."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from layerscope.errors import UseError
from layerscope.recording.following import Following
from layerscope.run import Run


def _callback() -> Any:
    """The base of callbacks; of the two names of the library, the one that is in use first."""
    for name in sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as problem:
            if problem.name != name.partition(".")[0]:
                raise
    raise ModuleNotFoundError("Lightning is not installed: pip install 'layerscope[lightning]'", name="lightning")


if TYPE_CHECKING:
    Callback: Any = object
else:
    Callback = _callback()


class LayerscopeCallback(Callback):
    """Records the start, chosen checkpoints and the end of a training in a run folder that `layerscope analyze` reads.

        trainer = Trainer(max_epochs=10, callbacks=[LayerscopeCallback("runs/mine")])

    Kept are each `every_n_epochs` epochs or each `every_n_steps` steps of the optimizer, or both; each epoch, if neither is
    given. Steps count `trainer.global_step`. Recorded is the LightningModule; with `submodule="model"` its attribute `model`,
    under the names that it has by itself. `loss` and `error` say under which names of `self.log` they are, by split, such as
    `loss={"train": "train_loss", "validation": "val_loss"}`: the curves of the report.

    A fit from a checkpoint (`ckpt_path`) goes on with the recording of it that is in the folder; where there is none, what is
    recorded has no start. A fit that ended in an exception is left as not finished; `fast_dev_run` is not recorded. The other
    arguments, and what is refused, are those of `layerscope.Recorder`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        submodule: str = "",
        loss: Mapping[str, str] | None = None,
        error: Mapping[str, str] | None = None,
        source: str = "",
        data: str = "",
        forward: str = "",
        targets: str = "",
    ) -> None:
        super().__init__()
        made = {"source": source, "data": data, "forward": forward, "targets": targets}
        self._following = Following(path, every_n_epochs, every_n_steps, **made)
        self._submodule, self._loss, self._error = submodule, loss or {}, error or {}

    @property
    def run(self) -> Run:
        """The run that is recorded."""
        return self._following.run

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        if not trainer.fast_dev_run:
            self._following.begin(self._recorded(pl_module), trainer.global_step, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self._following.step(trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        found = trainer.callback_metrics
        for split in {**self._loss, **self._error}:
            values = (found.get(names.get(split, "")) for names in (self._loss, self._error))
            self._following.log(trainer.global_step, split, *values)
        self._following.epoch(trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        self._following.close()

    def on_fit_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Not at the end of training: other callbacks may put their own weights into the module then."""
        self._following.end(trainer.global_step)

    def _recorded(self, module: nn.Module) -> nn.Module:
        try:
            return module.get_submodule(self._submodule)
        except AttributeError:
            there = ", ".join(name for name, _ in module.named_children())
            raise UseError(
                f"{type(module).__name__} has no module {self._submodule!r} to record; it has {there}"
            ) from None
