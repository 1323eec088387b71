"""How far a folder is: a sweep, a run, an analysis. Only looks, also while another process writes; never imports torch."""

import datetime
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from layerscope.errors import UseError
from layerscope.run import REPORT, SPEC, Run
from layerscope.store import Folder
from layerscope.sweeps.folder import FAILED, PROGRESS, Sweep, is_sweep
from layerscope.training.spec import TrainSpec

STATES = ("done", "diverged", "running", "failed", "waiting")
"""What a member of a sweep can be: trained, trained until it diverged, being trained now, not trained because something went
wrong with it, not begun or stopped."""


def status(path: str | Path) -> dict[str, Any]:
    """How far the sweep or run of a folder is; a folder of neither is a `UseError`.

    Of a sweep: how many members are in each of `STATES`, epochs done and in all (a training that ended before its last counts
    as whole), when something was last saved, and each member's state. Of a run: its stage, what is complete and what was begun,
    and whether a process is writing now.
    """
    if not Folder(path).has(SPEC):
        raise UseError(f"{path} is neither a run nor a sweep: it has no {SPEC}")
    return _of_sweep(Sweep.open(path)) if is_sweep(path) else _of_run(Run.open(path))


def _of_sweep(sweep: Sweep) -> dict[str, Any]:
    folder, members = sweep.own.folder, sweep.spec.members()
    states = _states(sweep, [member.name for member in members])
    totals = {member.name: member.spec.epochs for member in members}
    so_far: dict[str, int] = _note(folder, PROGRESS).get("done", {})
    done = sum(totals[name] for name, state in states.items() if state in ("done", "diverged"))
    for block in sweep.blocks:
        complete = sum(totals[name] for name in block["members"] if states[name] in ("done", "diverged"))
        done += max(0, so_far.get(block["name"], 0) - complete)
    counts = Counter(states.values())
    return {
        "sweep": str(sweep.path),
        "complete": sweep.complete,
        "writing": folder.held,
        "members": {"all": len(members), **{state: counts[state] for state in STATES}},
        "epochs": {"done": done, "all": sum(totals.values())},
        "last_save": _last_save(sweep.path),
        "analyses": sweep.own.analyses(),
        "failed": _note(folder, FAILED),
        "each": states,
    }


def _states(sweep: Sweep, names: Iterable[str]) -> dict[str, str]:
    """The state of each member. Those of a stack are trained together: one that is being written to says it of all."""
    failed = _note(sweep.own.folder, FAILED)
    found = {name: _state(sweep.run(name), name in failed) for name in names}
    for block in sweep.blocks:
        if any(found[name] == "running" for name in block["members"]):
            found |= {name: "running" for name in block["members"] if found[name] in ("waiting", "failed")}
    return found


def _note(folder: Folder, name: str) -> dict[str, Any]:
    """A note that a sweep keeps until it is complete; empty if there is none. It may go while it is looked at."""
    try:
        return folder.read_json(name) if folder.has(name) else {}
    except (UseError, FileNotFoundError):
        return {}


def _state(run: Run, failed: bool) -> str:
    if run.trained:
        return "diverged" if run.ending["diverged"] else "done"
    return "running" if run.folder.held else "failed" if failed else "waiting"


def _of_run(run: Run) -> dict[str, Any]:
    asked, writing = run.spec, run.folder.held
    training = asked.get("kind") == TrainSpec.KIND
    begun = {Path(name).stem for name in run.folder.names("resume/*.json")} - {"recording"}
    analyses = run.analyses()
    found: dict[str, Any] = {"run": str(run.path), "stage": _stage(run, training, analyses, sorted(begun))}
    found["writing"] = writing
    if training and not run.trained and is_sweep(run.path.parents[1]):
        found["sweep"] = f"{run.path.parents[1]}, whose status says how far its members are"
    if training:
        found["training"] = {"complete": run.trained, **_epochs(run, asked["epochs"])}
    elif run.recording:
        found["recording"] = {"complete": bool(run.recording.get("finished"))}
    return found | {
        "checkpoints": len(run.checkpoints.listed()),
        "analyses": analyses,
        "begun": sorted(begun - set(analyses)),
        "report": run.folder.has(REPORT),
        "last_save": _last_save(run.path),
    }


def _stage(run: Run, training: bool, analyses: list[str], begun: list[str]) -> str:
    """What was done last, or is being done or was stopped."""
    if training and not run.trained:
        return "training"
    if run.recording and not run.recording.get("finished"):
        return "recording"
    if set(begun) - set(analyses):
        return "analysing"
    if run.folder.has(REPORT):
        return "reported"
    if analyses:
        return "analysed"
    return "trained" if training else "recorded" if run.recording else "begun"


def _epochs(run: Run, most: int) -> dict[str, Any]:
    """How far a training came: to its end, to its last save, or to its last checkpoint."""
    if run.trained:
        return {"epochs": run.ending["trained"], "of": most, "ending": run.ending["reason"]}
    from layerscope.step import Step

    kept = [Step.parse(Path(name).stem).epoch for name in run.checkpoints.listed()]
    return {"epochs": max([*kept, _saved_epoch(run)], default=0), "of": most}


def _saved_epoch(run: Run) -> int:
    """The epoch of the last save; 0 if there is none. The file may go while it is looked at."""
    from safetensors import safe_open

    path = run.path / "resume" / "training.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            return int(file.metadata()["epoch"])
    except FileNotFoundError:
        return 0


def _last_save(path: Path) -> str | None:
    """When something was last kept (UTC): the newest file that is neither a lock nor the note of progress."""
    if not (newest := Folder(path).newest(but=PROGRESS)):
        return None
    return datetime.datetime.fromtimestamp(newest, datetime.UTC).isoformat(timespec="seconds")
