"""Where the sequences of a call lie among its tokens, and which blocks of whole mini-batches they make."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton was imported under TRITON_INTERPRET=1, so that kernels run on the CPU, slowly."""


def padded(n: int) -> int:
    """The tile's size for n rows or columns: a power of two, 16 at the least."""
    return max(16, 1 << (n - 1).bit_length())


def saved_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which dtype kernels multiply, and keep what the backward pass needs, for tokens of ``dtype``: float32 for all but bfloat16.

    Float16 has too narrow a range for gradients through LayerNorm; the interpreter's bfloat16 is wrong.
    """
    return torch.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else torch.float32


def tile(size: int, width: int, dtype: torch.dtype) -> int:
    """Rows of a tile for mini-batches of K = ``size`` and D = ``width``: 64 suit the matrix units; the interpreter's time goes by the tile.

    Half of that where float32 matrices of 64 rows would not fit the shared memory.
    """
    if INTERPRETED:
        return padded(size)
    return 32 if size <= 32 and width > 64 and saved_dtype(dtype) == torch.float32 else 64


def operands(dtype: torch.dtype) -> dict[str, Any]:
    """The kernels' constants DOT and PRECISION for tokens of ``dtype``: of what dtype operands are, and how float32 ones are multiplied."""
    if saved_dtype(dtype) == torch.bfloat16:
        return {"DOT": tl.bfloat16, "PRECISION": "tf32"}
    return {"DOT": tl.float32, "PRECISION": "ieee" if INTERPRETED else "tf32x3"}


class Layout(NamedTuple):
    """R sequences among N tokens: sequence r is ``length[r]`` tokens from ``start[r]`` on, the first of them token ``phase[r]`` of its mini-batch.

    None for start: end to end, ``longest`` tokens each; None for length: all ``longest``; None for phase: 0. Each has ``blocks`` places for
    blocks, or where it is packed, those from ``first[r]`` on; ``row`` says whose each place is. ``total`` places in all. Tensors are int32.
    """

    rows: int
    longest: int
    blocks: int
    total: int
    start: Tensor | None = None
    length: Tensor | None = None
    phase: Tensor | None = None
    first: Tensor | None = None
    row: Tensor | None = None

    @classmethod
    def even(cls, size: int, block: int, rows: int, longest: int, length: Tensor | None, phase: Tensor | None) -> Layout:
        """R sequences in rows of ``longest`` tokens, K = ``size``, in blocks of ``block`` tokens."""
        blocks = -(-(longest + (0 if phase is None else size - 1)) // block)
        return cls(rows, longest, blocks, rows * blocks, length=length, phase=phase)

    @classmethod
    def packed(cls, size: int, block: int, cu_seqlens: Tensor, tokens: int, phase: Tensor | None) -> Layout:
        """Packed sequences, with as many places as any sequences of these counts can need: no value is read on the host."""
        rows = cu_seqlens.shape[0] - 1
        # Values on a GPU are not checked; within the tokens, wrong ones at least reach no one else's memory.
        borders = cu_seqlens.int().clamp(0, tokens)
        start, length = borders[:-1], borders.diff().clamp(min=0)
        slots = length if phase is None else length + phase
        ends = ((slots + block - 1) // block).cumsum(0)
        total = (tokens + rows * (block - 1 + (0 if phase is None else size - 1))) // block
        places = torch.arange(total, device=cu_seqlens.device)
        row = torch.searchsorted(ends, places, right=True).clamp(max=max(rows - 1, 0)).int()
        first = torch.nn.functional.pad(ends, (1, 0))[:-1].int()
        return cls(rows, 0, 0, total, start, length, phase, first, row)

    def starts(self, like: Tensor) -> Tensor:
        """``start``, also where sequences lie end to end; on the device of ``like``."""
        return torch.arange(self.rows, dtype=torch.int32, device=like.device) * self.longest if self.start is None else self.start

    def lengths(self, like: Tensor) -> Tensor:
        """``length``, also where all are as long."""
        return torch.full((self.rows,), self.longest, dtype=torch.int32, device=like.device) if self.length is None else self.length

    def end_phase(self, size: int, like: Tensor) -> Tensor:
        """``[R]`` tokens that each sequence leaves in an open mini-batch of K = ``size``."""
        if self.length is None and self.phase is None:
            return torch.full((self.rows,), self.longest % size, dtype=torch.int32, device=like.device)
        return (self.lengths(like) if self.phase is None else self.lengths(like) + self.phase) % size
