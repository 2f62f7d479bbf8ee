"""Wrong states: what is carried from mini-batch to mini-batch and from call to call."""

from __future__ import annotations

from .mutant import Mutant

INNER_LOOP, LOOP, TOKENS = ("tttcore.inner_loop:" + name for name in ("inner_loop", "_by_mini_batch", "_by_token"))
CARRIED, TAIL = "docs/decisions.md#10-the-state-is-weights-gradient-sum-and-phase", "docs/decisions.md#11-a-ragged-tail-is-not-an-update"
STATE, GRID, DTYPES = "docs/mathematics.md#16-the-state", "docs/mathematics.md#101-the-grid", "docs/decisions.md#18-compute-in-the-widest-input-dtype"
SUMS, NUMBERS = "docs/mathematics.md#63-after-the-last-token", "docs/mathematics.md#13-numbers"

_GIVEN = "tree_map(lambda x: cast(x, dtype), (state.weights, state.grads))"
_STEPPED = "choose(done, weight - scale[-1] * total[name], weight)"

MUTANTS = {
    "phase_reset_on_split": Mutant(LOOP, "grid.end_phase)", "0 * grid.end_phase)", "split", "the phase starts again at 0 with each call", CARRIED),
    "phase_of_row_0": Mutant(
        INNER_LOOP, "cast(state.phase, start.phase.dtype)", "cast(state.phase[:1] + 0 * state.phase, start.phase.dtype)", "reference",
        "all rows resume at the phase of row 0", CARRIED,
    ),
    "phase_of_row_1": Mutant(
        INNER_LOOP, "cast(state.phase, start.phase.dtype)",
        "cast(namespace(q).where(arange(q.shape[0], q) == 2, state.phase[1:2] if q.shape[0] > 1 else state.phase, state.phase), start.phase.dtype)",
        "reference", "the third row resumes at the phase of the second", CARRIED,
    ),
    "phase_in_floats": Mutant(
        LOOP, "grid.end_phase)", "cast(grid.end_phase, scale.dtype))", "reference", "the phase comes back as floating-point numbers", CARRIED,
    ),
    "phase_in_64_bits": Mutant(
        LOOP, "grid.end_phase)", "cast(grid.end_phase, namespace(scale).int64))", "reference", "the phase comes back as int64 instead of int32",
        CARRIED,
    ),
    "phase_counts_padding": Mutant(
        LOOP, "grid.end_phase)", "(grid.phase + inputs[0].shape[1]) % grid.size)", "mask", "the phase counts masked tokens",
        "docs/decisions.md#12-padding-is-a-mask",
    ),
    "weights_of_row_0": Mutant(
        INNER_LOOP, _GIVEN, "tree_map(lambda x: cast(x[:1] + 0 * x, dtype), (state.weights, state.grads))", "reference",
        "all rows resume from the state of row 0", CARRIED,
    ),
    "weights_of_the_start": Mutant(
        INNER_LOOP, "start = State(weights, grads,", "start = State(start.weights, grads,", "split", "a resumed call begins at the initial weights",
        CARRIED,
    ),
    "sum_not_resumed": Mutant(
        INNER_LOOP, "start = State(weights, grads,", "start = State(weights, start.grads,", "split", "a resumed call begins with S = 0", CARRIED,
    ),
    "bias_sum_not_resumed": Mutant(
        INNER_LOOP, "start = State(weights, grads,", 'start = State(weights, {n: 0 * g if n[0] == "b" else g for n, g in grads.items()},', "split",
        "a resumed call begins with S = 0 for the biases", CARRIED,
    ),
    "upper_bias_sum_not_resumed": Mutant(
        INNER_LOOP, "start = State(weights, grads,", 'start = State(weights, {n: 0 * g if n == "b2" else g for n, g in grads.items()},', "split",
        "a resumed call begins with S = 0 for the bias of the second affine map", CARRIED,
    ),
    "state_ignored_with_mask": Mutant(
        INNER_LOOP, "start = State(weights, grads,", "start = State(weights, grads if mask is None else start.grads,", "mask",
        "S of the given state is forgotten when there is a mask", CARRIED,
    ),
    "sum_dropped_on_split": Mutant(
        LOOP, "State(weights, grads,", "State(weights, {n: 0 * g for n, g in grads.items()},", "split", "S of an open mini-batch is not returned",
        CARRIED,
    ),
    "sum_with_step_size": Mutant(
        LOOP, "State(weights, grads,", "State(weights, {n: g * (spec.base_lr / spec.head_dim) for n, g in grads.items()},", "split",
        "the returned S contains η₀/D", CARRIED,
    ),
    "ragged_tail_steps": Mutant(LOOP, _STEPPED, "weight - scale[-1] * total[name]", "split", "an open mini-batch steps the weights", TAIL),
    "padding_writes": Mutant(
        LOOP, "grads, q, k, v, lr)", "grads, q, k, v, namespace(scale).where(lr == 0, 0.5 + 0 * lr, lr))", "reference",
        "slots without a token write with a gate of ½: zero padding moves the biases", TAIL,
    ),
    "step_of_first_scale": Mutant(
        LOOP, "scale[-1] * total", "scale[0] * total", "reference", "the weights step by the first token's factor instead of the last one's", SUMS,
    ),
    "steps_when_row_0_does": Mutant(
        LOOP, "done, *last = xs", "done, *last = (*xs[:4], xs[4] & xs[4][0], *xs[5:])", "reference",
        "a row steps its weights only when row 0 does", GRID,
    ),
    "sum_not_cleared": Mutant(LOOP, "where_valid(~done, rest)", "rest", "reference", "S is not cleared when the weights step", STATE),
    "sum_not_cleared_at_1": Mutant(
        LOOP, "where_valid(~done, rest)", "(rest if spec.mini_batch_size == 1 else where_valid(~done, rest))", "online",
        "S is not cleared when K = 1", STATE,
    ),
    "first_step_only": Mutant(
        LOOP, "done, *last = xs",
        "done, *last = (*xs[:4], xs[4] & namespace(scale).all(xs[0] == inputs[0][0, 0, 0, 0]), *xs[5:])", "reference",
        "the weights step after no mini-batch", STATE,
    ),
    "full_tail_not_stepped": Mutant(
        "tttcore.sequence.grid:Grid.done", ">= borders", "> borders", "reference", "the weights do not step when a sequence ends with its mini-batch",
        TAIL,
    ),
    "empty_call_resets": Mutant(
        INNER_LOOP, "dtype=output_dtype(given, dtype)), start", "dtype=output_dtype(given, dtype)), initial_state(spec, params, q.shape[0], dtype)",
        "reference", "a call without tokens returns the initial state instead of the given one", CARRIED,
    ),
    "decode_single_token": Mutant(
        TOKENS, "scan(step_by_step(body), start, xs)",
        "scan(step_by_step(body), "
        "start if inputs[0].shape[1] > 1 else State(start.weights, {n: 0 * g for n, g in start.grads.items()}, start.phase), xs)", "split",
        "a single token to decode forgets S", CARRIED,
    ),
    "state_in_float32": Mutant(
        LOOP, "State(weights, grads,", "State(*tree_map(lambda x: cast(cast(x, namespace(x).float32), x.dtype), (weights, grads)),", "reference",
        "the state is rounded to float32 between calls", DTYPES,
    ),
    "state_narrow_between": Mutant(
        LOOP, _STEPPED, "cast(cast(choose(done, weight - scale[-1] * total[name], weight), namespace(scale).float16), scale.dtype)", "reference",
        "the weights are rounded to half precision between mini-batches", NUMBERS,
    ),
    "last_bias_narrow": Mutant(
        INNER_LOOP, "return y, end",
        'return y, State({n: x if n != "b1" else cast(cast(x, given.dtype), dtype) for n, x in '
        "end.weights.items()}, *end[1:])",
        "dtype", "one bias of the state is rounded to the tokens' dtype", NUMBERS,
    ),
}  # fmt: skip
