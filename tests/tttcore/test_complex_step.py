"""The oracle: linear, equal to automatic differentiation; and the pull-backs that are written by hand, equal to the oracle."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small import case_of

from ttt_conformance.allowance import allowance
from ttt_conformance.cases import INNER_MODELS
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import continued
from ttt_conformance.laws.gradients import derivative, oracle
from ttt_conformance.problem import Problem, differentiable, random_like
from tttcore import directional_derivative, get_backend, inner_derivative, layer_derivative
from tttcore.inner_model import ACTIVATIONS, layer_norm
from tttcore.inner_model.norm import layer_norm_and_vjp
from tttcore.loss import LOSSES
from tttcore.tree import leaves, paths, tree_map

EPS = np.finfo(np.float64).eps
FORMS = ("primal", "dual", "decode")
ORACLE = Trial(get_backend("numpy"), "primal")


def numbers(largest):
    """Zero, or far enough from the smallest floats that a complex step of 1e-20 does not underflow."""
    return st.floats(-largest, largest).map(lambda x: x if abs(x) > 1e-6 else 0.0)


every_subject = pytest.mark.parametrize("subject", ["inner", "layer"])
every_model = pytest.mark.parametrize("inner", INNER_MODELS)


def test_the_derivative_of_known_functions():
    x, u, n = np.asarray([0.3, -1.2, 2.0]), np.asarray([1.0, -0.5, 2.0]), np.asarray(2)
    found = directional_derivative(lambda p: (p["x"] ** 3, {"s": np.sin(p["x"]) * p["n"]}), {"x": x, "n": n}, {"x": u, "n": 0 * n})
    # A power and a sine, each correctly rounded to a few steps.
    np.testing.assert_allclose(found[0], 3 * x**2 * u, rtol=8 * EPS)
    np.testing.assert_allclose(found[1]["s"], 2 * np.cos(x) * u, rtol=8 * EPS)


@every_subject
@every_model
def test_linear_in_the_direction(subject, inner):
    problem = continued(case_of(subject, inner))
    rng = np.random.default_rng(0)
    u, v = (tree_map(lambda x: random_like(rng, x), differentiable(problem)) for _ in range(2))
    along_u, along_v, along_both = (derivative(w, problem) for w in (u, v, tree_map(np.add, u, v)))
    summed = tree_map(np.add, along_u, along_v)
    runs = [functools.partial(derivative, w) for w in (u, v)]
    limits = [allowance(problem, along, run) for along, run in zip((along_u, along_v), runs, strict=True)]
    ORACLE.compare("∂f·(u + v)", along_both, summed, tree_map(np.add, *limits))
    # A step twice as large is the same computation with a larger exponent, to the last bit.
    twice = derivative(tree_map(lambda x: 2 * x, u), problem)
    for path, x, y in zip(paths(twice), leaves(twice), leaves(along_u), strict=True):
        np.testing.assert_array_equal(x, 2 * y, err_msg=path)
    assert all(np.any(x) for x in leaves(along_u)), "every output moves"


@every_subject
@every_model
def test_every_form_has_the_same_derivative(subject, inner):
    problem = continued(case_of(subject, inner))
    rng = np.random.default_rng(1)
    tangents = tree_map(lambda x: random_like(rng, x), differentiable(problem))
    run = functools.partial(derivative, tangents)
    truth = run(problem)
    state_dot = tangents.state._replace(phase=np.zeros_like(problem.state.phase))
    for form in FORMS:
        options = {"state": problem.state, "state_dot": state_dot, "form": form}
        if subject == "layer":
            y, end = layer_derivative(problem.spec, problem.params, *problem.inputs, tangents.params, *tangents.inputs, **options)
        else:
            y, end = inner_derivative(problem.spec, (problem.params, *problem.inputs), (tangents.params, *tangents.inputs), **options)
        assert not end.phase.any()
        ORACLE.compare(form, (y, end._replace(phase=None)), tuple(truth), tuple(allowance(problem, truth, run)))


@every_subject
@pytest.mark.parametrize(("inner", "carried"), [*((inner, True) for inner in INNER_MODELS), ("linear", False)])
def test_equals_automatic_differentiation(subject, inner, carried):
    """Every argument and the carried state, with cotangents of y and, if a state is carried, of the final one; autograd through the plain loop."""
    question, bars, directions = oracle(case_of(subject, inner), "resumed" if carried else "fresh", True)
    problem = question.problem
    arguments = tree_map(lambda x: torch.tensor(x, requires_grad=True), differentiable(problem))
    y, end = called(problem, arguments)
    outputs = zip(leaves((y, end._replace(phase=None) if carried else None)), leaves(bars), strict=True)
    sum(torch.sum(x * torch.tensor(bar)) for x, bar in outputs).backward()
    found = dict(zip(paths(arguments), (leaf.grad for leaf in leaves(arguments)), strict=True))
    assert len(directions) == len(found)
    for (name, bar), (_, along, slope, allowed) in zip(found.items(), directions, strict=True):
        # The initial weights have no say once there is a state.
        assert (bar is None) == (slope == 0) == (carried and name.removeprefix("params.") in arguments.state.weights)
        ORACLE.compare(name, np.asarray(0.0 if bar is None else np.sum(bar.numpy() * along)), slope, allowed)


def called(problem: Problem, arguments):
    backend = get_backend("torch")
    call = backend.layer if problem.subject == "layer" else backend.inner
    state = None if problem.state is None else arguments.state._replace(phase=torch.tensor(problem.state.phase))
    return call(problem.spec, arguments.params, *arguments.inputs, state=state)


# Pull-backs by hand.


def slope_of(function, x, u):
    return directional_derivative(function, x, u)


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(data=st.data())
def test_an_activations_pull_back_is_its_complex_step(name, data):
    activation = ACTIVATIONS[name]
    z = data.draw(hnp.arrays(np.float64, (3, 4 * activation.columns), elements=numbers(40)))
    h_bar = data.draw(hnp.arrays(np.float64, (3, 4), elements=numbers(40)))
    pulled = activation.vjp(z, h_bar)
    assert pulled.shape == z.shape
    # h' is a sum of a few products of factors up to |z| u′(z) with tanh or sigmoid, whose last bit is off by a rounding or two: the slope of
    # the tanh's argument, u′ ≤ 0.8 (1 + 0.14 z²) within |z| ≤ 10, says by how much a bit lost in 1 − t² counts.
    held = np.minimum(np.abs(z), 10)
    limit = 16 * EPS * (1 + held * (1 + 0.14 * held**2)) * (1 + np.max(np.abs(h_bar))) * (1 + np.max(np.abs(z)) * (activation.columns - 1))
    for column in range(z.shape[-1]):
        unit = np.zeros_like(z)
        unit[:, column] = 1.0
        slope = np.sum(h_bar * slope_of(activation, z, unit), axis=-1)
        assert np.all(np.abs(pulled[:, column] - slope) <= limit[:, column])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_finite_far_out(name):
    activation = ACTIVATIONS[name]
    z = np.asarray([[-1e200, -1e4, -50.0, 0.0, 50.0, 1e4, 1e200, 1.0]])
    h_bar = np.ones((1, 8 // activation.columns))
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(activation(z)).all()
        assert np.isfinite(activation.vjp(z, h_bar)).all()


rows = hnp.arrays(np.float64, (2, 5), elements=numbers(40))


@given(z=rows, g=rows, u=rows, weight=hnp.arrays(np.float64, (5,), elements=numbers(3)), eps=st.sampled_from([1e-6, 1e-3, 1.0]))
def test_layer_norms_pull_back_is_its_complex_step(z, g, u, weight, eps):
    pulled = layer_norm_and_vjp(z, weight, np.zeros(5), eps)[1](g)
    slope = np.sum(g * slope_of(lambda z: layer_norm(z, weight, np.zeros(5), eps), z, u), axis=-1)
    # Centring loses max|z| eps, which r = 1/√(var + ε) amplifies in ẑ; the pull-back is r times sums of 5 products of |γg|, 1 and ẑ ≤ √5.
    r = 1 / np.sqrt(np.var(z, axis=-1) + eps)
    size = r * np.max(np.abs(weight * g), axis=-1)
    limit = 16 * 5 * EPS * size * (1 + r * np.max(np.abs(z), axis=-1))
    assert np.all(np.abs(np.sum(pulled * u, axis=-1) - slope) <= limit * (1 + np.sum(np.abs(u), axis=-1)))
    assert np.all(np.abs(np.sum(pulled, axis=-1)) <= limit), "every row of it sums to zero"


@given(z=rows, weight=hnp.arrays(np.float64, (5,), elements=numbers(3)))
def test_layer_norm_is_the_text_books(z, weight):
    bias = np.arange(5.0)
    expected = weight * (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6) + bias
    limit = 16 * EPS * (4 + 3 * np.max(np.abs(z), axis=-1, keepdims=True) / np.sqrt(z.var(-1, keepdims=True) + 1e-6))
    assert np.all(np.abs(layer_norm(z, weight, bias, 1e-6) - expected) <= limit)


@pytest.mark.parametrize("name", LOSSES)
@given(prediction=rows, label=rows, u=rows)
def test_a_losss_gradient_is_its_complex_step(name, prediction, label, u):
    loss = LOSSES[name]
    slope = slope_of(lambda f: loss(f, label), prediction, u)
    gradient = loss.gradient(prediction, label)
    # A sum of 5 products.
    limit = 16 * EPS * np.sum(np.abs(u) * (np.abs(prediction) + np.abs(label)), axis=-1)
    assert np.all(np.abs(np.sum(gradient * u, axis=-1) - slope) <= limit)
