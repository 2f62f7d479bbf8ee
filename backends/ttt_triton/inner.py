"""The inner loop from its public arguments: sequences found in batches, states opened and closed, one operator in between."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tttcore import LayerSpec, State
from tttcore.sequence import Rows

from .layout import Layout
from .linear import linear

NAMES = ("W1", "b1")
Tensors = list[Tensor]


def inner(
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
    """The inner loop in dual form, differentiable in every floating-point argument; see ``tttcore.Backend.inner``."""
    size = spec.mini_batch_size
    valid = None if mask is None else Rows.of_mask(mask)
    phase = None if state is None else state.phase.int()
    gathered = [x if valid is None else valid.gather(x) for x in (q, k, v, lr)]
    rows, longest = gathered[0].shape[:2]
    if cu_seqlens is None:
        layout = Layout.even(size, rows, longest, None if valid is None else valid.length, phase)
    else:
        layout = Layout.packed(size, cu_seqlens, longest, phase)
    tokens = [x.flatten(0, 1).contiguous() for x in gathered]
    params = {name: value.float().contiguous() for name, value in params.items()}
    learned = spec.update_rule.scale(spec, params), params["norm_weight"], params["norm_bias"]
    if state is None:
        weights = [params[name].expand(layout.rows, *params[name].shape) for name in NAMES]
        y, weights, grads = linear(tokens, weights, learned, None, layout, spec.eps)
    else:
        before = [[part[name].float() for name in NAMES] for part in (state.weights, state.grads)]
        weights, offsets = opened(*before, tokens, learned[0], layout)
        y, *after = linear(tokens, weights, learned, offsets, layout, spec.eps)
        weights, grads = closed(*before, *after, layout, size)
    end = layout.lengths(q) if phase is None else layout.lengths(q) + phase
    y = y.reshape(gathered[0].shape)
    named = (dict(zip(NAMES, part, strict=True)) for part in (weights, grads))
    return y if valid is None else valid.scatter(y), State(*named, end % size)


def opened(weights: Tensors, grads: Tensors, tokens: Tensors, scale: Tensor, layout: Layout) -> tuple[Tensors, Tensors]:
    """The weights W − s_{K−1} S that all but the first mini-batch find, and what its own rows read otherwise.

    The training rows of a mini-batch that was begun elsewhere read W, not W − s_{K−1} S, and its read-outs W − s_i S: both differ from the
    kernels' weights by a multiple of S. E = s_{K−1} (X S_W + S_b) and (s_{K−1} − s_i) (Q S_W + S_b), ``[R, K, H, D]`` by slots, centred.
    """
    slot = torch.arange(scale.shape[0], device=scale.device)
    place = slot - layout.phase[:, None]
    inside = (place >= 0) & (place < layout.lengths(scale)[:, None])
    index = torch.where(inside, layout.starts(scale)[:, None] + place, 0)
    S_W, S_b = (S - S.mean(-1, keepdim=True) for S in grads)

    def read(x: Tensor) -> Tensor:
        rows = torch.where(inside[..., None, None], x[index].float(), 0.0) if len(x) else S_W.new_zeros((*index.shape, *x.shape[1:]))
        return (rows.transpose(1, 2) @ S_W + S_b).transpose(1, 2).contiguous()

    q, k = tokens[:2]
    offsets = [scale[-1] * read(k), (scale[-1] - scale)[:, None, None] * read(q)]
    return [W - scale[-1] * S for W, S in zip(weights, grads, strict=True)], offsets


def closed(weights: Tensors, grads: Tensors, stepped: Tensors, summed: Tensors, layout: Layout, size: int) -> tuple[Tensors, Tensors]:
    """The public state: where a sequence reaches no border, its weights are those it came with, and its sums are added to."""
    crossed = (layout.phase + layout.lengths(weights[0]) >= size)[:, None, None, None]
    W = [torch.where(crossed, new, old) for new, old in zip(stepped, weights, strict=True)]
    return W, [new + torch.where(crossed, 0.0, old) for new, old in zip(summed, grads, strict=True)]
