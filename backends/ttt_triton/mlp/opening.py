"""A state at any phase: the mini-batch that each sequence goes on with is computed here, and the kernels begin at its border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tttcore import Hidden, LayerSpec, Stack
from tttcore.forms.dual import mini_batch

from ..layout import Layout

Tensors = list[Tensor]
NAMES = ("W1", "b1", "W2", "b2")


class Opening(NamedTuple):
    """What comes before the kernels: y ``[R, K, H, D]`` of the slots at ``place``, N where a slot is empty, and the state and layout after them."""

    y: Tensor
    place: Tensor
    weights: Tensors
    sums: Tensors
    layout: Layout


def opened(
    tokens: Sequence[Tensor], weights: Sequence[Tensor], sums: Sequence[Tensor], learned: Sequence[Tensor], layout: Layout, block: int, eps: float
) -> Opening:
    """The dual form of ``tttcore`` over the first K − phase tokens of each sequence, or as many as it has; later blocks have ``block`` tokens."""
    scale, gamma, beta = learned
    (count, heads, width), size = tokens[0].shape, scale.shape[0]
    start, length, phase = (x if x is not None else tokens[0].new_zeros(0) for x in (layout.start, layout.length, layout.phase))
    slot = torch.arange(size, device=scale.device) - phase[:, None]
    inside = (slot >= 0) & (slot < length[:, None])
    index = torch.where(inside, start[:, None] + slot, 0)

    def rows(x: Tensor) -> Tensor:
        found = x[index].float() if count else scale.new_zeros((*index.shape, *x.shape[1:]))
        return torch.where(inside.view(*inside.shape, *(1,) * (x.dim() - 1)), found, 0.0).transpose(1, 2)

    model = Stack((Hidden(weights[0].shape[-1] // width, "gelu"),))
    spec = LayerSpec(width=heads * width, heads=heads, inner=model, mini_batch_size=size, rope_theta=None, eps=eps)
    before: dict[str, Tensor] = dict(zip(NAMES, weights, strict=True))
    grads: dict[str, Tensor] = dict(zip(NAMES, sums, strict=True))
    params = {"norm_weight": gamma, "norm_bias": beta}
    y, after = mini_batch(spec, params, scale, before, grads, *(rows(x) for x in tokens))

    # Where a sequence reaches no border, its weights are those it came with, and its sums are added to.
    taken = torch.minimum(length, size - phase)
    crossed = (phase + taken >= size)[:, None, None, None]
    weights = [torch.where(crossed, before[name] - scale[-1] * after[name], before[name]) for name in NAMES]
    sums = [torch.where(crossed, 0.0, after[name]) for name in NAMES]
    rest = Layout.ragged(size, block, count, start + taken, length - taken, None)
    return Opening(y.transpose(1, 2), torch.where(inside, index, count), weights, sums, rest)
