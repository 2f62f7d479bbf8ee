"""Axis 2, the self-supervised loss: what the inner model is trained on, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .arrays import Array, namespace


class Loss(Protocol):
    """L(f(k), v) of one token, and its gradient with respect to the prediction f(k)."""

    def __call__(self, prediction: Array, label: Array) -> Array:
        """``[…, D]``, ``[…, D]`` → ``[…]``."""
        ...

    def gradient(self, prediction: Array, label: Array) -> Array:
        """∂L/∂prediction ``[…, D]``."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """L = ½ ‖f(k) − v‖² (paper, equation 4, with the factor ½ of its code).

    With f(k) = k + LN(z) this is ½ ‖LN(z) − (v − k)‖².
    """

    def __call__(self, prediction: Array, label: Array) -> Array:
        """The loss of each token."""
        difference = prediction - label
        return 0.5 * namespace(difference).sum(difference * difference, axis=-1)

    def gradient(self, prediction: Array, label: Array) -> Array:
        """f(k) − v."""
        return prediction - label


@dataclass(frozen=True)
class InnerProduct:
    """L = −⟨f(k), v⟩, whose gradient does not depend on the weights: with it a linear map without LayerNorm is linear attention."""

    def __call__(self, prediction: Array, label: Array) -> Array:
        """The loss of each token."""
        return -namespace(prediction).sum(prediction * label, axis=-1)

    def gradient(self, prediction: Array, label: Array) -> Array:
        """−v."""
        return -label + 0 * prediction


LOSSES: dict[str, Loss] = {"squared_error": SquaredError(), "inner_product": InnerProduct()}
"""The names that ``LayerSpec(loss=…)`` takes besides a ``Loss`` object."""
