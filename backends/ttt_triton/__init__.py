"""TTT-Linear and TTT-MLP on NVIDIA GPUs by Triton kernels, on PyTorch tensors: dual form with gradients, and decoding in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backend import BACKEND as BACKEND


def __getattr__(name: str) -> object:
    """BACKEND, imported when it is first used, so that ``requirements`` can be asked without importing PyTorch and Triton."""
    if name != "BACKEND":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .backend import BACKEND

    return BACKEND
