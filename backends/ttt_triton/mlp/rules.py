"""How PyTorch traces, differentiates and maps the operators of ``op``: importing this module registers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..mapped import fold
from .op import backward, empty, empty_backward, forward

Tensors = list[Tensor]


@forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, *others: Any) -> Tensors:
    return empty(q, W1, b1, W2, b2, others[-3] if others[-2] else 0)


@backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, *others: Any) -> Tensors:
    return empty_backward(q, k, v, lr, *others[9:13], *others[:3])


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    """Keep what the backward pass needs: the tokens, and the weights at the starts of blocks."""
    q, k, v, lr, W1, b1, W2, b2, *others, _row, longest, blocks, _, _, eps = inputs
    saved = output[9:]
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, lr, *others, *saved)
    ctx.ends, ctx.extent = [x.shape for x in (W1, b1, W2, b2)], (longest, blocks, eps)


def derive(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Cotangents of the operator's inputs."""
    q, *saved, bs = ctx.saved_tensors
    dy = torch.zeros_like(q) if cotangents[0] is None else cotangents[0].contiguous()
    ends = (bs.new_zeros(shape) if x is None else x.contiguous() for x, shape in zip(cotangents[1:9], 2 * ctx.ends, strict=True))
    found = backward(q, *saved, bs, dy, *ends, *ctx.extent)
    return (*found, *(None for _ in range(9)))


forward.register_autograd(derive, setup_context=save)


@forward.register_vmap
def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensors, list[int]]:
    """``torch.func.vmap`` of sequences that lie end to end: the mapped axis becomes more of them."""
    tensors, (longest, blocks, total, keep, eps) = arguments[:15], arguments[15:]
    if any(dim is not None for dim in dims[8:11]) or tensors[11] is not None:
        raise NotImplementedError("vmap: got learned parameters or ragged sequences; expected tokens, weights or states to map over. Fix: loop")

    folded = (x if 8 <= i < 11 else fold(x, dims[i], info.batch_size) for i, x in enumerate(tensors))
    results = forward(*folded, longest, blocks, info.batch_size * total, keep, eps)
    return [x.unflatten(0, (info.batch_size, -1)) for x in results], [0] * len(results)
