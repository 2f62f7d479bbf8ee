"""Axis 4, the update: mini-batch gradient descent with learned step sizes (paper, sections 2.4 and 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .arrays import Array, arange, cast, compute_dtype, real, relu, sigmoid

if TYPE_CHECKING:
    from .spec import LayerSpec

READ_OUTS = ("causal", "whole")
"""What a token reads of its mini-batch: what it and the tokens before it wrote, or what all of them did."""


class Update(Protocol):
    """Where the step sizes η_ij = scale_i · ℓ_j of a mini-batch come from."""

    def inner_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """Parameters that the inner loop needs."""
        ...

    def layer_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """Parameters that the layer around the inner loop needs."""
        ...

    def scale(self, spec: LayerSpec, params: Mapping[str, Array]) -> Array:
        """scale_i ``[K]`` of the reading token i."""
        ...

    def gate(self, spec: LayerSpec, params: Mapping[str, Array], x: Array) -> Array:
        """ℓ_j of the writing token: x ``[B, T, C]`` → ``[B, T, H]``."""
        ...


@dataclass(frozen=True)
class MiniBatch:
    """η_ij = (η₀/D) · a_i · ℓ_j for token i that reads and token j that writes, both within one mini-batch of K tokens: j ≤ i in a causal read-out.

    a_i = max(0, 1/(i+1) + δ_i) with δ (``token_lr_offset``) learned; ℓ_j = sigmoid(x_j θ + c) per head, with θ (``lr_weight``) and
    c (``lr_bias``) learned. Gradients of all K tokens are taken at the weights that the mini-batch starts from.
    """

    def inner_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """``token_lr_offset [K]``."""
        return {"token_lr_offset": (spec.mini_batch_size,)}

    def layer_shapes(self, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
        """``lr_weight [C, H]``, ``lr_bias [H]``."""
        return {"lr_weight": (spec.width, spec.heads), "lr_bias": (spec.heads,)}

    def scale(self, spec: LayerSpec, params: Mapping[str, Array]) -> Array:
        """(η₀/D) a_i ``[K]``."""
        offset = params["token_lr_offset"]
        average = cast(arange(spec.mini_batch_size, offset, real(offset).dtype, start=1) ** -1, offset.dtype)
        return relu(average + offset) * (spec.base_lr / spec.head_dim)

    def gate(self, spec: LayerSpec, params: Mapping[str, Array], x: Array) -> Array:
        """ℓ = sigmoid(xθ + c), in float32 at the least."""
        dtype = compute_dtype(x, params["lr_weight"])
        return sigmoid(cast(x, dtype) @ cast(params["lr_weight"], dtype) + cast(params["lr_bias"], dtype))


UPDATES: dict[str, Update] = {"mini_batch": MiniBatch()}
"""The names that ``LayerSpec(update=…)`` takes besides an ``Update`` object."""
