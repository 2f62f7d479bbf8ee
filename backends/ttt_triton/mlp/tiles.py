"""What the kernels of TTT-MLP share: the tokens of a mini-batch, GELU, and what a mini-batch writes.

Tiles of D columns have a token in each row. Tiles of hidden columns lie on their side, a token in each column, and so does W₁: ``[E, D]`` like W₂.
Warps then divide the hidden columns among them, and most products find the weights where the last update left them.
"""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import dot, loss_gradient


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
    """(σ, σ′) at z."""
    s, ds, _, held, _ = logistic(z)
    return z * s, s + held * ds


@triton.jit
def gelu_twice(z):
    """(σ, σ′, σ″) at z."""
    s, ds, slope, held, odd = logistic(z)
    # s″ = s (1 − s) ((1 − 2s) w′² + w″) with w″ = 2√(2/π) · 6 · 0.044715 z.
    curve = slope * odd + 0.4281288976356015 * held / slope
    return z * s, s + held * ds, ds * (2 + held * curve)


@triton.jit
def over(h, W, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """HW of a tile of hidden columns, which lies on its side, and W ``[E, D]`` that comes from memory or, in DOT, from the last turn of a loop.

    It waits in shared memory then. W from registers is better the right operand, of a product that leaves no time for it to be kept.
    """
    return tl.trans(dot(tl.trans(W), h, DOT, PRECISION))


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
    G2 = loss_gradient(over(hidden, W2, DOT, PRECISION) + b2, u, gamma, real, D, eps)
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
