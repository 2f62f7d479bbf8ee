"""The inner loop from its public arguments: sequences found in batches, states opened and closed, one operator in between."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tttcore import LayerSpec, State, Unsupported
from tttcore.sequence import Rows

from .claims import NAME
from .layout import Layout, packed, padded_rows, tile
from .linear import linear

WEIGHTS = ("W1", "b1")
Tensors = list[Tensor]


def dual(
    spec: LayerSpec,
    params: Mapping[str, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    *,
    state: State | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, State]:
    """The inner loop, differentiable in every floating-point argument; see ``tttcore.Backend.inner``."""
    if spec.inner_model.hidden:
        raise Unsupported(NAME, field="form", got="'dual' with hidden layers", expected="'decode'", fix="use form='decode' or another backend")
    size = spec.mini_batch_size
    valid = None if mask is None else Rows.of_mask(mask)
    phase = None if state is None else state.phase.int()
    gathered = [x if valid is None else valid.gather(x) for x in (q, k, v, lr)]
    tokens = [x.flatten(0, 1).contiguous() for x in gathered]
    (rows, longest), count = gathered[0].shape[:2], len(tokens[0])
    block = tile(size, spec.head_dim, q.dtype) // size * size
    if cu_seqlens is not None:
        extents = packed(cu_seqlens, count)
    elif valid is not None or phase is not None:
        extents = padded_rows(q, rows, longest, None if valid is None else valid.length)
    else:
        extents = None
    layout = Layout.even(block, rows, longest) if extents is None else Layout.ragged(size, block, count, *extents, phase)
    params = {name: value.float().contiguous() for name, value in params.items()}
    learned = spec.update_rule.scale(spec, params), params["norm_weight"], params["norm_bias"]
    if phase is None or state is None or extents is None:
        weights = [params[name].expand(layout.rows, *params[name].shape) for name in WEIGHTS]
        y, weights, grads = linear(tokens, weights, learned, None, layout, spec.eps)
    else:
        before = [state.weights[name].float() for name in WEIGHTS]
        sums = [state.grads[name].float() for name in WEIGHTS]
        weights, opening = opened(before, sums, tokens, learned[0], *extents, phase)
        y, weights, grads = linear(tokens, weights, learned, opening, layout, spec.eps)
        crossed = (phase + extents[1] >= size)[:, None, None, None]
        # Where a sequence reaches no border, its weights are those it came with, and its sums are added to.
        weights = [torch.where(crossed, new, old) for new, old in zip(weights, before, strict=True)]
        grads = [new + torch.where(crossed, 0.0, old) for new, old in zip(grads, sums, strict=True)]
    y = y.reshape(gathered[0].shape)
    state = State(dict(zip(WEIGHTS, weights, strict=True)), dict(zip(WEIGHTS, grads, strict=True)), layout.end_phase(size, q))
    return y if valid is None else valid.scatter(y), state


def opened(weights: Tensors, grads: Tensors, tokens: Tensors, scale: Tensor, start: Tensor, length: Tensor, phase: Tensor) -> tuple[Tensors, Tensors]:
    """The weights W − s_{K−1} S that all but the first mini-batch find, and what its own rows find instead, ``[R, K, H, D]`` by slots, centred.

    In a mini-batch that was begun elsewhere training rows read W, XW + b, and read-outs W − s_i S, QW + b − s_i (QS_W + S_b). Neither can be had
    from W − s_{K−1} S: where S is large, too many digits of W are lost in it.
    """
    slot = torch.arange(scale.shape[0], device=scale.device)
    place = slot - phase[:, None]
    inside = (place >= 0) & (place < length[:, None])
    index = torch.where(inside, start[:, None] + place, 0)

    def rows(x: Tensor) -> Tensor:
        found = x[index].float() if len(x) else scale.new_zeros((*index.shape, *x.shape[1:]))
        return torch.where(inside[..., None, None], found, 0.0).transpose(1, 2)

    def read(x: Tensor, maps: Tensors) -> Tensor:
        W, b = (part - part.mean(-1, keepdim=True) for part in maps)
        return x @ W + b

    q, k = (rows(x) for x in tokens[:2])
    opening = read(k, weights), read(q, weights) - scale[:, None] * read(q, grads)
    return [(W - scale[-1] * S).contiguous() for W, S in zip(weights, grads, strict=True)], [z.transpose(1, 2).contiguous() for z in opening]
