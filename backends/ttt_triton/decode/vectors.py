"""What one token does to one row of numbers, inside a kernel: LayerNorm, the gradient of the loss, GELU.

Rows are vectors in float32, padded with zeros to a power of two; ``real`` says which columns are none of the padding.
"""

# pyright: reportGeneralTypeIssues=false
# A function for kernels cannot be called from Python, and so has no result, says its type.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def standardise(z, real, D: tl.constexpr, eps):
    """(z − mean z) r and r = 1/√(var z + ε) of one row, over its D real columns; 0 in the others."""
    centred = tl.where(real, z - tl.sum(z, 0) / D, 0.0)
    r = 1 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    return centred * r, r


@triton.jit
def loss_gradient(z, k, v, gamma, beta, real, D: tl.constexpr, eps):
    """∂L/∂z of L = ½ ‖k + LN(z) − v‖²: the pull-back of LN, (7), of k + LN(z) − v; 0 in columns that are not real."""
    standard, r = standardise(z, real, D, eps)
    e = gamma * (k + gamma * standard + beta - v)
    along = tl.sum(e * standard, 0) / D
    return tl.where(real, r * (e - tl.sum(e, 0) / D - standard * along), 0.0)


@triton.jit
def gelu(z):
    """h = z s, s = sigmoid(2u), u = √(2/π) (z + 0.044715 z³), and its exact derivative dh/dz = s + z s (1 − s) 2u′, elementwise, (8)."""
    # Outside [−10, 10] s is 0 or 1 to the last bit; z³ must not overflow there.
    held = tl.minimum(tl.maximum(z, -10.0), 10.0)
    u2 = 1.5957691216057308 * held * (1 + 0.044715 * held * held)
    # s and 1 − s from the exponential of a negative number: neither overflows nor loses the digits of the smaller one.
    decay = tl.exp(-tl.abs(u2))
    larger = 1 / (1 + decay)
    smaller = decay * larger
    s = tl.where(u2 > 0, larger, smaller)
    return z * s, s + held * larger * smaller * 1.5957691216057308 * (1 + 0.134145 * held * held)
