"""The callback for Lightning, in real trainings of a tiny module."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import layerscope as ls
from layerscope.errors import UseError

lightning = pytest.importorskip("lightning.pytorch")

from layerscope.recording.lightning import LayerscopeCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: workers, intervals of logging, the rank of nobody

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(64, 2, generator=GENERATOR)
Y = (X[:, 0] > 0).long()


def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


class Lit(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = Net()
        self.breaks_at = -1

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, index):
        if self.trainer.global_step == self.breaks_at:
            raise ZeroDivisionError
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        outputs = self.model(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(outputs, batch[1]))
        self.log("val_error", (outputs.argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Witness(lightning.Callback):
    """Keeps the states by itself."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_start(self, trainer, module):
        self.states[0] = ls.state_of(module)

    def on_train_batch_end(self, trainer, module, *_):
        self.states.setdefault(trainer.global_step, ls.state_of(module))


def fit(path, module: Lit, *callbacks, epochs: int = 2, ckpt_path=None, **given) -> Witness:
    witness = Witness()
    about = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    about |= {"enable_checkpointing": False} | given
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=[*callbacks, witness], default_root_dir=path, **about)
    trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    witness.trainer = trainer
    return witness


def trajectory_of(callback: LayerscopeCallback) -> tuple[ls.Trajectory, list[int]]:
    found = ls.Trajectory.open(callback.run.checkpoints.path)
    assert found.unit == "iteration"
    return found, [found.number(step) for step in found.steps]


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_each_epoch_is_recorded_with_its_curves(tmp_path):
    names = {"loss": {"train": "train_loss", "validation": "val_loss"}, "error": {"validation": "val_error"}}
    callback, module = LayerscopeCallback(tmp_path / "mine", **names), Lit()
    witness = fit(tmp_path, module, callback)
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 4, 8]
    assert all(same(trajectory[step], witness.states[step.iteration]) for step in trajectory.steps)
    assert "model.0.weight" in trajectory[ls.INIT]
    assert callback.run.recording["finished"]
    training = callback.run.training()
    assert len(training) == 6
    assert training.provenance["step_unit"] == "iteration"
    last = training.where(step=8, split="validation", metric="loss")["value"].item()
    assert last == pytest.approx(witness.trainer.callback_metrics["val_loss"].item())
    table = ls.robustness(module, trajectory, [(X, Y)], ls.RobustnessSpec(draws=1, buffers="keep"))
    assert set(table.where(perturbation="rewind")["step"]) == {0, 4, 8}


def test_a_part_of_the_module_under_its_own_names(tmp_path):
    callback, module = LayerscopeCallback(tmp_path / "mine", submodule="model", every_n_steps=3), Lit()
    witness = fit(tmp_path, module, callback)
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 3, 6, 8]
    expected = {name.removeprefix("model."): tensor for name, tensor in witness.states[6].items()}
    assert same(trajectory[ls.Step(0, 6)], expected)
    assert callback.run.spec["network"] == "Net"
    with pytest.raises(UseError, match="Lit has no module 'net' to record; it has model"):
        fit(tmp_path, Lit(), LayerscopeCallback(tmp_path / "other", submodule="net"))


def test_both_kinds_of_moments_with_steps_that_gather_gradients(tmp_path):
    callback = LayerscopeCallback(tmp_path / "mine", every_n_epochs=2, every_n_steps=3)
    witness = fit(tmp_path, Lit(), callback, epochs=3, accumulate_grad_batches=2)
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 3, 4, 6]  # two steps an epoch
    assert same(trajectory[ls.Step(0, 3)], witness.states[3])


def test_a_fit_that_goes_on_from_a_checkpoint(tmp_path):
    whole = fit(tmp_path, Lit(), epochs=3)
    first = fit(tmp_path, Lit(), LayerscopeCallback(tmp_path / "mine"), epochs=2)
    first.trainer.save_checkpoint(tmp_path / "own.ckpt")
    callback = LayerscopeCallback(tmp_path / "mine")
    fit(tmp_path, Lit(), callback, epochs=3, ckpt_path=tmp_path / "own.ckpt")
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 4, 8, 12]
    assert all(same(trajectory[step], whole.states[step.iteration]) for step in trajectory.steps)
    late = LayerscopeCallback(tmp_path / "late")
    fit(tmp_path, Lit(), late, epochs=3, ckpt_path=tmp_path / "own.ckpt")
    trajectory, numbers = trajectory_of(late)
    assert numbers == [8, 12]
    assert not trajectory.has_start
    again = LayerscopeCallback(tmp_path / "mine")
    with pytest.raises(UseError, match="has a finished recording"):
        fit(tmp_path, Lit(), again, epochs=3)


def test_a_fit_that_breaks_is_not_finished(tmp_path):
    module, callback = Lit(), LayerscopeCallback(tmp_path / "mine")
    module.breaks_at = 6
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, module, callback)
    assert trajectory_of(callback)[1] == [0, 4]
    assert not callback.run.recording["finished"]
    with callback.run.folder.lock():  # nobody holds it
        pass


def test_weights_that_another_callback_puts_in_at_the_end_are_the_trained_ones(tmp_path):
    callback, module = LayerscopeCallback(tmp_path / "average"), Lit()
    averaging = lightning.callbacks.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1, annealing_epochs=1)
    witness = fit(tmp_path, module, callback, averaging, epochs=3)
    trajectory, numbers = trajectory_of(callback)
    assert same(trajectory[ls.FINAL], ls.state_of(module))
    assert not same(witness.states[12], ls.state_of(module))
    assert numbers == [0, 4, 8, 12, 13]  # the library makes one more step for the statistics

    class Rounding(lightning.Callback):
        def on_train_end(self, trainer, module):
            for parameter in module.parameters():
                parameter.data.round_()

    callback, module = LayerscopeCallback(tmp_path / "rounded"), Lit()
    fit(tmp_path, module, callback, Rounding())
    trajectory, numbers = trajectory_of(callback)
    assert numbers == [0, 4, 8, 9]
    assert same(trajectory[ls.FINAL], ls.state_of(module))
    assert (
        "9 has the values at the end of training, which are not those of epoch-00000-it-000008"
        in (callback.run.recording["end"])
    )


def test_files_of_the_library_that_are_named_with_the_epoch_alone(tmp_path):
    """It counts epochs from 0: the first file is of after the first epoch, as it says itself."""
    saving = lightning.callbacks.ModelCheckpoint(tmp_path / "own", filename="{epoch}", save_top_k=-1)
    witness = fit(tmp_path, Lit(), saving, epochs=3, enable_checkpointing=True)
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == [f"epoch={epoch}.ckpt" for epoch in range(3)]
    trajectory = ls.Trajectory.read([str(tmp_path / "own")])
    assert [trajectory.number(step) for step in trajectory.steps] == [1, 2, 3]
    assert not trajectory.has_start
    assert all(same(trajectory[ls.Step(epoch)], witness.states[4 * epoch]) for epoch in (1, 2, 3))


def test_a_try_of_one_batch_is_not_recorded(tmp_path):
    callback = LayerscopeCallback(tmp_path / "mine")
    fit(tmp_path, Lit(), callback, fast_dev_run=True)
    assert not callback.run.path.exists()


OTHER = """
import sys
import pytorch_lightning
from layerscope.recording.lightning import LayerscopeCallback
assert issubclass(LayerscopeCallback, pytorch_lightning.Callback)
assert "lightning.pytorch" not in sys.modules
"""


def test_the_library_by_its_other_name():
    pytest.importorskip("pytorch_lightning")
    subprocess.run([sys.executable, "-c", OTHER], check=True)
