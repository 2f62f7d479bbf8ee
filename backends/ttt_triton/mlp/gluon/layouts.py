"""Who holds what of TTT-MLP, on W = D / 8 warps, for E = 4D hidden columns: 32 of them each.

Tiles of hidden columns ``[R, E]`` and W₂, which lies on its side as ``[D, E]``, have their columns divided among the warps: warp w holds columns
8w … 8w + 7 of each of the four quarters. W₁ lies on its side, too, as rows ``e`` of ``[E, D]``, each with the warp of its hidden column (``hidden``).
What is summed over the hidden columns is summed in each warp first, as a product of three axes whose first is the warp. See ``linear.gluon.layouts``
for why that is done.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon

from ...linear.gluon.layouts import maps, named_turned, tokens, turned

NOWHERE = gl.constexpr(1 << 30)
"""A coordinate past the end of every described tensor, where nothing is stored; to store at a negative one is an illegal instruction."""

# Triton 3.7's name for it, or 3.6's.
synchronize = getattr(gl, "barrier", None) or gl.thread_barrier


@gluon.constexpr_function
def shares(W):
    """The layout of ``[W, R, D]`` sums over the hidden columns of each warp."""
    return gl.NVMMADistributedLayout([2, 0], [W, 1, 1], [1, 16, 8])


@gluon.constexpr_function
def gathered(W):
    """The layout ``[W, R, D]`` in which each thread holds the shares of all warps, of four columns; a warp has whole rows."""
    return gl.BlockedLayout([W, 1, 4], [1, 16 // W, 2 * W], [1, W, 1], [2, 1, 0])


@gluon.constexpr_function
def rows(W):
    """The layout ``[R, D]`` of their sum."""
    return gl.SliceLayout(0, gathered(W))


@gluon.constexpr_function
def copied(W):
    """The layout in which tiles ``[R, D]`` are copied and weights ``[E, D]`` stored, 16 bytes by a thread."""
    return gl.BlockedLayout([1, 8], [32 // W, W], [W, 1], [1, 0])


@gluon.constexpr_function
def swizzled(W):
    """The layout of tiles ``[R, D]`` in shared memory."""
    return gl.SwizzledSharedLayout(8, max(1, 8 // W), min(8, W), [1, 0])


@gluon.constexpr_function
def summands(W, order):
    """The layout of float32 shares and what is added to them in shared memory: columns of four rows, 32 bytes each, are in different banks."""
    return gl.SwizzledSharedLayout(8, max(1, 4 // W), min(8, W), order)


@gluon.constexpr_function
def sums_of_rows(W):
    """The layout ``[16, W]`` in which each thread holds the sums of all warps for its row of ``rows``."""
    registers = [[0, 1 << i] for i in range(W.bit_length() - 1)]
    lanes = [[0, 0]] * W.bit_length() + [[1 << i, 0] for i in range(5 - W.bit_length())]
    return gl.DistributedLinearLayout(registers, lanes, [[(16 // W) << i, 0] for i in range(W.bit_length() - 1)], [], [16, W])


@gluon.jit
def sums_by_warp(x, W: gl.constexpr):
    """``[R, W]`` sums over each warp's hidden columns."""
    return gl.sum(gl.sum(x.reshape(x.shape[0], 4, W, 8), 1), 2)


@gluon.jit
def of_warps(room, W: gl.constexpr):
    """Their sum over all warps, once they are in ``room`` in shared memory."""
    return gl.convert_layout(gl.sum(room.load(sums_of_rows(W)), 1), gl.SliceLayout(1, rows(W)), assert_trivial=True)


@gluon.jit
def turned_from_float(x):
    """``turned`` of x in bfloat16, without x in bfloat16 being kept for its other uses."""
    asm: gl.constexpr = "{ .reg .b32 both; cvt.rn.bf16x2.f32 both, $2, $1; movmatrix.sync.aligned.m8n8.trans.b16 $0, both; }"
    return named_turned(gl.inline_asm_elementwise(asm, "=r,r,r", [x], dtype=gl.bfloat16, is_pure=True, pack=2))


@gluon.jit
def turned_anew(x):
    """The same with its rows exchanged two by two: words of another order, which the compiler cannot keep from x's use as it is, either."""
    asm: gl.constexpr = "{ .reg .b32 both; cvt.rn.bf16x2.f32 both, $1, $2; movmatrix.sync.aligned.m8n8.trans.b16 $0, both; }"
    return named_turned(gl.inline_asm_elementwise(asm, "=r,r,r", [x], dtype=gl.bfloat16, is_pure=True, pack=2))


@gluon.jit
def exchanged(x, W: gl.constexpr):
    """A tile of tokens with its columns exchanged two by two, in name."""
    even, odd = gl.split(x.reshape(x.shape[0], x.shape[1] // 2, 2))
    return gl.convert_layout(gl.join(odd, even).reshape(x.shape[0], x.shape[1]), tokens(W), assert_trivial=True)


@gluon.jit
def half(x):
    """The first half of the rows of a tile of tokens, which are all equal, in half the registers."""
    return gl.split(x.reshape(2, x.shape[0] // 2, x.shape[1]).permute(1, 2, 0))[0]


@gluon.jit
def whole(x, W: gl.constexpr):
    """A tile of tokens, from half of its rows."""
    return gl.convert_layout(gl.join(x, x).permute(2, 0, 1).reshape(2 * x.shape[0], x.shape[1]), tokens(W), assert_trivial=True)


@gluon.jit
def hidden(e, E: gl.constexpr):
    """The hidden column of row e of W₁."""
    return e // (E // 2) * (E // 2) + e % 16 // 8 * (E // 4) + e % (E // 2) // 16 * 8 + e % 8


@gluon.jit
def by_column(x, W: gl.constexpr):
    """``[E, B]`` by hidden columns, from rows e."""
    return x.reshape(2, W, 2, 8, x.shape[1]).permute(0, 2, 1, 3, 4).reshape(x.shape[0], x.shape[1])


@gluon.jit
def by_row(x, W: gl.constexpr):
    """``[E, B]`` by rows e, from hidden columns."""
    return x.reshape(2, 2, W, 8, x.shape[1]).permute(0, 2, 1, 3, 4).reshape(x.shape[0], x.shape[1])


@gluon.jit
def first_operand(W1, W: gl.constexpr):
    """W₁ ``[D, E]`` as right operand of a product with a tile of tokens."""
    return gl.convert_layout(by_column(W1.to(gl.bfloat16), W).permute(1, 0), gl.DotOperandLayout(1, tokens(W), 2), assert_trivial=True)


@gluon.jit
def right_operand(across, W: gl.constexpr):
    """A tile or a matrix whose columns are hidden ones, from what ``turned`` made of it, as right operand."""
    return gl.convert_layout(across.permute(1, 0), gl.DotOperandLayout(1, tokens(W), 2), assert_trivial=True)


@gluon.jit
def left_operand(across, W: gl.constexpr):
    """A tile of hidden columns, turned, as left operand of a product that gives rows e."""
    return gl.convert_layout(by_row(across, W), gl.DotOperandLayout(0, maps(W), 2), assert_trivial=True)


@gluon.jit
def left_by_warp(x, W: gl.constexpr):
    """A tile of hidden columns as left operand ``[W, R, 32]`` of the products of each warp."""
    x = x.reshape(x.shape[0], 4, W, 8).permute(2, 0, 1, 3).reshape(W, x.shape[0], 32)
    return gl.convert_layout(x, gl.DotOperandLayout(0, shares(W), 2), assert_trivial=True)


@gluon.jit
def right_by_warp(W2, W: gl.constexpr):
    """W₂, lying, as right operand ``[W, 32, D]`` of the products of each warp."""
    x = W2.reshape(W2.shape[0], 4, W, 8).permute(2, 1, 3, 0).reshape(W, 32, W2.shape[0])
    return gl.convert_layout(x, gl.DotOperandLayout(1, shares(W), 2), assert_trivial=True)


@gluon.jit
def weights_by_warp(x, W: gl.constexpr):
    """W₂ ``[E, D]`` from what ``right_by_warp`` made of it: in this order of registers it is stored without moving any."""
    return x.reshape(W, 4, 8, x.shape[2]).permute(1, 0, 2, 3).reshape(4 * W * 8, x.shape[2])


@gluon.jit
def lying(ptr, like, W: gl.constexpr):
    """The weights ``[E, D]`` at ``ptr`` in float32, on their side as ``like``."""
    upright: gl.constexpr = turned_from_float(like).type.layout
    e, d = gl.arange(0, like.shape[1], gl.SliceLayout(1, upright)), gl.arange(0, like.shape[0], gl.SliceLayout(0, upright))
    return gl.convert_layout(turned(gl.load(ptr + e[:, None] * like.shape[0] + d[None, :])), tokens(W), assert_trivial=True).to(gl.float32)
