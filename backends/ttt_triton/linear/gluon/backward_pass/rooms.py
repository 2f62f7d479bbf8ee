"""What the backward pass reads, in shared memory: eight mini-batches, and the weights at the start of four pairs of them."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from ..copies import copied, copied_numbers, copied_records, shared_numbers, shared_records, swizzled
from ..layouts import tokens


@gluon.jit
def room(R: gl.constexpr, D: gl.constexpr):
    """Shared memory for q, k, v, G, ȳ, ℓ and the moments of every other one of eight mini-batches."""
    W: gl.constexpr = D // 16
    q, k = gl.allocate_shared_memory(gl.bfloat16, [4, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [4, R, D], swizzled(W))
    v, G = gl.allocate_shared_memory(gl.bfloat16, [4, R, D], swizzled(W)), gl.allocate_shared_memory(gl.bfloat16, [4, R, D], swizzled(W))
    dy, lr = gl.allocate_shared_memory(gl.bfloat16, [4, R, D], swizzled(W)), gl.allocate_shared_memory(gl.float32, [4, R], shared_numbers())
    first = gl.allocate_shared_memory(gl.float32, [4, R, 4], shared_records())
    second = gl.allocate_shared_memory(gl.float32, [4, R, 4], shared_records())
    return q, k, v, G, dy, lr, first, second


@gluon.jit
def inputs(room, n):
    """Those of mini-batch n, or of that of the other kind in the same pair."""
    slot = (n >> 1) & 3
    q, k, v, G, dy, lr, first, second = room
    return q.index(slot), k.index(slot), v.index(slot), G.index(slot), dy.index(slot), lr.index(slot), first.index(slot), second.index(slot)


@gluon.jit
def places(D: gl.constexpr, R: gl.constexpr):
    """Numbers of rows and columns of a tile of tokens."""
    return gl.arange(0, R, gl.SliceLayout(1, tokens(D // 16))), gl.arange(0, D, gl.SliceLayout(0, tokens(D // 16)))


@gluon.jit
def fetch(n, room, given, where, D: gl.constexpr, R: gl.constexpr):
    """Begin to copy what is ``given`` of mini-batch n, if there is such."""
    W: gl.constexpr = D // 16
    start, _, head, H = where
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    token = (start + n * R).to(gl.int64) * H + head
    tile, valid = i[:, None] * (H * D) + d[None, :], ((i >= 0) & (n >= 0))[:, None]
    for x in gl.static_range(5):
        async_copy.async_copy_global_to_shared(room[x].index((n >> 1) & 3), given[x] + token * D + tile, valid)
    j = gl.arange(0, R, copied_numbers(W))
    async_copy.async_copy_global_to_shared(room[5].index((n >> 1) & 3), given[5] + token + j * H, (j >= 0) & (n >= 0))
    i, d = gl.arange(0, R, gl.SliceLayout(1, copied_records(W))), gl.arange(0, 4, gl.SliceLayout(0, copied_records(W)))
    tile, valid = i[:, None] * (H * 8) + d[None, :], ((i >= 0) & (n >= 0))[:, None]
    for x in gl.static_range(2):
        async_copy.async_copy_global_to_shared(room[6 + x].index((n >> 1) & 3), given[6] + token * 8 + 4 * x + tile, valid)


@gluon.jit
def fetch_weights(pair, weights, kept, where, D: gl.constexpr):
    """Begin to copy W, b at the start of a pair of mini-batches, if there is such."""
    W: gl.constexpr = D // 16
    _, first, head, H = where
    at = (first + pair).to(gl.int64) * H + head
    i, d = gl.arange(0, D, gl.SliceLayout(1, copied(W))), gl.arange(0, D, gl.SliceLayout(0, copied(W)))
    valid = ((i >= 0) & (pair >= 0))[:, None]
    async_copy.async_copy_global_to_shared(weights[0].index(pair & 3), kept[0] + at * D * D + i[:, None] * D + d[None, :], valid)
    j = gl.arange(0, D, copied_numbers(W))
    async_copy.async_copy_global_to_shared(weights[1].index(pair & 3), kept[1] + at * D + j, (j >= 0) & (pair >= 0))
