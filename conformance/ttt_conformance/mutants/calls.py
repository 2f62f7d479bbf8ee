"""Wrong calls: arguments that change, answers that are remembered or vary, numbers of another dtype, nonsense that is computed."""

from __future__ import annotations

from .mutant import Mutant

INNER_LOOP = "tttcore.inner_loop:inner_loop"
INPUTS, PACKED, STATE, TOKENS, CALL = ("tttcore.validate:" + name for name in ("inner_inputs", "packed", "state", "tokens", "call"))
WIDEST, KEPT = "docs/decisions.md#18-compute-in-the-widest-input-dtype", "docs/decisions.md#19-outputs-keep-the-input-dtype"
TREES, REFUSED = "docs/decisions.md#21-parameters-and-state-are-plain-trees", "docs/decisions.md#26-no-fallback"
NUMBERS, PADDING = "docs/mathematics.md#13-numbers", "docs/decisions.md#12-padding-is-a-mask"

_BEGIN, _END = "    rows = None\n", "return y, end"
_COUNTED = "    inner_loop.__dict__['calls'] = inner_loop.__dict__.get('calls', 0) + 1\n"

MUTANTS = {
    "y_in_float32": Mutant(
        "tttcore.scan:widening", "cast(y, output_dtype(xs[0], dtype))", "y", "dtype",
        "y comes back in the dtype of the computation instead of the tokens'", KEPT,
    ),
    "state_in_token_dtype": Mutant(
        INNER_LOOP, _END, "return y, State(*tree_map(lambda x: cast(x, given.dtype), end[:2]), end.phase)", "dtype",
        "the state comes back in the tokens' dtype", NUMBERS,
    ),
    "computed_in_token_dtype": Mutant(
        INNER_LOOP, _END,
        "return y, State(*tree_map(lambda x: cast(cast(x, given.dtype), dtype), end[:2]), end.phase)", "dtype",
        "the state's digits are those of the tokens' dtype", NUMBERS,
    ),
    "float64_cast_down": Mutant(
        INNER_LOOP, "    scan, given, lr =", "    dtype = namespace(q).float32 if dtype == namespace(q).float64 else dtype\n    scan, given, lr =",
        "reference",
        "float64 is computed in float32", WIDEST,
    ),
    "queries_in_float32": Mutant(
        INNER_LOOP, _BEGIN, _BEGIN + "    q = cast(cast(q, namespace(q).float32), q.dtype) if dtype == namespace(q).float64 else q\n", "reference",
        "q is rounded to float32", WIDEST,
    ),
    "query_scaled_in_place": Mutant(
        INNER_LOOP, _BEGIN, _BEGIN + "    q *= 0.5\n    q = 2 * q\n", "repeat", "q is scaled in the caller's memory", TREES,
    ),
    "learning_rates_in_place": Mutant(INNER_LOOP, _BEGIN, _BEGIN + "    lr *= 1.0 + 1e-3\n", "repeat", "ℓ is scaled in the caller's memory", TREES),
    "state_in_place": Mutant(
        INNER_LOOP, _END, "if state is not None:\n        state.weights['W1'][...] = cast(end.weights['W1'], state.weights['W1'].dtype)\n    " + _END,
        "repeat", "the new state is written into the old one's memory", TREES,
    ),
    "phase_in_place": Mutant(
        INNER_LOOP, _END, "if state is not None:\n        state.phase[...] = cast(end.phase, state.phase.dtype)\n    " + _END, "repeat",
        "the new phase is written into the old one's memory", TREES,
    ),
    "masked_in_place": Mutant(
        INNER_LOOP, _BEGIN, _BEGIN + "    if mask is not None:\n        q[~mask] = 0.0\n", "repeat",
        "masked tokens are overwritten in the caller's memory", PADDING,
    ),
    "answer_remembered": Mutant(
        INNER_LOOP, _END, "y = inner_loop.__dict__.setdefault((q.shape, str(q.dtype), form, state is None, mask is None), y)\n    " + _END,
        "reference", "an answer is remembered by shape and given again for other tokens", TREES,
    ),
    "second_call_different": Mutant(
        INNER_LOOP, _END, _COUNTED.lstrip() + "    y = y * (1 + 1e-15 * (inner_loop.__dict__['calls'] % 2))\n    " + _END, "repeat",
        "every second call answers otherwise", TREES,
    ),
    "not_deterministic": Mutant(
        INNER_LOOP, _END, "y = y + 1e-14 * __import__('random').random() * y\n    " + _END, "repeat", "the same call gives different answers", TREES,
    ),
    "nan_gates_accepted": Mutant(INPUTS, "if concrete(lr) and", "if False and", "refusal", "learning rates with NaN are computed with", REFUSED),
    "shapes_not_checked": Mutant(INPUTS, '(("k", k), ("v", v))', '(("k", k),)', "refusal", "v of another width is not refused by name", REFUSED),
    "integers_accepted": Mutant(
        "tttcore.validate:params", '_floating(f"params[{name!r}]", named[name])', "", "refusal", "parameters that are integers are not refused",
        REFUSED,
    ),
    "dtypes_mixed": Mutant(CALL, "if x.dtype != arrays[first].dtype:", "if False:", "refusal", "k of another dtype than q is not refused", REFUSED),
    "late_phase_accepted": Mutant(STATE, "& (given.phase < spec.mini_batch_size)", "", "refusal", "a phase of K or more is not refused", REFUSED),
    "negative_phase_accepted": Mutant(STATE, "(given.phase >= 0) &", "", "refusal", "a phase below 0 is not refused", REFUSED),
    "borders_not_checked": Mutant(
        PACKED, "if concrete(cu_seqlens):", "if False:", "refusal", "cu_seqlens that fall, or end early, are not refused", REFUSED,
    ),
    "unfinished_borders_accepted": Mutant(
        PACKED, " or int(cu_seqlens[-1]) != total", "", "refusal", "cu_seqlens that end before the last token are not refused", REFUSED,
    ),
    "mask_of_integers_accepted": Mutant(
        TOKENS, 'if not namespace(mask).isdtype(mask.dtype, "bool"):', "if False:", "refusal", "a mask of integers is not refused", REFUSED,
    ),
    "unknown_parameter_accepted": Mutant(
        "tttcore.validate:params", 'refuse_unknown("params", named, known)', "", "refusal", "a parameter that there is not is not refused", REFUSED,
    ),
}  # fmt: skip
