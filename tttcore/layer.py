"""The layer around the inner loop: views in, inner loop, output projection; for any backend's ``inner``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .arrays import Array, arange, cast, output_dtype
from .sequence import Rows
from .state import State

if TYPE_CHECKING:
    from .spec import LayerSpec

Inner = Callable[..., tuple[Array, Any]]
"""inner(spec, params, q, k, v, lr, state=…, form=…, mask=…, cu_seqlens=None) → (y, state); the state None from one that has none."""


def layer_around(
    inner: Inner,
    spec: LayerSpec,
    params: Mapping[str, Array],
    x: Array,
    *,
    state: State | None = None,
    form: str = "dual",
    mask: Array | None = None,
    positions: Array | None = None,
) -> tuple[Array, Any]:
    """y = output(inner(views(x), ℓ(x))) and the state after the last token (None if ``inner`` has none); nothing is checked here (``validate`` does).

    x, y ``[B, T, C]``, mask ``[B, T]`` bool, positions ``[B, T]`` or ``[1, T]`` int for RoPE alone (default: tokens read so far).
    Masked tokens are packed away first, so convolutions, phases and positions never see them; their y is 0.
    """
    rows = None if mask is None or x.shape[1] == 0 else Rows.of_mask(mask)
    packed = x if rows is None else rows.gather(x)
    counted = arange(x.shape[1], x)[None, :]
    if positions is not None:
        positions = positions + 0 * arange(x.shape[0], x)[:, None]
        positions = positions if rows is None else rows.gather(positions)
    else:
        started = 0 * arange(x.shape[0], x) if state is None else state.phase
        positions = started[:, None] + counted
    conv = None if state is None else state.conv
    views = spec.views_rule.project(spec, params, packed, positions, conv, None if rows is None else rows.length)
    lr = spec.update_rule.gate(spec, params, packed)
    heads, end = inner(
        spec,
        {name: params[name] for name in spec.inner_shapes()},
        views.q,
        views.k,
        views.v,
        lr,
        state=None if state is None else State(state.weights, state.grads, state.phase),
        form=form,
        mask=None if rows is None else rows.mask,
        cu_seqlens=None,
    )
    y = spec.views_rule.output(spec, params, packed, heads)
    y = y if rows is None else rows.scatter(y)
    return cast(y, output_dtype(x, y.dtype)), None if end is None else State(end.weights, end.grads, end.phase, views.conv)
