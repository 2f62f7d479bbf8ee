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


@gluon.constexpr_function
def copied(W):
    """The layout in which tiles of tokens are copied, 16 bytes by a thread."""
    return gl.BlockedLayout([1, 8], [16 // W, 2 * W], [W, 1], [1, 0])


@gluon.constexpr_function
def copied_numbers(W):
    """The layout in which one number for each token is copied."""
    return gl.BlockedLayout([1], [32], [W], [0])


@gluon.constexpr_function
def shared_numbers():
    """The layout of one number for each token in shared memory."""
    return gl.SwizzledSharedLayout(1, 1, 1, [0])


@gluon.constexpr_function
def copied_records(W):
    """The layout in which four numbers for each token are copied."""
    return gl.BlockedLayout([1, 4], [32, 1], [W, 1], [1, 0])


@gluon.constexpr_function
def shared_records():
    """The layout of four numbers for each token in shared memory."""
    return gl.SwizzledSharedLayout(1, 1, 1, [1, 0])


@gluon.constexpr_function
def recorded(R, W, S):
    """The layout in which each thread holds all S numbers of the rows that it has in ``tokens``."""
    registers = [[0, 1 << i] for i in range(S.bit_length() - 1)] + [[8 << i, 0] for i in range(R.bit_length() - 4)]
    return gl.DistributedLinearLayout(registers, [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]], [[0, 0]] * (W.bit_length() - 1), [], [R, S])


@gluon.constexpr_function
def swizzled(W):
    """The layout of tiles of tokens in shared memory: 8 rows of 16 bytes from 8 different banks."""
    return gl.SwizzledSharedLayout(8, max(1, 4 // W), min(8, 2 * W), [1, 0])


@gluon.constexpr_function
def shared_sums():
    """The layout of warps' shares ``[R, W, S]`` in shared memory: the rows that threads of a warp read at once are neighbours."""
    return gl.SwizzledSharedLayout(1, 1, 1, [2, 0, 1])


@gluon.constexpr_function
def everyone(R, W, S):
    """The layout in which each thread holds all S sums of all warps for the rows that it has in ``tokens``."""
    count = W.bit_length() - 1
    registers = [[0, 0, 1 << i] for i in range(S // 2)] + [[0, 1 << i, 0] for i in range(count)] + [[8 << i, 0, 0] for i in range(R.bit_length() - 4)]
    lanes = [[0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[0, 0, 0]] * count, [], [R, W, S])


@gluon.jit
def shared_four(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of four sums of each row."""
    return gl.allocate_shared_memory(gl.float32, [R, W, 4], shared_sums())


@gluon.jit
def shared_two(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of two sums."""
    return gl.allocate_shared_memory(gl.float32, [R, W, 2], shared_sums())


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


@gluon.jit
def shares(x, W: gl.constexpr):
    """``[R, W]`` sums over each warp's columns."""
    return gl.sum(gl.sum(x.reshape(x.shape[0], 2, W, 8), 1), 2)


@gluon.jit
def share_two(room, a, b, W: gl.constexpr):
    """Put each warp's share of the sums over the columns of two tiles of tokens into ``room`` ``[R, W, 2]`` in shared memory."""
    room.store(gl.join(shares(a, W), shares(b, W)))


@gluon.jit
def shared_one(R: gl.constexpr, W: gl.constexpr):
    """Room for the warps' shares of one sum."""
    return gl.allocate_shared_memory(gl.float32, [R, W], gl.SwizzledSharedLayout(1, 1, 1, [0, 1]))


@gluon.jit
def share_one(room, a, W: gl.constexpr):
    """Put each warp's share of the sum over the columns of a tile of tokens into ``room`` ``[R, W]``."""
    room.store(shares(a, W))


@gluon.jit
def sum_one(room, W: gl.constexpr):
    """The sum, once all warps have put their shares there."""
    R: gl.constexpr = room.shape[0]
    return of_rows(gl.sum(room.load(recorded(R, W, W)), 1), W)


@gluon.jit
def records(room, W: gl.constexpr):
    """The four numbers of each row."""
    R: gl.constexpr = room.shape[0]
    first, second = gl.split(room.load(recorded(R, W, 4)).reshape(R, 2, 2))
    a, c = gl.split(first)
    b, d = gl.split(second)
    return of_rows(a, W), of_rows(b, W), of_rows(c, W), of_rows(d, W)


@gluon.jit
def share_four(room, a, b, c, d, W: gl.constexpr):
    """The same of four tiles into ``[R, W, 4]``."""
    room.store(gl.join(gl.join(shares(a, W), shares(b, W)), gl.join(shares(c, W), shares(d, W))).reshape(room.shape[0], W, 4))


@gluon.jit
def sum_two(room, W: gl.constexpr):
    """The two sums, once all warps have put their shares there."""
    a, b = gl.split(gl.sum(room.load(everyone(room.shape[0], W, 2)), 1))
    return of_rows(a, W), of_rows(b, W)


@gluon.jit
def sum_four(room, W: gl.constexpr):
    """The four sums."""
    R: gl.constexpr = room.shape[0]
    first, second = gl.split(gl.sum(room.load(everyone(R, W, 4)), 1).reshape(R, 2, 2))
    a, b = gl.split(first)
    c, d = gl.split(second)
    return of_rows(a, W), of_rows(b, W), of_rows(c, W), of_rows(d, W)


@gluon.jit
def of_rows(x, W: gl.constexpr):
    """x ``[R]`` as a column of a tile of tokens."""
    return gl.convert_layout(x, gl.SliceLayout(1, tokens(W)), assert_trivial=True)[:, None]


@gluon.jit
def of_tokens(x):
    """A column of a tile of tokens as ``[R]``."""
    return gl.convert_layout(x.reshape(x.shape[0]), gl.SliceLayout(1, x.type.layout))


@gluon.jit
def put_numbers(ptr, x, H, live):
    """Store x ``[R, S]`` at ``ptr``, where there are eight numbers for each head of each token, if it is ``live``."""
    i, n = gl.arange(0, x.shape[0], gl.SliceLayout(1, x.type.layout)), gl.arange(0, x.shape[1], gl.SliceLayout(0, x.type.layout))
    gl.store(ptr + i[:, None] * (H * 8) + n[None, :], x, ((i >= 0) & live)[:, None])


@gluon.jit
def send(room, ptr, stride, first, end):
    """Store rows ``first`` to ``end`` of a tile that lies in shared memory from ``ptr`` on, ``stride`` numbers apart, 16 bytes by a thread."""
    layout: gl.constexpr = copied(room.shape[1] // 16)
    i, d = gl.arange(0, room.shape[0], gl.SliceLayout(1, layout)), gl.arange(0, room.shape[1], gl.SliceLayout(0, layout))
    gl.store(ptr + i[:, None] * stride + d[None, :], room.load(layout), ((i >= first) & (i < end))[:, None])
