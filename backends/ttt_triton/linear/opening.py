"""A state at any phase: what the kernels, which begin at borders, are given of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = list[Tensor]


def opened(
    weights: Sequence[Tensor], grads: Sequence[Tensor], tokens: Sequence[Tensor], scale: Tensor, start: Tensor, length: Tensor, phase: Tensor
) -> tuple[Tensors, Tensors]:
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

    def read(x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        W, b = (part - part.mean(-1, keepdim=True) for part in maps)
        return x @ W + b

    q, k = (rows(x) for x in tokens[:2])
    opening = read(k, weights), read(q, weights) - scale[:, None] * read(q, grads)
    return [(W - scale[-1] * S).contiguous() for W, S in zip(weights, grads, strict=True)], [z.transpose(1, 2).contiguous() for z in opening]
