"""The inner loop of each head by itself, its scan a kernel: on GPUs, for narrow tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import jax

from tttcore import LayerSpec, State
from tttcore.inner_loop import inner_loop

from .kernel import kernel_scan

LARGEST = 2**14
"""Bytes of a head's weights that four warps hold in registers: TTT-Linear's at D = 64. Larger ones are spilled, and compiled for minutes."""


def fits(spec: LayerSpec) -> bool:
    """Whether there is a kernel for the layer: tiles are powers of two, 16 at the least to be multiplied, and a gated function would cut them.

    A kernel reads causally, as the blocks do whose steps it is traced from.
    """
    model = spec.inner_model
    shapes = model.weight_shapes(1, spec.head_dim)
    sizes = {spec.mini_batch_size, *(size for name, shape in shapes.items() if name.startswith("W") for size in shape[1:])}
    weights = 4 * sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("W"))
    tiles = all(size >= 16 and size & (size - 1) == 0 for size in sizes)
    plain = all(activation.columns == 1 for activation in model.activations)
    there = find_spec("jax.experimental.pallas.triton") is not None  # deprecated since JAX 0.11.2
    return spec.read_out == "causal" and tiles and plain and weights <= LARGEST and there


def loop_by_heads(
    spec: LayerSpec,
    params: Mapping[str, jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    lr: jax.Array,
    *,
    state: State | None = None,
    **options: Any,
) -> tuple[jax.Array, State]:
    """``tttcore.inner_loop.inner_loop`` in blocks of one mini-batch, as many programs as there are heads and rows."""
    weights = dict.fromkeys(spec.inner_model.weight_shapes(spec.heads, spec.head_dim), 1)
    own = spec.inner_model.param_shapes(spec.heads, spec.head_dim)
    by_head = State(weights, weights, None)

    def head(params: dict[str, jax.Array], inputs: tuple[jax.Array, ...], state: State | None) -> tuple[jax.Array, State]:
        params = {name: value[None] if name in own else value for name, value in params.items()}
        start = None if state is None else _each(lambda x: x[:, None], state)
        y, end = inner_loop(spec, params, *(x[:, :, None] for x in inputs), state=start, scan=kernel_scan, block_size=1, **options)
        return y[:, :, 0], _each(lambda x: x[:, 0], end)

    axes = ({name: 0 if name in own else None for name in params}, 2, None if state is None else by_head)
    return jax.vmap(head, in_axes=axes, out_axes=(2, by_head))(dict(params), (q, k, v, lr), state)


def _each(change: Callable[[jax.Array], jax.Array], state: State) -> State:
    """The state with all its weights and sums changed."""
    weights, grads = ({name: change(x) for name, x in tree.items()} for tree in state[:2])
    return State(weights, grads, state.phase)
