"""Real input: the text of the Python standard library on this machine, as bytes."""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path

import numpy as np

MODULES = ("argparse.py", "ast.py", "dataclasses.py", "decimal.py", "inspect.py", "json/decoder.py", "tarfile.py", "textwrap.py", "typing.py")


@functools.cache
def text() -> np.ndarray:
    """The sources of some long modules of the standard library, one after the other, ``[N]`` uint8.

    Raises ``FileNotFoundError`` where the interpreter came without its sources.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [folder / name for name in MODULES if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"real input: got no source file of the standard library in {folder}; expected one of {MODULES}; install its sources")
    return np.frombuffer(b"".join(path.read_bytes() for path in found), np.uint8)


def excerpts(rng: np.random.Generator, batch: int, length: int) -> np.ndarray:
    """``[batch, length]`` bytes, each row from a place drawn by ``rng``."""
    source = text()
    starts = rng.integers(0, len(source) - length, batch)
    return source[starts[:, None] + np.arange(length)]
