"""Wrong layers around a right inner loop: rotation, convolutions, gate and output."""

from __future__ import annotations

from .mutant import Mutant

ROPE, CONVOLUTION, GATE = "tttcore.views.rope:rotate", "tttcore.views.convolution:causal_convolution", "tttcore.update:MiniBatch.gate"
PROJECT, OUTPUT = ("tttcore.views.projections:Projections." + name for name in ("project", "output"))
CONVOLVE = "tttcore.views.convolution:convolve"
MODULO, PAIRS = "docs/decisions.md#14-rope-positions-are-taken-modulo-k", "docs/decisions.md#15-rope-turns-interleaved-pairs"
CONV, AROUND = "docs/decisions.md#17-one-convolution-state-for-both-views", "docs/mathematics.md#11-the-layer-around-the-inner-loop"
STORED, KEPT = "docs/decisions.md#23-projections-are-stored-as-in-out", "docs/decisions.md#19-outputs-keep-the-input-dtype"
STEPS, NUMBERS = "docs/mathematics.md#14-step-sizes", "docs/mathematics.md#13-numbers"

_ROTATED = "q, k = (rotate(view, position, spec.mini_batch_size, spec.rope_theta) for view in (q, k))"
_LAST = "return ys, padded[:, total:, :]"

MUTANTS = {
    "rope_not_modulo": Mutant(ROPE, "position % period", "position", "reference", "RoPE positions are not taken modulo K", MODULO),
    "rope_halves": Mutant(
        ROPE, "wide[..., 0::2], wide[..., 1::2]", "wide[..., :half], wide[..., half:]", "reference",
        "RoPE turns halves instead of neighbouring pairs", PAIRS,
    ),
    "rope_backwards": Mutant(
        ROPE, "[even * cos - odd * sin, even * sin + odd * cos]", "[even * cos + odd * sin, odd * cos - even * sin]", "reference",
        "RoPE turns the other way", PAIRS,
    ),
    "rope_exponent": Mutant(ROPE, "dtype) / half)", "dtype) / (2 * half))", "reference", "RoPE's frequencies fall half as fast", AROUND),
    "rope_theta_constant": Mutant(ROPE, "theta **", "10000.0 **", "reference", "rope_theta is a constant instead of the spec's", AROUND),
    "rope_of_keys_only": Mutant(
        PROJECT, _ROTATED, "k = rotate(k, position, spec.mini_batch_size, spec.rope_theta)", "reference", "RoPE turns k but not q", AROUND,
    ),
    "rope_of_labels_too": Mutant(
        PROJECT, _ROTATED, _ROTATED + "; v = rotate(v, position, spec.mini_batch_size, spec.rope_theta)", "reference", "RoPE turns v as well", AROUND,
    ),
    "rope_always": Mutant(
        PROJECT, "if spec.rope_theta is not None:\n        " + _ROTATED,
        "if spec.rope_theta is not None or spec.head_dim % 2 == 0:\n        " + _ROTATED.replace("spec.rope_theta)", "spec.rope_theta or 1e4)"),
        "frozen", "RoPE is applied although rope_theta is None", AROUND,
    ),
    "rope_in_float32": Mutant(
        ROPE, "dtype = compute_dtype(x)", "dtype = xp.float32", "reference", "RoPE's angles are computed in float32 for float64 tokens", NUMBERS,
    ),
    "key_conv_uses_query_weights": Mutant(
        PROJECT, 'f"conv_{view}_weight"', '"conv_q_weight"', "reference", "the convolution of k uses the weights of q's", CONV,
    ),
    "key_conv_uses_query_bias": Mutant(
        PROJECT, 'f"conv_{view}_bias"', '"conv_q_bias"', "reference", "the convolution of k uses the bias of q's", CONV,
    ),
    "conv_reversed": Mutant(
        CONVOLUTION, "weight[tap, :]", "weight[width - 1 - tap, :]", "reference", "the taps of the convolutions are reversed", AROUND,
    ),
    "conv_centred": Mutant(
        CONVOLUTION, "return y", "return y + 1e-3 * padded[:, width - 1 :, :] * 0 + 1e-3 * (padded[:, -1:, :] - padded[:, width - 1 :, :])",
        "causality", "the convolutions look ahead", AROUND,
    ),
    "conv_activated": Mutant(CONVOLUTION, "return y", "return y * (y > 0)", "reference", "the convolutions are followed by an activation", AROUND),
    "conv_state_lost": Mutant(
        CONVOLVE, "if conv is None else conv", "if True else conv", "split", "the convolutions begin each call with zeros", CONV,
    ),
    "conv_state_of_width_4": Mutant(
        CONVOLVE, _LAST, "return ys, padded[:, -3:, :]", "reference", "the convolutions' state has three inputs whatever conv_width is", CONV,
    ),
    "conv_state_of_row_0": Mutant(
        CONVOLVE, "if conv is None else conv", "if conv is None else conv[:1] + 0 * conv", "reference",
        "the convolutions of all rows begin with the inputs of row 0", CONV,
    ),
    "conv_state_with_padding": Mutant(
        CONVOLVE, "if length is None:", "if True:", "mask", "under a mask the convolutions' state ends with padding", CONV,
    ),
    "conv_state_short_row": Mutant(
        CONVOLVE, "flat = xp.reshape(padded,", "flat = xp.reshape(xp.concat([0 * cast(past, dtype), cast(u, dtype)], axis=1),", "mask",
        "a masked row with fewer tokens than the window forgets the inputs before it", CONV,
    ),
    "conv_state_short_call": Mutant(
        CONVOLVE, _LAST, "return ys, xp.concat([0 * cast(past, dtype), cast(u, dtype)], axis=1)[:, total:, :]", "split",
        "a call with fewer tokens than the window forgets the inputs before it", CONV,
    ),
    "conv_state_narrow": Mutant(
        "tttcore.layer:layer_around", "end.phase, views.conv)", "end.phase, None if views.conv is None else cast(views.conv, x.dtype))", "dtype",
        "the convolutions' state is kept in the tokens' dtype", NUMBERS, "torch",
    ),
    "layer_in_float32": Mutant(
        "tttcore.layer:layer_around", "return cast(y, output_dtype(x, y.dtype)),", "return y,", "dtype",
        "the layer's y comes back in the dtype of its parameters instead of the tokens'", KEPT, "torch",
    ),
    "gate_without_bias": Mutant(GATE, ' + cast(params["lr_bias"], dtype)', "", "reference", "ℓ is sigmoid(xθ) without its bias", STEPS),
    "gate_doubled": Mutant(GATE, "return sigmoid(", "return 2 * sigmoid(", "reference", "ℓ is twice the sigmoid", STEPS),
    "output_gate_ignored": Mutant(OUTPUT, "if spec.gate:", "if False:", "reference", "the output gate is missing", AROUND),
    "output_gate_silu": Mutant(
        OUTPUT, 'ACTIVATIONS["gelu"]', 'ACTIVATIONS["silu"]', "reference", "the output gate uses SiLU instead of GELU", AROUND,
    ),
    "output_norm_eps_constant": Mutant(
        OUTPUT, "spec.eps)", "1e-6)", "reference", "the output LayerNorm's ε is a constant instead of the spec's eps", "docs/decisions.md#7-epsilon",
    ),
    "output_norm_of_heads": Mutant(
        OUTPUT, "layer_norm(cast(joined, dtype), weight, bias, spec.eps)",
        "namespace(x).reshape(layer_norm(cast(heads, dtype), *(namespace(x).reshape(w, heads.shape[2:]) for w in (weight, "
        "bias)), spec.eps), joined.shape)",
        "reference", "the output LayerNorm is taken over each head instead of all columns", AROUND,
    ),
    "output_norm_missing_bias": Mutant(
        OUTPUT, "weight, bias, spec.eps)", "weight, 0 * bias, spec.eps)", "reference", "the output LayerNorm lacks its bias", AROUND,
    ),
    "output_residual": Mutant(
        OUTPUT, 'return _matmul(normed, params["o_proj"])', 'return x + _matmul(normed, params["o_proj"])', "reference",
        "the layer adds its input to its output", AROUND,
    ),
    "projection_transposed": Mutant(
        PROJECT, '_matmul(x, params["v_proj"])', '_matmul(x, namespace(x).matrix_transpose(params["v_proj"]))', "reference",
        "a projection is stored as [out, in]", STORED,
    ),
    "heads_interleaved": Mutant(
        PROJECT, "(*view.shape[:2], spec.heads, spec.head_dim)) for view", "(*view.shape[:2], spec.head_dim, spec.heads)).swapaxes(2, 3) for view",
        "reference", "heads are cut out of the columns with a stride instead of one after another", AROUND,
    ),
    "mask_forgets_conv_state": Mutant(
        CONVOLVE, "if conv is None else conv", "if conv is None or length is not None else conv", "mask",
        "under a mask the convolutions begin with zeros", CONV,
    ),
}  # fmt: skip
