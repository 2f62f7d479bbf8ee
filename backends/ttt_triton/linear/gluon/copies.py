"""How tiles and numbers of tokens get into shared memory, and results out of it: 16 bytes by a thread."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon

from .sums import of_rows, recorded


@gluon.constexpr_function
def copied(W):
    """The layout in which tiles of tokens are copied, 16 bytes by a thread."""
    return gl.BlockedLayout([1, 8], [16 // W, 2 * W], [W, 1], [1, 0])


@gluon.constexpr_function
def copied_numbers(W):
    """The layout in which one number for each token is copied."""
    return gl.BlockedLayout([1], [32], [W], [0])


@gluon.constexpr_function
def copied_records(W):
    """The layout in which four numbers for each token are copied."""
    return gl.BlockedLayout([1, 4], [32, 1], [W, 1], [1, 0])


@gluon.constexpr_function
def shared_numbers():
    """The layout of one number for each token in shared memory."""
    return gl.SwizzledSharedLayout(1, 1, 1, [0])


@gluon.constexpr_function
def shared_records():
    """The layout of four numbers for each token in shared memory."""
    return gl.SwizzledSharedLayout(1, 1, 1, [1, 0])


@gluon.constexpr_function
def swizzled(W):
    """The layout of tiles of tokens in shared memory: 8 rows of 16 bytes from 8 different banks."""
    return gl.SwizzledSharedLayout(8, max(1, 4 // W), min(8, 2 * W), [1, 0])


@gluon.jit
def records(room, W: gl.constexpr):
    """The four numbers of each row."""
    R: gl.constexpr = room.shape[0]
    first, second = gl.split(room.load(recorded(R, W, 4)).reshape(R, 2, 2))
    a, c = gl.split(first)
    b, d = gl.split(second)
    return of_rows(a, W), of_rows(b, W), of_rows(c, W), of_rows(d, W)


@gluon.jit
def of_tokens(x):
    """A column of a tile of tokens as ``[R]``."""
    return gl.convert_layout(x.reshape(x.shape[0]), gl.SliceLayout(1, x.type.layout))


@gluon.jit
def put_numbers(ptr, x, H, live):
    """Store x ``[R, S]`` at ``ptr``, where there are eight numbers for each head of each token, if it is ``live``."""
    i, n = gl.arange(0, x.shape[0], gl.SliceLayout(1, x.type.layout)), gl.arange(0, x.shape[1], gl.SliceLayout(0, x.type.layout))
    gl.store(ptr + i[:, None] * (H * 8) + n[None, :], x, ((i >= 0) & live)[:, None])


@gluon.jit
def send(room, ptr, stride, first, end):
    """Store rows ``first`` to ``end`` of a tile that lies in shared memory from ``ptr`` on, ``stride`` numbers apart, 16 bytes by a thread."""
    layout: gl.constexpr = copied(room.shape[1] // 16)
    i, d = gl.arange(0, room.shape[0], gl.SliceLayout(1, layout)), gl.arange(0, room.shape[1], gl.SliceLayout(0, layout))
    gl.store(ptr + i[:, None] * stride + d[None, :], room.load(layout), ((i >= first) & (i < end))[:, None])
