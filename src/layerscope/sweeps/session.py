"""A sweep trained: planned once, block by block, here or in a pool of processes."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from layerscope.device import device_named
from layerscope.errors import UseError
from layerscope.run import environment
from layerscope.runtime import EVERY, Failed, Pool, Progress, each, tell
from layerscope.store import Folder
from layerscope.sweeps.folder import FAILED, PLAN, PROGRESS, SUMMARY, Sweep
from layerscope.sweeps.spec import Member, SweepSpec
from layerscope.sweeps.summary import summary
from layerscope.training.blocks import Block, blocks_of_sets, loaded
from layerscope.training.loop import start
from layerscope.training.session import cost as cost_of_training
from layerscope.training.session import train
from layerscope.training.together import train_together

TIMED = 8
"""Members that are timed to say what a sweep would take."""
ALONE = "stacks were not asked for"


def sweep(
    spec: SweepSpec,
    out: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    workers: int = 1,
    threads: int | None = None,
    stacked: bool = True,
    progress: Progress | None = None,
) -> Sweep:
    """Train every member of a sweep, each as an ordinary run in `out/members`, and summarise them.

    Members that can be are trained together, as one stack of networks (see `training.blocks`); `stacked=False` trains each
    alone. Which with which is decided once and written down. `workers`: so many processes, each with its `threads` (those there
    are shared out, if not given); a script that asks for several needs `if __name__ == "__main__":`.

    The same sweep goes on where it was stopped, and one that is complete is left as it is. A member that diverges is a row.
    What goes wrong with one block does not stop the others; it is raised after them. A folder that holds anything else, and a
    sweep with a member that cannot be trained, is a `UseError` before anything is written.
    """
    device_named(device)
    found, pool, members = Sweep(out), Pool(workers, threads), spec.members()
    new = None if found.own.folder.has(PLAN) else planned(members, data_dir, stacked)
    with found.own.claim(spec):
        if not found.complete or not all(run.trained for run in found.runs):
            began = time.perf_counter()
            if new is not None:
                found.own.folder.write_json(PLAN, {"stacked": stacked, "blocks": new})
            _train(found, _blocks(found, members, stacked), data_dir, device, pool, progress)
            facts = environment() | {"workers": workers, "seconds": round(time.perf_counter() - began, 2)}
            found.own.record("sweep", facts)
            found.own.folder.write(SUMMARY, summary(found).save)
        found.own.folder.remove(PROGRESS)
        Folder(found.path / "blocks").discard()
    return found


def planned(members: Sequence[Member], data_dir: str | Path | None, stacked: bool) -> list[dict[str, Any]]:
    """Which members are trained together: of each block its name, its members, and why it is not a stack; those first that take
    longest. The training of each member is tried before (of those that differ in their seeds alone, that of one): `UseError` if
    it cannot begin."""
    sets = loaded([member.spec.data for member in members], data_dir)
    alike = {dataclasses.replace(member.spec, seed=0).fingerprint: member for member in reversed(members)}
    for member in reversed(alike.values()):
        try:
            start(member.spec, sets[member.spec.data])
        except UseError as problem:
            raise UseError(f"member {member.name}: {problem}") from None
    alone = [Block((place,), ALONE) for place in range(len(members))]
    blocks = blocks_of_sets([member.spec for member in members], sets) if stacked else alone
    return [
        {
            "name": f"{number:03}",
            "members": [members[place].name for place in block.members],
            "why": block.why,
            "bytes": block.nbytes,
        }
        for number, block in enumerate(sorted(blocks, key=lambda block: -block.work))
    ]


def cost(
    spec: SweepSpec,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    workers: int = 1,
    stacked: bool = True,
) -> dict[str, Any]:
    """What a sweep would take: members, blocks, epochs, bytes on disk, and seconds, from a few timed steps of some members,
    trained alone. Stacks take less; so do trainings that may end before all epochs."""
    members = spec.members()
    blocks = planned(members, data_dir, stacked)
    in_stacks = sum(len(block["members"]) for block in blocks if len(block["members"]) > 1)
    some = members[:: -(-len(members) // TIMED)]
    costs = [found for member in some if (found := _cost_of(member, data_dir, device)) is not None]
    if not costs:
        raise UseError("all members that were timed diverge at once; a smaller lr is the first try")
    return {
        "members": len(members),
        "in_stacks": in_stacks,
        "blocks": len(blocks),
        "epochs": sum(member.spec.epochs for member in members),
        "seconds": round(_mean(costs, "seconds") * len(members) / workers, 1),
        "estimated": f"of {len(costs)} members trained one by one" + ("; stacks take less" if in_stacks else ""),
        "disk_bytes": round(_mean(costs, "disk_bytes") * len(members)),
        "memory_bytes": max(one["memory_bytes"] for one in costs) + workers * max(block["bytes"] for block in blocks),
    }


def _cost_of(member: Member, data_dir: str | Path | None, device: str) -> dict[str, Any] | None:
    """None where it diverges within the steps that are timed: in a sweep that is a row."""
    try:
        return cost_of_training(member.spec, data_dir=data_dir, device=device)
    except UseError:
        return None


def _mean(costs: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(one[name] for one in costs) / len(costs)


def _blocks(sweep: Sweep, members: Sequence[Member], stacked: bool) -> dict[str, list[Member]]:
    """Name of each block -> its members, as was decided when the sweep began."""
    plan, named = sweep.own.folder.read_json(PLAN), {member.name: member for member in members}
    if plan["stacked"] != stacked:
        asked = "with stacks" if plan["stacked"] else "without stacks (stacked=False, --no-stacked)"
        raise UseError(f"{sweep.path} was begun {asked}: say the same again, or choose another --out")
    return {block["name"]: [named[name] for name in block["members"]] for block in plan["blocks"]}


def _train(
    sweep: Sweep,
    blocks: Mapping[str, list[Member]],
    data_dir: str | Path | None,
    device: str,
    pool: Pool,
    progress: Progress | None,
) -> None:
    complete = [name for name, members in blocks.items() if all(sweep.run(member.name).trained for member in members)]
    todo = {name: members for name, members in blocks.items() if name not in complete}
    names, failed = list(todo), dict[str, Failed]()
    epochs = _Epochs(sweep, blocks, complete, progress)
    sweep.own.folder.remove(FAILED)
    work = partial(_train_block, sweep.path, data_dir, device)
    with closing(
        each(list(todo.items()), work, pool, lambda number, done, _: epochs.told(names[number], done))
    ) as found:
        for number, outcome in found:
            if isinstance(outcome, Failed):
                failed[names[number]] = outcome
            else:
                epochs.finished(names[number])
    if failed:
        whose = {member.name: failed[name].why for name in failed for member in todo[name]}
        sweep.own.folder.write_json(FAILED, {name: why for name, why in whose.items() if not sweep.run(name).trained})
        epochs.save()
    tell({todo[name][0].name: why for name, why in failed.items()}, len(blocks), "blocks of the sweep")


def _train_block(
    path: Path,
    data_dir: str | Path | None,
    device: str,
    unit: tuple[str, Sequence[Member]],
    progress: Progress,
) -> None:
    name, members = unit
    sweep = Sweep(path)
    outs = [sweep.run(member.name).path for member in members]
    how = {"data_dir": data_dir, "device": device, "progress": progress}
    if len(members) == 1:
        train(members[0].spec, outs[0], **how)
    else:
        train_together([member.spec for member in members], outs, sweep.stack(name), name, **how)


class _Epochs:
    """Epochs done, over all blocks: told to a progress, and saved now and then for `layerscope status`. A block that is
    finished counts with all its epochs, whenever its trainings ended."""

    def __init__(
        self,
        sweep: Sweep,
        blocks: Mapping[str, Sequence[Member]],
        complete: Sequence[str],
        progress: Progress | None,
    ) -> None:
        self._folder, self._progress = sweep.own.folder, progress
        self._what = f"epochs of {sum(map(len, blocks.values()))} networks"
        self._totals = {name: sum(member.spec.epochs for member in members) for name, members in blocks.items()}
        before = self._folder.read_json(PROGRESS)["done"] if self._folder.has(PROGRESS) else {}
        self._done = before | {name: self._totals[name] for name in complete}
        self._said = -1
        self.save()
        self._say()

    def told(self, name: str, done: int) -> None:
        self._done[name] = done
        if time.monotonic() - self._saved >= EVERY:
            self.save()
        self._say()

    def finished(self, name: str) -> None:
        self._done[name] = self._totals[name]
        self._say()

    def save(self) -> None:
        self._folder.write_json(PROGRESS, {"done": self._done})
        self._saved = time.monotonic()

    def _say(self) -> None:
        done = sum(self._done.values())
        if self._progress is not None and done != self._said:
            self._progress(self._what, done, sum(self._totals.values()))
        self._said = done
