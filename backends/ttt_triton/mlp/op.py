"""The kernels as one differentiable PyTorch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from ..layout import INTERPRETED, Layout, operands, padded, saved_dtype
from .forward import forward as forward_kernel
from .reverse import reverse

Tensors = list[Tensor]


def mlp(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], learned: Sequence[Tensor], sums: Sequence[Tensor] | None, layout: Layout, eps: float
) -> tuple[Tensor, Tensors, Tensors]:
    """(y, [W₁, b₁, W₂, b₂] after each sequence's last whole mini-batch, sums alike of the open one), differentiable in every floating-point argument.

    tokens: q, k, v ``[N, H, D]`` and ℓ ``[N, H]``; weights: W₁ ``[R, H, D, 4D]``, b₁ ``[R, H, 1, 4D]``, W₂ ``[R, H, 4D, D]``, b₂ ``[R, H, 1, D]``;
    learned: s ``[K]``, γ, β ``[H, D]``; sums, if any: those of the mini-batch that each sequence goes on with, shaped as weights; all float32 but
    the tokens.
    """
    everything = (*tokens, *weights, *learned, *(sums or ()))
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in everything)
    S = (None,) * 4 if sums is None else sums
    size = learned[0].shape[0]
    every = segment(size)
    first, segments, total = segments_of(layout, size, tokens[0].shape[0])
    where = (layout.start, layout.length, layout.phase, first)
    y, *ends, _, _ = forward(*tokens, *weights, *S, *learned, *where, layout.longest, segments, total if differentiable else 0, every, eps)
    return y, ends[:4], ends[4:]


def segment(size: int) -> int:
    """Mini-batches of K = ``size`` in a segment, whose first weights are kept and all others replayed: 256 tokens, 32 mini-batches at the most."""
    return 3 if INTERPRETED else min(32, 256 // size)


def segments_of(layout: Layout, size: int, tokens: int) -> tuple[Tensor | None, int, int]:
    """(where the segments of each sequence begin among all, or None where each sequence has as many; how many each has then; how many in all)."""
    extent, extra = segment(size) * size, 0 if layout.phase is None else size - 1
    if layout.start is None or layout.length is None:
        each = triton.cdiv(layout.longest + extra, extent)
        return None, each, layout.rows * each
    slots = layout.length if layout.phase is None else layout.length + layout.phase
    # One that goes on with a mini-batch has a segment even if it has no token.
    counts = (slots.clamp(min=int(layout.phase is not None)) + extent - 1) // extent
    return (counts.cumsum(0) - counts).int(), 0, (tokens + layout.rows * (extent + extra)) // extent


def constants(q: Tensor, size: int) -> dict[str, Any]:
    """The kernels' compile-time arguments for tokens q and K = ``size``."""
    width = q.shape[-1]
    shape = {"K": size, "D": width, "E": 4 * width, "K_PAD": padded(size), "D_PAD": padded(width), "E_PAD": padded(4 * width)}
    return shape | operands(q.dtype) | {"num_warps": 8 if width > 32 else 4, "num_stages": 1}


@torch.library.custom_op("tttcore::mlp", mutates_args=())
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    W1: Tensor,
    b1: Tensor,
    W2: Tensor,
    b2: Tensor,
    S_W1: Tensor | None,
    S_b1: Tensor | None,
    S_W2: Tensor | None,
    S_b2: Tensor | None,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    phase: Tensor | None,
    first: Tensor | None,
    longest: int,
    segments: int,
    total: int,
    every: int,
    eps: float,
) -> Tensors:
    """y, the four weights and four sums as ``mlp`` says, and what the backward pass needs: W and b at the starts of all ``total`` segments."""
    results = empty(q, W1, b1, W2, b2, total)
    y, W1_end, b1_end, W2_end, b2_end, *ends, Ws, bs = results
    sums, where = (S_W1, S_b1, S_W2, S_b2), (start, length, phase, first)
    for x in ends:
        x.zero_()
    rows, heads = W1.shape[0], q.shape[1]
    strides = (W1.stride(0), b1.stride(0), W2.stride(0), b2.stride(0))
    with torch.cuda.device_of(q):
        forward_kernel[heads, rows](
            *(q, k, v, lr, W1, b1, W2, b2, *sums, scale, gamma, beta, *where, y, W1_end, b1_end, W2_end, b2_end, *ends),
            *((Ws, bs) if total else (None, None)),
            *(*strides, longest, segments, every, heads, eps),
            **constants(q, scale.shape[0]),
        )
    return results


@forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, *others: Any) -> Tensors:
    return empty(q, W1, b1, W2, b2, others[-3])


def empty(q: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, total: int) -> Tensors:
    """Room for the operator's results."""
    ends = [x.new_empty(x.shape) for x in 2 * (W1, b1, W2, b2)]
    heads, inner, outer = W2.shape[1:]
    Ws = q.new_empty((total, heads, 2, inner, outer), dtype=saved_dtype(q.dtype))
    return [q.new_empty(q.shape), *ends, Ws, W2.new_empty((total, heads, inner + outer))]


@torch.library.custom_op("tttcore::mlp_backward", mutates_args=())
def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    S_W1: Tensor | None,
    S_b1: Tensor | None,
    S_W2: Tensor | None,
    S_b2: Tensor | None,
    scale: Tensor,
    gamma: Tensor,
    beta: Tensor,
    start: Tensor | None,
    length: Tensor | None,
    phase: Tensor | None,
    first: Tensor | None,
    Ws: Tensor,
    bs: Tensor,
    dy: Tensor,
    dW1_end: Tensor,
    db1_end: Tensor,
    dW2_end: Tensor,
    db2_end: Tensor,
    dS_W1_end: Tensor,
    dS_b1_end: Tensor,
    dS_W2_end: Tensor,
    dS_b2_end: Tensor,
    longest: int,
    segments: int,
    every: int,
    eps: float,
) -> Tensors:
    """Cotangents of q, k, v, ℓ, the four weights, s, γ, β and, empty if not given, of the four sums."""
    ends = (dW1_end, db1_end, dW2_end, db2_end, dS_W1_end, dS_b1_end, dS_W2_end, dS_b2_end)
    sums, where = (S_W1, S_b1, S_W2, S_b2), (start, length, phase, first)
    results = empty_backward(q, k, v, lr, *ends[:4], scale, gamma, beta, *sums)
    tokens, weights, (dscale, dgamma, dbeta), dS = results[:4], results[4:8], results[8:11], results[11:]
    given = [None if x is None else dx for x, dx in zip(sums, dS, strict=True)]
    rows, (heads, width), size = dW1_end.shape[0], q.shape[1:], scale.shape[0]
    dscales, dgammas, dbetas = scale.new_empty(rows, heads, size), gamma.new_empty(rows, heads, width), beta.new_empty(rows, heads, width)
    replayed = (x.new_empty((rows, heads, every, *x.shape[2:])) for x in (Ws, bs))
    with torch.cuda.device_of(q):
        reverse[heads, rows](
            *(q, k, v, lr, *sums, scale, gamma, beta, *where, Ws, bs, dy, *ends, *replayed),
            *(*tokens, *weights, *given, dscales, dgammas, dbetas, longest, segments, every, heads, eps),
            **constants(q, size) | {"STAGES": 1},
        )
    dscale.copy_(dscales.sum((0, 1)))
    dgamma.copy_(dgammas.sum(0))
    dbeta.copy_(dbetas.sum(0))
    return results


@backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lr: Tensor, *others: Any) -> Tensors:
    return empty_backward(q, k, v, lr, *others[14:18], *others[4:7], *others[:4])


def empty_backward(*like: Tensor | None) -> Tensors:
    """Room for the cotangents of these, nothing for None."""
    given = next(x for x in like if x is not None)
    return [given.new_empty(0) if x is None else x.new_empty(x.shape) for x in like]


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    """Keep what the backward pass needs: the tokens, and the weights at the starts of segments."""
    q, k, v, lr, W1, b1, W2, b2, *others, longest, segments, _, every, eps = inputs
    saved = output[9:]
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, lr, *others, *saved)
    ctx.ends, ctx.extent = [x.shape for x in (W1, b1, W2, b2)], (longest, segments, every, eps)


def derive(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Cotangents of the operator's inputs."""
    q, *saved, bs = ctx.saved_tensors
    dy = torch.zeros_like(q) if cotangents[0] is None else cotangents[0].contiguous()
    ends = (bs.new_zeros(shape) if x is None else x.contiguous() for x, shape in zip(cotangents[1:9], 2 * ctx.ends, strict=True))
    found = backward(q, *saved, bs, dy, *ends, *ctx.extent)
    sums = (None if given is None else x for given, x in zip(saved[3:7], found[11:], strict=True))
    return (*found[:8], *sums, *found[8:11], *(None for _ in range(9)))


forward.register_autograd(derive, setup_context=save)
