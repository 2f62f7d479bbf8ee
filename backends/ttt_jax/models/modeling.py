"""The model without a head: embedding, blocks and norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tttcore import InvalidInput, ModelSpec
from tttcore.language_model import Memory

from ..backend import concrete, widened
from .block import Block
from .modules import Embedding, RMSNorm

Cache = tuple[Memory, ...]
"""What a model remembers: the memory of each block, of a size that does not grow with the tokens read. A value, so that to keep it is to copy it."""


class ModelOutput(NamedTuple):
    """Hidden states ``[B, T, C]`` behind the last norm, the cache after them, and if asked for those ahead of each block and behind the norm."""

    last_hidden_state: jax.Array
    cache: Cache
    hidden_states: tuple[jax.Array, ...] | None


class TTTModel(nnx.Module):
    """Token embedding, ``num_hidden_layers`` blocks, RMSNorm.

    ``remat``: blocks are computed again in the backward pass, which then keeps their inputs alone.
    """

    def __init__(self, spec: ModelSpec, *, remat: bool = False, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        self.spec, self.remat = spec, remat
        self.embed_tokens = Embedding(spec, param_dtype=param_dtype, rngs=rngs)
        self.layers = nnx.List([Block(spec, param_dtype=param_dtype, rngs=rngs) for _ in range(spec.num_hidden_layers)])
        self.norm = RMSNorm(spec, param_dtype=param_dtype)

    def __call__(
        self,
        input_ids: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        cache: Cache | None = None,
        inputs_embeds: jax.Array | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """Read ``input_ids [B, T]`` int or ``inputs_embeds [B, T, C]``; with a cache the sequence goes on from there, at any token.

        attention_mask ``[B, ≥ T]``: nonzero where a token counts; of a longer one the last T columns. Raises ``InvalidInput`` for shapes that do not
        fit, and outside of ``jax.jit`` for tokens that are not in the vocabulary.
        """
        if (input_ids is None) == (inputs_embeds is None):
            got = "neither" if input_ids is None else "both"
            raise InvalidInput("input_ids and inputs_embeds", got=got, expected="one of them", fix="pass input_ids or inputs_embeds")
        if cache is not None and (not isinstance(cache, tuple) or len(cache) != len(self.layers)):
            got, expected = type(cache).__name__ if not isinstance(cache, tuple) else len(cache), f"a tuple of {len(self.layers)} memories"
            raise InvalidInput("cache", got=got, expected=expected, fix="pass what a call of this model returned as cache")
        with widened(self.norm.weight[...], inputs_embeds):
            x = self.embed_tokens(self._tokens(input_ids)) if inputs_embeds is None else inputs_embeds
            mask = _token_mask(attention_mask, x)
            run = _again if self.remat else Block.__call__
            hidden_states, memories = [x], []
            for block, memory in zip(self.layers, cache or [Memory()] * len(self.layers), strict=True):
                x, memory = run(block, x, mask, memory)
                hidden_states.append(x)
                memories.append(memory)
            x = self.norm(x)
        return ModelOutput(x, tuple(memories), (*hidden_states[:-1], x) if output_hidden_states else None)

    def _tokens(self, input_ids: jax.Array | None) -> jax.Array:
        tokens, size = jnp.asarray(input_ids), self.spec.vocab_size
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise InvalidInput("input_ids", got=f"{tokens.dtype}{tokens.shape}", expected="integers [B, T]", fix="pass token ids, one row each")
        if concrete(tokens) and tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= size):
            got = f"tokens from {int(tokens.min())} to {int(tokens.max())}"
            raise InvalidInput("input_ids", got=got, expected=f"0 … {size - 1}", fix="use the tokenizer that belongs to the model")
        return tokens


def _again(block: Block, x: jax.Array, mask: jax.Array | None, memory: Memory) -> tuple[jax.Array, Memory]:
    """The block, computed again in the backward pass. ``nnx.remat`` would write to the parameters, which a loop around the model forbids."""
    graph, params = nnx.split(block)
    return jax.checkpoint(lambda params, *given: nnx.merge(graph, params)(*given))(params, x, mask, memory)


def _token_mask(attention_mask: jax.Array | None, x: jax.Array) -> jax.Array | None:
    """``[B, T]`` bool; None where every token counts, which saves packing them."""
    if attention_mask is None:
        return None
    mask, (rows, tokens) = jnp.asarray(attention_mask), x.shape[:2]
    if mask.ndim != 2 or mask.shape[0] != rows or mask.shape[1] < tokens:
        expected = f"({rows}, {tokens}) or more columns for what was read before"
        raise InvalidInput("shape of attention_mask", got=mask.shape, expected=expected, fix="pass the tokenizer's mask, one row each")
    mask = mask[:, mask.shape[1] - tokens :] != 0
    return None if concrete(mask) and bool(mask.all()) else mask
