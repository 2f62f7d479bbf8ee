"""What stands around the layers: embedding, linear maps, norm and feed-forward network, with PyTorch's names and layouts.

Flax has all of them, but calls a weight ``kernel``, ``scale`` or ``embedding`` and keeps a matrix as [in, out]: checkpoints would need a converter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tttcore import InvalidInput, ModelSpec
from tttcore.arrays import cast, compute_dtype

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
"""``hidden_act``, by transformers' names."""


class Linear(nnx.Module):
    """y = x Wᵀ, x ``[…, in]``, weight ``[out, in]``, normal with ``std``."""

    def __init__(self, inputs: int, outputs: int, std: float, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(std * jax.random.normal(rngs.params(), (outputs, inputs), param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``[…, in]`` → ``[…, out]``."""
        return x @ self.weight[...].T


class Embedding(nnx.Module):
    """Row ``token`` of weight ``[V, C]``, normal with ``std``; the row of padding starts at zero and learns nothing by being read."""

    def __init__(self, spec: ModelSpec, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        shape = (spec.vocab_size, spec.hidden_size)
        weight = spec.initializer_range * jax.random.normal(rngs.params(), shape, param_dtype)
        self.padding = spec.pad_token_id
        self.weight = nnx.Param(weight if self.padding is None else weight.at[self.padding].set(0))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """``[B, T]`` → ``[B, T, C]``."""
        x = self.weight[...][tokens]
        if self.padding is None:
            return x
        padding = tokens == self.padding % self.weight.shape[0]
        return jnp.where(padding[..., None], jax.lax.stop_gradient(x), x)


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · weight over the last axis, weight ``[C]``; computed in float32 at the least, in x's dtype."""

    def __init__(self, spec: ModelSpec, *, param_dtype: DTypeLike) -> None:
        self.eps = spec.rms_norm_eps
        self.weight = nnx.Param(jnp.ones(spec.hidden_size, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """``[…, C]`` → ``[…, C]``."""
        weight = self.weight[...]
        wide = cast(x, compute_dtype(x, weight))
        return cast(wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps) * weight, x.dtype)


class SwiGLU(nnx.Module):
    """down(act(gate x) ⊙ up x), x ``[B, T, C]``, with ``intermediate_size`` columns between and no biases; act is SiLU unless the spec differs."""

    def __init__(self, spec: ModelSpec, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        if spec.hidden_act not in ACTIVATIONS:
            raise InvalidInput("hidden_act", got=repr(spec.hidden_act), expected=f"one of {sorted(ACTIVATIONS)}", fix="use one of these names")
        width, inside, std = spec.hidden_size, spec.intermediate_size, spec.initializer_range
        self.gate_proj = Linear(width, inside, std, param_dtype=param_dtype, rngs=rngs)
        self.up_proj = Linear(width, inside, std, param_dtype=param_dtype, rngs=rngs)
        self.down_proj = Linear(inside, width, std, param_dtype=param_dtype, rngs=rngs)
        self.activation = spec.hidden_act

    def __call__(self, x: jax.Array) -> jax.Array:
        """``[B, T, C]`` → ``[B, T, C]``."""
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))
