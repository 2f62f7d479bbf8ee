"""The reference against the definition, written again: one row, one head, one token at a time, gradients by complex step of the loss itself."""

import functools
import math

import numpy as np
import pytest
from small import case_of, every_form, every_model

from ttt_conformance.cases import FLAVOURS, INNER_MODELS
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect
from ttt_conformance.problem import Options, Outcome, Problem, answer
from tttcore import LayerSpec, State, get_backend
from tttcore.inner_model import ACTIVATIONS

NUMPY = get_backend("numpy")


def gelu(z):
    return z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def silu(z):
    return z * (1 + np.tanh(z / 2)) / 2


def swiglu(z):
    gate, value = np.split(z, 2)
    return silu(gate) * value


OWN_ACTIVATIONS = {"gelu": gelu, "silu": silu, "swiglu": swiglu}


def model(spec, weights, gamma, beta, x):
    """f(x; W) = x + LN(stack(x; W)) of one token x [D], or the stack alone."""
    h = x
    for index, layer in enumerate((*spec.inner_model.hidden, None), start=1):
        z = h @ weights[f"W{index}"]
        if spec.inner_model.bias:
            z = z + weights[f"b{index}"][0]
        h = z if layer is None else OWN_ACTIVATIONS[layer.activation](z)
    if not spec.inner_model.residual_norm:
        return h
    centred = h - h.mean()
    return x + gamma * centred / np.sqrt((centred**2).mean() + spec.eps) + beta


def gradient(loss, weights):
    """∂loss/∂W, one complex step an entry."""
    found = {name: np.zeros_like(value) for name, value in weights.items()}
    for name, value in weights.items():
        for place in np.ndindex(value.shape):
            shifted = value.astype(complex)
            shifted[place] += 1e-30j
            found[name][place] = loss(weights | {name: shifted}).imag / 1e-30
    return found


def tokens_of(problem):
    """Each row and head: its f(W, x), its initial weights, and its tokens (q, k, v, ℓ)."""
    spec, params = problem.spec, problem.params
    names = spec.inner_model.weight_shapes(spec.heads, spec.head_dim)
    for row, head in np.ndindex(problem.batch, spec.heads):
        norm = [params[name][head] for name in ("norm_weight", "norm_bias")] if spec.inner_model.residual_norm else [None, None]
        f = functools.partial(_model_of, spec, *norm)
        yield row, head, f, {name: params[name][head] for name in names}, zip(*(x[row, :, head] for x in problem.inputs), strict=True)


def _model_of(spec, gamma, beta, weights, x):
    return model(spec, weights, gamma, beta, x)


def squared_error(f, k, v):
    return lambda weights: ((f(weights, k) - v) ** 2).sum() / 2


def by_definition(problem):
    """y and the final state, token by token."""
    spec, (q, _, _, _) = problem.spec, problem.inputs
    y, ends = np.zeros_like(q), {}
    for row, head, f, W, tokens in tokens_of(problem):
        S = {name: np.zeros_like(w) for name, w in W.items()}
        for t, (q_t, k_t, v_t, lr_t) in enumerate(tokens):
            i = t % spec.mini_batch_size
            g = gradient(squared_error(f, k_t, v_t), W)
            S = {name: S[name] + lr_t * g[name] for name in W}
            a = max(0.0, 1 / (i + 1) + problem.params["token_lr_offset"][i])
            read = {name: W[name] - spec.base_lr / spec.head_dim * a * S[name] for name in W}
            y[row, t, head] = f(read, q_t)
            if i == spec.mini_batch_size - 1:
                W, S = read, {name: np.zeros_like(w) for name, w in W.items()}
        ends[row, head] = W, S
    parts = [{name: stacked(ends, part, name, problem.batch, spec.heads) for name in ends[0, 0][part]} for part in (0, 1)]
    return Outcome(y, State(*parts, np.full(problem.batch, problem.length % spec.mini_batch_size, np.int32)))


def stacked(ends, part, name, batch, heads):
    return np.stack([np.stack([ends[row, head][part][name] for head in range(heads)]) for row in range(batch)])


@pytest.mark.parametrize("flavour", FLAVOURS)
@every_model
@every_form
def test_every_form_is_the_definition(form, inner, flavour):
    problem, _, allowed = expect(case_of("inner", inner, (1, 2, 4, 3), 7, flavour).problem())
    truth = defined(inner, flavour)
    Trial(NUMPY, form).compare("definition", answer(NUMPY, problem, Options(form)), truth, allowed)


@functools.cache
def defined(inner, flavour):
    return by_definition(case_of("inner", inner, (1, 2, 4, 3), 7, flavour).problem())


@every_model
@every_form
def test_one_token_a_mini_batch_is_online_gradient_descent(form, inner):
    problem, _, allowed = expect(case_of("inner", inner, (2, 1, 4, 1), 5).problem())
    got = answer(NUMPY, problem, Options(form))
    step = problem.spec.base_lr / 4 * max(0.0, 1 + problem.params["token_lr_offset"][0])
    assert step > 0
    for row, head, f, W, tokens in tokens_of(problem):
        for t, (q, k, v, lr) in enumerate(tokens):
            g = gradient(squared_error(f, k, v), W)
            W = {name: W[name] - step * lr * g[name] for name in W}
            Trial(NUMPY, form).compare(f"token {t}", got.y[row, t, head], f(W, q), allowed.y)
        final = {name: x[row, head] for name, x in got.state.weights.items()}
        Trial(NUMPY, form).compare("weights", final, W, allowed.state.weights)
    assert not any(x.any() for x in got.state.grads.values())
    assert not got.state.phase.any()


@every_model
@every_form
def test_without_learning_the_weights_stay(form, inner):
    problem, _, allowed = expect(case_of("inner", inner).problem())
    *views, lr = problem.inputs
    frozen = Problem(problem.spec, problem.params, (*views, np.zeros_like(lr)))
    got = answer(NUMPY, frozen, Options(form))
    for name, x in got.state.weights.items():
        np.testing.assert_array_equal(x, np.broadcast_to(problem.params[name], x.shape))
        assert not got.state.grads[name].any()
    for row, head, f, W, tokens in tokens_of(frozen):
        Trial(NUMPY, form).compare("y", got.y[row, :, head], np.stack([f(W, q) for q, *_ in tokens]), allowed.y)
    np.testing.assert_array_equal(got.state.phase, problem.length % problem.spec.mini_batch_size)


def test_every_activation_is_in_the_definition():
    assert set(OWN_ACTIVATIONS) == set(ACTIVATIONS)


def test_the_inner_models_of_these_tests_differ_in_what_a_stack_can_be():
    """Depth, gates, no bias, no residual norm: what is tested for every inner model is tested for these."""
    stacks = {name: LayerSpec(8, 2, inner=inner).inner_model for name, inner in INNER_MODELS.items()}
    assert {len(stack.hidden) for stack in stacks.values()} == {0, 1, 2}
    assert any(layer.activation == "swiglu" for stack in stacks.values() for layer in stack.hidden)
    assert {"W1"} == set(LayerSpec(8, 2, inner=INNER_MODELS["bare"]).inner_shapes()) - {"token_lr_offset"}
