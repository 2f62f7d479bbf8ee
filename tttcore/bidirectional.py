"""Bidirectional read-out: all tokens of a sequence write, then all of them read; for images and other sequences without a direction."""

from __future__ import annotations

from collections.abc import Mapping

from . import validate
from .arrays import Array, arange, cast, compute_dtype, namespace, output_dtype, where_valid
from .errors import InvalidInput
from .forms import gated_sums, maps, token_gradients
from .spec import LayerSpec


def read_whole(spec: LayerSpec, params: Mapping[str, Array], q: Array, k: Array, v: Array, lr: Array, mask: Array | None = None) -> Array:
    """y_i = f(q_i; W_end) with W_end = W − s_{n−1} Σ_j ℓ_j ∂L_j/∂W(W), the sum over all n tokens: the weights that the last token would read.

    A sequence is one mini-batch, so T ≤ K. q, k, v, y ``[B, T, H, D]``, ℓ (lr) ``[B, T, H]``, mask ``[B, T]`` bool, True where a token counts (y is 0
    elsewhere); of any array library that tttcore computes in, differentiable where it is. Operations and memory grow with T, not with T². Computes in
    float32 or wider; y keeps q's dtype. Laws: tokens in another order give the same y in that order; y_i is what the causal inner loop gives its last
    token when that reads q_i. Raises ``InvalidInput`` before any compute.
    """
    validate.call(spec, "dual", {"q": q, "k": k, "v": v}, object)
    validate.params(params, spec.inner_shapes(), spec.param_shapes())
    validate.inner_inputs(spec, q, k, v, lr, concrete=lambda _: False)
    validate.tokens(q, mask)
    if q.shape[1] > spec.mini_batch_size:
        fix = "choose mini_batch_size as long as the longest sequence"
        raise InvalidInput("tokens", got=f"T = {q.shape[1]}", expected=f"T ≤ K = {spec.mini_batch_size}: one mini-batch", fix=fix)
    xp = namespace(q)
    params = {name: params[name] for name in spec.inner_shapes()}
    dtype = compute_dtype(q, k, v, lr, *params.values())
    params = {name: cast(x, dtype) for name, x in params.items()}
    valid = xp.ones_like(q[:, :, 0, 0], dtype=xp.bool) if mask is None else mask
    rows, keys, labels, gates = (xp.moveaxis(where_valid(valid, cast(x, dtype)), 2, 1) for x in (q, k, v, lr))
    tokens = xp.sum(xp.astype(valid, xp.int32), axis=1, dtype=xp.int32)
    scale = xp.take(spec.update_rule.scale(spec, params), xp.where(tokens > 0, tokens - 1, 0 * tokens), axis=0)[:, None, None, None]
    names = spec.inner_model.weight_shapes(spec.heads, spec.head_dim)
    start = {name: params[name][None, ...] + 0 * arange(q.shape[0], q, dtype)[:, None, None, None] for name in names}
    sums = gated_sums(spec, token_gradients(spec, params, maps(spec, start), keys, labels), gates)
    affine, _ = maps(spec, {name: weight - scale * sums[name] for name, weight in start.items()})
    y = spec.inner_model.output(params, rows, spec.inner_model.forward(rows, affine).outputs[-1], spec.eps)
    return cast(where_valid(valid, xp.moveaxis(y, 1, 2)), output_dtype(q, dtype))
