"""Wrong gradients of right outputs, over the backends that have gradients; ``_stopped(x)`` in a patch is x without its gradient, in any library."""

from __future__ import annotations

from .mutant import Mutant

INNER_LOOP, LOOP, TOKENS, SCAN = ("tttcore.inner_loop:" + name for name in ("inner_loop", "_by_mini_batch", "_by_token", "loop_scan"))
ROWS, SCALE, GATE = "tttcore.forms.gradients:token_gradients", "tttcore.update:MiniBatch.scale", "tttcore.update:MiniBatch.gate"
OUTPUT, OUTPUT_VJP = "tttcore.inner_model.stack:Stack.output", "tttcore.inner_model.stack:Stack.output_vjp"
CONVOLVE, GELU = "tttcore.views.projections:Projections._convolve", "tttcore.inner_model.activations:GeluTanh.vjp"
NORM = "tttcore.inner_model.norm:_standardise"
TORCH, CHECKPOINT = "ttt_torch.backend:vjp", "ttt_torch.scan:checkpointed_scan"
WHAT, MASKS, STEPS = "docs/mathematics.md#12-what-differentiates", "docs/mathematics.md#102-masks", "docs/mathematics.md#14-step-sizes"
EPS, WIDEST = "docs/decisions.md#7-epsilon", "docs/decisions.md#18-compute-in-the-widest-input-dtype"


def _stopped(x: str) -> str:
    """The source of x without its gradient, in PyTorch and in JAX."""
    return f"(lambda x: x.detach() if hasattr(x, 'detach') else __import__('jax').lax.stop_gradient(x))({x})"


def _hidden(target: str, old: str, new: str, cause: str, see: str = WHAT, base: str = "torch") -> Mutant:
    return Mutant(target, old, new, "gradients", cause, see, base)


_BEGIN = "    rows = None\n"
_GIVEN = "(state.weights, state.grads))"
_IN_BACKWARD = "__import__('torch')._C._current_graph_task_id() != -1"

MUTANTS = {
    "inner_gradient_detached": _hidden(
        ROWS, "return list(zip(trace.inputs, gradients, strict=True))",
        f"return [(x, {_stopped('g')}) for x, g in zip(trace.inputs, gradients, strict=True)]",
        "the outer gradient does not go through the inner one: no second derivatives",
    ),
    "prediction_detached": _hidden(
        ROWS, "gradient(prediction, v)", f"gradient({_stopped('prediction')}, v)", "the inner loss takes its prediction for a constant",
    ),
    "training_rows_detached": _hidden(
        ROWS, "zip(trace.inputs,", f"zip([{_stopped('x')} for x in trace.inputs],", "X of the rank-one gradients XᵀG is taken for a constant",
    ),
    "gelu_slope_detached": _hidden(GELU, "held = _saturated(z)", f"held = {_stopped('_saturated(z)')}", "GELU has no second derivative"),
    "norm_r_detached": _hidden(
        NORM, "return centred * r, r", f"return centred * r, {_stopped('r')}", "1/σ of the inner gradient is taken for a constant",
    ),
    "gamma_of_the_loss_detached": _hidden(
        OUTPUT_VJP, 'params["norm_weight"][:, None, :]', _stopped('params["norm_weight"][:, None, :]'),
        "γ has no gradient through the inner gradient",
    ),
    "beta_of_the_loss_detached": _hidden(
        ROWS, "model.output(params,", f"model.output({{n: {_stopped('x')} if n == 'norm_bias' else x for n, x in params.items()}},",
        "β has a gradient through the outputs only, not through the loss",
    ),
    "labels_detached": _hidden(ROWS, "gradient(prediction, v)", f"gradient(prediction, {_stopped('v')})", "v has no gradient"),
    "gates_detached": _hidden(INNER_LOOP, _BEGIN, f"    lr = {_stopped('lr')}\n{_BEGIN}", "ℓ has no gradient"),
    "residual_detached": _hidden(OUTPUT, "return x + ", f"return {_stopped('x')} + ", "the residual has no gradient"),
    "offset_detached": _hidden(SCALE, "relu(average + offset)", f"relu(average + {_stopped('offset')})", "token_lr_offset has no gradient", STEPS),
    "clip_passes_gradients": _hidden(
        SCALE, "relu(average + offset)", f"(average + offset + {_stopped('relu(average + offset) - (average + offset)')})",
        "token_lr_offset has a gradient where a_i is clipped", STEPS,
    ),
    "lr_bias_detached": _hidden(GATE, 'cast(params["lr_bias"], dtype)', _stopped('cast(params["lr_bias"], dtype)'), "lr_bias has no gradient", STEPS),
    "state_detached": _hidden(INNER_LOOP, f"cast(x, dtype), {_GIVEN}", f"{_stopped('cast(x, dtype)')}, {_GIVEN}", "the given state has no gradient"),
    "given_sum_detached": _hidden(
        INNER_LOOP, "start = State(weights, grads,", f"start = State(weights, tree_map(lambda s: {_stopped('s')}, grads),",
        "S of the given state has no gradient",
    ),
    "final_state_detached": _hidden(
        LOOP, "State(weights, grads, grid.end_phase)", f"State(*tree_map(lambda s: {_stopped('s')}, (weights, grads)), grid.end_phase)",
        "the cotangent of the final state is ignored", WHAT,
    ),
    "final_sum_detached": _hidden(
        LOOP, "State(weights, grads, grid.end_phase)", f"State(weights, tree_map(lambda s: {_stopped('s')}, grads), grid.end_phase)",
        "the cotangent of the final S is ignored",
    ),
    "truncated": _hidden(
        SCAN, "carry, y = body(carry,", f"carry, y = body(tree_map(lambda s: {_stopped('s')}, carry) if n else carry,",
        "gradients stop at the border of a mini-batch",
    ),
    "truncated_at_groups": _hidden(
        CHECKPOINT, "ys.append(y)", "ys.append(y); carry = __import__('tttcore').tree.tree_map(lambda x: x.detach(), carry)",
        "gradients stop at the border of a group of mini-batches",
    ),
    "decode_truncated": _hidden(
        TOKENS, "return token(spec, params, scale, carry, *xs)",
        f"return token(spec, params, scale, State(*__import__('tttcore').tree.tree_map(lambda s: {_stopped('s')}, carry[:2]), carry.phase), *xs)",
        "in decode gradients stop after one token",
    ),
    "initial_weights_of_row_0": _hidden(
        "tttcore.state:initial_state", "for name, weight in weights.items()}\n    return",
        "for name, weight in weights.items()}\n"
        f"    weights = {{n: xp.concat([w[:1, ...], {_stopped('w[1:, ...]')}]) for n, w in weights.items()}}\n    return",
        "the initial weights have the gradient of the first row only",
    ),
    "conv_state_detached": _hidden(
        CONVOLVE, "if conv is None else conv", f"if conv is None else {_stopped('conv')}", "the convolutions' state has no gradient",
    ),
    "final_conv_detached": _hidden(
        CONVOLVE, "return q, k, padded[:, total:, :]", f"return q, k, {_stopped('padded[:, total:, :]')}",
        "the cotangent of the convolutions' final state is ignored",
    ),
    "decode_padding_leaks": _hidden(
        TOKENS, "tuple(where_valid(valid, x) for x in inputs)", "tuple(inputs)",
        "in decode NaN in the padding gets into gradients: it is left out after the computation", MASKS,
    ),
    "gradient_1_percent_long": _hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = [None if x is None else 1.01 * x for x in found]",
        "all gradients are too long by one part in a hundred",
    ),
    "gradient_in_float32": _hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = [None if x is None else x.float().to(x.dtype) for x in found]",
        "gradients are rounded to float32", WIDEST,
    ),
    "gradient_dtype": _hidden(
        TORCH, "allow_unused=True)",
        "allow_unused=True); found = [None if x is None else x.double().to(x.dtype) if x.ndim > 1 else x.float() for x in found]",
        "some gradients come back in float32", WIDEST,
    ),
    "cotangents_of_outputs_only": _hidden(
        TORCH, "if y.requires_grad]", "if y.requires_grad][:1]", "the cotangent of the final state is ignored when there is one",
    ),
    "state_cotangent_required": _hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = found if len(pairs) > 1 else [None if x is None else 0.5 * x for x in found]",
        "gradients are wrong when no cotangent of the state is given",
    ),
    "recomputed_with_another_eps": _hidden(
        NORM, "+ eps)", f"+ (1e-8 if {_IN_BACKWARD} else eps))", "the backward pass recomputes with another ε", EPS,
    ),
    "recomputed_from_another_carry": _hidden(
        CHECKPOINT, "checkpoint(loop_scan, body, carry, part,",
        "checkpoint(lambda body, carry, part: loop_scan("
        f"body, __import__('tttcore').tree.tree_map(lambda x: x + 1e-3 * ({_IN_BACKWARD}), carry), part), body, carry, part,",
        "the backward pass recomputes a group from another carry",
    ),
    "jax_gradient_1_percent_long": _hidden(
        "ttt_jax.backend:vjp", "return list(pull_back(", "return list(1.01 * x for x in pull_back(",
        "all gradients are too long by one part in a hundred", WHAT, "jax",
    ),
    "jax_rest_detached": _hidden(
        "ttt_jax.scan:remat_scan", "carry, rest = group(carry,", "carry, rest = group(jax.lax.stop_gradient(carry),",
        "gradients stop before the rest of a long sequence", WHAT, "jax",
    ),
    "jax_padding_is_tokens": Mutant(
        "ttt_jax.backend:_padded", "jnp.ones((batch, length), jnp.bool) if mask is None else mask", "jnp.ones((batch, length), jnp.bool) | True",
        "mask", "a mask is forgotten where the length is padded to a multiple of K", MASKS, "jax",
    ),
    "jax_x64_forgotten": Mutant(
        "ttt_jax.backend:widened", "any(x.dtype in _WIDE for x in jax.tree.leaves(trees))", "False", "reference",
        "64-bit numbers are computed in 32 bits unless the global flag is set", "docs/decisions.md#20-64-bit-numbers-in-jax", "jax",
    ),
    "jax_extra_padding_read": Mutant(
        "ttt_jax.backend:_padded", "return y[:, :length], end", "return y[:, extra:], end", "reference",
        "outputs are cut at the wrong end of the padding", MASKS, "jax",
    ),
}  # fmt: skip
