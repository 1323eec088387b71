"""A run on disk: what was asked, what came of it, and where each file lies. Never imports torch."""

import datetime
import json
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from layerscope.errors import UseError
from layerscope.spec import Spec, canonical_json
from layerscope.store import SUMS, Folder
from layerscope.table import Table

_NAME = re.compile(r"\w[\w .,()+-]*")
SPEC, PROVENANCE, TRAINING, REPORT = "spec.json", "provenance.json", "training.parquet", "report.html"


class Run:
    """The folder of one run; see `docs/run-layout.md` for its files."""

    def __init__(self, path: str | Path) -> None:
        self.folder = Folder(path)
        self.path = self.folder.path
        self.checkpoints = Folder(self.path / "checkpoints")

    @contextmanager
    def claim(self, spec: Spec, instead: str = "choose another --out") -> Iterator[None]:
        """Hold the folder for a run of this spec, new or begun before. A folder that holds anything else is never changed: the
        error says what to do `instead`."""
        asked = _plain(spec)
        if self.folder.has(SPEC):
            _refuse_other(self.spec, asked, f"{self.path} holds a run of another spec", instead)
        elif self.folder.entries() - {SUMS}:
            raise UseError(f"{self.path} exists and is not a run of layerscope; {instead}")
        with self.folder.lock():
            if not self.folder.has(SPEC):
                self.folder.write_json(SPEC, asked)
            yield

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run."""
        run = cls(path)
        if not run.path.exists():
            raise UseError(f"there is no folder {run.path}; make a run with: layerscope train --out {run.path}")
        if not run.folder.has(SPEC):
            raise UseError(
                f"{run.path} is not a run: it has no {SPEC}; make one with: layerscope train --out {run.path}"
            )
        if run.spec.get("kind") == "sweep":
            raise UseError(f"{run.path} is a sweep, not a run; its runs are in {run.path / 'members'}")
        return run

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked, as plain JSON values."""
        return self.folder.read_json(SPEC)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, data fingerprint and times, by stage."""
        return self.folder.read_json(PROVENANCE) if self.folder.has(PROVENANCE) else {}

    def record(self, stage: str, facts: dict[str, Any]) -> None:
        """Add the facts of one stage to the provenance."""
        self.folder.write_json(PROVENANCE, {**self.provenance, stage: facts})

    @property
    def trained(self) -> bool:
        """Whether training was finished."""
        return self.folder.has(TRAINING)

    @property
    def ending(self) -> dict[str, Any]:
        """Of a finished training: the `epoch` whose network is the trained one, the `reason` why training ended, whether it
        `reached` what it waited for, and whether it `diverged`. Nothing before."""
        return self.provenance.get("training", {}).get("ending", {})

    @property
    def recording(self) -> dict[str, Any]:
        """Of a training that was recorded (`Recorder`): whether that is `finished`, why it `diverged`, what its `end` is, the
        `sessions` that recorded it, and the `source` of its model and data. Nothing of any other run."""
        return self.provenance.get("recording", {})

    def training(self) -> Table:
        """Losses and errors per epoch."""
        return Table.open(self.folder.file(TRAINING))

    def analyses(self) -> list[str]:
        """The names of the finished analyses."""
        names = (Path(name).stem for name in self.folder.names("analyses/*.parquet"))
        return [name for name in names if self.folder.has(_analysis(name))]

    def analysis(self, name: str) -> Table:
        """The table of one analysis."""
        return Table.open(self.folder.file(_analysis(name)))

    def analysis_spec(self, name: str) -> dict[str, Any]:
        """What one analysis was asked, as plain JSON values."""
        return self.folder.read_json(f"analyses/{name}.json")

    def finished_analysis(self, name: str, spec: Spec, inputs: str) -> Table | None:
        """The analysis of this name, spec and inputs if it is complete; an error if there is one of others.

        `inputs` is a fingerprint of the states and data that it was made from.
        """
        if not self.folder.has(_analysis(name)):
            return None
        there, asked = self.analysis_spec(name), {**_plain(spec), "inputs": inputs}
        what = f"{self.path} has an analysis {name!r} of another spec or inputs"
        _refuse_other(there, asked, what, "choose another --name")
        return self.analysis(name)

    def partial(self, name: str, key: str) -> dict[str, Any]:
        """What an analysis that was stopped has so far; nothing if it was of another key."""
        if not self.folder.has(_partial(name)):
            return {}
        found = self.folder.read_json(_partial(name))
        return found["done"] if found["key"] == key else {}

    def save_partial(self, name: str, key: str, done: dict[str, Any]) -> None:
        """Keep what an analysis has so far."""
        self.folder.write(_partial(name), json.dumps({"key": key, "done": done}).encode())

    def save_analysis(self, name: str, table: Table, spec: Spec, inputs: str = "") -> None:
        """Write an analysis with what was asked for, and the fingerprint of what it was made from."""
        self.folder.write_json(f"analyses/{name}.json", {**_plain(spec), "inputs": inputs})
        self.folder.write(_analysis(name), table.save)
        self.folder.remove(_partial(name))


def fields_of(written: dict[str, Any]) -> dict[str, Any]:
    """The fields of a spec that a Run has written, without what it adds to them."""
    return {name: value for name, value in written.items() if name not in ("fingerprint", "inputs")}


def environment() -> dict[str, Any]:
    """What the numbers were computed with: versions, machine and the time now (UTC)."""
    return {
        "layerscope": _version("layerscope"),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "pandas", "scipy")},
        "platform": f"{platform.system()} {platform.machine()}",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _analysis(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UseError(
            f"{name!r} cannot be the name of an analysis: use letters, digits, spaces and any of . , ( ) + - _"
        )
    return f"analyses/{name}.parquet"


def _partial(name: str) -> str:
    return f"resume/{name}.json"


def _plain(spec: Spec) -> dict[str, Any]:
    """The spec as JSON gives it back (tuples become lists)."""
    return {**json.loads(canonical_json(spec.to_dict())), "fingerprint": spec.fingerprint}


def _refuse_other(there: dict[str, Any], asked: dict[str, Any], what: str, instead: str) -> None:
    """An error that names every field in which what is there differs from what was asked."""
    if there != asked:
        changed = [k for k in {**there, **asked} if there.get(k) != asked.get(k) and k != "fingerprint"]
        changed = ["kind"] if "kind" in changed else changed
        fields = "; ".join(f"{k}: {there.get(k)!r} there, {asked.get(k)!r} asked" for k in changed)
        raise UseError(f"{what} ({fields}); {instead}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
