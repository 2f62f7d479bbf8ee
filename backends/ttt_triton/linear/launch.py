"""How a call is divided among launches, and the kernels' compile-time arguments."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ..launcher import Launcher
from ..layout import INTERPRETED, operands, padded, parallel_warps, saved_dtype, tile
from . import gluon
from .reverse_scan import reverse_scan
from .scan import scan
from .training_backward import training_backward

Piece = tuple[int, int]
"""A piece of every sequence: its first block, and how many blocks it has."""
SHORTEST, PROGRAMS = (1, 2**30) if INTERPRETED else (128, 128)
"""Blocks of a piece at the least, since Python would take longer than a GPU; programs of a scan that leave it no room for others."""


def pieces(blocks: int, programs: int) -> list[Piece]:
    """What sequences of ``blocks`` blocks are cut into: four pieces where scans of ``programs`` programs leave half of a GPU to parallel kernels."""
    part = max(-(-blocks // 4), SHORTEST) if 2 * programs <= PROGRAMS else max(blocks, 1)
    return [(begin, min(part, blocks - begin)) for begin in range(0, max(blocks, 1), part)]


@functools.cache
def launcher(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False) -> Launcher:
    """A kernel for tokens of ``dtype``, D = ``width`` and K = ``size``, and for sequences that go on at any phase or not."""
    return Launcher(kernel, constants(kernel, dtype, width, size, opening))


def constants(kernel: Any, dtype: torch.dtype, width: int, size: int, opening: bool = False) -> dict[str, Any]:
    """A kernel's compile-time arguments and options."""
    rows, shape = tile(size, width, dtype), {"K": size, "D": width, "OPENING": opening}
    if kernel in (gluon.scan, gluon.reverse_scan):
        shape, options = shape | {"R": padded(size), "BLOCK": rows // size}, {"num_warps": width // 16}
    else:
        stages = 2 if saved_dtype(dtype) == torch.bfloat16 else 1
        shape |= {"R": rows, "K_PAD": padded(size), "D_PAD": padded(width), "STAGES": stages} | operands(dtype)
        # Eight warps would divide 128 rows among them also where there are 64, and read past the end of the operands.
        options = {"num_warps": parallel_warps(width, rows) if width <= 64 or rows == 64 else 8, "num_stages": 1}
    if kernel is training_backward and width <= 64:
        # Three programs on a multiprocessor: it waits for memory.
        options["maxnreg"] = 168
    return {name: value for name, value in shape.items() if name in kernel.arg_names} | options


def scans(size: int, k: Tensor, v: Tensor, lr: Tensor) -> tuple[Any, Any, Tensor]:
    """``scan``, ``reverse_scan`` and ℓ for them: laid out by hand where they can be, else those that anything can run."""
    width, aligned = k.shape[-1], all(x.dtype == torch.bfloat16 and x.data_ptr() % 16 == 0 for x in (k, v))
    if INTERPRETED or not (aligned and gluon.suits(size, width, tile(size, width, k.dtype) // size)):
        return scan, reverse_scan, lr
    return gluon.scan, gluon.reverse_scan, lr.float()
