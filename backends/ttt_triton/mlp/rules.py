"""How PyTorch traces, differentiates and maps the operators of ``op``: importing this module registers it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..mapped import fold
from ..operators import register_autograd
from .op import empty, forward
from .op_backward import backward


@torch.library.register_fake("tttcore::mlp")
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, scale: Tensor, *others: Any) -> tuple[Tensor, ...]:
    start, (longest, _, keep, _) = others[2], others[6:]
    return empty(q, W1, b1, W2, b2, scale, longest if start is None else 0, keep)


@torch.library.register_fake("tttcore::mlp_backward")
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v, lr, *others[16:20], *others[4:7]))


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass needs: the inputs, and the weights where pieces begin."""
    *tensors, longest, total, _, eps = inputs
    kept = output[9:]
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *kept)
    ctx.extent = longest, total, eps


def derive(ctx: Any, dy: Tensor | None, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cotangents of the operator's inputs."""
    saved = ctx.saved_tensors
    q, weights = saved[0], saved[4:8]
    dy = torch.zeros_like(q) if dy is None else dy.contiguous()
    # All of them are read only, and so may lie in one place.
    room = q.new_zeros(max(x.numel() for x in weights), dtype=torch.float32)
    zeros = 2 * [room[: x.numel()].view(x.shape) for x in weights]
    ends = (zero if x is None else x.contiguous() for x, zero in zip(cotangents[:8], zeros, strict=True))
    return (*backward(*saved, dy, *ends, *ctx.extent), *(None for _ in range(8)))


register_autograd(forward, derive, save)
register_autograd(backward)


def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """``torch.func.vmap`` of sequences that lie end to end: the mapped axis becomes more of them."""
    tensors, (longest, total, keep, eps) = arguments[:15], arguments[15:]
    if any(dim is not None for dim in dims[8:11]) or tensors[11] is not None:
        raise NotImplementedError("vmap: got learned parameters or ragged sequences; expected tokens, weights or states to map over. Fix: loop")

    folded = (x if 8 <= i < 11 else fold(x, dims[i], info.batch_size) for i, x in enumerate(tensors))
    results = forward(*folded, longest, info.batch_size * total, keep, eps)
    return tuple(x.unflatten(0, (info.batch_size, -1)) for x in results), (0,) * len(results)


torch.library.register_vmap("tttcore::mlp", batched)
