"""A mini-batch of the backward pass: every cotangent of what ``forward.mini_batch`` computes."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.

from __future__ import annotations

import triton
import triton.language as tl

from ..linear.reverse_scan import bend, second_derivative
from ..linear.tiles import centre, dot, rstd
from .tiles import across, back_through, gelu, gelu_twice, places, readers, through


@triton.jit
def mini_batch_backward(
    n,
    dW1,
    db1,
    dW2,
    db2,
    V2,
    dscale,
    dlast,
    dgamma,
    dbeta,
    W_ptr,
    b_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    S_W1_ptr,
    S_b1_ptr,
    S_W2_ptr,
    S_b2_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    dy_ptr,
    dW2_end_ptr,
    db2_end_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dlr_ptr,
    dS_W1_ptr,
    dS_b1_ptr,
    dS_W2_ptr,
    dS_b2_ptr,
    start,
    length,
    phase,
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
    """Store the cotangents of mini-batch n, which starts from the weights at W_ptr, and return Λ_l, λ_l, Λ₂ in DOT, Δs, Δs_{K−1} apart, Δγ, Δβ.

    Sums S are read, and their cotangents stored, where there are pointers. Tiles of hidden columns are kept in DOT, of which registers hold more.
    """
    d, e = tl.arange(0, D_PAD)[None, :], tl.arange(0, E_PAD)[:, None]
    real, hidden = d < D, e < E
    both = real & hidden
    i, valid = places(n, length, phase, K, K_PAD)
    inside = valid[:, None] & real
    token = (start + n * K - phase).to(tl.int64) * H + head
    end = row.to(tl.int64) * H + head
    tile = i[:, None] * (H * D) + d
    gamma = tl.load(gamma_ptr + head * D + d, real, 0.0)
    beta = tl.load(beta_ptr + head * D + d, real, 0.0)
    square = gamma * gamma
    last = tl.load(scale_ptr + K - 1)
    scale, M = readers(scale_ptr, i, K)
    W1 = tl.load(W_ptr + e * D + d, both, 0.0)
    W2 = tl.load(W_ptr + D * E + e * D + d, both, 0.0)
    b1 = tl.load(b_ptr + e, hidden, 0.0)
    b2 = tl.load(b_ptr + E + d, real, 0.0)
    x = tl.load(k_ptr + token * D + tile, inside, 0.0)
    q = tl.load(q_ptr + token * D + tile, inside, 0.0)
    target = tl.load(v_ptr + token * D + tile, inside, 0.0).to(tl.float32) - x.to(tl.float32)
    dy = tl.load(dy_ptr + token * D + tile, inside, 0.0).to(tl.float32)
    lr = tl.load(lr_ptr + token + i * H, valid, 0.0).to(tl.float32)

    # What the forward pass had: the training rows, then the read-outs.
    z = dot(W1, tl.trans(q), DOT, PRECISION) + b1
    X2, slope, curve = gelu_twice(dot(W1, tl.trans(x), DOT, PRECISION) + b1)
    X2, slope = X2.to(DOT), slope.to(DOT)
    z2 = centre(dot(tl.trans(X2), W2, DOT, PRECISION) + b2, real, D)[0]
    # Of what is written, below; here, while X₂ is at hand.
    dG2 = across(X2, V2, DOT, PRECISION) + db2
    r = rstd(z2, D, eps)
    normed = z2 * r
    u = gamma * (beta - target)
    s2, F = bend(normed, u, square, r, real, D)[:2]
    bent = square * normed + u
    G2 = tl.where(real, r * (bent - tl.sum(bent, 1)[:, None] / D - normed * s2), 0.0)
    G1 = dot(W2, tl.trans(G2), DOT, PRECISION)
    curve = (G1 * curve).to(DOT)
    G1 = (G1 * slope).to(DOT)
    factors = M * lr[None, :]
    similar1 = dot(q, tl.trans(x), DOT, PRECISION) + 1
    read1 = factors * similar1
    z -= dot(G1, tl.trans(read1), DOT, PRECISION)
    if S_W1_ptr is not None:
        S_W1 = tl.load(S_W1_ptr + end * D * E + d * E + e, both, 0.0)
        S_b1 = tl.load(S_b1_ptr + end * E + e, hidden, 0.0)
        S_W2, S_W2_mean = centre(tl.load(S_W2_ptr + end * D * E + e * D + d, both, 0.0), real, D)
        S_b2, S_b2_mean = centre(tl.load(S_b2_ptr + end * D + d, real, 0.0), real, D)
        stale1 = through(S_W1, q, i, K) + S_b1
        z -= scale[None, :] * stale1
    h, h_slope = gelu(z)
    h, h_slope = h.to(DOT), h_slope.to(DOT)
    similar2 = dot(tl.trans(h), X2, DOT, PRECISION) + 1
    read2 = factors * similar2
    z2 = dot(tl.trans(h), W2, DOT, PRECISION) + b2 - dot(read2, G2, DOT, PRECISION)
    if S_W1_ptr is not None:
        stale2 = back_through(h, S_W2, i, K) + S_b2
        z2 -= scale[:, None] * stale2
    z2 = centre(z2, real, D)[0]
    dz2 = rstd(z2, D, eps)
    z2 *= dz2

    # Down the read-outs.
    dgamma += tl.sum(dy * z2, 0)[None, :]
    dbeta += tl.sum(dy, 0)[None, :]
    bent = centre(dy * gamma, real, D)[0]
    dz2 *= bent - z2 * (tl.sum(bent * z2, 1)[:, None] / D)
    pairs2 = dot(dz2, tl.trans(G2), DOT, PRECISION)
    along2 = factors * pairs2
    dh = dot(W2, tl.trans(dz2), DOT, PRECISION) - dot(X2, tl.trans(along2), DOT, PRECISION)
    if S_W1_ptr is not None:
        dh -= through(S_W2, scale[:, None] * dz2, i, K)
        dscale -= tl.sum(dz2 * stale2, 1)
    dz1 = dh * h_slope
    if S_W1_ptr is not None:
        dscale -= tl.sum(dz1 * stale1, 0)
    db1_next = db1 + tl.sum(dz1, 1)[:, None]
    dz1 = dz1.to(DOT)
    pairs1 = dot(tl.trans(dz1), G1, DOT, PRECISION)
    along1 = factors * pairs1
    dq = dy + dot(tl.trans(dz1), W1, DOT, PRECISION) - dot(along1, x, DOT, PRECISION)
    if S_W1_ptr is not None:
        dq -= back_through(dz1 * scale[None, :], S_W1, i, K)
    tl.store(dq_ptr + token * D + tile, dq, inside)
    dx = -dot(tl.trans(along1), q, DOT, PRECISION)
    pairs1 = similar1 * pairs1 + similar2 * pairs2
    dscale -= tl.sum(tl.where(i[None, :] <= i[:, None], pairs1 * lr[None, :], 0.0), 1)

    # What is written.
    whole = (n + 1) * K <= phase + length
    f = tl.where(whole, -last, 1.0)
    dG1 = dot(dW1, tl.trans(x), DOT, PRECISION) + db1
    gated = tl.sum(G1 * dG1, 0)
    dG1 = (f * lr)[None, :] * dG1 - dot(dz1, read1, DOT, PRECISION)
    dx += dot(tl.trans((f * lr)[None, :] * G1), dW1, DOT, PRECISION)
    gated += tl.sum(G2 * dG2, 1)
    dlast -= tl.where(whole, lr * gated, 0.0)
    tl.store(dlr_ptr + token + i * H, f * gated - tl.sum(M * pairs1, 0), valid)
    dG2 = (f * lr)[:, None] * dG2 - dot(tl.trans(read2), dz2, DOT, PRECISION)

    # The training rows. The weights are loaded again: kept, they would take registers all the while.
    W1 = tl.load(W_ptr + e * D + d, both, 0.0)
    W2 = tl.load(W_ptr + D * E + e * D + d, both, 0.0)
    curve = dG1 * curve
    dback = (dG1 * slope).to(DOT)
    dG2 = centre(dG2 + dot(tl.trans(dback), W2, DOT, PRECISION), real, D)[0]
    p = r * (dG2 - normed * (tl.sum(normed * dG2, 1)[:, None] / D))
    tl.store(dv_ptr + token * D + tile, -gamma * p, inside)
    dx += gamma * p
    dgamma += tl.sum(p * (2 * gamma * normed + beta - target), 0)[None, :]
    dbeta += tl.sum(gamma * p, 0)[None, :]
    dz = second_derivative(dG2, normed, F, s2, square, r, real, D)
    dfirst = dot(W2, tl.trans(dz), DOT, PRECISION) - dot(h, along2, DOT, PRECISION)
    dfirst += dot(V2, tl.trans((f * lr)[:, None] * G2), DOT, PRECISION)
    dfirst = curve + slope * dfirst
    db1_next += tl.sum(dfirst, 1)[:, None]
    dfirst = dfirst.to(DOT)
    tl.store(dk_ptr + token * D + tile, dx + dot(tl.trans(dfirst), W1, DOT, PRECISION), inside)

    if S_W1_ptr is not None:
        dW2_mean = tl.sum(tl.load(dW2_end_ptr + end * D * E + e * D + d, both & whole, 0.0), 1)[:, None] / D
        db2_mean = tl.sum(tl.load(db2_end_ptr + end * D + d, real & whole, 0.0), 1)[:, None] / D
        step = tl.sum(S_W1 * dW1) + tl.sum(S_b1 * db1)
        step += tl.sum(S_W2 * dW2) + tl.sum(S_b2 * db2)
        step += D * (tl.sum(S_W2_mean[:, None] * dW2_mean) + tl.sum(S_b2_mean[:, None] * db2_mean))
        dlast -= tl.where((i == 0) & whole, step, 0.0)
        read = dz1 * scale[None, :]
        tl.store(dS_W1_ptr + end * D * E + d * E + e, f * dW1 - dot(read, q, DOT, PRECISION), both)
        tl.store(dS_b1_ptr + end * E + e, f * db1 - tl.sum(read, 1)[:, None], hidden)
        read = scale[:, None] * dz2
        tl.store(dS_W2_ptr + end * D * E + e * D + d, f * (dW2 + dW2_mean) - dot(h, read, DOT, PRECISION), both)
        tl.store(dS_b2_ptr + end * D + d, f * (db2 + db2_mean) - tl.sum(read, 0)[None, :], real)
    dW1 = tl.dot(dz1, q.to(DOT), dW1, input_precision=PRECISION)
    dW1 = tl.dot(dfirst, x.to(DOT), dW1, input_precision=PRECISION)
    dW2 = tl.dot(h, dz2.to(DOT), dW2, input_precision=PRECISION)
    dW2 = tl.dot(dback, G2.to(DOT), dW2, input_precision=PRECISION)
    dW2 = tl.dot(X2, dz.to(DOT), dW2, input_precision=PRECISION)
    return dW1, db1_next, dW2, db2 + tl.sum(dz2 + dz, 0)[None, :], dW2.to(DOT), dscale, dlast, dgamma, dbeta
