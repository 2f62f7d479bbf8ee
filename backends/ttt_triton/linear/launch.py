"""How a call is divided among launches, and the kernels' compile-time arguments."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..launcher import Launcher
from ..layout import INTERPRETED, copied_by_16_bytes, operands, padded, parallel_warps, saved_dtype, tile
from ..overlap import leaves_room
from . import gluon
from .readout_backward import readout_backward
from .reverse_scan import reverse_scan
from .scan import scan
from .training_backward import training_backward

SHORTEST = 1 if INTERPRETED else 128
"""Blocks of a piece that runs beside others, at the least: Python would take longer than a GPU."""
FULL = 1 if INTERPRETED else 2048
"""Programs of a parallel kernel, at the least, that do not miss those of another half."""


class Piece(NamedTuple):
    """Of every sequence ``blocks`` blocks from block ``begin`` on, ``places`` in all."""

    begin: int
    blocks: int
    places: int


def pieces(rows: int, heads: int, blocks: int, ragged: int | None, halved: bool) -> list[Piece]:
    """Those of R = ``rows`` sequences of as many blocks: four at most where scans leave half of a GPU to parallel kernels, else one or two halves.

    Sequences of different lengths, in ``ragged`` places, are one piece.
    """
    if ragged is not None:
        return [Piece(0, ragged, ragged)]
    alone = 2 if halved and rows * heads * blocks >= 2 * FULL else 1
    count = max(min(4, blocks // SHORTEST), 1) if leaves_room(rows * heads) else alone
    part = max(-(-blocks // count), 1)
    found = ((begin, min(part, blocks - begin)) for begin in range(0, max(blocks, 1), part))
    return [Piece(begin, length, rows * length) for begin, length in found]


@functools.cache
def launcher(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False, pairs: bool = False) -> Launcher:
    """A kernel for tokens of ``dtype``, D = ``width`` and K = ``size``, for sequences that go on at any phase or not, and in ``pairs`` or not."""
    return Launcher(kernel, constants(kernel, dtype, width, size, opening, pairs))


def constants(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False, pairs: bool = False) -> dict[str, Any]:
    """A kernel's compile-time arguments and options."""
    rows, shape = tile(size, width, dtype), {"K": size, "D": width, "OPENING": opening}
    if kernel in (gluon.scan, gluon.reverse_scan, gluon.backward):
        shape, options = shape | {"R": padded(size), "BLOCK": 2 if pairs else rows // size}, {"num_warps": width // 16}
    else:
        stages = 2 if saved_dtype(dtype) == torch.bfloat16 else 1
        shape |= {"R": rows, "K_PAD": padded(size), "D_PAD": padded(width), "STAGES": stages} | operands(dtype)
        # Eight warps would divide 128 rows among them also where there are 64, and read past the end of the operands.
        options = {"num_warps": parallel_warps(width, rows) if width <= 64 or rows == 64 else 8, "num_stages": 1}
    if width <= 64 and (kernel is training_backward or (kernel is readout_backward and saved_dtype(dtype) == torch.bfloat16)):
        # Three programs on a multiprocessor: they wait for memory and barriers.
        options["maxnreg"] = 168
    return {name: value for name, value in shape.items() if name in kernel.arg_names} | options


def pairs(q: Tensor, size: int, programs: int, longest: int) -> bool:
    """Whether sequences of ``longest`` tokens each are kept in pairs of mini-batches, so that the backward pass can be one scan (``gluon.backward``).

    It is one kernel for all that is sequential: so many ``programs`` are to fill a GPU.
    """
    suited = q.dtype == torch.bfloat16 and size == 16 and q.shape[-1] == 64 and longest > 0 and longest % (2 * size) == 0
    # Groups of warps that do different work take registers from each other, which is Hopper's.
    return suited and not INTERPRETED and not leaves_room(programs) and torch.cuda.get_device_capability(q.device)[0] == 9


def aligned(x: Tensor) -> Tensor:
    """x, where it can be copied by 16 bytes, else a copy of it."""
    return x if copied_by_16_bytes(x) else x.clone()


def reads_out(scan: Launcher, q: Tensor, size: int, programs: int) -> bool:
    """Whether ``scan`` reads out as well: where its registers suffice and so many programs leave too little of a GPU to ``readout`` beside them."""
    return scan.kernel is gluon.scan and copied_by_16_bytes(q) and size <= 16 and q.shape[-1] <= 64 and not leaves_room(programs)


def scans(size: int, k: Tensor, v: Tensor, lr: Tensor, opening: bool, pairs: bool = False) -> tuple[Launcher, Launcher, Tensor]:
    """``scan``, ``reverse_scan`` and ℓ for them: laid out by hand where they can be, else those that anything can run."""
    width, shape = k.shape[-1], (k.dtype, k.shape[-1], size, opening)
    if not (copied_by_16_bytes(k, v) and gluon.suits(size, width, tile(size, width, k.dtype) // size)):
        return launcher(scan, *shape), launcher(reverse_scan, *shape), lr
    return launcher(gluon.scan, *shape, pairs), launcher(gluon.reverse_scan, *shape), lr.float()
