"""TTT layers on PyTorch: eager, ``torch.compile``, autograd, CPU and CUDA."""

from typing import TYPE_CHECKING, Any

from .backend import BACKEND as BACKEND
from .layer import TTTLayer as TTTLayer

if TYPE_CHECKING:
    from .porting import port as port

__all__ = ["BACKEND", "TTTLayer", "port"]


def __getattr__(name: str) -> Any:
    """``port`` when it is asked for: it imports transformers, which nothing else here does."""
    if name != "port":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .porting import port

    return port
