"""The definition that reproducers carry against the reference, and against the paper's Theorem 1."""

import ast
import dataclasses
import inspect
import json
from functools import partial

import numpy as np
import pytest
from small import case_of, options_of

from ttt_conformance.allowance import allowance
from ttt_conformance.cases import INNER_MODELS
from ttt_conformance.explain import definition
from ttt_conformance.laws import Trial
from ttt_conformance.problem import Options, Outcome, answer, reference
from tttcore import LayerSpec, State, get_backend
from tttcore.tree import leaves, paths

NUMPY = get_backend("numpy")
LINEAR_ATTENTION = {"hidden": [], "bias": False, "residual_norm": False}

every_inner_model = pytest.mark.parametrize("inner", INNER_MODELS)
every_subject = pytest.mark.parametrize("subject", ["inner", "layer"])
every_start = pytest.mark.parametrize("start", ["fresh", "resumed"])


def flat(state):
    return None if state is None else dict(zip(paths(state), leaves(state), strict=True))


def defined(problem, **options):
    """The definition's answer, as a backend's."""
    call = definition.layer if problem.subject == "layer" else definition.inner
    y, found = call(json.loads(problem.spec.to_json()), problem.params, *problem.inputs, state=flat(problem.state), **options)
    parts = ({path[len(part) :]: x for path, x in found.items() if path.startswith(part)} for part in ("weights.", "grads."))
    return Outcome(y, State(*parts, found["phase"], found.get("conv")))


def problem_of(case, start="fresh", **changes):
    """Fresh, or from a state whose rows have read five and seven tokens."""
    problem = case.problem()
    problem = dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, **changes))
    if start == "fresh":
        return problem
    past = problem.tokens(0, 7)
    state = reference(past, mask=np.arange(7) < np.asarray([[5], [7]])).state
    assert state.phase.tolist() == [1, 3]
    return dataclasses.replace(problem, state=state)


def assert_defined(problem, **options):
    """The definition's answer is the reference's, in everything but what the allowance grants to rounding."""
    run = partial(answer, NUMPY, options=Options("primal", **options))
    truth = run(problem.map(lambda x: x.astype(np.float64)))
    got, like = defined(problem, **options), run(problem)
    assert list(paths(got)) == list(paths(like))
    assert [x.dtype for x in leaves(got)] == [x.dtype for x in leaves(like)]
    Trial(NUMPY, "definition").compare("definition", got, truth, allowance(problem, truth, run))


@every_start
@every_inner_model
@pytest.mark.parametrize("loss", ["squared_error", "inner_product"])
def test_the_inner_loop(loss, inner, start):
    assert_defined(problem_of(case_of("inner", inner), start, loss=loss))


@pytest.mark.parametrize("start", ["fresh", "resumed", "mask", "packed"])
@every_inner_model
def test_the_whole_read_out(inner, start):
    problem, mask, cu_seqlens = options_of(case_of("whole", inner), start)
    assert problem.spec.read_out == "whole"
    assert_defined(problem, mask=mask, cu_seqlens=cu_seqlens)


@every_start
@every_inner_model
@pytest.mark.parametrize("rope_theta", [10000.0, None])
@pytest.mark.parametrize("rich", [True, False])
def test_the_layer(rich, rope_theta, inner, start):
    assert_defined(problem_of(case_of("layer", inner, rich=rich), start, rope_theta=rope_theta))


@pytest.mark.parametrize("flavour", ["faint", "tied", "loud"])
@every_inner_model
def test_where_numbers_are_extreme(inner, flavour):
    assert_defined(problem_of(case_of("inner", inner, flavour=flavour)))


@every_subject
def test_in_float32(subject):
    assert_defined(problem_of(case_of(subject, "mlp", dtype="float32"), "resumed"))


@every_start
@every_subject
def test_a_mask(start, subject):
    """With NaN where it is False."""
    problem = problem_of(case_of(subject, "linear"), start)
    mask = np.random.default_rng(5).random((problem.batch, problem.length)) < 0.6
    # The inner loop refuses NaN in learning rates.
    inputs = tuple(
        x if x.ndim == 3 and subject == "inner" else np.where(np.expand_dims(mask, tuple(range(2, x.ndim))), x, np.nan) for x in problem.inputs
    )
    assert_defined(dataclasses.replace(problem, inputs=inputs), mask=mask)


@every_inner_model
def test_packed_sequences(inner):
    problem = problem_of(case_of("inner", inner))
    row = dataclasses.replace(problem, inputs=tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs))
    assert_defined(row, cu_seqlens=np.asarray([0, 7, 7, 8, row.length]))


@every_subject
def test_no_tokens_and_no_rows(subject):
    problem = problem_of(case_of(subject, "linear"))
    for inputs in (tuple(x[:, :0] for x in problem.inputs), tuple(x[:0] for x in problem.inputs)):
        assert_defined(dataclasses.replace(problem, inputs=inputs))


def test_arguments_are_never_written_to():
    problem = problem_of(case_of("layer", "mlp"), "resumed")
    for x in leaves((problem.params, problem.inputs, problem.state)):
        x.flags.writeable = False
    before = defined(problem)
    for x, y in zip(leaves(before), leaves(defined(problem)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_bare_linear_model_is_linear_attention():
    """f(x) = xW, W₀ = 0 and L = −⟨f(k), v⟩: y_i = s_i Σ_{j≤i} ℓ_j ⟨q_i, k_j⟩ v_j; of numbers that are exact in binary, to the last bit."""
    T, D = 4, 2
    spec = json.loads(LayerSpec(width=D, heads=1, loss="inner_product", mini_batch_size=T).to_json()) | {"inner": LINEAR_ATTENTION}
    rng = np.random.default_rng(0)
    q, k, v = (rng.integers(-4, 5, (1, T, 1, D)).astype(float) for _ in range(3))
    lr = rng.integers(1, 4, (1, T, 1)) / 4
    a = np.asarray([0.25, 0.5, 0.5, 1.0])
    params = {"W1": np.zeros((1, D, D)), "token_lr_offset": a - 1 / (1 + np.arange(T))}
    y, state = definition.inner(spec, params, q, k, v, lr)
    scores = np.tril(q[0, :, 0] @ k[0, :, 0].T) * lr[0, :, 0] * a[:, None] / D
    np.testing.assert_array_equal(y[0, :, 0], scores @ v[0, :, 0])
    np.testing.assert_array_equal(state["weights.W1"][0, 0], (k[0, :, 0].T * lr[0, :, 0]) @ v[0, :, 0] * a[-1] / D)
    assert set(state) == {"weights.W1", "grads.W1", "phase"}


@pytest.mark.parametrize(
    ("axis", "name"),
    [("inner", "convolution"), ("loss", "absolute"), ("update", "momentum"), ("views", "identity"), ("activation", "relu")],
)
def test_what_the_definition_does_not_know_is_refused(axis, name):
    problem = case_of("layer", "mlp").problem()
    spec = json.loads(problem.spec.to_json())
    spec |= {"inner": definition.LINEAR | {"hidden": [{"expansion": 1, "activation": name}]}} if axis == "activation" else {axis: name}
    with pytest.raises(ValueError, match=rf"^{axis}: got '{name}'; expected one of \["):
        definition.layer(spec, problem.params, *problem.inputs)


def test_it_imports_numpy_alone():
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(definition))) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imports] == ["from typing import Any", "import numpy as np"]
