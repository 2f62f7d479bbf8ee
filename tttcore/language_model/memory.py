"""What a block of a language model remembers between two calls."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..arrays import Array
from ..state import State


class Memory(NamedTuple):
    """One block's: the layer's state, and the last inputs of the convolution ahead of it ``[B, conv_kernel − 1, C]``; None before the first token.

    Within PyTorch's cache a decoder may stand for the state between two tokens.
    """

    state: State | Any | None = None
    conv: Array | None = None
