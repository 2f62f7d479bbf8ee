"""The inner loop from its public arguments: sequences found in batches, states opened and closed, one operator in between."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tttcore import LayerSpec, State
from tttcore.sequence import Rows

from .claims import check_dual
from .layout import Layout, packed, padded_rows, tile
from .linear import linear
from .mlp import mlp
from .scale import scales


def dual(
    spec: LayerSpec,
    params: Mapping[str, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Tensor,
    *,
    state: State | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, State]:
    """The inner loop, differentiable in every floating-point argument; see ``tttcore.Backend.inner``."""
    check_dual(spec, q)
    size, hidden = spec.mini_batch_size, spec.inner_model.hidden
    valid = None if mask is None else Rows.of_mask(mask)
    phase = None if state is None else state.phase.int()
    gathered = [x if valid is None else valid.gather(x) for x in (q, k, v, lr)]
    tokens = [x.flatten(0, 1).contiguous() for x in gathered]
    (rows, longest), count = gathered[0].shape[:2], len(tokens[0])
    block = tile(size, spec.head_dim, q.dtype) // size * size
    if cu_seqlens is not None:
        layout = Layout.ragged(size, block, count, *packed(cu_seqlens, count), phase)
    elif valid is not None or phase is not None:
        layout = Layout.ragged(size, block, count, *padded_rows(q, rows, longest, None if valid is None else valid.length), phase)
    else:
        layout = Layout.even(block, rows, longest)
    params = {name: value.float().contiguous() for name, value in params.items()}
    learned = scales(spec, params), params["norm_weight"], params["norm_bias"]
    names = list(spec.inner_model.weight_shapes(spec.heads, spec.head_dim))
    if state is None:
        weights, sums = [params[name].expand(layout.rows, *params[name].shape) for name in names], None
    else:
        weights, sums = ([part[name].float().contiguous() for name in names] for part in (state.weights, state.grads))
    y, weights, sums = (mlp if hidden else linear)(tokens, weights, learned, sums, layout, spec.eps)
    y = y.reshape(gathered[0].shape)
    end = State(dict(zip(names, weights, strict=True)), dict(zip(names, sums, strict=True)), layout.end_phase(size, q))
    return y if valid is None else valid.scatter(y), end
