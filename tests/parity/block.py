"""The residual block around a layer, in array-API operations, as ttt-lm-pytorch builds it and under its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tttcore.arrays import namespace, sigmoid
from tttcore.views.convolution import causal_convolution


def block(mix: Callable[[Any], Any], params: Mapping[str, Any], x: Any) -> Any:
    """x += conv(norm x) where there is a pre-convolution; x += mix(norm x); x += SwiGLU(norm x)."""
    xp = namespace(x)
    if "conv.conv.weight" in params:
        weight = params["conv.conv.weight"][:, 0, :].T
        normed = rms_norm(x, params["conv.norm.weight"])
        past = xp.zeros_like(xp.broadcast_to(normed[:, :1], (x.shape[0], weight.shape[0] - 1, x.shape[2])))
        x = x + causal_convolution(xp.concat([past, normed], axis=1), weight, params["conv.conv.bias"])
    x = x + mix(rms_norm(x, params["seq_norm.weight"]))
    z = rms_norm(x, params["ffn_norm.weight"])
    gate = z @ params["mlp.gate_proj.weight"].T
    return x + (gate * sigmoid(gate) * (z @ params["mlp.up_proj.weight"].T)) @ params["mlp.down_proj.weight"].T


def rms_norm(x: Any, weight: Any) -> Any:
    """x / √(mean x² + 1e-6) · weight."""
    xp = namespace(x)
    return weight * x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) / x.shape[-1] + 1e-6)
