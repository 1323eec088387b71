"""When a training ends, and which epoch's network is the trained one: pure functions of what each epoch was like."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerscope.training.spec import TrainSpec


@dataclass(frozen=True)
class Epoch:
    """What decides: the training cross-entropy (mean over the epoch, while the weights moved), the validation error (of the
    network after the epoch; NaN without validation data), and why the training cannot go on, if it diverged."""

    train_loss: float
    validation_error: float = math.nan
    diverged: str = ""


@dataclass(frozen=True)
class Ending:
    """The epoch whose network is the trained one, and why training ended, after how many whole epochs (`trained`). `reached`
    is False where it ended without what the spec was waiting for; `diverged` where it could not go on."""

    epoch: int
    reason: str
    trained: int
    reached: bool = True
    diverged: bool = False


def ending(spec: TrainSpec, epochs: Sequence[Epoch]) -> Ending | None:
    """How a training has ended after these epochs; None if it goes on."""
    if epochs and (why := epochs[-1].diverged):
        trained = len(epochs) - 1
        before = best(epochs[:-1]) if spec.until == "validation" else trained
        return Ending(before, f"it diverged in epoch {len(epochs)}: {why}", trained, reached=False, diverged=True)
    if epochs and (found := RULES[spec.until](spec, epochs)) is not None:
        return found
    if len(epochs) < spec.epochs:
        return None
    return LAST[spec.until](spec, epochs)


def best(epochs: Sequence[Epoch]) -> int:
    """The epoch (from 1) of the lowest validation error, the first of equal ones; 0 if there was no epoch."""
    return min(range(1, len(epochs) + 1), key=lambda epoch: epochs[epoch - 1].validation_error, default=0)


def _never(_spec: TrainSpec, _epochs: Sequence[Epoch]) -> Ending | None:
    return None


def _loss(spec: TrainSpec, epochs: Sequence[Epoch]) -> Ending | None:
    loss = epochs[-1].train_loss
    if spec.target_loss is None or not loss < spec.target_loss:
        return None
    return Ending(len(epochs), f"training cross-entropy {loss:.4g} fell below {spec.target_loss:g}", len(epochs))


def _validation(spec: TrainSpec, epochs: Sequence[Epoch]) -> Ending | None:
    if len(epochs) - best(epochs) < spec.patience:
        return None
    return _best(epochs, f"no later epoch of {spec.patience} had a lower one")


def _best(epochs: Sequence[Epoch], then: str) -> Ending:
    epoch = best(epochs)
    error = epochs[epoch - 1].validation_error
    return Ending(epoch, f"validation error was lowest, {100 * error:.4g} %, after epoch {epoch}: {then}", len(epochs))


def _convergence(spec: TrainSpec, epochs: Sequence[Epoch]) -> Ending | None:
    losses = [epoch.train_loss for epoch in epochs]
    if len(losses) <= spec.patience:
        return None
    before, since = min(losses[: -spec.patience]), min(losses[-spec.patience :])
    if since < before * (1 - spec.tolerance):
        return None
    reason = f"training cross-entropy did not fall by {100 * spec.tolerance:g} % in {spec.patience} epochs"
    return Ending(len(losses), reason, len(losses))


Rule = Callable[[TrainSpec, Sequence[Epoch]], Ending | None]
RULES: dict[str, Rule] = {"epochs": _never, "loss": _loss, "validation": _validation, "convergence": _convergence}
"""until -> whether what it waits for has come."""

LAST: dict[str, Callable[[TrainSpec, Sequence[Epoch]], Ending]] = {
    "epochs": lambda spec, epochs: Ending(spec.epochs, "all epochs", len(epochs)),
    "loss": lambda spec, epochs: Ending(
        spec.epochs,
        f"cross-entropy {epochs[-1].train_loss:.4g} had not fallen below {spec.target_loss:g} after all epochs",
        len(epochs),
        reached=False,
    ),
    "validation": lambda _, epochs: _best(epochs, f"there were {len(epochs)}"),
    "convergence": lambda spec, epochs: Ending(
        spec.epochs, "it had not converged after all epochs", len(epochs), reached=False
    ),
}
"""until -> what is said where all epochs are over before that."""
