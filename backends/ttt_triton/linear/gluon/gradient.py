"""LayerNorm's gradient in the scans that are laid out by hand."""

# pyright: reportOperatorIssue=false
# What is compiled has other types than what Python would run.
from __future__ import annotations

import triton.experimental.gluon.language as gl
from triton.experimental import gluon


@gluon.jit
def moments(whole, bent, power, curved, along, offset, squares, D: gl.constexpr, eps):
    """(mean z, r, mean e, mean eẑ, mean γ²ẑ, mean γ²ẑ²) with e = γ²ẑ + u, from sums over each row, and that of γ².

    The sums are those of z (``whole``), γ²z (``bent``), z² (``power``), γ²z² (``curved``), uz (``along``) and u (``offset``).
    """
    m = whole / D
    r = gl.rsqrt(power / D - m * m + eps)
    straight, square = r * (bent - m * squares) / D, r * r * (curved - m * (2 * bent - m * squares)) / D
    return m, r, straight + offset / D, square + r * (along - m * offset) / D, straight, square


@gluon.jit
def gradient_from(moments, z, u, square):
    """G = ∂L/∂z = r (e − mean e − ẑ mean eẑ), as ``linear.tiles.gradient_from``."""
    m, r, s1, s2, _, _ = moments
    return (z - m) * (square * (r * r) - r * r * s2) + (u * r - r * s1)
