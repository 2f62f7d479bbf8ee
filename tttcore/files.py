"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Generator
from pathlib import Path

from .errors import InvalidInput

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, needs: int = 0, owns: Collection[str] = ()) -> Generator[Path]:
    """A fresh folder to write into, on the same disk; when the block ends its files are in ``path``, if it raises nothing there has changed.

    A folder ``path`` that is not there yet comes into being whole, by one rename. Into one that is there each file is moved by a rename, after all
    of them are on the disk; its other files stay, but for those whose names match ``owns`` where the new ones have such names, too: shards of an
    older checkpoint, say. What a killed process leaves is a folder whose name ends in ".partial"; the next block for ``path`` removes it.

    Raises ``InvalidInput`` if ``path`` is a file; ``OSError`` with ``errno.ENOSPC``, which says what was needed and where, if the disk has less than
    ``needs`` bytes free, before the block, or becomes full in it.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise InvalidInput("path", got=f"the file {path}", expected="a folder, or a name for a new one", fix="choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    # In it, if it is there: its parent may be another disk.
    fresh = (path if path.is_dir() else path.parent) / f".{path.name}.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    _check_room(path, fresh.parent, needs, 0)
    fresh.mkdir()
    try:
        yield fresh
        for file in _files(fresh):
            with (fresh / file).open("rb") as written:
                os.fsync(written.fileno())
        _move(fresh, path, owns)
    except Exception as error:
        written = sum((fresh / file).stat().st_size for file in _files(fresh))
        if getattr(error, "errno", None) in FULL:
            raise _full(path, f"a full disk after {written} bytes", f"{max(needs, written + 1)} bytes") from error
        # Writers in other languages tell a full disk in words of their own.
        _check_room(path, fresh.parent, needs, written, error)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def whole(path: Path) -> Generator[Path]:
    """A file beside ``path`` to write to, put in its place at the end; what goes wrong leaves what was there, and nothing else."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # temporary files are their owner's alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _files(folder: Path) -> list[Path]:
    """All files within, by their relative paths."""
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def _move(fresh: Path, path: Path, owns: Collection[str]) -> None:
    if not path.exists():
        fresh.rename(path)
        return
    new = _files(fresh)
    for file in new:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(fresh / file, path / file)
    owned = [Path(file.name) for pattern in owns for file in path.glob(pattern)]
    if any(file in new for file in owned):
        for file in owned:
            if file not in new:
                (path / file).unlink()


def _check_room(path: Path, disk: Path, needs: int, written: int, cause: BaseException | None = None) -> None:
    free = shutil.disk_usage(disk).free
    if needs > written + free:
        raise _full(path, f"{free} bytes free after {written}", f"{needs} bytes") from cause


def _full(path: Path, got: str, needs: str) -> OSError:
    there = "what is there is as it was" if path.exists() else "nothing is left behind"
    fix = f"free that much on its disk or choose another place; {there}"
    return OSError(errno.ENOSPC, f"no room for {path}: got {got}; expected {needs}. Fix: {fix}.")
