"""The layer as a Flax NNX module."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from tttcore import LayerSpec, State, init

from .backend import BACKEND


class TTTLayer(nnx.Module):
    """A TTT layer: x ``[B, T, C]`` → (y ``[B, T, C]``, state), with an ``nnx.Param`` for every name of ``spec.param_shapes()``.

    ``form`` is the default form of a call: "dual", "primal" or "decode". Parameters are drawn as ``tttcore.init`` draws them, from a seed that
    the stream ``rngs.params`` gives. Law: ``layer(x)`` equals ``get_backend("numpy").layer(spec, params, x)`` on the same parameters.
    """

    def __init__(self, spec: LayerSpec, *, form: str = "dual", param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        """Draw all parameters, in ``param_dtype``; also under ``nnx.jit``, ``nnx.vmap`` and ``nnx.eval_shape``."""
        self.spec = spec
        self.form = form
        shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in spec.param_shapes().items()}

        def draw(seed: jax.Array) -> dict[str, np.ndarray]:
            return init(spec, int(seed))

        # A callback, because the generator is NumPy's and the seed may be traced.
        drawn = jax.pure_callback(draw, shapes, jax.random.bits(rngs.params(), dtype=jnp.uint32), vmap_method="sequential")
        for name in spec.param_shapes():
            setattr(self, name, nnx.Param(drawn[name].astype(param_dtype)))

    def __call__(
        self,
        x: jax.Array,
        state: State | None = None,
        mask: jax.Array | None = None,
        positions: jax.Array | None = None,
        form: str | None = None,
    ) -> tuple[jax.Array, State]:
        """Return y ``[B, T, C]`` in x's dtype and the state after the last token; arguments as in ``tttcore.Backend.layer``."""
        params = {name: getattr(self, name)[...] for name in self.spec.param_shapes()}
        return BACKEND.layer(self.spec, params, x, state=state, form=self.form if form is None else form, mask=mask, positions=positions)
