"""The reference as a backend, on NumPy arrays. It has no vjp: its gradients are the complex-step oracle's (``complex_step``)."""

from __future__ import annotations

from collections.abc import Mapping

from ..arrays import Array
from ..inner_loop import inner_loop
from ..sequence import longest_sequence
from ..spec import LayerSpec
from ..state import State
from ..update import READ_OUTS
from .backend import Backend
from .supports import Supports


def inner(
    spec: LayerSpec,
    params: Mapping[str, Array],
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
    *,
    state: State | None,
    form: str,
    mask: Array | None,
    cu_seqlens: Array | None,
) -> tuple[Array, State]:
    """The reference's inner loop."""
    longest = None if cu_seqlens is None else longest_sequence(cu_seqlens)
    return inner_loop(spec, params, q, k, v, lr, state=state, form=form, mask=mask, cu_seqlens=cu_seqlens, longest=longest)


BACKEND = Backend("numpy", inner, Supports(dtypes=("float16", "float32", "float64", "complex64", "complex128"), read_out=READ_OUTS))
