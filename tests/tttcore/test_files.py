"""Folders that are written whole or not at all."""

import errno
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tttcore import InvalidInput
from tttcore.files import atomic_folder

SHARDS = ("model-*.safetensors", "index.json")


def write(folder, **files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def failing(path, error, **options):
    """Three bytes and then an error, or a function that ends in one."""
    with atomic_folder(path, owns=SHARDS, **options) as fresh:
        write(fresh, **{"config.json": "new"})
        if isinstance(error, BaseException):
            raise error
        error()


@pytest.fixture
def old(tmp_path):
    """A folder that is there."""
    write(tmp_path / "there", **{"config.json": "old", "model-1.safetensors": "old", "model-2.safetensors": "old", "notes/mine": "kept"})
    return tmp_path / "there"


def test_a_new_folder_comes_whole(tmp_path, monkeypatch):
    """Not file by file."""
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("a file was moved"))
    path = tmp_path / "deep" / "new"
    with atomic_folder(path) as fresh:
        write(fresh, **{"a": "1", "inside/b": "2"})
        assert not path.exists()
    assert content(path) == {"a": "1", "inside/b": "2"}
    assert os.listdir(path.parent) == ["new"]
    expected = tmp_path / "as mkdir does"
    expected.mkdir()
    assert path.stat().st_mode == expected.stat().st_mode


def test_into_a_folder_that_is_there(old):
    before = content(old)
    with atomic_folder(old, owns=SHARDS) as fresh:
        write(fresh, **{"config.json": "new", "model-1.safetensors": "new", "notes/more": "new"})
        assert {name: text for name, text in content(old).items() if "partial" not in name} == before
    assert content(old) == {"config.json": "new", "model-1.safetensors": "new", "notes/mine": "kept", "notes/more": "new"}
    with atomic_folder(old, owns=SHARDS) as fresh:
        write(fresh, note="without shards")
    assert content(old)["model-1.safetensors"] == "new", "what has no shards takes none away"
    assert sorted(os.listdir(old)) == ["config.json", "model-1.safetensors", "note", "notes"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_within_changes_nothing(old, error, tmp_path):
    before = content(old)
    for path in (old, tmp_path / "new"):
        with pytest.raises(type(error)) as caught:
            failing(path, error)
        assert caught.value is error
    assert content(old) == before
    assert os.listdir(tmp_path) == ["there"]


def test_a_killed_process_leaves_the_old_files(old):
    before = content(old)
    program = "import os, signal, sys; from tttcore.files import atomic_folder\nwith atomic_folder(sys.argv[1]) as fresh:\n"
    program += "    (fresh / 'config.json').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", program, str(old)], check=False).returncode == -9
    left = {name: text for name, text in content(old).items() if name not in before}
    assert left == {".there.partial/config.json": "half"}
    assert {name: text for name, text in content(old).items() if name in before} == before
    with atomic_folder(old) as fresh:
        assert not os.listdir(fresh)
        write(fresh, note="next")
    assert content(old) == before | {"note": "next"}


def test_a_disk_with_too_little_room_is_told_before(old, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=99))
    message = rf"no room for {old}: got 99 bytes free after 0; expected 100 bytes. Fix: free that much .*; what is there is as it was"
    with pytest.raises(OSError, match=message) as caught, atomic_folder(old, needs=100):
        pytest.fail("nothing is written")
    assert caught.value.errno == errno.ENOSPC
    with atomic_folder(old, needs=99):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_becomes_full(old):
    before = content(old)
    with pytest.raises(OSError, match=r"got a full disk after 3 bytes; expected 50 bytes.*what is there is as it was") as caught:
        failing(old, lambda: Path("/dev/full").write_bytes(b"more"), needs=50)
    assert caught.value.errno == errno.ENOSPC
    assert content(old) == before


def test_a_full_disk_in_the_words_of_others(tmp_path, monkeypatch):
    """safetensors and torch.save raise errors of their own, without a number."""
    room = iter([10, 6])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=next(room)))
    with pytest.raises(OSError, match=r"got 6 bytes free after 3; expected 10 bytes.*nothing is left behind") as caught:
        failing(tmp_path / "new", RuntimeError("file write failed"), needs=10)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not os.listdir(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    write(tmp_path, file="1")
    with pytest.raises(InvalidInput, match=r"got the file .*file; expected a folder, or a name for a new one"), atomic_folder(tmp_path / "file"):
        pass
    assert content(tmp_path) == {"file": "1"}
