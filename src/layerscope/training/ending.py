"""When a training ends, and which epoch's network is the trained one: pure functions of what each epoch was like."""

import math
from array import array
from collections.abc import Callable, Iterable
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


class Past:
    """The epochs of a training so far: of each only what the rules ask for, and that at hand. Sought anew after each epoch, it
    would take the square of the epochs."""

    def __init__(self, epochs: Iterable[Epoch] = ()) -> None:
        self.best = 0
        """The epoch (from 1) of the lowest validation error, the first of equal ones; 0 before the first."""
        self.best_error = math.nan
        self.last = Epoch(math.nan)
        self.losses, self.lowest = array("d"), array("d")
        """The training cross-entropy of each epoch, and the lowest up to it."""
        for epoch in epochs:
            self.add(epoch)

    def __len__(self) -> int:
        return len(self.losses)

    def add(self, epoch: Epoch) -> None:
        """Another epoch is over. One that diverged is never the best."""
        self.last = epoch
        self.losses.append(epoch.train_loss)
        self.lowest.append(min(self.lowest[-1], epoch.train_loss) if self.lowest else epoch.train_loss)
        if not epoch.diverged and (not self.best or epoch.validation_error < self.best_error):
            self.best, self.best_error = len(self), epoch.validation_error


def ending(spec: TrainSpec, past: Past) -> Ending | None:
    """How a training has ended after these epochs; None if it goes on."""
    if past and (why := past.last.diverged):
        trained = len(past) - 1
        before = past.best if spec.until == "validation" else trained
        return Ending(before, f"it diverged in epoch {len(past)}: {why}", trained, reached=False, diverged=True)
    if past and (found := RULES[spec.until](spec, past)) is not None:
        return found
    if len(past) < spec.epochs:
        return None
    return LAST[spec.until](spec, past)


def _never(_spec: TrainSpec, _past: Past) -> Ending | None:
    return None


def _loss(spec: TrainSpec, past: Past) -> Ending | None:
    loss = past.last.train_loss
    if spec.target_loss is None or not loss < spec.target_loss:
        return None
    return Ending(len(past), f"training cross-entropy {loss:.4g} fell below {spec.target_loss:g}", len(past))


def _validation(spec: TrainSpec, past: Past) -> Ending | None:
    if len(past) - past.best < spec.patience:
        return None
    return _best(past, f"no later epoch of {spec.patience} had a lower one")


def _best(past: Past, then: str) -> Ending:
    reason = f"validation error was lowest, {100 * past.best_error:.4g} %, after epoch {past.best}: {then}"
    return Ending(past.best, reason, len(past))


def _convergence(spec: TrainSpec, past: Past) -> Ending | None:
    if len(past) <= spec.patience:
        return None
    before = past.lowest[-1 - spec.patience]
    since = min(past.losses[-spec.patience :])
    if since < before * (1 - spec.tolerance):
        return None
    reason = f"training cross-entropy did not fall by {100 * spec.tolerance:g} % in {spec.patience} epochs"
    return Ending(len(past), reason, len(past))


Rule = Callable[[TrainSpec, Past], Ending | None]
RULES: dict[str, Rule] = {"epochs": _never, "loss": _loss, "validation": _validation, "convergence": _convergence}
"""until -> whether what it waits for has come."""

LAST: dict[str, Callable[[TrainSpec, Past], Ending]] = {
    "epochs": lambda spec, past: Ending(spec.epochs, "all epochs", len(past)),
    "loss": lambda spec, past: Ending(
        spec.epochs,
        f"cross-entropy {past.last.train_loss:.4g} had not fallen below {spec.target_loss:g} after all epochs",
        len(past),
        reached=False,
    ),
    "validation": lambda _, past: _best(past, f"there were {len(past)}"),
    "convergence": lambda spec, past: Ending(
        spec.epochs, "it had not converged after all epochs", len(past), reached=False
    ),
}
"""until -> what is said where all epochs are over before that."""
