"""What the forward pass keeps of the weights at the blocks' starts: those where pieces of the backward pass begin."""

# pyright: reportGeneralTypeIssues=false
# Calls of jitted functions are typed as if they never returned.
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("top", "blocks", "apart", "before", "kept"))
def keep_weights(
    Ws_ptr,
    bs_ptr,
    W1_ptr,
    b1_ptr,
    W2_ptr,
    b2_ptr,
    top,
    blocks,
    apart,
    before,
    kept,
    H,
    D: tl.constexpr,
    E: tl.constexpr,
    D_PAD: tl.constexpr,
    E_PAD: tl.constexpr,
    C: tl.constexpr,
):
    """Copy W, b of one head (axis 0) at a border (axis 1) of a piece to where ``scan`` finds them when it runs again; all sequences have ``blocks``.

    Borders are ``apart`` blocks from each other, ``before`` of a sequence in pieces before this one. The first is not kept, ``kept`` others are. W₁
    ``[R · kept, H, D, E]`` stands upright again, b₁ ``[R · kept, H, E]``, W₂ ``[R · kept, H, E, D]``, b₂ ``[R · kept, H, D]``.
    """
    head, count = tl.program_id(0), tl.cdiv(blocks, apart)
    row, border = tl.program_id(1) // count, tl.program_id(1) % count
    if before + border == 0:
        return
    at = (row * blocks + border * apart).to(tl.int64) * H + head
    to = ((top + row) * kept + before + border - 1).to(tl.int64) * H + head
    d, columns_of_d = tl.arange(0, D_PAD)[None, :], tl.arange(0, D_PAD)
    for c in tl.static_range(0, E_PAD, C):
        e = c + tl.arange(0, C)
        both, upright = (e < E)[:, None] & (d < D), e[:, None] * D + d
        W1 = tl.load(Ws_ptr + at * 2 * D * E + upright, both)
        W2 = tl.load(Ws_ptr + at * 2 * D * E + D * E + upright, both)
        tl.store(W1_ptr + to * D * E + d * E + e[:, None], W1, both)
        tl.store(W2_ptr + to * D * E + upright, W2, both)
        tl.store(b1_ptr + to * E + e, tl.load(bs_ptr + at * (E + D) + e, e < E), e < E)
    b2 = tl.load(bs_ptr + at * (E + D) + E + columns_of_d, columns_of_d < D)
    tl.store(b2_ptr + to * D + columns_of_d, b2, columns_of_d < D)
