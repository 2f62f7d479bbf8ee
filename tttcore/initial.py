"""Parameters to start training from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .spec import LayerSpec

STANDARD_DEVIATION = 0.02


def init(spec: LayerSpec, seed: int, dtype: npt.DTypeLike = np.float32) -> dict[str, np.ndarray]:
    """A fresh parameter dict of the layer, names and shapes of ``spec.param_shapes()``.

    Weights are normal with standard deviation 0.02, convolutions uniform in ±1/√width, norm weights 1, all offsets and biases 0, so that
    a_i = 1/(i+1) and ℓ ≈ ½ at first. The same seed gives the same numbers on every machine.
    """
    rng = np.random.default_rng(seed)
    return {name: draw(rng, name, shape).astype(dtype) for name, shape in spec.param_shapes().items()}


def inner_params(spec: LayerSpec, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a layer's parameters that ``Backend.inner`` needs."""
    return {name: params[name] for name in spec.inner_shapes()}


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A fresh parameter of that name, in float64."""
    if name.startswith("conv_"):
        bound = 1 / np.sqrt(shape[0]) if name.endswith("weight") else 0.0
        return rng.uniform(-bound, bound, shape)
    if name.endswith("norm_weight"):
        return np.ones(shape)
    if name.endswith(("_bias", "_offset")) or name.startswith("b"):
        return np.zeros(shape)
    return rng.normal(0.0, STANDARD_DEVIATION, shape)
