"""The scan of the inner loop on PyTorch: groups of mini-batches, recomputed in the backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from tttcore.inner_loop import Body, loop_scan


def checkpointed_scan(body: Body, carry: Any, xs: tuple[torch.Tensor, ...]) -> tuple[Any, torch.Tensor]:
    """``scan(body, carry, xs)`` whose backward keeps the carry at every √N-th of the N steps and recomputes what is between.

    So memory grows with √N activations of a step plus √N carries, not with N; one more forward pass is the price.
    """
    steps = xs[0].shape[0]
    group = math.isqrt(steps - 1) + 1
    ys: list[torch.Tensor] = []
    for start in range(0, steps, group):
        part = tuple(x[start : start + group] for x in xs)
        carry, y = checkpoint(loop_scan, body, carry, part, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportGeneralTypeIssues]
        ys.append(y)
    return carry, torch.cat(ys)
