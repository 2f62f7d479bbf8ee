"""The scans of the inner loop on PyTorch: groups of steps, recomputed in the backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from tttcore.scan import Loop, Stretch, python_loop


def grouped_scan(stretch: Stretch, carry: Any, xs: tuple[torch.Tensor, ...]) -> tuple[Any, torch.Tensor]:
    """A scan in stretches of √N of the N steps, for so many of which what a stretch does at once takes memory."""
    # The length of a range is a number also where torch.compile takes a tensor's for a symbol.
    steps = len(range(xs[0].shape[0]))
    group = math.isqrt(steps - 1) + 1
    ys: list[torch.Tensor] = []
    for start in range(0, steps, group):
        carry, y = stretch(python_loop, carry, tuple(x[start : start + group] for x in xs))
        ys.append(y)
    return carry, torch.cat(ys)


def checkpointed_scan(stretch: Stretch, carry: Any, xs: tuple[torch.Tensor, ...]) -> tuple[Any, torch.Tensor]:
    """The grouped scan whose backward keeps the carry at every √N-th of the N steps and recomputes what is between.

    So memory grows with √N activations of a step plus √N carries, not with N; one more forward pass is the price.
    """

    def recomputed(loop: Loop, carry: Any, part: tuple[torch.Tensor, ...]) -> tuple[Any, torch.Tensor]:
        return checkpoint(stretch, loop, carry, part, use_reentrant=False, preserve_rng_state=False)

    return grouped_scan(recomputed, carry, xs)
