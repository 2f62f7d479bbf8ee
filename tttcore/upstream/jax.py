"""ttt-lm-jax: one layer's parameter paths and config keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ..keywords import refuse_unknown
from ..spec import LayerSpec
from .layouts import COLUMN, MIDDLE, SAME, TRANSPOSED_LAST, Names, complete, setting, to_ours, to_theirs

NAMES: Names = {
    "W1": ("ttt_dense_0", SAME),
    "b1": ("ttt_bias_0", SAME),
    "W2": ("ttt_dense_1", SAME),
    "b2": ("ttt_bias_1", SAME),
    "norm_weight": ("ttt_norm/scale", SAME),
    "norm_bias": ("ttt_norm/bias", SAME),
    "token_lr_offset": ("learnable_token_idx", SAME),
    "lr_weight": ("learnable_ttt_lr/kernel", TRANSPOSED_LAST),
    "lr_bias": ("learnable_ttt_lr/bias", COLUMN),
    "q_proj": ("wq/kernel", SAME),
    "k_proj": ("wk/kernel", SAME),
    "v_proj": ("wv/kernel", SAME),
    "o_proj": ("wo/kernel", SAME),
    "g_proj": ("wg/kernel", SAME),
    "conv_q_weight": ("conv_q/kernel", MIDDLE),
    "conv_q_bias": ("conv_q/bias", SAME),
    "conv_k_weight": ("conv_k/kernel", MIDDLE),
    "conv_k_bias": ("conv_k/bias", SAME),
    "out_norm_weight": ("post_norm/scale", SAME),
    "out_norm_bias": ("post_norm/bias", SAME),
}


def from_jax(params: Mapping[str, Any], config: Any) -> tuple[LayerSpec, dict[str, np.ndarray]]:
    """The spec and parameters of one ttt-lm-jax layer (``TTTLinear``, ``TTTMLP`` and their ``…Base``), arrays exact and in their dtype.

    ``params`` has paths joined by "/" (``wq/kernel``, ``ttt_dense_0``) or nested dicts. Its config does not tell the variant, so the names do:
    ``ttt_dense_1`` makes it an MLP, no ``wk`` shares Q/K, ``wg`` gates. Config keys read: hidden_size, num_attention_heads, mini_batch_size,
    ttt_base_lr, conv_width, rope_theta. Raises ``InvalidInput`` when names or shapes do not fit.
    """
    arrays = flat(params)
    spec = LayerSpec(
        width=setting(config, "hidden_size"),
        heads=setting(config, "num_attention_heads"),
        inner="mlp" if "ttt_dense_1" in arrays else "linear",
        mini_batch_size=setting(config, "mini_batch_size", 16),
        base_lr=setting(config, "ttt_base_lr", 1.0),
        share_qk="wk/kernel" not in arrays,
        gate="wg/kernel" in arrays,
        conv_width=setting(config, "conv_width", 4),
        rope_theta=setting(config, "rope_theta", 10000.0),
    )
    ours = to_ours(NAMES, arrays)
    complete(ours, spec.param_shapes(), NAMES)
    return spec, {name: ours[name] for name in spec.param_shapes()}


def to_jax(spec: LayerSpec, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our arrays, parameters or gradients, under ttt-lm-jax's paths joined by "/" and in its layouts; exact."""
    refuse_unknown("params", params, spec.param_shapes())
    return to_theirs(NAMES, params)


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as paths joined by "/"; a key may be a path or a tuple already."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + ("/".join(map(str, cast("tuple[Any, ...]", key))) if isinstance(key, tuple) else str(key))
        found |= flat(cast("Mapping[Any, Any]", value), f"{name}/") if isinstance(value, Mapping) else {name: value}
    return found
