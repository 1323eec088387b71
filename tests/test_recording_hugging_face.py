"""The callback for the Trainer of Hugging Face, in real trainings of a tiny model."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import layerscope as ls
from layerscope.errors import UseError

transformers = pytest.importorskip("transformers")

from layerscope.recording.hugging_face import LayerscopeCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # of the libraries: memory that is pinned for no accelerator, and such


def model_of(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    about = {"vocab_size": 12, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2, "bos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(eos_token_id=0, **about))


TOKENS = (torch.randint(12, (24, 1), generator=torch.Generator().manual_seed(0)) + torch.arange(6)) % 12
ROWS = [{"input_ids": row, "labels": row} for row in TOKENS]


class Endless(torch.utils.data.IterableDataset):
    """Rows without a known number."""

    def __iter__(self):
        return iter(ROWS)


@pytest.fixture
def fit(tmp_path):
    pytest.importorskip("accelerate")

    class Witness(transformers.TrainerCallback):
        """Keeps the states by itself."""

        def __init__(self) -> None:
            self.states: dict[int, dict[str, torch.Tensor]] = {}

        def on_train_begin(self, args, state, control, *, model, **_):
            self.states[state.global_step] = ls.state_of(model)

        def on_step_end(self, args, state, control, *, model, **_):
            self.states[state.global_step] = ls.state_of(model)

    def run(callback, model=None, rows=ROWS, resume=None, **given):
        about = {
            "output_dir": str(tmp_path / "own"),
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
        }
        witness = Witness()
        trainer = transformers.Trainer(
            model or model_of(),
            transformers.TrainingArguments(**(about | given)),
            train_dataset=rows,
            eval_dataset=ROWS[:8],
            callbacks=[callback, witness],
        )
        trainer.train(resume_from_checkpoint=resume)
        return SimpleNamespace(trainer=trainer, states=witness.states)

    return run


def trajectory_of(callback: LayerscopeCallback) -> tuple[ls.Trajectory, list[int]]:
    found = ls.Trajectory.open(callback.run.checkpoints.path)
    return found, [found.number(step) for step in found.steps]


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_each_epoch_is_recorded_with_its_curves(tmp_path, fit):
    callback, model = LayerscopeCallback(tmp_path / "mine"), model_of()
    done = fit(callback, model, eval_strategy="epoch")
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 3, 6]
    assert all(same(trajectory[step], done.states[step.iteration]) for step in trajectory.steps)
    assert same(trajectory[ls.INIT], ls.state_of(model_of()))
    training = callback.run.training()
    logged = {entry["step"]: entry["loss"] for entry in done.trainer.state.log_history if "loss" in entry}
    found = training.where(split="train", metric="loss")
    assert dict(zip(found["step"], found["value"], strict=True)) == logged
    assert list(training.where(split="validation")["step"]) == [3, 6]
    done.trainer.evaluate()  # what is measured later is no part of the training
    batch = [{"input_ids": TOKENS, "labels": TOKENS}]
    table = ls.robustness(model, trajectory, batch, ls.RobustnessSpec(draws=1, by="block"), metrics=[ls.TokenError()])
    assert set(table.where(perturbation="rewind")["step"]) == {0, 3, 6}


def test_steps_without_epochs_and_an_end_between_two_of_them(tmp_path, fit):
    callback = LayerscopeCallback(tmp_path / "mine", every_n_steps=2)
    done = fit(callback, rows=Endless(), max_steps=5)
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 2, 4, 5]
    assert all(same(trajectory[step], done.states[step.iteration]) for step in trajectory.steps)
    short = LayerscopeCallback(tmp_path / "short")
    fit(short, max_steps=4)  # in the middle of the second epoch
    assert trajectory_of(short)[1] == [0, 3, 4]


def test_a_training_that_goes_on_from_a_checkpoint(tmp_path, fit):
    whole = fit(LayerscopeCallback(tmp_path / "whole"), num_train_epochs=3, lr_scheduler_type="constant")
    about = {"lr_scheduler_type": "constant", "save_strategy": "epoch"}
    fit(LayerscopeCallback(tmp_path / "mine"), num_train_epochs=2, **about)
    callback = LayerscopeCallback(tmp_path / "mine")
    fit(callback, model_of(5), num_train_epochs=3, resume=str(tmp_path / "own" / "checkpoint-6"), **about)
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 3, 6, 9]
    assert all(same(trajectory[step], whole.states[step.iteration]) for step in trajectory.steps)
    assert list(callback.run.training().frame["step"]) == list(range(1, 10))
    late = LayerscopeCallback(tmp_path / "late")
    fit(late, model_of(5), num_train_epochs=3, resume=str(tmp_path / "own" / "checkpoint-3"), **about)
    trajectory, numbers = trajectory_of(late)
    assert numbers == [3, 6, 9]
    assert not trajectory.has_start
    with pytest.raises(UseError, match="has a finished recording"):
        fit(LayerscopeCallback(tmp_path / "mine"))


def test_the_best_weights_put_back_are_the_trained_ones(tmp_path, fit):
    callback, model = LayerscopeCallback(tmp_path / "mine"), model_of()
    about = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 3.0}
    done = fit(callback, model, num_train_epochs=3, greater_is_better=True, metric_for_best_model="loss", **about)
    trajectory, _ = trajectory_of(callback)
    best = int(done.trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert same(trajectory[ls.FINAL], ls.state_of(model))
    assert same(trajectory[ls.FINAL], done.states[best])


def test_moments_must_be_positive(tmp_path):
    with pytest.raises(UseError, match="every_n_steps is a number from 1, not 0"):
        LayerscopeCallback(tmp_path / "mine", every_n_steps=0)
