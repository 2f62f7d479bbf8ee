"""TTT-Linear on NVIDIA GPUs: the forward pass as one Triton kernel, on PyTorch tensors."""

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
