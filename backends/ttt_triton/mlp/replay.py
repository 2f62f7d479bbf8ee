"""The weights at the starts of a segment's mini-batches, from those that were kept at its own start."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.tiles import centre
from .tiles import places, training, written


@triton.jit
def replay(
    k_ptr,
    v_ptr,
    lr_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma,
    beta,
    Ws_ptr,
    bs_ptr,
    W_ptr,
    b_ptr,
    start,
    length,
    phase,
    begin,
    size,
    row,
    head,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Store the weights at the starts of the ``size`` mini-batches from ``begin`` on, which all but the last are whole, as ``forward`` had them."""
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    lying, upright = d * E + e, e * D + d
    end = row.to(tl.int64) * H + head
    last = tl.load(scale_ptr + K - 1)
    W1 = tl.load(Ws_ptr + upright, both, 0.0).to(tl.float32)
    W2 = tl.load(Ws_ptr + D * E + upright, both, 0.0).to(tl.float32)
    b1 = tl.load(bs_ptr + e, hidden, 0.0)
    b2 = tl.load(bs_ptr + E + d, real, 0.0)
    tl.store(W_ptr + upright, W1, both)
    tl.store(W_ptr + D * E + upright, W2, both)
    tl.store(b_ptr + e, b1, hidden)
    tl.store(b_ptr + E + d, b2, real)
    V2 = W2.to(DOT)
    for c in tl.range(1, size, num_stages=1, disable_licm=True):
        n = begin + c - 1
        i, valid = places(n, length, phase, K, K_PAD)
        inside = valid[:, None] & real
        token = (start + n * K - phase).to(tl.int64) * H + head
        tile = i[:, None] * (H * D) + d
        x = tl.load(k_ptr + token * D + tile, inside, 0.0)
        u = gamma * (beta - tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) + x.to(tl.float32))
        lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)
        X2, G2, G1 = training(x, u, W1, b1, V2, b2, gamma, real, D, eps, DOT, PRECISION)
        W1, b1, W2, b2 = written(W1, b1, W2, b2, x, X2, G1, G2, -last * lr, DOT, PRECISION)
        if S_W1_ptr is not None:
            W1 -= last * tl.load(S_W1_ptr + end * D * E + lying, both & (n == 0), 0.0)
            b1 -= last * tl.load(S_b1_ptr + end * E + e, hidden & (n == 0), 0.0)
            W2 -= last * centre(tl.load(S_W2_ptr + end * D * E + upright, both & (n == 0), 0.0), real, D)[0]
            b2 -= last * centre(tl.load(S_b2_ptr + end * D + d, real & (n == 0), 0.0), real, D)[0]
        V2 = W2.to(DOT)
        tl.store(W_ptr + c * 2 * D * E + upright, W1, both)
        tl.store(W_ptr + c * 2 * D * E + D * E + upright, V2, both)
        tl.store(b_ptr + c * (E + D) + e, b1, hidden)
        tl.store(b_ptr + c * (E + D) + E + d, b2, real)
