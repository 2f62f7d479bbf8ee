"""The inner loop over a sequence: mini-batch after mini-batch, or token after token, with the state in and out.

Written once for every array library; a backend brings its own ``scan`` (a plain loop, a checkpointed loop, ``lax.scan``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .arrays import Array, arange, cast, choose, compute_dtype, namespace, output_dtype, where_valid
from .forms import block, dual, gated_sums, maps, primal, token, token_gradients
from .scan import Loop, Scan, step_by_step, whole_scan, widening
from .sequence import Grid, Rows
from .state import State, initial_state
from .tree import leaves, tree_map

if TYPE_CHECKING:
    from .spec import LayerSpec

FORMS = ("primal", "dual", "decode")
BLOCK_ROWS = 64
_MINI_BATCH = {"primal": primal.mini_batch, "dual": dual.mini_batch}


def usual_block_size(spec: LayerSpec) -> int | None:
    """Mini-batches of a block where time goes by operations, of which blocks have fewer: as many as have 64 rows, at most 4; None for one."""
    size = min(4, BLOCK_ROWS // spec.mini_batch_size)
    return size if size > 1 else None


def inner_loop(
    spec: LayerSpec,
    params: Mapping[str, Array],
    q: Array,
    k: Array,
    v: Array,
    lr: Array,
    *,
    state: State | None = None,
    form: str = "dual",
    mask: Array | None = None,
    cu_seqlens: Array | None = None,
    longest: int | None = None,
    scan: Scan = whole_scan,
    block_size: int | None = None,
) -> tuple[Array, State]:
    """y_t = f(q_t; W_t) for every token, and the state after the last one; nothing is checked here (``validate`` does).

    q, k, v, y ``[B, T, H, D]``, ℓ (lr) ``[B, T, H]``, mask ``[B, T]`` bool, cu_seqlens ``[R + 1]`` int with B = 1, and then a state of R rows.
    ``longest`` bounds the packed sequences (T when None). Computes in the widest dtype given, float32 at the least; y has q's dtype.
    The dual form takes up to ``block_size`` mini-batches, if given, in a step of the scan, which then has no S; it changes nothing beyond rounding.
    """
    dtype = compute_dtype(q, k, v, lr, *params.values(), *(() if state is None else leaves(state[:2])))
    scan, given, lr = widening(scan, dtype), q, cast(lr, dtype)
    params = {name: cast(value, dtype) for name, value in params.items()}
    rows = None
    if cu_seqlens is not None:
        rows = Rows.of_packed(cu_seqlens, q.shape[1], q.shape[1] if longest is None else longest)
    elif mask is not None and form != "decode":
        rows = Rows.of_mask(mask)
    if rows is not None:
        q, k, v, lr = (rows.gather(x) for x in (q, k, v, lr))
    start = initial_state(spec, params, q.shape[0], dtype)
    if state is not None:
        weights, grads = tree_map(lambda x: cast(x, dtype), (state.weights, state.grads))
        start = State(weights, grads, cast(state.phase, start.phase.dtype))
    if q.shape[0] == 0 or q.shape[1] == 0:
        return namespace(given).zeros_like(given, dtype=output_dtype(given, dtype)), start
    if form == "decode":
        every = namespace(lr).ones_like(lr[:, :, 0], dtype=namespace(lr).bool)
        valid = rows.mask if rows is not None else every if mask is None else mask
        y, end = _by_token(spec, params, (q, k, v, lr), valid, start, scan)
    else:
        length = arange(q.shape[0], q) * 0 + q.shape[1] if rows is None else rows.length
        grid = Grid.of(spec.mini_batch_size, q.shape[1], length, start.phase, aligned=state is None)
        if form == "dual" and spec.read_out == "causal" and block_size is not None and grid.steps > 2:
            y, end = _by_block(spec, params, (q, k, v, lr), grid, start, scan, block_size)
        else:
            y, end = _by_mini_batch(spec, params, (q, k, v, lr), grid, start, form, scan)
    y = y if rows is None else rows.scatter(y)
    return y, end


def _by_mini_batch(
    spec: LayerSpec, params: Mapping[str, Array], inputs: tuple[Array, ...], grid: Grid, start: State, form: str, scan: Scan
) -> tuple[Array, State]:
    """The scan over mini-batches. The weights step where a mini-batch is complete; where it is not, S stays for the next call.

    The readers' factors are s_i of their place, or in a whole read-out that of the last token that their row has in the mini-batch.
    """
    xp = namespace(inputs[0])
    scale = spec.update_rule.scale(spec, params)
    mini_batch = _MINI_BATCH[form]
    factors = () if spec.read_out == "causal" else (xp.reshape(xp.take(scale, xp.reshape(grid.last, (-1,)), axis=0), (*grid.last.shape, 1, 1)),)

    def body(carry: Any, xs: Any) -> tuple[Any, Array]:
        weights, grads = carry
        q, k, v, lr, done, *last = xs
        y, total = mini_batch(spec, params, last[0] if last else scale, weights, grads, q, k, v, lr)
        stepped = {name: choose(done, weight - scale[-1] * total[name], weight) for name, weight in weights.items()}
        return (stepped, {name: where_valid(~done, rest) for name, rest in total.items()}), y

    (weights, grads), y = scan(step_by_step(body), (start.weights, start.grads), (*(grid.place(x) for x in inputs), grid.done, *factors))
    return grid.collect(y, inputs[0].shape[1]), State(weights, grads, grid.end_phase)


def _by_block(
    spec: LayerSpec, params: Mapping[str, Array], inputs: tuple[Array, ...], grid: Grid, start: State, scan: Scan, most: int
) -> tuple[Array, State]:
    """The first mini-batch, which reads the given S; then the scan over blocks of at most ``most``, in which S is 0; then S anew.

    S of a row that left the first mini-batch is the sum over the tokens that its last one reads at the final weights.
    """
    xp = namespace(inputs[0])
    scale = spec.update_rule.scale(spec, params)
    *tokens, done = (*(grid.place(x) for x in inputs), grid.done)
    y, total = dual.mini_batch(spec, params, scale, start.weights, start.grads, *(cast(x[0, ...], scale.dtype) for x in tokens))
    weights = {name: choose(done[0, ...], weight - scale[-1] * total[name], weight) for name, weight in start.weights.items()}
    rest = grid.steps - 1
    steps = -(-rest // most)
    count = -(-rest // steps)
    factors = block.reading_factors(scale, count)

    def blocks(x: Array) -> Array:
        """``[1 + rest, B, H, K, …]`` → ``[steps, B, H, nK, …]``, the last block filled up with zeros."""
        filled = xp.concat([x[1:, ...], xp.zeros_like(x[: steps * count - rest, ...])])
        filled = xp.moveaxis(xp.reshape(filled, (steps, count, *x.shape[1:])), 1, 3)
        return xp.reshape(filled, (*filled.shape[:3], -1, *x.shape[4:]))

    def body(weights: Any, xs: Any) -> tuple[Any, Any]:
        after, rows = block.train(spec, params, weights, *xs)
        return after, (weights, rows[0][1], tuple(rows[1:]))

    def stretch(loop: Loop, weights: Any, xs: tuple[Array, ...]) -> tuple[Any, Array]:
        q, k, v, lr, gates = xs
        weights, (starts, g, above) = loop(body, weights, (k, v, gates, *block.pairs(spec, k, gates)))
        return weights, block.read(spec, params, factors, starts, [(k, g), *above], q, lr)

    weights, ys = scan(stretch, weights, tuple(blocks(x) for x in (*tokens, where_valid(done, scale[-1] * tokens[-1]))))
    ys = xp.moveaxis(xp.reshape(ys, (*ys.shape[:3], count, -1, ys.shape[-1])), 3, 1)
    ys = xp.concat([cast(y[None, ...], ys.dtype), xp.reshape(ys, (steps * count, *ys.shape[2:]))[:rest, ...]])
    _, k, v, lr = (cast(grid.open(x), scale.dtype) for x in inputs)
    last = gated_sums(spec, token_gradients(spec, params, maps(spec, weights), k, v), lr)
    grads = {name: choose(done[0, ...], last[name], total[name]) for name in weights}
    return grid.collect(ys, inputs[0].shape[1]), State(weights, grads, grid.end_phase)


def _by_token(spec: LayerSpec, params: Mapping[str, Array], inputs: tuple[Array, ...], valid: Array, start: State, scan: Scan) -> tuple[Array, State]:
    """The scan over tokens. A token that is not valid leaves its row as it was."""
    xp = namespace(inputs[0])
    scale = spec.update_rule.scale(spec, params)
    inputs = tuple(where_valid(valid, x) for x in inputs)

    def body(carry: Any, xs: Any) -> tuple[Any, Array]:
        return token(spec, params, scale, carry, *xs)

    xs = tuple(xp.permute_dims(x, (1, 0, *range(2, x.ndim))) for x in (*inputs, valid))
    end, y = scan(step_by_step(body), start, xs)
    return where_valid(valid, xp.permute_dims(y, (1, 0, 2, 3))), end
