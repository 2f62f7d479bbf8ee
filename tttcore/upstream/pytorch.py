"""ttt-lm-pytorch: one layer's ``state_dict`` names and config keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..keywords import refuse_unknown
from ..spec import LayerSpec
from .layouts import COLUMN, SAME, TRANSPOSED, TRANSPOSED_MIDDLE, Names, complete, setting, to_ours, to_theirs

NAMES: Names = {
    "W1": ("W1", SAME),
    "b1": ("b1", SAME),
    "W2": ("W2", SAME),
    "b2": ("b2", SAME),
    "norm_weight": ("ttt_norm_weight", SAME),
    "norm_bias": ("ttt_norm_bias", SAME),
    "token_lr_offset": ("learnable_token_idx", SAME),
    "lr_weight": ("learnable_ttt_lr_weight", TRANSPOSED_MIDDLE),
    "lr_bias": ("learnable_ttt_lr_bias", COLUMN),
    "q_proj": ("q_proj.weight", TRANSPOSED),
    "k_proj": ("k_proj.weight", TRANSPOSED),
    "v_proj": ("v_proj.weight", TRANSPOSED),
    "o_proj": ("o_proj.weight", TRANSPOSED),
    "g_proj": ("g_proj.weight", TRANSPOSED),
    "conv_q_weight": ("conv_q.weight", TRANSPOSED_MIDDLE),
    "conv_q_bias": ("conv_q.bias", SAME),
    "conv_k_weight": ("conv_k.weight", TRANSPOSED_MIDDLE),
    "conv_k_bias": ("conv_k.bias", SAME),
    "out_norm_weight": ("post_norm.weight", SAME),
    "out_norm_bias": ("post_norm.bias", SAME),
}


def layer_spec(config: Any) -> LayerSpec:
    """The spec of the layers of a ttt-lm-pytorch model, from its ``TTTConfig`` or that as a dict.

    Keys read: hidden_size, num_attention_heads, mini_batch_size, ttt_base_lr, ttt_layer_type, share_qk, use_gate, conv_kernel, rope_theta.
    """
    return LayerSpec(
        width=setting(config, "hidden_size"),
        heads=setting(config, "num_attention_heads"),
        inner=setting(config, "ttt_layer_type", "linear"),
        mini_batch_size=setting(config, "mini_batch_size", 16),
        base_lr=setting(config, "ttt_base_lr", 1.0),
        share_qk=setting(config, "share_qk", False),
        gate=setting(config, "use_gate", False),
        conv_width=setting(config, "conv_kernel", 4),
        rope_theta=setting(config, "rope_theta", 10000.0),
    )


def from_pytorch(state_dict: Mapping[str, Any], config: Any) -> tuple[LayerSpec, dict[str, np.ndarray]]:
    """The spec and parameters of one ttt-lm-pytorch layer (``TTTLinear``, ``TTTMLP``), arrays exact and in their dtype.

    ``config`` is its ``TTTConfig`` or that as a dict, as for ``layer_spec``. A state dict without any projection is taken for the inner loop's alone.
    Raises ``InvalidInput`` when names or shapes do not fit the config. Law: ``to_pytorch(*from_pytorch(d, config)) == d``.
    """
    spec = layer_spec(config)
    params = to_ours(NAMES, state_dict)
    inner_alone = not any(name in params for name in spec.views_rule.param_shapes(spec))
    shapes = spec.param_shapes()
    if inner_alone:
        gate = spec.update_rule.layer_shapes(spec)
        shapes = spec.inner_shapes() | {name: shape for name, shape in gate.items() if name in params}
    complete(params, shapes, NAMES)
    return spec, {name: params[name] for name in shapes}


def to_pytorch(spec: LayerSpec, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our arrays, parameters or gradients, under ttt-lm-pytorch's names and in its layouts; exact."""
    refuse_unknown("params", params, spec.param_shapes())
    return to_theirs(NAMES, params)
