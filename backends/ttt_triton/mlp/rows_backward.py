"""The parallel part of the backward pass that waits for ``scan`` alone: ``slopes`` of the training rows and ``readout_norm`` of the read-outs."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl

from .readout_norm import readout_norm
from .slopes import slopes
from .tiles import block_at, place_of


@triton.jit(do_not_specialize=("top", "blocks"))
def rows_backward(
    q_ptr,
    k_ptr,
    v_ptr,
    lr_ptr,
    X2_ptr,
    G1_ptr,
    G2_ptr,
    Ws_ptr,
    bs_ptr,
    scale_ptr,
    gamma_ptr,
    beta_ptr,
    start_ptr,
    length_ptr,
    first_ptr,
    row_ptr,
    dy_ptr,
    slope_ptr,
    curve_ptr,
    normed_ptr,
    F_ptr,
    keys_ptr,
    numbers_ptr,
    dG2_ptr,
    dbs_ptr,
    dgamma_ptr,
    dbeta_ptr,
    dz2_ptr,
    along_ptr,
    sums_ptr,
    top,
    longest,
    begin,
    blocks,
    H,
    eps,
    K: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    R: tl.constexpr,
    K_PAD: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Two programs, one after the other (axis 0), for a head of a block (axis 1) of a piece: one for its training rows, one for its read-outs.

    They read the same weights, X₂, G₁ and G₂ at about the same time, and so once from memory.
    """
    head, place = tl.program_id(0) // 2, place_of(tl.program_id(1), blocks, first_ptr, True)
    n, start, length = block_at(place, top, longest, begin, blocks, start_ptr, length_ptr, first_ptr, row_ptr, K, R)
    if n >= tl.cdiv(length, R // K * K):
        return
    # ``slopes`` has no registers for more columns at a time.
    half: tl.constexpr = min(C, 32)
    if tl.program_id(0) % 2 == 0:
        slopes(
            *(head, place, n, start, length, k_ptr, v_ptr, lr_ptr, X2_ptr, G1_ptr, G2_ptr, Ws_ptr, bs_ptr, scale_ptr, gamma_ptr, beta_ptr),
            *(slope_ptr, curve_ptr, normed_ptr, F_ptr, keys_ptr, numbers_ptr, H, eps, K, D, E, R, D_PAD, E_PAD, half, STAGES, DOT, PRECISION),
        )
    else:
        readout_norm(
            *(head, place, n, start, length, q_ptr, k_ptr, lr_ptr, X2_ptr, G1_ptr, G2_ptr, Ws_ptr, bs_ptr, scale_ptr, gamma_ptr, dy_ptr),
            *(dG2_ptr, dbs_ptr, dgamma_ptr, dbeta_ptr, dz2_ptr, along_ptr, sums_ptr, H, eps),
            *(K, D, E, R, K_PAD, D_PAD, E_PAD, C, STAGES, DOT, PRECISION),
        )
