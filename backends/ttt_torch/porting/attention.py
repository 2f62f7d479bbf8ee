"""A Hugging Face self-attention module with the inner loop of a TTT layer in place of softmax."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from tttcore import LayerSpec, Stack, State, get_backend
from tttcore.arrays import cast, compute_dtype, where_valid
from tttcore.initial import draw
from tttcore.inner_model import ACTIVATIONS, layer_norm

from .cache import TTTCacheLayer
from .masks import refuse_packed, token_mask

InnerLoop = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""q, k, v ``[B, T, H, D]`` → ``[B, T, H, D]``."""


def through_inner_loop(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None, *, inner_loop: InnerLoop, **_: Any
) -> tuple[torch.Tensor, None]:
    """The attention function "ttt" of transformers: query ``[B, H, T, D]``, key and value, whose fewer heads are repeated, → ``[B, T, H, D]``."""
    repeats = query.shape[1] // key.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)))
    return inner_loop(q, k, v), None


AttentionInterface.register("ttt", through_inner_loop)


def extra_shapes(spec: LayerSpec, width: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of what a TTT layer learns beside its views and o, for x of that width."""
    shapes = {**spec.inner_shapes(), "lr_weight": (width, spec.heads), "lr_bias": (spec.heads,)}
    shapes |= {"out_norm_weight": (spec.width,), "out_norm_bias": (spec.width,)}
    return shapes | ({"g_proj": (width, spec.width)} if spec.gate else {})


class TTTAttention(nn.Module):
    """o(LN(inner loop of q, k, v) [⊙ gelu(xΘ_G)]) with the views q, k, v and the output o of ``attention``, whose own code computes them.

    So biases, norms of q and k, fused projections, heads shared by several queries and RoPE are the model's. Only where a token stands is another
    number: its place in the mini-batch, as in every TTT layer, so token t has the q and k that ``attention`` gives it at position t mod K. The
    parameters beside those of ``attention`` are a TTT layer's, under the names of ``LayerSpec.param_shapes``; x has C channels, the spec H·D.
    The spec's read-out is causal for a decoder, whole for an encoder. ``rotary`` makes the angles of RoPE, if any.
    """

    def __init__(self, attention: Any, rotary: nn.Module | None, spec: LayerSpec, *, kernel: str = "torch") -> None:
        super().__init__()
        self.spec, self.kernel = spec, kernel
        self._backend = get_backend(kernel)
        self.attention, self.rotary = attention, rotary
        attention.config = copy.copy(attention.config)  # the model's own stays as it is for layers that are not ported
        attention.config._attn_implementation = "ttt"
        like = next(attention.parameters())
        for name, shape in extra_shapes(spec, attention.config.hidden_size).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=like.device, dtype=like.dtype)))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw what is not attention's as ``tttcore.init`` does, governed by ``torch.manual_seed``, but for two.

        The norm of the output gives each channel the size that v has there for white input, so that o meets numbers as large as attention's. A bare
        linear model starts at W = 0, where it is linear attention (theorem 1).
        """
        own = dict(self.named_parameters(recurse=False))
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), device="cpu").item()))
        for name, x in own.items():
            x.copy_(torch.from_numpy(draw(rng, name, tuple(x.shape))))
        if self.spec.inner_model == Stack(bias=False, residual_norm=False):
            own["W1"].zero_()
        white = torch.from_numpy(rng.standard_normal((1, 256, own["lr_weight"].shape[0]))).to(own["lr_weight"])
        _, _, v = self.views(white, torch.zeros(1, 256, dtype=torch.long, device=white.device))
        own["out_norm_weight"].copy_(v.flatten(2).std((0, 1)))

    def views(self, x: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k, v ``[B, T, H, D]`` of x ``[B, T, C]``, as the inner loop gets them at position ``[B, T]``."""
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

        def keep(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            found.append((q, k, v))
            return q

        self._through_attention(x, position, keep)
        return found[0]

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """y ``[B, T, C]`` of x (hidden_states) ``[B, T, C]``, and None for the attention weights that there are not.

        Of the mask it reads which tokens count; positions are counted here, in tokens that count. The state goes on from ``past_key_values`` and is
        left there. Raises ``InvalidInput`` for packed sequences, for a cache that is another model's, and where the read-out is whole for one that
        ends within a mini-batch.
        """
        x, mask = hidden_states, token_mask(attention_mask, hidden_states)
        refuse_packed(position_ids, mask)
        memory = None
        if past_key_values is not None:
            cache: Any = getattr(past_key_values, "self_attention_cache", past_key_values)
            memory = TTTCacheLayer.of(cache, self.attention.layer_idx)
        state = None if memory is None else memory.state
        params = dict(self.named_parameters(recurse=False))
        inner_params = {name: params[name] for name in self.spec.inner_shapes()}
        lr = self.spec.update_rule.gate(self.spec, params, x if mask is None else where_valid(mask, x))  # attention may leave NaN in padding

        def inner_loop(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            form = "decode" if x.shape[1] == 1 and self.spec.read_out == "causal" and not torch.is_grad_enabled() else "dual"
            y, end = self._backend.inner(self.spec, inner_params, q, k, v, lr, state=state, form=form, mask=mask)
            if memory is not None:
                memory.advance(end, x.shape[1])
            return self._output(x, y)

        return self._through_attention(x, self._position(x, mask, state), inner_loop), None

    def extra_repr(self) -> str:
        """The spec and the kernel."""
        return f"{self.spec}, kernel={self.kernel!r}"

    def _position(self, x: torch.Tensor, mask: torch.Tensor | None, state: State | None) -> torch.Tensor:
        """The place of each token in its mini-batch, ``[B, T]``; what is masked does not count."""
        every = torch.ones(x.shape[:2], dtype=torch.long, device=x.device) if mask is None else mask.long()
        started = 0 if state is None else state.phase[:, None]
        return (started + every.cumsum(1) - every) % self.spec.mini_batch_size

    def _through_attention(self, x: torch.Tensor, position: torch.Tensor, inner_loop: InnerLoop) -> torch.Tensor:
        """The module's own forward with our function in place of softmax; caches and masks are ours, so it gets none."""
        angles = {} if self.rotary is None else {"position_embeddings": self.rotary(x, position)}
        return self.attention(x, attention_mask=None, inner_loop=inner_loop, **angles)[0]

    def _output(self, x: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """LN over the joined heads and the gate, in x's dtype; the LayerNorm in float32 at the least."""
        joined = heads.flatten(2)
        dtype = compute_dtype(joined, self.out_norm_weight)
        normed = layer_norm(cast(joined, dtype), cast(self.out_norm_weight, dtype), cast(self.out_norm_bias, dtype), self.spec.eps)
        normed = cast(normed, x.dtype)
        if self.spec.gate:
            normed = normed * ACTIVATIONS["gelu"](x @ self.get_parameter("g_proj"))
        return normed.view(heads.shape)
