"""Wrong arithmetic of a mini-batch: causality, step sizes, what is read and what is summed, in each form."""

from __future__ import annotations

from .mutant import Mutant

DUAL, PRIMAL = "tttcore.forms.dual:mini_batch", "tttcore.forms.primal:mini_batch"
DECODE, DECODE_READ = "tttcore.forms.decode:token", "tttcore.forms.decode:read"
SCALE, TOTAL = "tttcore.update:MiniBatch.scale", "tttcore.forms.gradients:gated_sums"
ETA, CAUSAL = "docs/decisions.md#3-one-factor-of-the-reader-one-of-the-writer", "docs/decisions.md#5-causality-is-inclusive"
WIDTH, BIAS = "docs/decisions.md#2-steps-are-divided-by-the-head-width", "docs/decisions.md#4-biases-in-the-inner-model"
STEPS, READ, SUMS = "docs/mathematics.md#14-step-sizes", "docs/mathematics.md#61-one-affine-map", "docs/mathematics.md#63-after-the-last-token"
BY_MINI_BATCH, WHOLE = "tttcore.inner_loop:_by_mini_batch", "docs/mathematics.md#145-whole-read-out"
STATE, DECODING = "docs/mathematics.md#16-the-state", "docs/mathematics.md#91-a-token-at-a-time"

MUTANTS = {
    "strict_causality": Mutant(
        DUAL, "* lr[..., None, :])", "* lr[..., None, :], k=-1)", "reference",
        "a token does not read its own update: the triangle lacks its diagonal", CAUSAL,
    ),
    "no_causal_mask": Mutant(
        DUAL, "xp.tril((x_bar", "((x_bar", "causality", "tokens read updates of later tokens of their mini-batch: the triangle is missing", CAUSAL,
    ),
    "one_token_ahead": Mutant(
        DUAL, "* lr[..., None, :])", "* lr[..., None, :], k=1)", "causality", "a token reads the update of the token after it", CAUSAL,
    ),
    "eta_transposed": Mutant(
        DUAL, "lr[..., None, :]", "lr[..., :, None]", "reference", "η indexed by the reading token instead of the writing one", ETA,
    ),
    "eta_by_query_row": Mutant(
        DUAL, "lr[..., None, :])", "lr[..., :1, None])", "reference", "one row of η used for all tokens: the gate of each writing token is lost", ETA,
    ),
    "eta_in_reverse": Mutant(
        DUAL, "lr[..., None, :])", "xp.flip(lr, axis=-1)[..., None, :])", "reference", "η permuted along the writing tokens of a mini-batch", ETA,
    ),
    "eta_clipped": Mutant(
        DUAL, "lr[..., None, :])", "xp.where(lr > 1, 1 + 0 * lr, lr)[..., None, :])", "reference", "ℓ is cut off at 1 in the read-outs", STEPS,
    ),
    "bias_not_updated": Mutant(
        DUAL, "xp.matrix_transpose(x) + ones)", "xp.matrix_transpose(x) + 0)", "reference",
        "the bias that a token reads is not updated: the 1 in X̄Xᵀ + 1", BIAS,
    ),
    "upper_bias_not_updated": Mutant(
        DUAL, "xp.matrix_transpose(x) + ones)", "xp.matrix_transpose(x) + (ones if index == 0 else 0.0))", "reference",
        "the 1 in X̄Xᵀ + 1 stands in the first affine map only", BIAS,
    ),
    "upper_bias_not_summed": Mutant(
        TOTAL, "xp.sum(written, axis=-2, keepdims=True)", "xp.sum(written, axis=-2, keepdims=True) * (index == 1)", "reference",
        "the bias of the second affine map is left out of S", SUMS,
    ),
    "mid_state_not_read": Mutant(
        DUAL, "(x_bar @ weight_sum + bias_sum + attention @ g)", "(attention @ g)", "split",
        "tokens do not read the gradients that earlier calls left in S", READ,
    ),
    "mid_bias_not_read": Mutant(
        DUAL, "(x_bar @ weight_sum + bias_sum + attention @ g)", "(x_bar @ weight_sum + attention @ g)", "split",
        "of the S that earlier calls left, the bias is not read", READ,
    ),
    "mid_state_unscaled": Mutant(
        DUAL, "scale[:, None] * (x_bar @ weight_sum + bias_sum + attention @ g)",
        "(scale[0] * (x_bar @ weight_sum + bias_sum) + scale[:, None] * (attention @ g))", "split",
        "a_i multiplies the new gradients only, not those in S", STATE,
    ),
    "last_scale_everywhere": Mutant(
        DUAL, "scale[:, None] * (x_bar", "scale[-1] * (x_bar", "reference", "the last row of η used for all reading tokens: a_i is a_K everywhere",
        ETA,
    ),
    "gate_not_summed": Mutant(
        TOTAL, "written = gates[..., None] * g", "written = g + 0 * gates[..., None]", "reference", "S sums gradients without their gates ℓ", SUMS,
    ),
    "sums_of_queries": Mutant(
        DUAL, "gated_sums(spec, rows, lr)", "gated_sums(spec, [(q, rows[0][1]), *rows[1:]], lr)", "reference",
        "the gradient of W₁ is built from the test view q instead of the training view k", SUMS,
    ),
    "no_1_over_d": Mutant(
        SCALE, "(spec.base_lr / spec.head_dim)", "spec.base_lr", "reference", "steps are not divided by the width of a head", WIDTH,
    ),
    "1_over_root_d": Mutant(
        SCALE, "(spec.base_lr / spec.head_dim)", "(spec.base_lr / spec.head_dim**0.5)", "reference", "steps are divided by √D instead of D", WIDTH,
    ),
    "1_over_4": Mutant(SCALE, "spec.head_dim)", "4)", "reference", "steps are divided by a constant instead of the width of a head", WIDTH),
    "base_lr_ignored": Mutant(SCALE, "(spec.base_lr /", "(1.0 /", "reference", "η₀ is a constant instead of the spec's base_lr", STEPS),
    "steps_1_percent_long": Mutant(
        SCALE, "spec.head_dim)", "spec.head_dim) * 1.01", "reference", "steps are too long by one part in a hundred", STEPS,
    ),
    "a_i_forgotten": Mutant(
        SCALE, "relu(average + offset)", "(0 * relu(average + offset) + 1)", "reference", "the reading token's factor a_i is missing", ETA,
    ),
    "a_i_not_clipped": Mutant(SCALE, "relu(average + offset)", "(average + offset)", "reference", "a_i may fall below 0: the clip is missing", ETA),
    "a_i_without_offset": Mutant(
        SCALE, "relu(average + offset)", "relu(average + 0 * offset)", "reference", "the learned offset of a_i is not used", ETA,
    ),
    "a_i_counts_from_2": Mutant(
        SCALE, "start=1", "start=2", "reference", "a_i is 1/(i + 2): the first token is counted as the second", ETA,
    ),
    "a_i_is_1_over_k": Mutant(
        SCALE, "cast(arange(spec.mini_batch_size, offset, real(offset).dtype, start=1) ** -1, offset.dtype)", "1 / spec.mini_batch_size", "reference",
        "a_i is 1/K for all tokens, as if the mini-batch were not causal", ETA,
    ),
    "decode_strict": Mutant(
        DECODE_READ, "step * summed[name]", "step * grads[name]", "reference", "in decode a token does not read its own update", CAUSAL,
    ),
    "decode_a_of_next": Mutant(
        DECODE, "xp.take(scale, state.phase", "xp.take(scale, (state.phase + 1) % spec.mini_batch_size", "reference",
        "in decode a token takes the next one's a_i", DECODING,
    ),
    "decode_a_of_row_0": Mutant(
        DECODE, "xp.take(scale, state.phase", "xp.take(scale, state.phase[:1] + 0 * state.phase", "reference",
        "in decode all rows take a_i at the phase of row 0", DECODING,
    ),
    "gradients_at_read_weights": Mutant(
        DECODE_READ, "maps(spec, weights)", "maps(spec, {name: weight - step * grads[name] for name, weight in weights.items()})",
        "reference", "gradients are taken at the weights that are read, not at those that the mini-batch starts from",
        "docs/mathematics.md#13-gradients-of-a-mini-batch",
    ),
    "decode_sum_not_cleared": Mutant(
        DECODE, "where_valid(~done, choose(valid, total, state.grads[name]))", "choose(valid, total, state.grads[name])", "reference",
        "in decode S is not cleared when the weights step", DECODING,
    ),
    "primal_strict": Mutant(
        PRIMAL, "xp.cumulative_sum(gradient, axis=2)", "(xp.cumulative_sum(gradient, axis=2) - gradient)", "reference",
        "in the primal form a token does not read its own update", CAUSAL,
    ),
    "primal_mean": Mutant(
        PRIMAL, "scale[..., None, None] * seen", "scale[0] * prefix / (1 + xp.reshape(xp.cumulative_sum(xp.ones_like(scale)), (-1, 1, 1)))",
        "reference", "in the primal form gradients are averaged instead of scaled by the learned a_i", ETA,
    ),
    "whole_read_causally": Mutant(
        DUAL, 'if spec.read_out == "whole":', "if False:", "permutation", "tokens read causally although the spec's read-out is whole", WHOLE,
    ),
    "primal_whole_read_causally": Mutant(
        PRIMAL, 'if spec.read_out == "causal"', "if True", "permutation",
        "in the primal form tokens read causally although the spec's read-out is whole", WHOLE,
    ),
    "whole_scale_of_full": Mutant(
        BY_MINI_BATCH, "xp.reshape(grid.last, (-1,))", "xp.reshape(0 * grid.last + spec.mini_batch_size - 1, (-1,))", "permutation",
        "in a whole read-out the factor of a ragged mini-batch is a_K: empty slots are counted as tokens", WHOLE,
    ),
    "whole_scale_of_row_0": Mutant(
        BY_MINI_BATCH, "xp.reshape(grid.last, (-1,))", "xp.reshape(0 * grid.last + grid.last[:, :1], (-1,))", "mask",
        "in a whole read-out all rows take the factor of row 0, however many tokens they have", WHOLE,
    ),
    "gates_below_0_not_summed": Mutant(
        TOTAL, "written = gates[..., None] * g", "written = xp.where(gates < 0, 0 * gates, gates)[..., None] * g", "reference",
        "gates below 0 are taken for 0 in S", SUMS,
    ),
    "decode_upper_bias_lost": Mutant(
        DECODE_READ, 'grads[f"b{index}"] + written', 'grads[f"b{index}"] * (index == 1) + written', "reference",
        "in decode S of the second bias holds the last token only", DECODING,
    ),
}  # fmt: skip
