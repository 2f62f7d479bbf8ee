"""Slopes of a layer by complex step: Im f(x + i h u) / h is ∂f·u without cancellation, so h can be tiny and rounding is the only error.

No derivative of a layer is written down here, nor found by automatic differentiation, so none can be wrong.
"""

from typing import Any

import numpy as np

STEP = 1e-20


def slope(layer: Any, arguments: dict[str, Any], bars: dict[str, np.ndarray], path: str, u: np.ndarray) -> float:
    """⟨ȳ, ∂f·u⟩, where the argument at that path ("q", "params.W1", "state.weights.W1", …) moves along u and all others stay.

    ``arguments``: the layer's, by name; ``bars``: the cotangents ȳ of its results, by path ("y", "state.weights.W1", …).
    """

    def stepped(x: Any, here: str) -> Any:
        if hasattr(x, "items"):
            return {name: stepped(part, f"{here}.{name}") for name, part in x.items()}
        if hasattr(x, "dtype") and x.dtype.kind == "f":
            return x.astype(np.float64) + 1j * STEP * (u if here == path else 0)
        return x

    y, state = layer(**{name: stepped(x, name) for name, x in arguments.items()})
    results = {"y": y} | {f"state.{name}": x for name, x in state.items()}
    return sum(float(np.sum(bar * results[name].imag)) for name, bar in bars.items()) / STEP
