"""What TTT is: the self-supervised loss of the inner model before it reads a text, just before a token, and just after it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ttt_torch import TTTLayer
from tttcore import LayerSpec, get_backend
from tttcore.arrays import arange
from tttcore.forms import maps
from tttcore.state import initial_state


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
    x = x.float()
    positions = arange(x.shape[1], x)[None, :]
    _, k, v, _ = spec.views_rule.project(spec, params, x, positions, None, None)
    lr = spec.update_rule.gate(spec, params, x)
    inner = {name: params[name] for name in spec.inner_shapes()}
    start = state = initial_state(spec, inner, x.shape[0], k.dtype)
    losses: list[list[torch.Tensor]] = [[], [], []]
    for own in torch.arange(x.shape[1], device=x.device).split(spec.mini_batch_size):
        keys, labels, gates = k[:, own], v[:, own], lr[:, own]
        predictions = [_predict(spec, inner, weights, keys) for weights in (start.weights, state.weights)]
        # Read with k instead of q, the inner loop answers f(k_t; W_t).
        last, state = get_backend("torch").inner(spec, inner, keys, keys, labels, gates, state=state)
        for found, prediction in zip(losses, (*predictions, last), strict=True):
            found.append(spec.loss_function(prediction, labels).mean((0, 2)))
    return InnerLosses(*(torch.cat(found).cpu().numpy() for found in losses))


def _predict(spec: LayerSpec, params: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], k: torch.Tensor) -> torch.Tensor:
    """f(k; W) ``[B, K, H, D]`` of one W ``[B, H, …]`` for all tokens."""
    keys = k.transpose(1, 2)
    outputs = spec.inner_model.forward(keys, maps(spec, weights)[0]).outputs
    return spec.inner_model.output(params, keys, outputs[-1], spec.eps).transpose(1, 2)
