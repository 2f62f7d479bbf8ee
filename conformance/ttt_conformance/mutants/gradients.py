"""Wrong gradients of right outputs, over the backends that have gradients; ``_stopped(x)`` in a patch is x without its gradient, in any library."""

from __future__ import annotations

from .mutant import Mutant

INNER_LOOP, LOOP, TOKENS = ("tttcore.inner_loop:" + name for name in ("inner_loop", "_by_mini_batch", "_by_token"))
ROWS, SCALE, GATE = "tttcore.forms.gradients:token_gradients", "tttcore.update:MiniBatch.scale", "tttcore.update:MiniBatch.gate"
OUTPUT, LN = "tttcore.inner_model.stack:Stack.output_and_vjp", "tttcore.inner_model.norm:layer_norm_and_vjp"
CONVOLVE, GELU = "tttcore.views.convolution:convolve", "tttcore.inner_model.activations:GeluTanh.vjp"
NORM, PLAIN = "tttcore.inner_model.norm:_standardise", "tttcore.scan:python_loop"
WHAT, MASKS, STEPS = "docs/mathematics.md#12-what-differentiates", "docs/mathematics.md#102-masks", "docs/mathematics.md#14-step-sizes"


def _stopped(x: str) -> str:
    """The source of x without its gradient, in PyTorch and in JAX."""
    return f"(lambda x: x.detach() if hasattr(x, 'detach') else __import__('jax').lax.stop_gradient(x))({x})"


def hidden(target: str, old: str, new: str, cause: str, see: str = WHAT, base: str = "torch") -> Mutant:
    """A mutant that the law of gradients alone can see."""
    return Mutant(target, old, new, "gradients", cause, see, base)


_BEGIN = "    rows = None\n"
_GIVEN = "(state.weights, state.grads))"

MUTANTS = {
    "inner_gradient_detached": hidden(
        ROWS, "return list(zip(trace.inputs, gradients, strict=True))",
        f"return [(x, {_stopped('g')}) for x, g in zip(trace.inputs, gradients, strict=True)]",
        "the outer gradient does not go through the inner one: no second derivatives",
    ),
    "prediction_detached": hidden(
        ROWS, "gradient(prediction, v)", f"gradient({_stopped('prediction')}, v)", "the inner loss takes its prediction for a constant",
    ),
    "training_rows_detached": hidden(
        ROWS, "zip(trace.inputs,", f"zip([{_stopped('x')} for x in trace.inputs],", "X of the rank-one gradients XᵀG is taken for a constant",
    ),
    "gelu_slope_detached": hidden(GELU, "held = _saturated(z)", f"held = {_stopped('_saturated(z)')}", "GELU has no second derivative"),
    "norm_r_detached": hidden(
        NORM, "return centred * r, r", f"return centred * r, {_stopped('r')}", "1/σ of the inner gradient is taken for a constant",
    ),
    "gamma_of_the_loss_detached": hidden(
        LN, "layer_norm_vjp(standard, r, weight, g)", f"layer_norm_vjp(standard, r, {_stopped('weight')}, g)",
        "γ has no gradient through the inner gradient",
    ),
    "beta_of_the_loss_detached": hidden(
        ROWS, "output_and_vjp(params,", f"output_and_vjp({{n: {_stopped('x')} if n == 'norm_bias' else x for n, x in params.items()}},",
        "β has a gradient through the outputs only, not through the loss",
    ),
    "labels_detached": hidden(ROWS, "gradient(prediction, v)", f"gradient(prediction, {_stopped('v')})", "v has no gradient"),
    "gates_detached": hidden(INNER_LOOP, _BEGIN, f"    lr = {_stopped('lr')}\n{_BEGIN}", "ℓ has no gradient"),
    "residual_detached": hidden(OUTPUT, "return x + ", f"return {_stopped('x')} + ", "the residual has no gradient"),
    "offset_detached": hidden(SCALE, "relu(average + offset)", f"relu(average + {_stopped('offset')})", "token_lr_offset has no gradient", STEPS),
    "clip_passes_gradients": hidden(
        SCALE, "relu(average + offset)", f"(average + offset + {_stopped('relu(average + offset) - (average + offset)')})",
        "token_lr_offset has a gradient where a_i is clipped", STEPS,
    ),
    "lr_bias_detached": hidden(GATE, 'cast(params["lr_bias"], dtype)', _stopped('cast(params["lr_bias"], dtype)'), "lr_bias has no gradient", STEPS),
    "state_detached": hidden(INNER_LOOP, f"cast(x, dtype), {_GIVEN}", f"{_stopped('cast(x, dtype)')}, {_GIVEN}", "the given state has no gradient"),
    "given_sum_detached": hidden(
        INNER_LOOP, "start = State(weights, grads,", f"start = State(weights, tree_map(lambda s: {_stopped('s')}, grads),",
        "S of the given state has no gradient",
    ),
    "final_state_detached": hidden(
        LOOP, "State(weights, grads, grid.end_phase)", f"State(*tree_map(lambda s: {_stopped('s')}, (weights, grads)), grid.end_phase)",
        "the cotangent of the final state is ignored", WHAT,
    ),
    "final_sum_detached": hidden(
        LOOP, "State(weights, grads, grid.end_phase)", f"State(weights, tree_map(lambda s: {_stopped('s')}, grads), grid.end_phase)",
        "the cotangent of the final S is ignored",
    ),
    "truncated": hidden(
        PLAIN, "carry, y = body(carry,", f"carry, y = body(tree_map(lambda s: {_stopped('s')}, carry) if n else carry,",
        "gradients stop at the border of a mini-batch",
    ),
    "decode_truncated": hidden(
        TOKENS, "return token(spec, params, scale, carry, *xs)",
        f"return token(spec, params, scale, State(*__import__('tttcore').tree.tree_map(lambda s: {_stopped('s')}, carry[:2]), carry.phase), *xs)",
        "in decode gradients stop after one token",
    ),
    "initial_weights_of_row_0": hidden(
        "tttcore.state:initial_state", "for name, weight in weights.items()}\n    return",
        "for name, weight in weights.items()}\n"
        f"    weights = {{n: xp.concat([w[:1, ...], {_stopped('w[1:, ...]')}]) for n, w in weights.items()}}\n    return",
        "the initial weights have the gradient of the first row only",
    ),
    "conv_state_detached": hidden(
        CONVOLVE, "if conv is None else conv", f"if conv is None else {_stopped('conv')}", "the convolutions' state has no gradient",
    ),
    "final_conv_detached": hidden(
        CONVOLVE, "return ys, padded[:, total:, :]", f"return ys, {_stopped('padded[:, total:, :]')}",
        "the cotangent of the convolutions' final state is ignored",
    ),
    "decode_padding_leaks": hidden(
        TOKENS, "tuple(where_valid(valid, x) for x in inputs)", "tuple(inputs)",
        "in decode NaN in the padding gets into gradients: it is left out after the computation", MASKS,
    ),
    "masked_gates_detached": hidden(
        INNER_LOOP, "(rows.gather(x) for x in (q, k, v, lr))", f"(rows.gather(x) for x in (q, k, v, {_stopped('lr')}))",
        "ℓ has no gradient under a mask",
    ),
    "packed_gates_detached": hidden(
        INNER_LOOP, "rows = Rows.of_packed(", f"lr = {_stopped('lr')}; rows = Rows.of_packed(", "ℓ of packed sequences has no gradient",
    ),
    "masked_conv_detached": hidden(
        CONVOLVE, "flat = xp.reshape(padded,", f"flat = xp.reshape({_stopped('padded')},",
        "under a mask the cotangent of the convolutions' final state is ignored",
    ),
    "inner_product_detached": hidden(
        "tttcore.loss:InnerProduct.gradient", "-label", _stopped("-label"), "v has no gradient where the loss is inner_product",
    ),
    "primal_sum_detached": hidden(
        "tttcore.forms.primal:mini_batch", "after[name] = prefix[:, :, -1, ...]", f"after[name] = {_stopped('prefix[:, :, -1, ...]')}",
        "in the primal form gradients stop at the border of a mini-batch",
    ),
    "offset_detached_at_1": hidden(
        SCALE, "relu(average + offset)", f"relu(average + (offset if spec.mini_batch_size > 1 else {_stopped('offset')}))",
        "token_lr_offset has no gradient when K = 1", STEPS,
    ),
}  # fmt: skip
