"""Sums over columns of tiles of tokens, which warps divide: each puts its shares into shared memory and adds up those of all after a barrier."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon

from .layouts import tokens


@gluon.constexpr_function
def shared_sums():
    """The layout of warps' shares ``[R, W, S]`` in shared memory: the rows that threads of a warp read at once are neighbours."""
    return gl.SwizzledSharedLayout(1, 1, 1, [2, 0, 1])


@gluon.constexpr_function
def everyone(R, W, S):
    """The layout in which each thread holds all S sums of all warps for the rows that it has in ``tokens``."""
    count = W.bit_length() - 1
    registers = [[0, 0, 1 << i] for i in range(S // 2)] + [[0, 1 << i, 0] for i in range(count)] + [[8 << i, 0, 0] for i in range(R.bit_length() - 4)]
    lanes = [[0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[0, 0, 0]] * count, [], [R, W, S])


@gluon.constexpr_function
def recorded(R, W, S):
    """The layout in which each thread holds all S numbers of the rows that it has in ``tokens``."""
    registers = [[0, 1 << i] for i in range(S.bit_length() - 1)] + [[8 << i, 0] for i in range(R.bit_length() - 4)]
    return gl.DistributedLinearLayout(registers, [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]], [[0, 0]] * (W.bit_length() - 1), [], [R, S])


@gluon.jit
def shared_one(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of one sum."""
    return gl.allocate_shared_memory(gl.float32, [R, W], gl.SwizzledSharedLayout(1, 1, 1, [0, 1]))


@gluon.jit
def shared_two(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of two sums."""
    return gl.allocate_shared_memory(gl.float32, [R, W, 2], shared_sums())


@gluon.jit
def shared_four(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of four sums of each row."""
    return gl.allocate_shared_memory(gl.float32, [R, W, 4], shared_sums())


@gluon.jit
def shares(x, W: gl.constexpr):
    """``[R, W]`` sums over each warp's columns."""
    return gl.sum(gl.sum(x.reshape(x.shape[0], 2, W, 8), 1), 2)


@gluon.jit
def share_one(room, a, W: gl.constexpr):
    """Put each warp's share of the sum over the columns of a tile of tokens into ``room`` ``[R, W]``."""
    room.store(shares(a, W))


@gluon.jit
def share_two(room, a, b, W: gl.constexpr):
    """Put each warp's share of the sums over the columns of two tiles of tokens into ``room`` ``[R, W, 2]`` in shared memory."""
    room.store(gl.join(shares(a, W), shares(b, W)))


@gluon.jit
def share_four(room, a, b, c, d, W: gl.constexpr):
    """The same of four tiles into ``[R, W, 4]``."""
    room.store(gl.join(gl.join(shares(a, W), shares(b, W)), gl.join(shares(c, W), shares(d, W))).reshape(room.shape[0], W, 4))


@gluon.jit
def sum_one(room, W: gl.constexpr):
    """The sum, once all warps have put their shares there."""
    R: gl.constexpr = room.shape[0]
    return of_rows(gl.sum(room.load(recorded(R, W, W)), 1), W)


@gluon.jit
def sum_two(room, W: gl.constexpr):
    """The two sums, once all warps have put their shares there."""
    a, b = gl.split(gl.sum(room.load(everyone(room.shape[0], W, 2)), 1))
    return of_rows(a, W), of_rows(b, W)


@gluon.jit
def sum_four(room, W: gl.constexpr):
    """The four sums."""
    R: gl.constexpr = room.shape[0]
    first, second = gl.split(gl.sum(room.load(everyone(R, W, 4)), 1).reshape(R, 2, 2))
    a, b = gl.split(first)
    c, d = gl.split(second)
    return of_rows(a, W), of_rows(b, W), of_rows(c, W), of_rows(d, W)


@gluon.jit
def of_rows(x, W: gl.constexpr):
    """x ``[R]`` as a column of a tile of tokens."""
    return gl.convert_layout(x, gl.SliceLayout(1, tokens(W)), assert_trivial=True)[:, None]


@gluon.jit
def halved(x):
    """x ``[R, D]`` with rows that the same threads hold added up."""
    return gl.sum(x.reshape(x.shape[0] // 8, 8, x.shape[1]), 0)


@gluon.jit
def gathered(x, W: gl.constexpr):
    """x ``[R, D]`` with all that the same thread holds added up."""
    return gl.sum(gl.sum(halved(x).reshape(8, 2, W, 4, 2), 4), 1)


@gluon.jit
def gathered_rows(x, W: gl.constexpr):
    """x ``[R, D]`` with what the same thread holds of a row added up."""
    return gl.sum(gl.sum(x.reshape(x.shape[0], 2, W, 4, 2), 4), 1)
