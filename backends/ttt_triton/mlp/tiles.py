"""What the kernels of TTT-MLP share: pieces of sequences and their blocks, products and sums over tiles on their sides, and GELU.

Tiles of D columns have a token in each row. Tiles of hidden columns lie on their side, a token in each column, and so does W₁: ``[E, D]`` like W₂.
Warps then divide the hidden columns among them, and most products find the weights where the last update left them.
"""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import block_of, columns, dot, gradient_from
from ..linear.tiles import loss_gradient as separately


@triton.jit
def piece(row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K: tl.constexpr, R: tl.constexpr):
    """(first token, tokens, first block) of sequence ``row`` from token ``begin`` on, in at most ``blocks`` blocks of R // K mini-batches.

    Without pointers sequences lie end to end, ``longest`` tokens each. So do their blocks, numbered within the piece, that of sequence ``top`` first.
    """
    start, length, first = row * longest, longest, (row - top) * blocks
    if start_ptr is not None:
        start, length, first = tl.load(start_ptr + row), tl.load(length_ptr + row), tl.load(first_ptr + row)
    return start + begin, tl.maximum(tl.minimum(length - begin, blocks * (R // K * K)), 0), first


@triton.jit
def place_of(turn, blocks, first_ptr, BACKWARD: tl.constexpr):
    """The place of the block whose turn it is: first blocks of all sequences, then second ones, or from the last on if ``BACKWARD``.

    A kernel so begins with the blocks that the one before came to last, since these are still in the second cache.
    """
    if first_ptr is not None:
        return turn
    rows = tl.num_programs(1) // blocks
    n = turn // rows
    return turn % rows * blocks + (blocks - 1 - n if BACKWARD else n)


@triton.jit
def block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K: tl.constexpr, R: tl.constexpr):
    """(block within its sequence's piece, its first token, the piece's tokens) of the block at ``place`` in a piece."""
    row, n = block_of(place, blocks, first_ptr, row_ptr)
    start, length, _ = piece(top + row, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K, R)
    return n, start + n * (R // K * K), length


@triton.jit
def begun(n, length, K: tl.constexpr, R: tl.constexpr):
    """Whether each row of block n belongs to a mini-batch that is begun: all its K rows are written; asked of all alike, loads can be wide."""
    i = tl.arange(0, R)
    return (i // K < R // K) & (n * (R // K) + i // K < tl.cdiv(length, K))


@triton.jit
def across(h, W, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """HW ``[K, D]`` of a tile of hidden columns, which lies on its side, and W ``[E, D]``."""
    if h.shape[1] < 64:
        return dot(tl.trans(h), W, DOT, PRECISION)
    # Triton would divide the 64 rows of a product for Hopper's units among eight warps of 16 each, half of which would read past its operands.
    upper, lower = tl.split(tl.permute(tl.reshape(tl.trans(h), (2, h.shape[1] // 2, h.shape[0])), (1, 2, 0)))
    halves = tl.join(dot(upper, W, DOT, PRECISION), dot(lower, W, DOT, PRECISION))
    return tl.reshape(tl.permute(halves, (2, 0, 1)), (h.shape[1], W.shape[1]))


@triton.jit
def rows(Ws_ptr, bs_ptr, at, e, d, D: tl.constexpr, E: tl.constexpr):
    """Rows e of W₁, W₂ ``[E, D]`` and of b₁ at a block's start."""
    real = (e < E)[:, None] & (d < D)
    upright = at * 2 * D * E + e[:, None] * D + d
    W1 = tl.load(Ws_ptr + upright, real, 0.0)
    W2 = tl.load(Ws_ptr + D * E + upright, real, 0.0)
    return W1, W2, tl.load(bs_ptr + at * (E + D) + e, e < E, 0.0)


@triton.jit
def six(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    """Six sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit
def four(a0, a1, a2, a3, b0, b1, b2, b3):
    """Four sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@triton.jit
def four_sums(a, b, c, d, PRECISION: tl.constexpr):
    """The sums over the rows' columns, together for the same reason as in ``loss_gradient``."""
    if PRECISION == "ieee":
        return tl.sum(a, 1), tl.sum(b, 1), tl.sum(c, 1), tl.sum(d, 1)
    return tl.reduce((a, b, c, d), 1, four)


@triton.jit
def loss_gradient(z, u, gamma, squares, real, D: tl.constexpr, eps, PRECISION: tl.constexpr):
    """G = ∂L/∂z as in ``linear.tiles``, given the sum of γ². Warps divide the columns here, and so have to wait for each sum, or once for all."""
    if PRECISION == "ieee":
        # Triton's interpreter would add number by number.
        return separately(z, u, gamma, real, D, eps)
    square = gamma * gamma
    bent = square * z
    sums = tl.reduce((z, bent, z * z, bent * z, u * z, u), 1, six)
    return columns(gradient_from(sums, z, u, square, squares, D, eps), real, D)


@triton.jit
def logistic(z):
    """(z held, its square, t, s) with t = exp(−w), s = 1/(1 + t) and w = 2u(z) of equation (8) of docs/mathematics.md; GELU is zs.

    Where |z| is held, t, its square and s neither overflow nor does their product lose digits; log₂e is in the factors of t. The root of the square
    is one instruction where a quotient is five, since Triton's quotients are right for divisors past 2¹²⁶ too.
    """
    held = tl.minimum(tl.maximum(z, -7.5), 7.5)
    square = held * held
    t = tl.exp2(held * (-2.302208198136768 - 0.1029432395796856 * square))
    return held, square, t, tl.rsqrt((1 + t) * (1 + t))


@triton.jit
def gelu(z):
    """(σ, σ′) at z: zs and s + zs′ with s′ = s · ts · w′."""
    held, square, t, s = logistic(z)
    return z * s, s + t * s * (s * held) * (1.5957691216057308 + 0.21406444881780073 * square)


@triton.jit
def gelu_twice(z):
    """(σ, σ′, σ″) at z: σ″ = 2s′ + z (s′ (1 − 2s) w′ + ts² w″), letters as in ``logistic``."""
    held, square, t, s = logistic(z)
    slope, bell = 1.5957691216057308 + 0.21406444881780073 * square, t * s * s
    ds = bell * slope
    return z * s, s + held * ds, 2 * ds + held * (ds * slope * (1 - 2 * s) + 0.42812889763560146 * (bell * held))
