"""A residual block around the TTT layer: the Transformer backbone, and with a convolution ahead of the layer the Mamba backbone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from tttcore import ModelSpec
from tttcore.initial import STANDARD_DEVIATION
from tttcore.language_model import Memory
from tttcore.sequence import Rows
from tttcore.views.convolution import convolve

from ..layer import TTTLayer
from .modules import RMSNorm, SwiGLU


class PreConvolution(nnx.Module):
    """conv(RMSNorm x), causal and depthwise with ``conv_kernel`` taps; weight ``[width, C]``, oldest tap first, bias ``[C]``."""

    def __init__(self, spec: ModelSpec, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        shape, bound = (spec.conv_kernel, spec.hidden_size), spec.conv_kernel**-0.5
        self.norm = RMSNorm(spec, param_dtype=param_dtype)
        self.weight = nnx.Param(jax.random.uniform(rngs.params(), shape, param_dtype, -bound, bound))
        self.bias = nnx.Param(jnp.zeros(spec.hidden_size, param_dtype))

    def __call__(self, x: jax.Array, mask: jax.Array | None, past: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """y ``[B, T, C]`` and the last inputs that count; masked tokens are packed away first, as in the layer."""
        rows = None if mask is None else Rows.of_mask(mask)
        u = self.norm(x if rows is None else rows.gather(x))
        (y,), kept = convolve(u, [(self.weight[...], self.bias[...])], past, None if rows is None else rows.length)
        return y if rows is None else rows.scatter(y), kept


class Block(nnx.Module):
    """x + conv(RMSNorm x) with ``pre_conv``; x + layer(RMSNorm x); x + SwiGLU(RMSNorm x). Modules have the authors' names."""

    def __init__(self, spec: ModelSpec, *, param_dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.conv = PreConvolution(spec, param_dtype=param_dtype, rngs=rngs) if spec.pre_conv else None
        self.seq_norm = RMSNorm(spec, param_dtype=param_dtype)
        self.seq_modeling_block = TTTLayer(spec.layer_spec, param_dtype=param_dtype, rngs=rngs)
        for name in spec.layer_spec.param_shapes():
            if name.endswith("_proj"):
                param = getattr(self.seq_modeling_block, name)
                param[...] = param[...] * (spec.initializer_range / STANDARD_DEVIATION)
        self.ffn_norm = RMSNorm(spec, param_dtype=param_dtype)
        self.mlp = SwiGLU(spec, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None, memory: Memory) -> tuple[jax.Array, Memory]:
        """``[B, T, C]`` → ``[B, T, C]`` and the memory after it; mask ``[B, T]`` bool, True where a token counts (None: everywhere)."""
        past = memory.conv
        if self.conv is not None:
            y, past = self.conv(x, mask, past)
            x = x + y
        y, state = self.seq_modeling_block(self.seq_norm(x), memory.state, mask, form="decode" if x.shape[1] == 1 else "dual")
        x = x + y
        return x + self.mlp(self.ffn_norm(x)), Memory(state, past)
