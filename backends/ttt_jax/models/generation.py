"""Generation, greedy or sampled: the prompt in one call or in pieces, then a compiled loop over tokens with a cache of constant size."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from tttcore import InvalidInput

from ..backend import concrete, widened

if TYPE_CHECKING:
    from .causal_lm import TTTForCausalLM
    from .modeling import Cache


def generate(
    self: TTTForCausalLM,
    input_ids: jax.Array,
    attention_mask: jax.Array | None = None,
    *,
    max_new_tokens: int,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    prefill_chunk_size: int | None = None,
) -> jax.Array:
    """The prompts ``[B, T]`` and ``max_new_tokens`` more, ``[B, T + max_new_tokens]``.

    Without a ``key`` the likeliest token comes next; with one it is drawn from softmax(logits / ``temperature``), of the ``top_k`` likeliest only (0:
    of all). Behind an ``eos_token_id`` of the spec a row is padding: ``pad_token_id``, or the end token where there is none. attention_mask
    ``[B, T]``: padding is on the left. ``prefill_chunk_size``: the prompt is read in pieces of so many tokens.
    """
    tokens = jnp.asarray(input_ids)
    mask = None if attention_mask is None else jnp.asarray(attention_mask)
    _check(tokens, mask, max_new_tokens, key, temperature, top_k, prefill_chunk_size)
    end = self.spec.eos_token_id
    ends = () if end is None else (end,) if isinstance(end, int) else tuple(end)
    padding = self.spec.pad_token_id if self.spec.pad_token_id is not None else ends[0] if ends else 0
    graph, params = nnx.split(self)
    with widened(params):
        cache, logits, size = None, None, prefill_chunk_size or tokens.shape[1]
        for start in range(0, tokens.shape[1], size):
            piece = slice(start, start + size)
            logits, cache = _read(graph, params, tokens[:, piece], None if mask is None else mask[:, piece], cache)
        new = _continue(graph, params, logits, cache, key, temperature, count=max_new_tokens, top_k=top_k, ends=ends, padding=padding)
        return jnp.concatenate([tokens, new.astype(tokens.dtype)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _read(graph: Any, params: Any, tokens: jax.Array, mask: jax.Array | None, cache: Cache | None) -> tuple[jax.Array, Cache]:
    """The logits of the last column ``[B, V]`` and the cache after it."""
    out = nnx.merge(graph, params)(tokens, mask, cache, logits_to_keep=1)
    return out.logits[:, 0], out.cache


@functools.partial(jax.jit, static_argnums=0, static_argnames=("count", "top_k", "ends", "padding"))
def _continue(
    graph: Any,
    params: Any,
    logits: jax.Array,
    cache: Cache,
    key: jax.Array | None,
    temperature: float,
    *,
    count: int,
    top_k: int,
    ends: tuple[int, ...],
    padding: int,
) -> jax.Array:
    """``count`` tokens ``[B, count]`` behind those logits; the loop ends early when every row has met an end token."""
    model = nnx.merge(graph, params)

    def choose(logits: jax.Array, number: jax.Array | int) -> jax.Array:
        if key is None:
            return jnp.argmax(logits, axis=-1)
        if top_k:
            least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        return jax.random.categorical(jax.random.fold_in(key, number), logits / temperature)

    def going(carry: Any) -> jax.Array:
        number, _, done, _ = carry
        return (number < count) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        number, tokens, done, cache = carry
        last = jax.lax.dynamic_slice_in_dim(tokens, number - 1, 1, axis=1)
        out = model(last, cache=cache)
        token = jnp.where(done, padding, choose(out.logits[:, 0], number)).astype(tokens.dtype)
        return number + 1, tokens.at[:, number].set(token), done | jnp.isin(token, ending), out.cache

    first, ending = choose(logits, 0).astype(jnp.int32), jnp.asarray(ends, jnp.int32)
    tokens = jnp.full((logits.shape[0], count), padding, jnp.int32).at[:, 0].set(first)
    return jax.lax.while_loop(going, step, (jnp.int32(1), tokens, jnp.isin(first, ending), cache))[1]


def _check(tokens: jax.Array, mask: jax.Array | None, count: int, key: jax.Array | None, temperature: float, top_k: int, chunk: int | None) -> None:
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise InvalidInput("input_ids", got=tokens.shape, expected="[B, T] with T ≥ 1", fix="start with a token, as bos_token_id")
    for name, value, least in (("max_new_tokens", count, 1), ("top_k", top_k, 0), ("prefill_chunk_size", 1 if chunk is None else chunk, 1)):
        if value < least:
            raise InvalidInput(name, got=value, expected=f"{least} or more", fix=f"pass {name}={least} or more")
    if not temperature > 0:
        raise InvalidInput("temperature", got=temperature, expected="a positive number", fix="leave out the key for the likeliest tokens")
    if key is None and (temperature != 1 or top_k):
        got = f"temperature={temperature}, top_k={top_k} and no key"
        raise InvalidInput("sampling", got=got, expected="a key to sample with", fix="pass key=jax.random.key(0)")
    if mask is not None and mask.shape != tokens.shape:
        raise InvalidInput("shape of attention_mask", got=mask.shape, expected=tokens.shape, fix="pass the tokenizer's mask, one row each")
    if mask is not None and concrete(mask) and not bool(mask[:, -1].all()):
        raise InvalidInput("attention_mask", got="a prompt that ends with padding", expected="padding on the left", fix="pad on the left")
