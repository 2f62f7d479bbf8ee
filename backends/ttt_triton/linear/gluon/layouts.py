"""Who holds what: the layouts of the scans, and how a tile passes from one to the next without leaving its warp.

W = D / 16 warps. Tiles of tokens, ``[R, D]``, have their columns divided among the warps: warp w holds columns 8w … 8w + 7 of either half. The
weights lie on their side as rows ``e`` of ``[D, D]``, one for each column of the tiles and with the same warp (``column``): what an accumulator holds
of them is then, register by register, what the next product wants as its right operand. Gradients have to be turned, 8 × 8 by 8 × 8, before they are
an operand; one instruction does it.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon


@gluon.constexpr_function
def tokens(W):
    """The layout of tiles of tokens."""
    return gl.NVMMADistributedLayout([2, 0], [1, W], [16, 8])


@gluon.constexpr_function
def maps(W):
    """The layout of the weights."""
    return gl.NVMMADistributedLayout([2, 0], [W, 1], [16, 8])


@gluon.jit
def column(e, D: gl.constexpr):
    """The column of the tiles of tokens that row e of the weights belongs to."""
    return e % 16 // 8 * (D // 2) + e // 16 * 8 + e % 8


@gluon.jit
def named_turned(x):
    """``[B, A]`` of x ``[A, B]`` whose 8 × 8 blocks are turned already: the rest is names."""
    A: gl.constexpr = x.shape[0]
    B: gl.constexpr = x.shape[1]
    return x.reshape(A // 8, 8, B // 8, 8).permute(2, 1, 0, 3).reshape(B, A)


@gluon.jit
def turned(x):
    """xᵀ of 16-bit x in an accumulator's layout."""
    x = gl.inline_asm_elementwise("movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r", [x], dtype=x.dtype, is_pure=True, pack=2)
    return named_turned(x)


@gluon.jit
def by_column(x, W: gl.constexpr):
    """``[D, B]`` by columns of the tiles, from rows e."""
    return x.reshape(W, 2, 8, x.shape[1]).permute(1, 0, 2, 3).reshape(x.shape[0], x.shape[1])


@gluon.jit
def by_row(x, W: gl.constexpr):
    """``[D, B]`` by rows e, from columns of the tiles."""
    return x.reshape(2, W, 8, x.shape[1]).permute(1, 0, 2, 3).reshape(x.shape[0], x.shape[1])


@gluon.jit
def right_operand(weights, W: gl.constexpr):
    """The weights ``[D in, D out]`` as right operand of a product whose result is a tile of tokens."""
    return gl.convert_layout(by_column(weights.to(gl.bfloat16), W).permute(1, 0), gl.DotOperandLayout(1, tokens(W), 2), assert_trivial=True)


@gluon.jit
def operands(rows, W: gl.constexpr):
    """A tile of tokens as right operand of a product with tokens, and turned as left operand of one whose result are weights."""
    across = turned(rows.to(gl.bfloat16))
    right = gl.convert_layout(across.permute(1, 0), gl.DotOperandLayout(1, tokens(W), 2), assert_trivial=True)
    return right, gl.convert_layout(by_row(across, W), gl.DotOperandLayout(0, maps(W), 2), assert_trivial=True)


@gluon.jit
def upright(weights, W: gl.constexpr):
    """The weights ``[D in, D out]`` in bfloat16, neighbours in memory next to each other."""
    flat = turned(weights.to(gl.bfloat16))
    return flat.reshape(flat.shape[0], W, 2, 8).permute(0, 2, 1, 3).reshape(flat.shape[0], flat.shape[1])


@gluon.jit
def pairs(ptr, like):
    """Where the words of two neighbours of ``upright`` weights ``like`` are from ``ptr`` on."""
    D: gl.constexpr = like.shape[0]
    layout: gl.constexpr = gl.split(like.reshape(D, D // 2, 2))[0].type.layout
    word = gl.arange(0, D, gl.SliceLayout(1, layout))[:, None] * (D // 2) + gl.arange(0, D // 2, gl.SliceLayout(0, layout))[None, :]
    return ptr.to(gl.pointer_type(gl.int32), bitcast=True) + word


@gluon.jit
def lying(words, W: gl.constexpr):
    """The weights in float32, from ``upright`` ones in words of two."""
    D: gl.constexpr = words.shape[0]
    words = gl.inline_asm_elementwise("movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r", [words], dtype=gl.int32, is_pure=True, pack=1)
    both = gl.join((words << 16).to(gl.float32, bitcast=True), (words & -65536).to(gl.float32, bitcast=True))
    across = both.reshape(D // 8, 8, 2, W, 4, 2).permute(3, 2, 1, 0, 4, 5).reshape(D, D)
    return gl.convert_layout(across, maps(W), assert_trivial=True)
