"""What TTT is: the self-supervised loss of the inner model before it reads a text, just before a token, and just after it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from ttt_torch import TTTLayer
from tttcore import LayerSpec, get_backend
from tttcore.forms import apply


class InnerLosses(NamedTuple):
    """ℓ of each token at three weights, ``[T]`` each, mean over sequences and heads.

    ``initial`` ℓ(W_0); ``before`` at the start of the token's mini-batch, where its gradient is taken; ``after`` ℓ(W_t), its own step included.
    """

    initial: np.ndarray
    before: np.ndarray
    after: np.ndarray


@torch.no_grad()
def inner_losses(layer: TTTLayer, x: torch.Tensor) -> InnerLosses:
    """ℓ(W; t) = loss(f(k_t; W), v_t) of a layer that reads x ``[B, T, C]`` (paper, section 2.1 and the figure on the inner loop's loss)."""
    spec, params = layer.spec, {name: value.float() for name, value in layer.named_parameters(recurse=False)}
    tokens = x.shape[1]
    x = functional.pad(x.float(), (0, 0, 0, -tokens % spec.mini_batch_size))
    _, k, v, _ = spec.views_rule.project(spec, params, x, torch.arange(x.shape[1], device=x.device)[None], None, None)
    lr = spec.update_rule.gate(spec, params, x)
    initial = apply(spec, params, params, k.transpose(1, 2)).transpose(1, 2)
    predictions = (initial, *_read_twice(spec, {name: params[name] for name in spec.inner_shapes()}, k, v, lr))
    return InnerLosses(*(spec.loss_function(y, v).mean((0, 2))[:tokens].cpu().numpy() for y in predictions))


def _read_twice(spec: LayerSpec, params: dict[str, torch.Tensor], k: torch.Tensor, v: torch.Tensor, lr: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """f(k_t; W) at the start of t's mini-batch, and f(k_t; W_t): read with k instead of q, the inner loop answers what it predicts.

    Both in one inner loop over mini-batches of 2K tokens: K that only read, since their ℓ is 0, then the same K as they are, at their own scale.
    """
    size, scale = spec.mini_batch_size, spec.update_rule.scale(spec, params)
    number = torch.arange(1, 2 * size + 1, device=k.device)
    offset = torch.cat([scale, scale]) * (spec.head_dim / spec.base_lr) - 1 / number
    double = replace(spec, mini_batch_size=2 * size)

    def both(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        rows = [part.unflatten(1, (-1, size)) for part in (first, second)]
        return torch.cat(rows, 2).flatten(1, 2)

    k, v, lr = both(k, k), both(v, v), both(torch.zeros_like(lr), lr)
    y, _ = get_backend("torch").inner(double, params | {"token_lr_offset": offset}, k, k, v, lr)
    halves = y.unflatten(1, (-1, 2, size))
    return halves[:, :, 0].flatten(1, 2), halves[:, :, 1].flatten(1, 2)
