"""One token of TTT-MLP: the kernel, a program for each row and head, and how it is launched."""

# pyright: reportGeneralTypeIssues=false
# A function for kernels cannot be called from Python, and so has no result, says its type.

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from tttcore import LayerSpec

from .rows import based, buffered, fold, tile
from .vectors import gelu, loss_gradient, standardise


@triton.jit
def step(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    y_ptr,
    valid_ptr,
    q_stride,
    k_stride,
    v_stride,
    lr_stride,
    y_stride,
    valid_stride,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    phase_ptr,
    base_ptr,
    rows_lr_ptr,
    W1_ptr,
    b1_ptr,
    S_W1_ptr,
    S_b1_ptr,
    X1_ptr,
    G1_ptr,
    W2_ptr,
    b2_ptr,
    S_W2_ptr,
    S_b2_ptr,
    X2_ptr,
    G2_ptr,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    FOLD1_ROWS: tl.constexpr,
    FOLD2_ROWS: tl.constexpr,
    HOLD: tl.constexpr,
):
    """y of one token, whose rows (X_l, G_l, ℓ) join the buffers; the last token of a mini-batch folds them into the weights.

    With p the phase, s_p the reader's factor and R_l(x̄) = x̄S_l + Σ_{j<p} ℓ_j (x̄·X_{l,j} + 1) G_{l,j} + ℓ (x̄·X_l + 1) G_l, where x̄S_l is short
    for x̄S_W + S_b of map l (docs/mathematics.md, 4 and 9.2):

        z_1 = kW_1 + b_1    X_1 = k    X_2 = σ(z_1)    G_2 = ∂L/∂z_2 at z_2 = X_2 W_2 + b_2    G_1 = σ'(z_1) ⊙ G_2 W_2ᵀ
        x̄_2 = σ(qW_1 + b_1 − s_p R_1(q))        y = q + LN(x̄_2 W_2 + b_2 − s_p R_2(x̄_2))

    Arguments and the end of a mini-batch are those of ``linear.step``, with W_1 ``[B, H, D, E]``, W_2 ``[B, H, E, D]`` and the like for both maps.
    W_2 is used three times in a row; unless HOLD keeps it in registers it is loaded three times.
    """
    # Neighbouring programs read neighbouring weights.
    program = tl.program_id(0).to(tl.int64)
    row, head = program // H, program % H
    d, e = tl.arange(0, D_PAD), tl.arange(0, E_PAD)
    real, hidden = d < D, e < E
    y_ptr += row * y_stride + head * D
    if valid_ptr is not None:  # noqa: SIM102 (settled when the kernel is compiled, before the other is asked)
        if tl.load(valid_ptr + row * valid_stride) == 0:
            tl.store(y_ptr + d, tl.zeros((D_PAD,), y_ptr.dtype.element_ty), real)
            return
    first = program * D * E
    W1_ptr, S_W1_ptr, W2_ptr, S_W2_ptr = W1_ptr + first, S_W1_ptr + first, W2_ptr + first, S_W2_ptr + first
    q_ptr, k_ptr, v_ptr = q_ptr + row * q_stride + head * D, k_ptr + row * k_stride + head * D, v_ptr + row * v_stride + head * D
    b1_ptr, S_b1_ptr, b2_ptr, S_b2_ptr = b1_ptr + program * E, S_b1_ptr + program * E, b2_ptr + program * D, S_b2_ptr + program * D
    X1_ptr, G2_ptr, X2_ptr, G1_ptr = X1_ptr + program * K * D, G2_ptr + program * K * D, X2_ptr + program * K * E, G1_ptr + program * K * E
    rows_lr_ptr += program * K
    gamma_ptr, beta_ptr = gamma_ptr + head * D, beta_ptr + head * D

    # What does not depend on the phase is asked for first: the barrier keeps the compiler from waiting for the phase before it asks for W_1.
    phase, base = tl.load(phase_ptr + program), tl.load(base_ptr + program)
    at1, inside1 = tile(0, D_PAD, E_PAD, D, E)
    at2, inside2 = tile(0, E_PAD, D_PAD, E, D)
    W1 = tl.load(W1_ptr + at1, inside1, 0.0)
    q = tl.load(q_ptr + d, real, 0.0).to(tl.float32)
    tl.debug_barrier()
    scale = tl.load(scale_ptr + phase)
    written = buffered(q, X1_ptr, G1_ptr, rows_lr_ptr, phase, D, E, D_PAD, E_PAD, K_PAD, ROWS)
    # Loaded when they are needed, q again and from a cache: spread over the rows of W_1 these two take half as many registers as it does.
    q1 = tl.load(q_ptr + d, real, 0.0).to(tl.float32)
    k1 = tl.load(k_ptr + d, real, 0.0).to(tl.float32)
    b1 = tl.load(b1_ptr + e, hidden, 0.0)
    read, z1 = tl.sum(q1[:, None] * W1, 0) + b1, tl.sum(k1[:, None] * W1, 0) + b1
    if base != 0:
        written += based(q1, S_W1_ptr, S_b1_ptr, D, E, D_PAD, E_PAD)
    read -= scale * written
    X2, slope = gelu(z1)
    W2 = tl.load(W2_ptr + at2, inside2, 0.0)
    lr = tl.load(lr_ptr + row * lr_stride + head).to(tl.float32)
    b2, v = tl.load(b2_ptr + d, real, 0.0), tl.load(v_ptr + d, real, 0.0).to(tl.float32)
    gamma, beta = tl.load(gamma_ptr + d, real, 0.0), tl.load(beta_ptr + d, real, 0.0)
    tl.store(X1_ptr + phase * D + d, k1, real)
    tl.store(X2_ptr + phase * E + e, X2, hidden)
    tl.store(rows_lr_ptr + phase, lr)
    G2 = loss_gradient(tl.sum(X2[:, None] * W2, 0) + b2, k1, v, gamma, beta, real, D, eps)
    tl.store(G2_ptr + phase * D + d, G2, real)
    if not HOLD:
        W2 = tl.load(W2_ptr + at2, inside2, 0.0, volatile=True)
    # By way of memory, in order that one thread goes on with one number: G_2 W_2ᵀ comes as often as W_2 has columns in a warp.
    tl.store(G1_ptr + phase * E + e, tl.sum(G2[None, :] * W2, 1), hidden)
    tl.debug_barrier()
    G1 = slope * tl.load(G1_ptr + phase * E + e, hidden, 0.0)

    x, _ = gelu(read - scale * lr * (tl.sum(q1 * k1, 0) + 1) * G1)
    if not HOLD:
        W2 = tl.load(W2_ptr + at2, inside2, 0.0, volatile=True)
    read = tl.sum(x[:, None] * W2, 0) + b2
    # This token's row is among those that the barrier has made visible.
    written = buffered(x, X2_ptr, G2_ptr, rows_lr_ptr, phase + 1, E, D, E_PAD, D_PAD, K_PAD, ROWS)
    if base != 0:
        written += based(x, S_W2_ptr, S_b2_ptr, E, D, E_PAD, D_PAD)
    # Not before every thread has read what stood there.
    tl.debug_barrier()
    tl.store(G1_ptr + phase * E + e, G1, hidden)
    q, gamma, beta = tl.load(q_ptr + d, real, 0.0).to(tl.float32), tl.load(gamma_ptr + d, real, 0.0), tl.load(beta_ptr + d, real, 0.0)
    z, _ = standardise(read - scale * written, real, D, eps)
    tl.store(y_ptr + d, (q + gamma * z + beta).to(y_ptr.dtype.element_ty), real)

    done = phase == K - 1
    tl.store(phase_ptr + program, tl.where(done, 0, phase + 1))
    if done:
        # The rows just stored are read by other threads of this program.
        tl.debug_barrier()
        fold(W1_ptr, b1_ptr, S_W1_ptr, S_b1_ptr, X1_ptr, G1_ptr, rows_lr_ptr, base, scale, K, D, E, D_PAD, E_PAD, FOLD1_ROWS)
        fold(W2_ptr, b2_ptr, S_W2_ptr, S_b2_ptr, X2_ptr, G2_ptr, rows_lr_ptr, base, scale, K, E, D, E_PAD, D_PAD, FOLD2_ROWS)
        tl.store(base_ptr + program, 0)


def options(spec: LayerSpec) -> dict[str, Any]:
    """The kernel's constants; few warps with many registers each, because what a token waits for is sums over warps."""
    size, width = spec.mini_batch_size, spec.head_dim
    hidden = spec.inner_model.hidden[0].expansion * width
    padded_size, padded_width, padded_hidden = map(triton.next_power_of_2, (size, width, hidden))
    constants = {"K": size, "D": width, "E": hidden, "D_PAD": padded_width, "E_PAD": padded_hidden, "K_PAD": padded_size}
    entries = padded_width * padded_hidden
    # Both W_1 and, after it, W_2 take 128 registers of a thread.
    warps = min(16, max(1, entries // (128 * 32)))
    # What is folded at a time takes 32 registers of a thread.
    folded = 32 * 32 * warps
    constants |= {"ROWS": min(16, padded_size), "FOLD1_ROWS": min(padded_width, max(1, folded // padded_hidden))}
    constants |= {"FOLD2_ROWS": min(padded_hidden, folded // padded_width), "HOLD": entries <= 64 * 256}
    return constants | {"num_warps": warps, "num_stages": 1, "maxnreg": 255 if warps <= 8 else 128}
