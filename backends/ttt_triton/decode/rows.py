"""What a kernel does with the buffered rows of one affine map: read through them, store one, fold them into the weights."""

# pyright: reportGeneralTypeIssues=false
# A function for kernels cannot be called from Python, and so has no result, says its type.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile(first, ROWS: tl.constexpr, COLUMNS: tl.constexpr, bound, WIDTH: tl.constexpr):
    """Offsets of rows first … first + ROWS − 1 of a matrix of WIDTH columns, and which of them are below ``bound`` and inside the matrix."""
    i, e = first + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    return i[:, None] * WIDTH + e[None, :], (i < bound)[:, None] & (e < WIDTH)[None, :]


@triton.jit
def buffered(
    x,
    X_ptr,
    G_ptr,
    lr_ptr,
    phase,
    D: tl.constexpr,
    E: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Σ_{j<p} ℓ_j (x·X_j + 1) G_j for a row x ``[D]``: X ``[K, D]``, G ``[K, E]``, ℓ (lr) ``[K]``; rows from p (phase) on are not loaded."""
    total = tl.zeros((E_PAD,), tl.float32)
    for first in range(0, K_PAD, ROWS):
        at_X, live_X = tile(first, ROWS, D_PAD, phase, D)
        at_G, live_G = tile(first, ROWS, E_PAD, phase, E)
        j = first + tl.arange(0, ROWS)
        X, G = tl.load(X_ptr + at_X, live_X, 0.0), tl.load(G_ptr + at_G, live_G, 0.0)
        lr = tl.load(lr_ptr + j, j < phase, 0.0)
        products = tl.sum(X * x[None, :], 1)
        total += tl.sum((lr * (products + 1))[:, None] * G, 0)
    return total


@triton.jit
def based(x, S_W_ptr, S_b_ptr, D: tl.constexpr, E: tl.constexpr, D_PAD: tl.constexpr, E_PAD: tl.constexpr):
    """xS_W + S_b for a row x ``[D]``: what the tokens wrote that came as sums, S_W ``[D, E]`` and S_b ``[E]``, and not as rows."""
    at, inside = tile(0, D_PAD, E_PAD, D, E)
    e = tl.arange(0, E_PAD)
    return tl.sum(x[:, None] * tl.load(S_W_ptr + at, inside, 0.0), 0) + tl.load(S_b_ptr + e, e < E, 0.0)


@triton.jit
def fold(
    W_ptr,
    b_ptr,
    S_W_ptr,
    S_b_ptr,
    X_ptr,
    G_ptr,
    lr_ptr,
    base,
    last,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """W ← W − s_{K−1} (S_W + Σ_j ℓ_j X_jᵀ G_j), b ← b − s_{K−1} (S_b + Σ_j ℓ_j G_j), in place, over all K rows; S counts only where there is a base.

    W is read again, most likely from a cache, rather than kept in registers by every token for the sake of the last one of a mini-batch.
    """
    e = tl.arange(0, E_PAD)
    for first in range(0, D_PAD, ROWS):
        i = first + tl.arange(0, ROWS)
        at, inside = tile(first, ROWS, E_PAD, D, E)
        total = tl.load(S_W_ptr + at, inside & (base != 0), 0.0)
        for j in range(K):
            x = tl.load(lr_ptr + j) * tl.load(X_ptr + j * D + i, i < D, 0.0)
            total += x[:, None] * tl.load(G_ptr + j * E + e, e < E, 0.0)[None, :]
        tl.store(W_ptr + at, tl.load(W_ptr + at, inside, 0.0) - last * total, inside)
    total_b = tl.load(S_b_ptr + e, (e < E) & (base != 0), 0.0)
    for j in range(K):
        total_b += tl.load(lr_ptr + j) * tl.load(G_ptr + j * E + e, e < E, 0.0)
    tl.store(b_ptr + e, tl.load(b_ptr + e, e < E, 0.0) - last * total_b, e < E)
