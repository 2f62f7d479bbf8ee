"""The state between two tokens: what a TTT layer remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from .arrays import Array, arange, cast, namespace

if TYPE_CHECKING:
    from .spec import LayerSpec


class State(NamedTuple):
    """The state of B sequences after any number of tokens, also in the middle of a mini-batch.

    The learned factor a_i of the *reading* token rescales the whole prefix sum, so the weights a token reads are no state; these are:

    - ``weights``: W at the start of the running mini-batch; ``W1 [B, H, D, E]``, ``b1 [B, H, 1, E]``, …; float32 or wider;
    - ``grads``: S = Σ_j ℓ_j ∂L_j/∂W over the tokens of the running mini-batch, without a_i; the same names and shapes, zero at a border;
    - ``phase``: tokens of the running mini-batch read so far, ``[B]`` int32, 0 … K−1; rows may differ;
    - ``conv``: the last ``conv_width`` − 1 inputs of the causal convolutions, ``[B, conv_width − 1, C]``, in a layer with ``share_qk``; else None.

    A ``NamedTuple`` of dicts, so that JAX and PyTorch see a pytree. Law: splitting a sequence anywhere and carrying the state equals the whole.
    """

    weights: dict[str, Array]
    grads: dict[str, Array]
    phase: Array
    conv: Array | None = None


def initial_state(spec: LayerSpec, params: Mapping[str, Array], rows: int, dtype: object) -> State:
    """The state before the first token: the learned initial weights for each row, no gradients, phase 0; ``conv`` is None."""
    names = spec.inner_model.weight_shapes(spec.heads, spec.head_dim)
    xp = namespace(*(params[name] for name in names))
    weights = {name: cast(params[name], dtype) for name in names}
    weights = {name: xp.broadcast_to(weight, (rows, *weight.shape)) + 0 for name, weight in weights.items()}
    return State(weights, {name: xp.zeros_like(weight) for name, weight in weights.items()}, 0 * arange(rows, weights["W1"]))
