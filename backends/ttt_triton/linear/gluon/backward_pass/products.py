"""Products of rows with rows of a mini-batch, and what takes an earlier mini-batch's update off its weights."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import mma_v2

from ..layouts import maps, tokens


@gluon.jit
def against(left, rows, start, W: gl.constexpr):
    """left rowsᵀ + start ``[R, R]``, all of it in each warp, for the rows of a tile in shared memory."""
    return mma_v2(gl.convert_layout(left, gl.DotOperandLayout(0, maps(W), 2)), rows.permute([1, 0]).load(gl.DotOperandLayout(1, maps(W), 2)), start)


@gluon.jit
def as_left(square, W: gl.constexpr):
    """``[R, R]`` as left operand of a product whose result is a tile of tokens."""
    return gl.convert_layout(square.to(gl.bfloat16), gl.DotOperandLayout(0, tokens(W), 2), assert_trivial=True)


@gluon.jit
def crossed(left, earlier, last, W: gl.constexpr):
    """−s_{K−1} left Gᵀ diag(ℓ) as left operand, with G and ℓ of the ``earlier`` mini-batch: what times X takes its update off W on the right."""
    R: gl.constexpr = earlier[1].shape[0]
    rates = earlier[5].load(gl.SliceLayout(0, maps(W)))[None, :]
    return as_left(against(left, earlier[3], gl.zeros([R, R], gl.float32, maps(W)), W) * (-last * rates), W)


@gluon.jit
def corrected(z, left, earlier, last, W: gl.constexpr):
    """z − s_{K−1} (left Xᵀ + 1) diag(ℓ) G: from XW + b with W, b at the ``earlier`` mini-batch's start to that at its end."""
    R: gl.constexpr = earlier[1].shape[0]
    rates = earlier[5].load(gl.SliceLayout(0, maps(W)))[None, :]
    pairs = against(left, earlier[1], gl.full([R, R], 1.0, gl.float32, maps(W)), W) * (-last * rates)
    return mma_v2(as_left(pairs, W), earlier[3].load(gl.DotOperandLayout(1, tokens(W), 2)), z)
