"""The first axis: the inner model, f(x; W) = x + LN(stack(x; W)) or the bare stack, the hidden state of the layer.

A stack is a chain of affine maps with elementwise functions between them. What differs between the primal, the dual and decoding is only
*which weights* an affine map uses, so ``forward`` takes the affine map as an argument and the chain is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..arrays import Array
from .activations import ACTIVATIONS, Activation
from .norm import layer_norm_and_vjp

Affine = Callable[[int, Array], Array]
"""(layer index, inputs ``[…, d_in]``) → pre-activations ``[…, d_out]``."""


@dataclass(frozen=True)
class Hidden:
    """One hidden layer: an affine map to ``expansion``·D columns (twice that for a gated function), then an activation by name."""

    expansion: int = 4
    activation: str = "gelu"


class Trace(NamedTuple):
    """What a forward pass leaves: layer l maps inputs[l] to outputs[l] before its activation."""

    inputs: list[Array]
    outputs: list[Array]


@dataclass(frozen=True)
class Stack:
    """f(x; W) = x + LN(z), z = h_L W_L + b_L, h_{l+1} = σ_l(h_l W_l + b_l), h_1 = x; LN has its own γ, β per head.

    ``Stack()`` is TTT-Linear; ``Stack((Hidden(4, "gelu"),))`` is TTT-MLP (paper, section 2.7); a deeper or a gated model is another tuple:
    ``Stack((Hidden(4, "swiglu"),))``. Without ``bias`` there is no b_L; without ``residual_norm`` f(x; W) = z, no γ and no β:
    ``Stack(bias=False, residual_norm=False)`` is f(x; W) = xW, the model of the paper's Theorem 1. Law: primal, dual and decode of the same
    stack agree.
    """

    hidden: tuple[Hidden, ...] = ()
    bias: bool = True
    residual_norm: bool = True

    @property
    def default_base_lr(self) -> float:
        """η₀ where the spec names none: 1.0 for TTT-Linear, 0.1 for models with hidden layers (paper, section 2.7)."""
        return 0.1 if self.hidden else 1.0

    @property
    def activations(self) -> list[Activation]:
        """σ of each hidden layer."""
        return [ACTIVATIONS[layer.activation] for layer in self.hidden]

    def weight_shapes(self, heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        """The trained weights W (the state): ``W1 [H, D, E]``, ``b1 [H, 1, E]``, ``W2 [H, E, D]`` and so on."""
        shapes: dict[str, tuple[int, ...]] = {}
        d_in = head_dim
        for index, layer in enumerate((*self.hidden, None), start=1):
            d_out = head_dim if layer is None else layer.expansion * head_dim * ACTIVATIONS[layer.activation].columns
            shapes |= {f"W{index}": (heads, d_in, d_out)} | ({f"b{index}": (heads, 1, d_out)} if self.bias else {})
            d_in = head_dim if layer is None else layer.expansion * head_dim
        return shapes

    def param_shapes(self, heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        """Every parameter of f: the initial weights, and γ, β, which the inner loop leaves alone."""
        norm = {"norm_weight": (heads, head_dim), "norm_bias": (heads, head_dim)} if self.residual_norm else {}
        return self.weight_shapes(heads, head_dim) | norm

    def layers(self, weights: Mapping[str, Array]) -> list[tuple[Array, Array]]:
        """[(W1, b1), (W2, b2), …] of a dict of weights; 0.0 for each b of a stack without."""
        return [(weights[f"W{i}"], weights[f"b{i}"] if self.bias else 0.0) for i in range(1, len(self.hidden) + 2)]

    def forward(self, x: Array, affine: Affine) -> Trace:
        """The chain of affine maps and activations on rows x ``[…, D]``."""
        inputs, outputs = [x], [affine(0, x)]
        for index, activation in enumerate(self.activations, start=1):
            inputs.append(activation(outputs[-1]))
            outputs.append(affine(index, inputs[-1]))
        return Trace(inputs, outputs)

    def backward(self, transposed: Affine, trace: Trace, z_bar: Array) -> list[Array]:
        """G_l = ∂L/∂outputs[l] for every layer, from the last one's z̄, by the chain rule; transposed(l, g) is gW_lᵀ."""
        gradients = [z_bar]
        for index in range(len(self.hidden) - 1, -1, -1):
            h_bar = transposed(index + 1, gradients[0])
            gradients.insert(0, self.activations[index].vjp(trace.outputs[index], h_bar))
        return gradients

    def output(self, params: Mapping[str, Array], x: Array, z: Array, eps: float) -> Array:
        """f = x + LN(z) (or z) from the stack's last output z; x, z ``[B, H, rows, D]``."""
        return self.output_and_vjp(params, x, z, eps)[0]

    def output_and_vjp(self, params: Mapping[str, Array], x: Array, z: Array, eps: float) -> tuple[Array, Callable[[Array], Array]]:
        """f as above, and its pull-back f̄ → z̄; x does not depend on the weights and gets no cotangent."""
        if not self.residual_norm:
            return z, lambda f_bar: f_bar
        weight, bias = params["norm_weight"][:, None, :], params["norm_bias"][:, None, :]
        value, vjp = layer_norm_and_vjp(z, weight, bias, eps)
        return x + value, vjp


INNER_MODELS: dict[str, Stack] = {"linear": Stack(), "mlp": Stack((Hidden(4, "gelu"),))}
"""The names that ``LayerSpec(inner=…)`` takes besides a ``Stack``."""
