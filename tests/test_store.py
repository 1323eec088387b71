"""A half-written file is never taken for a whole one."""

import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerscope.errors import UseError
from layerscope.store import Folder, read_file


def test_written_files_verify_and_others_tools_agree(tmp_path):
    folder = Folder(tmp_path)
    folder.write("a.bin", b"123")
    folder.write("sub/b.bin", lambda path: path.write_bytes(b"456"))
    assert folder.has("a.bin")
    assert folder.file("sub/b.bin").read_bytes() == b"456"
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("damage", [b"", b"12", b"124", b"1234"])
def test_a_damaged_file_is_not_there(tmp_path, damage):
    folder = Folder(tmp_path)
    folder.write("a.bin", b"123")
    assert folder.has("a.bin")
    time.sleep(0.01)
    (tmp_path / "a.bin").write_bytes(damage)
    for look in (folder.has, folder.file, Folder(tmp_path).has):
        with pytest.raises(UseError, match=r"a\.bin is damaged: it does not match"):
            look("a.bin")


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    folder = Folder(tmp_path)
    folder.write("a.bin", b"old")

    def fails(path):
        path.write_bytes(b"half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(UseError, match="No space"):
        folder.write("a.bin", fails)
    assert folder.file("a.bin").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "a.bin"]


def test_a_file_that_was_never_listed_is_not_there(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"123")
    assert not Folder(tmp_path).has("a.bin")


KILLED = """
import sys, time
from layerscope.store import Folder
def slowly(path):
    path.write_bytes(b"half")
    print("half", flush=True)
    time.sleep(60)
with Folder(sys.argv[1]).lock():
    Folder(sys.argv[1]).write("a.bin", slowly)
"""


def test_killed_in_the_middle_of_a_write(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    folder = Folder(tmp_path)
    with pytest.raises(UseError, match="being written by another process"), folder.lock():
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert not folder.has("a.bin")
    assert list(tmp_path.glob(".partial-*"))
    with folder.lock():
        folder.write("a.bin", b"whole")
    assert not list(tmp_path.glob(".partial-*"))
    assert folder.file("a.bin").read_bytes() == b"whole"


class Dies(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("moment", range(4))
def test_dying_at_each_rename_leaves_the_old_or_the_new_file(tmp_path, monkeypatch, moment):
    """Renames are the only moments at which what others see changes: dying before the k-th must leave a whole file."""
    folder = Folder(tmp_path)
    folder.write("a.bin", b"old")
    rename, left = Path.replace, [moment]

    def dying(self, target):
        if left[0] == 0:
            raise Dies
        left[0] -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    died = False
    try:
        folder.write("a.bin", b"new")
    except Dies:
        died = True
    monkeypatch.undo()
    assert died == (moment < 3)  # list both, rename, list the new one
    assert Folder(tmp_path).file("a.bin").read_bytes() == (b"old" if moment < 2 else b"new")
    with folder.lock():
        folder.write("a.bin", b"newer")
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


def test_folders_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UseError, match="cannot write to"), Folder(tmp_path / "file").lock():
        pass


def test_leftovers_of_others_below_are_not_touched(tmp_path):
    other = tmp_path / "another-run" / ".partial-x"
    other.parent.mkdir()
    other.write_bytes(b"being written")
    with Folder(tmp_path).lock():
        pass
    assert other.exists()


def test_foreign_files(tmp_path):
    whole = gzip.compress(b"x" * 1000)
    (tmp_path / "a.gz").write_bytes(whole[:-10])
    with pytest.raises(UseError, match=r"a\.gz is truncated or not a gzip file"):
        read_file(tmp_path / "a.gz")
    with pytest.raises(UseError, match=r"cannot read .*missing"):
        read_file(tmp_path / "missing")
