"""Recording a training of the Trainer of Hugging Face. This module alone imports `transformers`."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from layerscope.recording.following import Following
from layerscope.run import Run


class LayerscopeCallback(TrainerCallback):
    """Records the start, chosen checkpoints and the end of a training in a run folder that `layerscope analyze` reads.

        trainer = Trainer(model, arguments, train_dataset=..., callbacks=[LayerscopeCallback("runs/mine")])

    Kept are each `every_n_epochs` epochs or each `every_n_steps` steps of the optimizer, or both; each epoch, if neither is
    given. The losses that the Trainer logs are the curves of the report: its `loss` as train, its `eval_loss` as validation.

    A training from a checkpoint (`resume_from_checkpoint`) goes on with the recording of it that is in the folder; where there
    is none, what is recorded has no start. Where `load_best_model_at_end` puts other weights into the model, these are the
    trained network. The other arguments, and what is refused, are those of `layerscope.Recorder`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        source: str = "",
        data: str = "",
        forward: str = "",
        targets: str = "",
    ) -> None:
        made = {"source": source, "data": data, "forward": forward, "targets": targets}
        self._following = Following(path, every_n_epochs, every_n_steps, **made)

    @property
    def run(self) -> Run:
        """The run that is recorded."""
        return self._following.run

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        self._following.begin(model, state.global_step, int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._following.step(state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._following.epoch(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for split, name in (("train", "loss"), ("validation", "eval_loss")):
            self._following.log(state.global_step, split, (logs or {}).get(name))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._following.end(state.global_step)
