"""LayerNorm's gradient in the scans that are laid out by hand."""

# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon


@gluon.jit
def gradient_from(whole, bent, power, curved, along, offset, z, u, square, squares, D: gl.constexpr, eps):
    """G = ∂L/∂z as ``linear.tiles.gradient_from``, from the sums of z, γ²z, z², γ²z², uz and u over each row, and that of γ²."""
    m = whole / D
    r = gl.rsqrt(power / D - m * m + eps)
    s1 = (r * (bent - m * squares) + offset) / D
    s2 = r * (r * (curved - m * (2 * bent - m * squares)) + along - m * offset) / D
    return (z - m) * (square * (r * r) - r * r * s2) + (u * r - r * s1)
