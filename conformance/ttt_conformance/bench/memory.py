"""How much memory a call takes at its peak, where that can be known."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(call: Callable[[], Any], device: str) -> int | None:
    """Bytes beyond those in use before the call; ``device`` is where its arrays are, in the words of their library.

    Known on the CPU under Linux, from the process's resident memory, and for PyTorch on CUDA; None elsewhere.
    """
    if "cpu" in device.lower():
        return _resident(call)
    if "cuda" in device.lower() and "torch" in sys.modules:
        return _allocated(call, sys.modules["torch"].cuda)
    return None


def _resident(call: Callable[[], Any]) -> int | None:
    try:
        _give_back()
        RESET.write_text("5")  # the high-water mark is set back to what is resident now
        before = _kilobytes("VmRSS")
        result = call()
        most = _kilobytes("VmHWM")
    except OSError:
        return None
    del result
    return 1024 * max(0, most - before)


def _give_back() -> None:
    """Free memory goes back to the system: what a library keeps for later calls would hide what a call needs."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(field)
    return int(found[1])


def _allocated(call: Callable[[], Any], cuda: Any) -> int:
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    before = int(cuda.memory_allocated())
    result = call()
    cuda.synchronize()
    most = int(cuda.max_memory_allocated())
    del result
    return most - before
