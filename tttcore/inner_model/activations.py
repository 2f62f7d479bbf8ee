"""Elementwise functions between the affine maps of an inner model, each with its exact derivative.

Every function is written without ``abs``, ``maximum`` or ``conj`` so that a complex step passes through it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..arrays import Array, namespace, real, sigmoid


class Activation(Protocol):
    """h = σ(z), rows at a time."""

    @property
    def columns(self) -> int:
        """How many columns of z make one column of h: 1, or 2 for a gated function."""
        ...

    def __call__(self, z: Array) -> Array:
        """z ``[…, columns·E]`` → h ``[…, E]``."""
        ...

    def vjp(self, z: Array, h_bar: Array) -> Array:
        """z̄ = (∂h/∂z)ᵀ h̄: z as above, h̄ ``[…, E]`` → z̄ ``[…, columns·E]``."""
        ...


@dataclass(frozen=True)
class GeluTanh:
    """h = ½ z (1 + tanh u), u = √(2/π) (z + 0.044715 z³): the tanh form of GELU.

    Computed as z · sigmoid(2u), which is the same function and loses no digits where tanh u is close to ±1.
    """

    columns: int = 1

    def __call__(self, z: Array) -> Array:
        """h, elementwise."""
        return z * sigmoid(_twice_u(_saturated(z)))

    def vjp(self, z: Array, h_bar: Array) -> Array:
        """z̄ = h̄ (s + z s (1 − s) 2u′), s = sigmoid(2u); the derivative is exact for the tanh form."""
        held = _saturated(z)
        u2 = _twice_u(held)
        slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * held * held)
        return h_bar * (sigmoid(u2) + held * sigmoid(u2) * sigmoid(-u2) * slope)


@dataclass(frozen=True)
class Silu:
    """h = z · sigmoid(z)."""

    columns: int = 1

    def __call__(self, z: Array) -> Array:
        """h, elementwise."""
        return z * sigmoid(z)

    def vjp(self, z: Array, h_bar: Array) -> Array:
        """z̄ = h̄ s (1 + z (1 − s)), s = sigmoid(z)."""
        return h_bar * sigmoid(z) * (1 + z * sigmoid(-z))


@dataclass(frozen=True)
class Gated:
    """h = σ(z₁) ⊙ z₂, where z₁ and z₂ are the two halves of z's columns (SwiGLU for σ = silu)."""

    gate: Activation
    columns: int = 2

    def __call__(self, z: Array) -> Array:
        """z ``[…, 2E]`` → h ``[…, E]``."""
        half = z.shape[-1] // 2
        return self.gate(z[..., :half]) * z[..., half:]

    def vjp(self, z: Array, h_bar: Array) -> Array:
        """z̄₁ = σ′(z₁)ᵀ (h̄ ⊙ z₂), z̄₂ = h̄ ⊙ σ(z₁)."""
        half = z.shape[-1] // 2
        z1, z2 = z[..., :half], z[..., half:]
        return namespace(z).concat([self.gate.vjp(z1, h_bar * z2), h_bar * self.gate(z1)], axis=-1)


ACTIVATIONS: dict[str, Activation] = {"gelu": GeluTanh(), "silu": Silu(), "swiglu": Gated(Silu())}
"""The names that a ``Hidden`` layer may use; add your own function here."""


def _twice_u(z: Array) -> Array:
    return 2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)


def _saturated(z: Array) -> Array:
    """z held in [−10, 10], outside which sigmoid(2u) is 0 or 1 to the last bit of float64: keeps z³ from overflowing."""
    xp = namespace(z)
    ten = xp.full_like(z, 10.0)
    return xp.where(real(z) > 10, ten, xp.where(real(z) < -10, -ten, z))
