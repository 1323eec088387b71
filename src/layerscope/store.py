"""The only room that touches files: whole or not at all, checked when read, one writer at a time."""

import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from layerscope.errors import UseError

SUMS = "SHA256SUMS"
"""Checksums of a folder, in the format of `sha256sum`: `sha256sum -c SHA256SUMS` checks them without us."""
LOCK = ".lock"
WAIT = 0.2
"""Seconds to try to get the lock: longer than `Folder.held` looks at it."""
_PARTIAL = ".partial-"
OURS = ("checkpoints", "analyses", "resume", "figures")
"""Folders within a folder of ours where a killed process may have left partial files."""


class Folder:
    """A folder whose files are written atomically, listed with their checksums, and verified when read.

    A file is written under another name and flushed to the disk; its checksum is entered in `SHA256SUMS`, beside that of
    the file it replaces; then it is renamed, and the old checksum is dropped. Whenever the process dies, the file is the
    old one or the new one, whole and listed. A file that is there but matches no checksum was damaged afterwards.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._verified: dict[str, tuple[int, int]] = {}

    def write(self, name: str, content: bytes | Callable[[Path], object]) -> Path:
        """Write one file whole or not at all; `content` is its bytes or a function that writes to a given path."""
        target, sums = self.path / name, self._sums()
        with _told(target), _partial(target, content) as partial:
            digest = _sha256(partial)
            self._list({**sums, name: {*sums.get(name, ()), digest}})
            partial.replace(target)
        if sums.get(name, {digest}) != {digest}:
            self._list({**sums, name: {digest}})
        return target

    def remove(self, name: str) -> None:
        """Remove a file, whether it is there or not."""
        sums = self._sums()
        if sums.pop(name, None) is not None:
            self._list(sums)
        (self.path / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder and all that is in it, whether it is there or not."""
        shutil.rmtree(self.path, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Whether the file is there. One that is listed but damaged is an error, not an absence."""
        if not (self.path / name).is_file() or name not in self._sums():
            return False
        self.file(name)
        return True

    def file(self, name: str) -> Path:
        """The path of a file, after checking that it is whole."""
        path = self.path / name
        if not path.is_file():
            raise UseError(f"{path} is missing")
        if not self._intact(name):
            raise UseError(
                f"{path} is damaged: it does not match {self.path / SUMS}; restore it, or delete it to make it again"
            )
        return path

    def names(self, pattern: str = "*") -> list[str]:
        """The names of all files in the folder that match, whole or not, sorted; none if there is no such folder."""
        if not self.path.is_dir():
            return []
        found = (p.relative_to(self.path) for p in self.path.glob(pattern) if p.is_file())
        return sorted(str(p) for p in found if not p.name.startswith("."))

    def digest(self) -> str:
        """16 hexadecimal digits that change with the content of any listed file."""
        return hashlib.sha256(
            "".join(f"{name} {','.join(sorted(v))}\n" for name, v in sorted(self._sums().items())).encode()
        ).hexdigest()[:16]

    def listed(self) -> list[str]:
        """The names of all files that should be there."""
        return sorted(self._sums())

    def read_json(self, name: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self.file(name).read_bytes())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file that people can read too."""
        self.write(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; a second process gets an error soon. Leftovers of a killed one are removed."""
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK, timeout=WAIT)
            lock.acquire()
        except Timeout:
            raise UseError(
                f"{self.path} is being written by another process; wait for it or choose another folder"
            ) from None
        except OSError as problem:
            raise UseError(f"cannot write to {self.path}: {problem.strerror or problem}") from None
        try:
            for folder in ("", *OURS):
                for leftover in (self.path / folder).glob(_PARTIAL + "*"):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    @property
    def held(self) -> bool:
        """Whether a process is writing to the folder now. Looks, and changes nothing."""
        import fcntl

        try:
            with (self.path / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def entries(self) -> set[str]:
        """The names of all files and folders directly in it, but for the lock and what a killed process left half written;
        none if there is no such folder."""
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        return {name for name in names if name != LOCK and not name.startswith(_PARTIAL)}

    def _sums(self) -> dict[str, set[str]]:
        """Name -> the checksums that a whole file may have: one, or two while it is being replaced."""
        try:
            lines = (self.path / SUMS).read_text().splitlines()
        except FileNotFoundError:
            return {}
        sums: dict[str, set[str]] = {}
        for digest, _, name in (line.partition("  ") for line in lines):
            sums.setdefault(name, set()).add(digest)
        return sums

    def _list(self, sums: Mapping[str, set[str]]) -> None:
        lines = (f"{digest}  {name}\n" for name in sorted(sums) for digest in sorted(sums[name]))
        write_file(self.path / SUMS, "".join(lines).encode())

    def _intact(self, name: str) -> bool:
        stat = (self.path / name).stat()
        seen = (stat.st_size, stat.st_mtime_ns)
        if self._verified.get(name) != seen:
            before = self._sums().get(name, set())  # and after: another process may be replacing it meanwhile
            if _sha256(self.path / name) not in before | self._sums().get(name, set()):
                return False
            self._verified[name] = seen
        return True

    def newest(self, but: str = "") -> float:
        """When the newest file in the folder or below was written, in seconds since 1970; 0 if there is none. Locks do not count,
        nor does the file named `but`. Files and folders may go meanwhile."""
        times = [0.0]
        for folder, _, names in os.walk(self.path):
            for path in (Path(folder) / name for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):
                    times.append(0.0 if path == self.path / but else path.stat().st_mtime)
        return max(times)


def write_file(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file whole or not at all: under a temporary name in its folder, flushed to the disk, then renamed."""
    with _told(path), _partial(path, content) as partial:
        partial.replace(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns an error of the system into one that says what could not be written, and what to do."""
    try:
        yield
    except OSError as problem:
        why = problem.strerror or problem
        raise UseError(
            f"cannot write {path}: {why}; what was complete before is kept: make room and run the same command again"
        ) from problem


@contextmanager
def _partial(path: Path, content: bytes | Callable[[Path], object]) -> Iterator[Path]:
    """The content under a temporary name beside `path`, flushed to the disk; gone afterwards if it was not renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_PARTIAL, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def read_file(path: str | Path) -> bytes:
    """The bytes of a foreign file; a `.gz` is decompressed. A truncated or foreign `.gz` is an error with its path."""
    path = Path(path)
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise UseError(f"{path} is truncated or not a gzip file ({problem})") from None
    except OSError as problem:
        raise UseError(f"cannot read {path}: {problem.strerror or problem}") from None


def begins(path: Path, magic: bytes) -> bool:
    """Whether a foreign file begins with these bytes; not, if it cannot be read: whoever opens it next says why."""
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def first_existing(candidates: list[Path]) -> Path | None:
    """The first of these paths that is a file."""
    return next((path for path in candidates if path.is_file()), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
