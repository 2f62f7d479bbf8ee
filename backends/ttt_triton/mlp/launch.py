"""How a call is divided among launches: groups of sequences, pieces of each, and the kernels' compile-time arguments."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..launcher import Launcher
from ..layout import INTERPRETED, copied_by_16_bytes, operands, padded, parallel_warps, saved_dtype, tile
from ..overlap import PROGRAMS, leaves_room
from . import gluon
from .reverse_scan import reverse_scan
from .room import Reversed, Scanned
from .scan import scan
from .training_backward import training_backward

SEQUENTIAL = (scan, reverse_scan)
ROOMS = 2
"""So many pieces are in hand where kernels of one run beside those of another."""
SHORTEST = 1 if INTERPRETED else 512
"""Tokens of a piece, at the least: Python would take longer than a GPU."""


class Piece(NamedTuple):
    """Piece ``number`` of ``rows`` sequences from ``top`` on: at most ``blocks`` blocks of each from token ``begin`` on, ``places`` in all.

    ``before``: places of the pieces before it.
    """

    top: int
    rows: int
    begin: int
    blocks: int
    places: int
    before: int
    number: int
    last: bool

    def extent(self, longest: int, heads: int) -> tuple[int, int, int, int, int]:
        """What kernels are told of it."""
        return self.top, longest, self.begin, self.blocks, heads


def constants(kernel: Any, dtype: torch.dtype, width: int, hidden: int, size: int) -> dict[str, Any]:
    """A kernel's compile-time arguments for tokens of ``dtype``, D = ``width``, E = ``hidden`` columns and K = ``size``."""
    if kernel in (gluon.scan, gluon.reverse_scan):
        return {"K": size, "D": width, "BLOCK": tile(size, width, dtype) // size, "num_warps": width // 8}
    shape = {"K": size, "D": width, "E": hidden, "R": tile(size, width, dtype)}
    shape |= {"K_PAD": padded(size), "D_PAD": padded(width), "E_PAD": padded(hidden)} | operands(dtype)
    # Float32 leaves no shared memory for loads ahead, nor do large mini-batches, and for half as many hidden columns at a time.
    narrow = saved_dtype(dtype) == torch.bfloat16
    shape |= {"STAGES": 2 if narrow and size <= 16 else 1, "C": min(64 if narrow and width > 32 else 32, padded(hidden))}
    # Both maps, or their cotangents, are in registers.
    sequential = 8 if padded(width) * padded(hidden) > 4096 else 4
    warps = sequential if kernel in SEQUENTIAL else parallel_warps(width, shape["R"])
    # With 168 registers three programs of this one are on a multiprocessor, and it spills none within its loop.
    threefold = kernel is training_backward and narrow and size <= 16
    options = {"num_warps": warps, "num_stages": 1, "maxnreg": 168 if threefold else 255}
    return {name: value for name, value in shape.items() if name in kernel.arg_names} | options


@functools.cache
def launcher(kernel: Any, dtype: torch.dtype, width: int, hidden: int, size: int) -> Launcher:
    """A kernel for tokens of ``dtype``, D = ``width``, E = ``hidden`` columns and K = ``size``."""
    return Launcher(kernel, constants(kernel, dtype, width, hidden, size))


def scans(size: int, hidden: int, k: Tensor, v: Tensor, lr: Tensor) -> tuple[Launcher, Launcher, Tensor]:
    """``scan``, ``reverse_scan`` and ℓ for them: laid out by hand where they can be, else those that anything can run."""
    shape = k.dtype, k.shape[-1], hidden, size
    if not (copied_by_16_bytes(k, v) and gluon.suits(size, k.shape[-1], hidden)):
        return launcher(scan, *shape), launcher(reverse_scan, *shape), lr
    return launcher(gluon.scan, *shape), launcher(gluon.reverse_scan if copies(size, k.device) else reverse_scan, *shape), lr.float()


def copies(size: int, device: torch.device) -> bool:
    """Whether a GPU copies tiles of K = ``size`` tokens by itself."""
    return size == 16 and torch.cuda.get_device_capability(device) >= (9, 0)


def written(scan: Launcher, room: Scanned, W2s: Tensor | None = None) -> tuple[Any, ...]:
    """Where a ``scan`` writes what it finds of a piece, as it takes it."""
    if scan.kernel is not gluon.scan or not copies(scan.options["K"], room.X2.device):
        return *room, W2s
    X2, G1, G2, Ws, W2s_to = gluon.destinations(room.X2, room.G1, room.G2, room.Ws, W2s)
    return X2, G1, G2, Ws, room.bs, W2s_to


def tiles(reverse: Launcher, room: Reversed) -> tuple[Any, ...]:
    """What a ``reverse_scan`` reads and writes of a piece, as it takes it: ΔZ₁ and p take the place of ΔX₂ and ΔG₂."""
    others = room.keys, room.numbers, room.scanned.X2, room.W2s, room.asked.X2, room.asked.G2, room.Ls, room.asked.Ws
    if reverse.kernel is reverse_scan:
        return *room.hiddens, *room.lines, *others
    return *gluon.described(room.hiddens, room.lines, *others), room.asked.Ws


def turns(rows: int, heads: int, longest: int) -> int:
    """In how many rooms pieces of R = ``rows`` sequences take turns: ``ROOMS`` where sequential kernels leave half of a GPU to others, else one.

    The more rooms, the shorter the pieces, and the more weights are kept where they begin.
    """
    return ROOMS if leaves_room(rows * heads) and longest >= 16 * ROOMS * SHORTEST else 1


def borders(longest: int, block: int, rooms: int) -> list[int]:
    """First tokens of the pieces of sequences of ``longest`` tokens, in whole blocks: sixteenths over ``rooms``, of ``SHORTEST`` at the least."""
    blocks = max(-(-longest // (16 * rooms * block)), SHORTEST // block, 1)
    return list(range(0, max(longest, 1), blocks * block))


def pieces(rows: int, heads: int, longest: int, block: int, ragged: int | None, rooms: int, joined: int = 1) -> list[Piece]:
    """Those of R = ``rows`` sequences, ``joined`` at a time, in the order in which they take turns: as many sequences together as keep a GPU busy.

    Sequences of different lengths, in ``ragged`` places, are one piece.
    """
    if ragged is not None:
        return [Piece(0, rows, 0, ragged, ragged, 0, 0, True)] if rows else []
    begins, together = borders(longest, block, rooms)[::joined], max(1, PROGRAMS // heads)
    found: list[Piece] = []
    before = 0
    for top in range(0, rows, together):
        for number, (begin, end) in enumerate(zip(begins, [*begins[1:], longest], strict=True)):
            count, blocks = min(together, rows - top), -(-(end - begin) // block)
            found.append(Piece(top, count, begin, blocks, count * blocks, before, number, number == len(begins) - 1))
            before += count * blocks
    return found
