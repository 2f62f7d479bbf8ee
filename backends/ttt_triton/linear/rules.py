"""How PyTorch traces, differentiates and maps the operators of ``op``: importing this module registers it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..mapped import fold
from ..operators import register_autograd
from . import op_one_scan
from .op import empty, forward, room
from .op_backward import backward


@torch.library.register_fake("tttcore::linear")
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, W: Tensor, b: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return empty(q, W, b, *others[-4:-1])


@torch.library.register_fake("tttcore::linear_backward")
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, scale: Tensor, gamma: Tensor, beta: Tensor, *others: Any) -> tuple[Tensor, ...]:
    opening, ends = others[:2], others[11:13]
    return (*map(room, (q, k, v, lr, *ends, scale, gamma, beta)), *(q.new_empty(0) if x is None else room(x) for x in opening))


@torch.library.register_fake("tttcore::linear_one_scan_backward")
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, scale: Tensor, gamma: Tensor, beta: Tensor, *others: Any) -> tuple[Tensor, ...]:
    _, Ws, bs, *_, rows = others
    return *op_one_scan.empty(q, k, v, lr, Ws, bs, rows), *map(room, (scale, gamma, beta))


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass needs: the tokens, their gradients G and the weights at the starts of blocks."""
    q, k, v, lr, W, b, *others, longest, blocks, total, pairs, _, eps = inputs
    saved = output[5:]
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, lr, *others, *saved)
    ctx.ends, ctx.pairs, ctx.extent = (W.shape, b.shape), pairs, (longest, blocks, total, eps)


def derive(ctx: Any, dy: Tensor | None, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cotangents of the operator's inputs."""
    q, *saved, bs, moments = ctx.saved_tensors
    dy = torch.zeros_like(q) if dy is None else dy.contiguous()
    ends = [None if x is None else x.contiguous() for x in cotangents[:4]]
    if ctx.pairs:
        k, v, lr, scale, gamma, beta, *_, G, Ws = saved
        found = op_one_scan.backward(q, k, v, lr, scale, gamma, beta, G, Ws, bs, moments, dy, *ends[:2], ctx.ends[0][0])
        return (*found, *(None for _ in range(13)))
    zeros = 2 * [bs.new_zeros(shape) for shape in ctx.ends]
    found = backward(q, *saved, bs, dy, *(zero if x is None else x for x, zero in zip(ends, zeros, strict=True)), *ctx.extent)
    opening = (None if given is None else x for given, x in zip(saved[6:8], found[9:], strict=True))
    return (*found[:9], *opening, *(None for _ in range(11)))


register_autograd(forward, derive, save, lambda inputs: (*inputs[:-2], True, inputs[-1]))
register_autograd(backward)
register_autograd(op_one_scan.backward)


def batched(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """``torch.func.vmap`` of sequences that lie end to end: the mapped axis becomes more of them."""
    tensors, extent = arguments[:16], arguments[16:]
    learned, packed = dims[6:9], tensors[14:]
    if any(dim is not None for dim in learned) or any(x is not None for x in (tensors[11], *packed)):
        raise NotImplementedError("vmap: got learned parameters or packed sequences; expected tokens, weights or states to map over. Fix: loop")

    folded = (x if 6 <= i < 9 else fold(x, dims[i], info.batch_size) for i, x in enumerate(tensors))
    longest, blocks, total, *others = extent
    results = forward(*folded, longest, blocks, info.batch_size * total, *others)
    return tuple(x.unflatten(0, (info.batch_size, -1)) for x in results), (0,) * len(results)


torch.library.register_vmap("tttcore::linear", batched)
