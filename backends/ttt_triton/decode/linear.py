"""One token of TTT-Linear: the kernel, a program for each row and head, and how it is launched."""

# pyright: reportGeneralTypeIssues=false
# A function for kernels cannot be called from Python, and so has no result, says its type.

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from tttcore import LayerSpec

from .rows import based, buffered, fold, tile
from .vectors import loss_gradient, standardise


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
    W_ptr,
    b_ptr,
    S_W_ptr,
    S_b_ptr,
    X_ptr,
    G_ptr,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
    ROWS: tl.constexpr,
    FOLD_ROWS: tl.constexpr,
):
    """y of one token, whose row (k, G, ℓ) joins the buffer; the last token of a mini-batch folds the buffer into W and b.

    With p the phase and s_p the reader's factor (docs/mathematics.md, 9.2):

        G = ∂L/∂z at z = kW + b
        z̄ = qW + b − s_p (qS_W + S_b + Σ_{j<p} ℓ_j (q·X_j + 1) G_j + ℓ (q·k + 1) G)        y = q + LN(z̄)
        X_p, G_p, ℓ_p ← k, G, ℓ        p ← p + 1
        and if p = K:  W ← W − s_{K−1} (S_W + Σ_j ℓ_j X_jᵀ G_j), b alike, p ← 0, and there is no base S any more

    q, k, v, y ``[B, H, D]``, ℓ (lr) ``[B, H]`` of any floating dtype and valid ``[B]`` bool or None have the given distances between rows;
    phase and base (whether S counts; it is not loaded otherwise) ``[B, H]`` int32, one for each program, as no program may change what another
    reads; s (scale) ``[K]``, γ, β ``[H, D]``, W, S_W ``[B, H, D, D]``, b, S_b ``[B, H, D]``, X, G ``[B, H, K, D]``, ℓ of the rows ``[B, H, K]``
    are float32, as is all arithmetic. A row that is not valid has y = 0 and keeps everything else.
    """
    # Neighbouring programs read neighbouring weights.
    program = tl.program_id(0).to(tl.int64)
    row, head = program // H, program % H
    d = tl.arange(0, D_PAD)
    real = d < D
    y_ptr += row * y_stride + head * D
    if valid_ptr is not None:  # noqa: SIM102 (settled when the kernel is compiled, before the other is asked)
        if tl.load(valid_ptr + row * valid_stride) == 0:
            tl.store(y_ptr + d, tl.zeros((D_PAD,), y_ptr.dtype.element_ty), real)
            return
    W_ptr, S_W_ptr = W_ptr + program * D * D, S_W_ptr + program * D * D
    q_ptr, k_ptr, v_ptr = q_ptr + row * q_stride + head * D, k_ptr + row * k_stride + head * D, v_ptr + row * v_stride + head * D
    b_ptr, S_b_ptr = b_ptr + program * D, S_b_ptr + program * D
    X_ptr, G_ptr, rows_lr_ptr = X_ptr + program * K * D, G_ptr + program * K * D, rows_lr_ptr + program * K

    # What does not depend on the phase is asked for first: the barrier keeps the compiler from waiting for the phase before it asks for W.
    phase, base = tl.load(phase_ptr + program), tl.load(base_ptr + program)
    at, inside = tile(0, D_PAD, D_PAD, D, D)
    W = tl.load(W_ptr + at, inside, 0.0)
    q = tl.load(q_ptr + d, real, 0.0).to(tl.float32)
    k = tl.load(k_ptr + d, real, 0.0).to(tl.float32)
    lr = tl.load(lr_ptr + row * lr_stride + head).to(tl.float32)
    tl.debug_barrier()
    scale = tl.load(scale_ptr + phase)
    own = lr * (tl.sum(q * k, 0) + 1)
    written = buffered(q, X_ptr, G_ptr, rows_lr_ptr, phase, D, D, D_PAD, D_PAD, K_PAD, ROWS)

    # Loaded when they are needed, most of them again and from a cache: registers are what limits the programs in flight.
    q1 = tl.load(q_ptr + d, real, 0.0).to(tl.float32)
    k1 = tl.load(k_ptr + d, real, 0.0).to(tl.float32)
    v = tl.load(v_ptr + d, real, 0.0).to(tl.float32)
    b = tl.load(b_ptr + d, real, 0.0)
    gamma, beta = tl.load(gamma_ptr + head * D + d, real, 0.0), tl.load(beta_ptr + head * D + d, real, 0.0)
    read = tl.sum(q1[:, None] * W, 0) + b
    G = loss_gradient(tl.sum(k1[:, None] * W, 0) + b, k1, v, gamma, beta, real, D, eps)
    written += own * G
    if base != 0:
        written += based(q1, S_W_ptr, S_b_ptr, D, D, D_PAD, D_PAD)
    z, _ = standardise(read - scale * written, real, D, eps)
    tl.store(y_ptr + d, (q1 + gamma * z + beta).to(y_ptr.dtype.element_ty), real)

    tl.store(X_ptr + phase * D + d, k1, real)
    tl.store(G_ptr + phase * D + d, G, real)
    tl.store(rows_lr_ptr + phase, lr)
    done = phase == K - 1
    tl.store(phase_ptr + program, tl.where(done, 0, phase + 1))
    if done:
        # The row just stored is read by other threads of this program.
        tl.debug_barrier()
        fold(W_ptr, b_ptr, S_W_ptr, S_b_ptr, X_ptr, G_ptr, rows_lr_ptr, base, scale, K, D, D, D_PAD, D_PAD, FOLD_ROWS)
        tl.store(base_ptr + program, 0)


def options(spec: LayerSpec) -> dict[str, Any]:
    """The kernel's constants, and warps enough to hold W and the buffer's rows in registers."""
    size, width = spec.mini_batch_size, spec.head_dim
    padded_size, padded_width = triton.next_power_of_2(max(1, size - 1)), triton.next_power_of_2(width)
    constants = {"K": size, "D": width, "D_PAD": padded_width, "K_PAD": padded_size, "ROWS": min(16, padded_size)}
    warps = 8 if padded_width == 128 else 2 if padded_width == 64 else 1
    return constants | {"FOLD_ROWS": min(32, padded_width), "num_warps": warps, "num_stages": 1, "maxnreg": 136 if padded_width == 64 else 128}
