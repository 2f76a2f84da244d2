"""Activations and their slopes, on values in the accumulator's dtype. Names are those of the ops."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def typed(number, dtype: tl.constexpr):
    """A run-time float as a scalar of ``dtype``. (The interpreter hands it over as a Python float.)"""
    return tl.full((), number, dtype)


@triton.jit
def activate(z, slope, ACT: tl.constexpr):
    """act(z); ACT is "leaky_relu", "relu", "tanh" or "none". A nan stays a nan."""
    if ACT == "leaky_relu":
        z = tl.where(z > 0, z, z * typed(slope, z.dtype))
    elif ACT == "relu":
        z = tl.where(z <= 0, 0.0, z)
    elif ACT == "tanh":
        z = tanh(z)
    return z


@triton.jit
def activation_slope(z, slope, ACT: tl.constexpr):
    """d act(z) / dz, in the shape and dtype of z; at z = 0 the left slope, as in torch."""
    if ACT == "leaky_relu":
        d = tl.where(z > 0, 1.0, typed(slope, z.dtype))
    elif ACT == "relu":
        d = tl.where(z <= 0, 0.0, 1.0)
    elif ACT == "tanh":
        t = tanh(z)
        d = 1.0 - t * t
    else:
        d = tl.full(z.shape, 1.0, z.dtype)
    return d


@triton.jit
def tanh(z):
    """By exp, and near zero, where that cancels, by a quotient of polynomials; portable, unlike a library's."""
    magnitude = tl.abs(z)
    e = tl.exp(-2.0 * magnitude)
    far = (1.0 - e) / (1.0 + e)
    s = z * z
    # The Pade approximant of degrees 7 and 6: exact to 2e-17 below 0.375.
    p = ((s + 378.0) * s + 17325.0) * s + 135135.0
    q = ((28.0 * s + 3150.0) * s + 62370.0) * s + 135135.0
    near = z * (p / q)
    return tl.where(magnitude < 0.375, near, tl.where(z < 0, -far, far))
