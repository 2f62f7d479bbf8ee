"""Axis 3, the views: what a token trains on (k), is compared with (v) and is read with (q), and what becomes of the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..arrays import Array, cast, compute_dtype, namespace, widest_dtype
from ..inner_model import ACTIVATIONS, layer_norm
from .convolution import convolve
from .rope import rotate

if TYPE_CHECKING:
    from ..spec import LayerSpec

Params = Mapping[str, Array]


class Projected(NamedTuple):
    """q, k, v ``[B, T, H, D]`` and the convolutions' state ``[B, conv_width − 1, C]`` after the sequence (None without convolutions)."""

    q: Array
    k: Array
    v: Array
    conv: Array | None


class Views(Protocol):
    """How the layer's input becomes views, and the inner loop's outputs the layer's output."""

    def param_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """The parameters of both."""
        ...

    def project(self, spec: LayerSpec, params: Params, x: Array, position: Array, conv: Array | None, length: Array | None) -> Projected:
        """x ``[B, T, C]``, position ``[B, T]``; ``length [B]`` tokens count in each row (None: all)."""
        ...

    def output(self, spec: LayerSpec, params: Params, x: Array, heads: Array) -> Array:
        """heads ``[B, T, H, D]`` → y ``[B, T, C]``."""
        ...


@dataclass(frozen=True)
class Projections:
    """Linear views without biases (paper, section 2.3), rotated by RoPE; LayerNorm, optional gate and projection on the way out.

    q = xΘ_Q, k = xΘ_K, v = xΘ_V. With ``share_qk``, u = xΘ_Q, q = conv_q(u), k = conv_k(u).
    Output: (LN(concat heads) [⊙ gelu(xΘ_G)]) Θ_O, LN over C with its own affine parameters (``out_norm_*``).
    """

    def param_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """``*_proj [C, C]`` stored as [in, out]; ``conv_*_weight [width, C]``, ``conv_*_bias [C]``; ``out_norm_* [C]``."""
        square, row = (spec.width, spec.width), (spec.width,)
        shapes = {"q_proj": square, "v_proj": square, "o_proj": square, "out_norm_weight": row, "out_norm_bias": row}
        if spec.share_qk:
            taps = (spec.conv_width, spec.width)
            shapes |= {"conv_q_weight": taps, "conv_q_bias": row, "conv_k_weight": taps, "conv_k_bias": row}
        else:
            shapes |= {"k_proj": square}
        return shapes | ({"g_proj": square} if spec.gate else {})

    def project(self, spec: LayerSpec, params: Params, x: Array, position: Array, conv: Array | None, length: Array | None) -> Projected:
        """q, k, v and the new convolution state."""
        q, v = _matmul(x, params["q_proj"]), _matmul(x, params["v_proj"])
        if spec.share_qk:
            filters = [(params[f"conv_{view}_weight"], params[f"conv_{view}_bias"]) for view in ("q", "k")]
            (q, k), conv = convolve(q, filters, conv, length)
        else:
            k, conv = _matmul(x, params["k_proj"]), None
        q, k, v = (namespace(x).reshape(view, (*view.shape[:2], spec.heads, spec.head_dim)) for view in (q, k, v))
        if spec.rope_theta is not None:
            q, k = (rotate(view, position, spec.mini_batch_size, spec.rope_theta) for view in (q, k))
        return Projected(q, k, v, conv)

    def output(self, spec: LayerSpec, params: Params, x: Array, heads: Array) -> Array:
        """y, in x's dtype; the LayerNorm in float32 at the least."""
        joined = namespace(x).reshape(heads, (*heads.shape[:2], spec.width))
        dtype = compute_dtype(joined, params["out_norm_weight"])
        weight, bias = (cast(params[name], dtype) for name in ("out_norm_weight", "out_norm_bias"))
        normed = cast(layer_norm(cast(joined, dtype), weight, bias, spec.eps), joined.dtype)
        if spec.gate:
            normed = normed * ACTIVATIONS["gelu"](_matmul(x, params["g_proj"]))
        return _matmul(normed, params["o_proj"])


VIEWS: dict[str, Views] = {"projections": Projections()}
"""The names that ``LayerSpec(views=…)`` takes besides a ``Views`` object."""


def _matmul(x: Array, weight: Array) -> Array:
    """xΘ in the wider dtype of the two."""
    dtype = widest_dtype(x, weight)
    return cast(x, dtype) @ cast(weight, dtype)
