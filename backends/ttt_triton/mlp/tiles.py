"""What the kernels of TTT-MLP share: the tokens of a mini-batch, GELU, and what a mini-batch writes.

Tiles of D columns have a token in each row. Tiles of hidden columns lie on their side, a token in each column, and so does W₁: ``[E, D]`` like W₂.
Warps then divide the hidden columns among them, and most products find the weights where the last update left them.
"""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import columns, dot, gradient_from
from ..linear.tiles import loss_gradient as separately


@triton.jit
def piece(row, longest, begin, blocks, start_ptr, length_ptr, first_ptr, K: tl.constexpr, R: tl.constexpr):
    """(first token, tokens, first block) of sequence ``row`` from token ``begin`` on, in at most ``blocks`` blocks of R // K mini-batches.

    Without pointers sequences lie end to end, ``longest`` tokens each, and so do their blocks, which are numbered within a piece.
    """
    start, length, first = row * longest, longest, row * blocks
    if start_ptr is not None:
        start, length, first = tl.load(start_ptr + row), tl.load(length_ptr + row), tl.load(first_ptr + row)
    return start + begin, tl.maximum(tl.minimum(length - begin, blocks * (R // K * K)), 0), first


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
def added(a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5):
    """Six sums in one reduction."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5


@triton.jit
def loss_gradient(z, u, gamma, squares, real, D: tl.constexpr, eps, PRECISION: tl.constexpr):
    """G = ∂L/∂z as in ``linear.tiles``, given the sum of γ². Warps divide the columns here, and so have to wait for each sum, or once for all."""
    if PRECISION == "ieee":
        # Triton's interpreter would add number by number.
        return separately(z, u, gamma, real, D, eps)
    square = gamma * gamma
    bent = square * z
    sums = tl.reduce((z, bent, z * z, bent * z, u * z, u), 1, added)
    return columns(gradient_from(sums, z, u, square, squares, D, eps), real, D)


@triton.jit
def places(n, length, phase, K: tl.constexpr, K_PAD: tl.constexpr):
    """(slot in mini-batch n, whether it holds a token) of the rows of a tile."""
    i = tl.arange(0, K_PAD)
    place = n * K + i - phase
    return i, (i < K) & (place >= 0) & (place < length)


@triton.jit
def logistic(z):
    """(s, s (1 − s) w′, w′, z held, 1 − 2s) of s = sigmoid(w), w = 2u(z), with which GELU is zs; equation (8) of docs/mathematics.md."""
    held = tl.minimum(tl.maximum(z, -10.0), 10.0)
    w = 1.5957691216057308 * held * (1 + 0.044715 * held * held)
    # s and 1 − s from the exponential of a negative number: neither overflows nor loses the digits of the smaller one.
    decay = tl.exp(-tl.abs(w))
    larger = 1 / (1 + decay)
    smaller = decay * larger
    s = tl.where(w > 0, larger, smaller)
    slope = 1.5957691216057308 * (1 + 0.134145 * held * held)
    return s, larger * smaller * slope, slope, held, tl.where(w > 0, smaller - larger, larger - smaller)


@triton.jit
def gelu(z):
    """(σ, σ′) at z: zs and s + zs′ with s = 1/(1 + t), s′ = s · ts · w′, t = exp(−w); equation (8) of docs/mathematics.md with w = 2u(z).

    Where |z| is held, t and s neither overflow nor does their product lose digits; log₂e is in the factors of t.
    """
    held = tl.minimum(tl.maximum(z, -10.0), 10.0)
    square = held * held
    t = tl.exp2(held * (-2.302208198136768 - 0.1029432395796856 * square))
    s = 1 / (1 + t)
    return z * s, s + t * s * (s * held) * (1.5957691216057308 + 0.21406444881780073 * square)


@triton.jit
def gelu_twice(z):
    """(σ, σ′, σ″) at z."""
    s, ds, slope, held, odd = logistic(z)
    # s″ = s (1 − s) ((1 − 2s) w′² + w″) with w″ = 2√(2/π) · 6 · 0.044715 z.
    curve = slope * odd + 0.4281288976356015 * held / slope
    return z * s, s + held * ds, ds * (2 + held * curve)


@triton.jit
def through(S, x, i, K: tl.constexpr):
    """SXᵀ ``[E, K]`` of S ``[E, D]`` and rows x, row by row: what happens once in a call is to take no shared memory from what happens always."""
    out = tl.zeros((S.shape[0], x.shape[0]), tl.float32)
    for k in range(K):
        row = tl.sum(tl.where(i[:, None] == k, x.to(tl.float32), 0.0), 0)[None, :]
        out = tl.where(i[None, :] == k, tl.sum(S * row, 1)[:, None], out)
    return out


@triton.jit
def back_through(h, S, i, K: tl.constexpr):
    """HS ``[K, D]`` of S ``[E, D]`` and a tile of hidden columns, likewise."""
    out = tl.zeros((h.shape[1], S.shape[1]), tl.float32)
    for k in range(K):
        column = tl.sum(tl.where(i[None, :] == k, h.to(tl.float32), 0.0), 1)[:, None]
        out = tl.where(i[:, None] == k, tl.sum(column * S, 0)[None, :], out)
    return out


@triton.jit
def training(x, u, W1, b1, W2, b2, gamma, real, D: tl.constexpr, eps, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """(X₂ᵀ, G₂, G₁ᵀ) of a mini-batch with rows x and u = γ(β − t), at the weights it starts from; tiles of hidden columns in DOT."""
    hidden, slope = gelu(dot(W1, tl.trans(x), DOT, PRECISION) + b1)
    hidden, slope = hidden.to(DOT), slope.to(DOT)
    G2 = separately(across(hidden, W2, DOT, PRECISION) + b2, u, gamma, real, D, eps)
    return hidden, G2, (dot(W2, tl.trans(G2), DOT, PRECISION) * slope).to(DOT)


@triton.jit
def written(W1, b1, W2, b2, x, X2, G1, G2, weight, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """What is given, plus X_lᵀ diag(weight) G_l and 1ᵀ diag(weight) G_l of a mini-batch."""
    W1 = tl.dot(G1, (x.to(tl.float32) * weight[:, None]).to(DOT), W1, input_precision=PRECISION)
    W2 = tl.dot(X2, (G2 * weight[:, None]).to(DOT), W2, input_precision=PRECISION)
    return W1, b1 + tl.sum(G1 * weight[None, :], 1)[:, None], W2, b2 + tl.sum(G2 * weight[:, None], 0)[None, :]


@triton.jit
def readers(scale_ptr, i, K: tl.constexpr):
    """s_i of the rows, 0 in those past K; and [i, j] s_i where row i reads what row j wrote, else 0."""
    scale = tl.load(scale_ptr + i, i < K, 0.0)
    return scale, tl.where(i[None, :] <= i[:, None], scale[:, None], 0.0)
