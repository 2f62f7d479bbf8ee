"""What the backend needs besides installed packages. A listing of backends asks this module, so it imports the standard library only."""

from __future__ import annotations

import ctypes
import os


def missing() -> str:
    """Why kernels cannot run here, as "what is missing: how to mend it"; empty when they can."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: use a machine with an NVIDIA GPU, or set TRITON_INTERPRET=1 before Python starts (on the CPU, slow)"
    return ""
