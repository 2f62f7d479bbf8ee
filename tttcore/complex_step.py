"""Derivatives without autodiff: the reference run on complex numbers, one step along the imaginary axis.

Im f(x + i·h·u)/h is the directional derivative of f at x along u, without cancellation, so h can be tiny and the error is rounding alone
(Squire and Trapp 1998). It is the oracle for every backend's gradients: for a cotangent ȳ, ⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .inner_loop import inner_loop
from .layer import layer_around
from .spec import LayerSpec
from .state import State
from .tree import Tree, tree_map

STEP = 1e-20


def directional_derivative(function: Callable[[Any], Tree], at: Tree, along: Tree) -> Tree:
    """∂function(at)·along for trees of NumPy float64 arrays; integer and boolean leaves of ``at`` stay as they are.

    ``function`` must be real-analytic where it is not selecting by the real part; the reference is. ``along`` has the structure of ``at``.
    Law: linear in ``along``; equal to the limit of (f(x + εu) − f(x))/ε.
    """

    def shifted(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        return x + 1j * STEP * u if np.issubdtype(x.dtype, np.floating) else x

    def slope(y: np.ndarray) -> np.ndarray:
        return np.imag(y) / STEP

    return tree_map(slope, function(tree_map(shifted, at, along)))


def layer_derivative(
    spec: LayerSpec,
    params: Mapping[str, np.ndarray],
    x: np.ndarray,
    params_dot: Mapping[str, np.ndarray],
    x_dot: np.ndarray,
    *,
    state: State | None = None,
    state_dot: State | None = None,
    form: str = "dual",
    mask: np.ndarray | None = None,
    positions: np.ndarray | None = None,
) -> tuple[np.ndarray, State]:
    """(ẏ, state̊) of the reference layer along (params_dot, x_dot, state_dot), all float64; ``phase`` in the result is 0."""

    def run(primals: Tree) -> Tree:
        params, x, state = primals
        return layer_around(inner_loop, spec, params, x, state=state, form=form, mask=mask, positions=positions)

    return directional_derivative(run, (params, x, state), (params_dot, x_dot, state_dot))


def inner_derivative(
    spec: LayerSpec,
    primals: tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    tangents: tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    *,
    state: State | None = None,
    state_dot: State | None = None,
    form: str = "dual",
    mask: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> tuple[np.ndarray, State]:
    """(ẏ, state̊) of the reference inner loop; primals and tangents are (params, q, k, v, lr), all float64."""

    def run(primals: Tree) -> Tree:
        (params, q, k, v, lr), state = primals
        return inner_loop(spec, params, q, k, v, lr, state=state, form=form, mask=mask, cu_seqlens=cu_seqlens)

    return directional_derivative(run, (primals, state), (tangents, state_dot))
