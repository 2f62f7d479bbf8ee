"""How warps of one program that do different work wait for each other: a barrier for every fourth mini-batch, in turns."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


@gluon.jit
def meeting():
    """A barrier for each of four mini-batches in turn."""
    barriers = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(4):
        mbarrier.init(barriers.index(i), count=1)
    return barriers


@gluon.jit
def tell(barriers, step):
    """Say that these warps are through with a step, if there is such: with what they read and wrote in it, all of them."""
    mbarrier.arrive(barriers.index(step & 3), count=1, pred=step >= 0)


@gluon.jit
def hear(barriers, step, count):
    """Wait until others are through with a step, if there is such; before the first of four they are."""
    mbarrier.wait(barriers.index(step & 3), (step >> 2) & 1, pred=step < count)
