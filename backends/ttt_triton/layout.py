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

    Half of that where float32 matrices of 64 rows would not fit the shared memory, and for narrow tiles (``parallel_warps`` says why).
    """
    if INTERPRETED:
        return padded(size)
    return 32 if size <= 32 and (width <= 32 or (width > 64 and saved_dtype(dtype) == torch.float32)) else 64


def parallel_warps(width: int, rows: int) -> int:
    """Of a program with tiles of ``rows`` rows and D = ``width``: four; two where tiles are narrow but have 64 rows.

    Programs of four make products of 64 rows with Hopper's own units, and where those are narrow, ptxas 12.8 has some of them read from registers
    that nothing was written to.
    """
    return 2 if width <= 32 and rows >= 64 else 4


def copied_by_16_bytes(*tokens: torch.Tensor) -> bool:
    """Whether the kernels that are laid out by hand, of which the interpreter runs none, can copy them: bfloat16, at multiples of 16 bytes."""
    return not INTERPRETED and all(x.dtype == torch.bfloat16 and x.data_ptr() % 16 == 0 for x in tokens)


def operands(dtype: torch.dtype) -> dict[str, Any]:
    """The kernels' constants DOT and PRECISION for tokens of ``dtype``: of what dtype operands are, and how float32 ones are multiplied."""
    if saved_dtype(dtype) == torch.bfloat16:
        return {"DOT": tl.bfloat16, "PRECISION": "tf32"}
    return {"DOT": tl.float32, "PRECISION": "ieee" if INTERPRETED else "tf32x3"}


class Layout(NamedTuple):
    """R sequences among N tokens: sequence r is ``length[r]`` tokens from ``start[r]`` on, the first of them token ``phase[r]`` of its mini-batch.

    Its blocks take the places from ``first[r]`` on, and ``row`` says whose each of all ``total`` places is. Tensors are int32; all of them are None
    where sequences lie end to end, ``longest`` tokens and ``blocks`` blocks each, and begin at a border.
    """

    rows: int
    total: int
    longest: int = 0
    blocks: int = 0
    start: Tensor | None = None
    length: Tensor | None = None
    phase: Tensor | None = None
    first: Tensor | None = None
    row: Tensor | None = None

    @classmethod
    def even(cls, block: int, rows: int, longest: int) -> Layout:
        """R sequences of ``longest`` tokens, end to end, in blocks of ``block`` tokens."""
        blocks = -(-longest // block)
        return cls(rows, rows * blocks, longest, blocks)

    @classmethod
    def ragged(cls, size: int, block: int, tokens: int, start: Tensor, length: Tensor, phase: Tensor | None) -> Layout:
        """Sequences of any lengths and phases among N = ``tokens``, K = ``size``, with as many places as any such can need: no value is read."""
        phase = torch.zeros_like(length) if phase is None else phase
        rows = length.shape[0]
        ends = ((length + phase + block - 1) // block).cumsum(0)
        total = (tokens + rows * (block + size - 2)) // block
        row = torch.searchsorted(ends, torch.arange(total, device=ends.device), right=True).clamp(max=max(rows - 1, 0))
        first = torch.nn.functional.pad(ends, (1, 0))[:-1]
        return cls(rows, total, start=start, length=length, phase=phase, first=first.int(), row=row.int())

    def end_phase(self, size: int, like: Tensor) -> Tensor:
        """``[R]`` tokens that each sequence leaves in an open mini-batch of K = ``size``."""
        if self.length is None or self.phase is None:
            return torch.full((self.rows,), self.longest % size, dtype=torch.int32, device=like.device)
        return (self.length + self.phase) % size


def padded_rows(like: Tensor, rows: int, longest: int, length: Tensor | None) -> tuple[Tensor, Tensor]:
    """(start, length) of R sequences in rows of ``longest`` tokens, as long as that where no length is given; on the device of ``like``."""
    start = torch.arange(rows, dtype=torch.int32, device=like.device) * longest
    return start, torch.full_like(start, longest) if length is None else length


def packed(cu_seqlens: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """(start, length) of packed sequences. Values on a GPU are not checked; within the tokens, wrong ones at least reach no one else's memory."""
    borders = cu_seqlens.int().clamp(0, tokens)
    return borders[:-1], borders.diff().clamp(min=0)
