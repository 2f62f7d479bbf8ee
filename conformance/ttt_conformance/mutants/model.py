"""Wrong inner models: loss, LayerNorm and its pull-back, ε, activations, biases and residual."""

from __future__ import annotations

from .mutant import Mutant

START, ROWS, LOSS = "tttcore.forms.gradients:maps", "tttcore.forms.gradients:token_gradients", "tttcore.loss:SquaredError.gradient"
NORM, STANDARD, LN = ("tttcore.inner_model.norm:" + name for name in ("layer_norm_vjp", "_standardise", "layer_norm_and_vjp"))
OUTPUT, BACKWARD = "tttcore.inner_model.stack:Stack.output_and_vjp", "tttcore.inner_model.stack:Stack.backward"
GELU, SILU, GATED = ("tttcore.inner_model.activations:" + name for name in ("GeluTanh", "Silu", "Gated"))
HALF, RESIDUAL, EPS = "docs/decisions.md#1-one-half-in-the-loss", "docs/decisions.md#6-residual-on-the-query", "docs/decisions.md#7-epsilon"
VARIANCE, TANH = "docs/decisions.md#8-population-variance-in-two-passes", "docs/decisions.md#9-gelu-is-the-tanh-form-with-exact-constants"
LOSSES, PULL_BACK = "docs/mathematics.md#12-the-loss", "docs/mathematics.md#2-layernorm-and-its-pull-back"
ACTIVATIONS, CHAIN = "docs/mathematics.md#3-activations", "docs/mathematics.md#4-gradients-of-any-stack"
MODEL = "docs/mathematics.md#11-the-inner-model"

# W₂ in the transpose's shape, its entries where they were.
_SHAPE_ONLY = "namespace(g).reshape(layers[index][0], layers[index][0].shape[:-2] + layers[index][0].shape[:-3:-1])"
_ERF = (
    "(lambda xp: xp.reshape(xp.asarray([0.5 * t * (1 + math.erf(t / 2**0.5)) for t in xp.reshape(real(z), (-1,)).tolist()], dtype=z.dtype), z.shape))"
    "(namespace(z))"
)

MUTANTS = {
    "loss_without_half": Mutant(
        LOSS, "prediction - label", "2 * (prediction - label)", "reference", "the loss lacks its ½: gradients are twice as long", HALF,
    ),
    "loss_target_v": Mutant(LOSS, "prediction - label", "prediction - 0.5 * label", "reference", "the gradient of the loss is not f(k) − v", LOSSES),
    "target_without_k": Mutant(
        ROWS, "gradient(prediction, v)", "gradient(prediction - k, v)", "reference",
        "LN(z) is compared with v instead of v − k: the residual is missing in the loss", LOSSES,
    ),
    "inner_product_sign": Mutant(
        "tttcore.loss:InnerProduct.gradient", "-label + 0", "label + 0", "reference", "the loss inner_product has the wrong sign", LOSSES,
    ),
    "inner_product_scaled": Mutant(
        "tttcore.loss:InnerProduct.gradient", "-label + 0", "-0.5 * label + 0", "reference",
        "the loss inner_product is halved as if it were the squared error", LOSSES,
    ),
    "eps_in_backward": Mutant(
        LN, "layer_norm_vjp(standard, r,", "layer_norm_vjp(*_standardise(z, 1e-8),", "reference",
        "ε is smaller in the gradient of LayerNorm than in its value", EPS,
    ),
    "eps_everywhere": Mutant(STANDARD, "+ eps)", "+ 1e-8)", "reference", "ε is 1e-8 instead of the spec's", EPS),
    "eps_constant": Mutant(STANDARD, "+ eps)", "+ 1e-6)", "reference", "ε is a constant instead of the spec's eps", EPS),
    "eps_outside_the_root": Mutant(
        STANDARD, "(xp.mean(centred * centred, axis=-1, keepdims=True) + eps) ** -0.5",
        "1 / (xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + 1e-300) + eps)", "reference",
        "ε is added to the standard deviation instead of the variance", EPS,
    ),
    "sample_variance": Mutant(
        STANDARD, "+ eps)", "* (z.shape[-1] / max(z.shape[-1] - 1, 1)) + eps)", "reference",
        "the variance is divided by D − 1 (Bessel) instead of D", VARIANCE,
    ),
    "one_pass_variance": Mutant(
        STANDARD, "xp.mean(centred * centred, axis=-1, keepdims=True)",
        "(xp.mean(z * z, axis=-1, keepdims=True) - xp.mean(z, axis=-1, keepdims=True) ** 2)", "reference",
        "the variance is E[z²] − E[z]², which loses its digits where the mean is large", VARIANCE,
    ),
    "norm_not_centred": Mutant(
        STANDARD, "return centred * r, r", "return z * r, r", "reference", "LayerNorm divides by the standard deviation without taking the mean away",
        PULL_BACK,
    ),
    "norm_gradient_parentheses": Mutant(
        NORM, "- standard * along)", "- standard) * along", "reference", "the gradient of LayerNorm has a misplaced parenthesis", PULL_BACK,
    ),
    "norm_gradient_not_centred": Mutant(
        NORM, "scaled - xp.mean(scaled, axis=-1, keepdims=True) -", "scaled -", "reference", "the gradient of LayerNorm lacks the mean of γg",
        PULL_BACK,
    ),
    "norm_gradient_diagonal": Mutant(
        NORM, " - standard * along", "", "reference", "the gradient of LayerNorm takes the standard deviation for a constant", PULL_BACK,
    ),
    "norm_gradient_without_gamma": Mutant(NORM, "scaled = weight * g", "scaled = g", "reference", "the gradient of LayerNorm lacks γ", PULL_BACK),
    "gamma_after_the_mean": Mutant(
        NORM, "return r * (scaled", "g, scaled = scaled, g; return weight * r * (scaled", "reference",
        "the gradient of LayerNorm multiplies with γ at its end", PULL_BACK,
    ),
    "beta_subtracted": Mutant(LN, "+ bias", "- bias", "reference", "β of the inner LayerNorm has the wrong sign", PULL_BACK),
    "beta_not_in_the_loss": Mutant(
        ROWS, "output_and_vjp(params,", 'output_and_vjp({name: x if name != "norm_bias" else 0 * x for name, x in params.items()},', "reference",
        "β of the inner LayerNorm is left out of the prediction that the loss compares", LOSSES,
    ),
    "gamma_of_head_0": Mutant(
        OUTPUT, 'params["norm_weight"][:, None, :]', 'params["norm_weight"][:1, None, :]', "reference", "all heads use γ of the first one", MODEL,
    ),
    "residual_on_z": Mutant(
        OUTPUT, "return x + value", "return z + value", "reference", "the residual is z instead of q (and k): z + LN(z)", RESIDUAL,
    ),
    "no_residual": Mutant(OUTPUT, "return x + value", "return value", "reference", "the residual is missing: f(x) = LN(z)", RESIDUAL),
    "transposed_w2": Mutant(
        START, "namespace(g).matrix_transpose(layers[index][0])", _SHAPE_ONLY, "reference", "W₂ is transposed in the gradient of W₁", CHAIN,
    ),
    "first_gradient_1_percent_long": Mutant(
        BACKWARD, "gradients.insert(0, ", "gradients.insert(0, 1.01 * ", "reference",
        "gradients below the last map are too long by one part in a hundred", CHAIN,
    ),
    "last_activation_everywhere": Mutant(
        BACKWARD, "self.activations[index].vjp", "self.activations[-1].vjp", "reference",
        "the gradient of every hidden layer uses the last one's activation", CHAIN,
    ),
    "hidden_gradient_at_values": Mutant(
        BACKWARD, "self.activations[index].vjp(trace.outputs[index]",
        "self.activations[index].vjp(trace.inputs[index + 1] if self.activations[index].columns == 1 else trace.outputs[index]", "reference",
        "the activation's derivative is taken at its value instead of its input", CHAIN,
    ),
    "gelu_derivative_truncated": Mutant(GELU + ".vjp", "3 * 0.044715", "3 * 0.0447", "reference", "a constant of GELU's derivative is rounded", TANH),
    "gelu_constant_rounded": Mutant(
        "tttcore.inner_model.activations:_twice_u", "math.sqrt(2 / math.pi)", "0.79788456", "reference", "√(2/π) of GELU is rounded to eight digits",
        TANH,
    ),
    "gelu_by_erf": Mutant(
        GELU + ".__call__", "z * sigmoid(_twice_u(_saturated(z)))", _ERF, "reference", "GELU is the erf form instead of the tanh form", TANH,
    ),
    "gelu_by_1_702": Mutant(
        GELU + ".__call__", "sigmoid(_twice_u(_saturated(z)))", "sigmoid(1.702 * z)", "reference", "GELU is the form z · sigmoid(1.702 z)", TANH,
    ),
    "silu_derivative": Mutant(
        SILU + ".vjp", "(1 + z * sigmoid(-z))", "(1 + z * sigmoid(z))", "reference", "the derivative of SiLU has s where 1 − s belongs", ACTIVATIONS,
    ),
    "gate_halves_swapped": Mutant(
        GATED + ".__call__", "self.gate(z[..., :half]) * z[..., half:]", "self.gate(z[..., half:]) * z[..., :half]", "reference",
        "the halves of a gated activation have changed places", ACTIVATIONS,
    ),
    "gate_derivative_missing": Mutant(
        GATED + ".vjp", "self.gate.vjp(z1, h_bar * z2)", "h_bar * z2", "reference", "a gated activation's derivative lacks σ′", ACTIVATIONS,
    ),
}  # fmt: skip
