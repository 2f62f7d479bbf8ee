"""The reference against the definition, in any array-API namespace, in every dtype, at the edges of shape."""

import functools
import math
import re
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from small import case_of

from ttt_conformance.allowance import allowance
from ttt_conformance.cases import FLAVOURS, INNER_MODELS
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import continued, expect
from ttt_conformance.laws.gradients import derivative
from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.problem import Differentiable, Options, Outcome, Problem, answer, differentiable, random_like
from ttt_conformance.report.results import HOLDS, NOT_CLAIMED
from ttt_conformance.runner import run
from tttcore import Backend, LayerSpec, State, get_backend, init, inner_loop, inner_params, layer_around
from tttcore.complex_step import STEP
from tttcore.inner_model import ACTIVATIONS, layer_norm
from tttcore.tree import leaves, paths, tree_map

NUMPY = get_backend("numpy")
FORMS = ("primal", "dual", "decode")
DOCS = Path(__file__).parents[2] / "docs"

every_form = pytest.mark.parametrize("form", FORMS)
every_model = pytest.mark.parametrize("inner", INNER_MODELS)


# The definition, written again: one row, one head, one token at a time, gradients by complex step of the loss itself.


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


# The worked example of the documentation.


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    return get_backend("my_backend:BACKEND")


@pytest.mark.parametrize("form", ["primal", "decode"])
@pytest.mark.parametrize("law", ["frozen", "reference", "split", "causality", "equivariance", "independence", "rest", "repeat"])
def test_the_example_backend_conforms(law, form, mine):
    chosen = [cell for cell in cells([mine]) if (cell.law.name, cell.form, cell.inner) == (law, form, "linear")]
    results = [run(cell, EFFORTS["quick"]) for cell in chosen]
    assert results
    assert [result.message for result in results if result.status != HOLDS] == []


def test_the_example_backend_claims_no_more_than_it_has(mine):
    others = [cell for cell in cells([mine]) if cell.law.name == "reference" and (cell.form == "dual" or cell.inner == "mlp")]
    assert {run(cell, EFFORTS["quick"]).status for cell in others} == {NOT_CLAIMED}


def test_the_page_about_backends_shows_the_example(mine, capsys):
    page = (DOCS / "backends.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks[0] == (DOCS / "examples/my_backend.py").read_text(encoding="utf-8")
    exec(compile(blocks[1], "backends.md", "exec"), {})
    assert float(capsys.readouterr().out) < 1e3 * np.finfo(np.float64).eps, "rounding, the page says"


# Any array-API namespace.

STARTS = {"inner": ("fresh", "resumed", "mask", "packed"), "layer": ("fresh", "resumed", "mask")}
DEVICE = array_api_strict.Device("device1")


def strict(x):
    """On a device that is not the default, so that a constant made elsewhere is refused."""
    return array_api_strict.asarray(x, device=DEVICE)


def options_of(case, start):
    """The problem and options of a start."""
    rng = np.random.default_rng(5)
    if start == "packed":
        problem = case.problem()
        row = Problem(problem.spec, problem.params, tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs))
        return row, None, np.minimum([0, 4, 4, 5, row.length], row.length)
    problem = case.problem() if start == "fresh" else continued(case)
    return problem, rng.random((problem.batch, problem.length)) < 0.6 if start == "mask" else None, None


def call(problem, form, mask, cu_seqlens):
    """The reference itself, without a backend around it."""
    if problem.subject == "layer":
        return layer_around(inner_loop, problem.spec, problem.params, *problem.inputs, state=problem.state, form=form, mask=mask)
    return inner_loop(problem.spec, problem.params, *problem.inputs, state=problem.state, form=form, mask=mask, cu_seqlens=cu_seqlens)


@pytest.mark.parametrize(
    ("subject", "start", "rich"),
    [(subject, start, rich) for subject in STARTS for start in STARTS[subject] for rich in (True, False) if subject == "layer" or rich],
)
@every_model
@every_form
def test_array_api_strict_computes_the_same(form, inner, subject, start, rich):
    problem, mask, cu_seqlens = options_of(case_of(subject, inner, rich=rich), start)

    def primal(problem):
        return Outcome(*call(problem, "primal", mask, cu_seqlens))

    truth = primal(problem)
    given = [strict(x) if x is not None else None for x in (mask, cu_seqlens)]
    with array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
        native = Problem(problem.spec, *(tree_map(strict, tree) for tree in (problem.params, problem.inputs, problem.state)))
        got = Outcome(*call(native, form, *given))
    assert all(x.device == DEVICE for x in leaves(got))
    assert [str(x.dtype).rpartition(".")[2] for x in leaves(got)] == [str(x.dtype) for x in leaves(truth)]
    Trial(NUMPY, form).compare("strict", tree_map(plain, got), truth, allowance(problem, truth, primal))


def plain(x):
    """NumPy again; array-api-strict hands out arrays of its default device only."""
    return np.asarray(array_api_strict.asarray(x, device=array_api_strict.Device("CPU_DEVICE")))


@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_model
@every_form
def test_array_api_strict_takes_a_complex_step(form, inner, subject):
    problem = continued(case_of(subject, inner))
    rng = np.random.default_rng(6)
    tangents: Differentiable = tree_map(lambda x: random_like(rng, x), differentiable(problem))
    run = functools.partial(derivative, tangents)
    slopes = run(problem)
    arguments = differentiable(problem)
    params, inputs, state = tree_map(lambda x, u: strict(x + 1j * STEP * u), arguments, tangents)
    native = Problem(problem.spec, params, inputs, state._replace(phase=strict(problem.state.phase)))
    y, end = tree_map(plain, call(native, form, None, None))
    found = Outcome(*tree_map(lambda x: np.imag(x) / STEP, (y, end._replace(phase=None))))
    Trial(NUMPY, form).compare("slope", found, slopes, allowance(problem, slopes, run))


# Dtypes.


@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_model
@every_form
@pytest.mark.parametrize(
    ("tokens", "params", "computed"),
    [
        ("float16", "float16", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("float64", "float64", "float64"),
    ],
)
def test_computes_in_the_widest_dtype_and_keeps_that_of_the_tokens(tokens, params, computed, form, inner, subject):
    problem = case_of(subject, inner, dtype=tokens).problem()
    mixed = Problem(problem.spec, {name: x.astype(params) for name, x in problem.params.items()}, problem.inputs)
    got = answer(NUMPY, mixed, Options(form))
    assert got.y.dtype == tokens
    assert {str(x.dtype) for x in leaves((got.state.weights, got.state.grads))} == {computed}
    assert got.state.phase.dtype == np.int32
    assert all(np.isfinite(x).all() for x in leaves(got))
    if (subject, tokens, params) == ("layer", "float16", "float16"):
        return  # the projections are of the layer's own dtype
    wide = answer(NUMPY, mixed.map(lambda x: x.astype(computed)), Options(form))
    np.testing.assert_array_equal(got.y, wide.y.astype(tokens))
    for path, x, y in zip(paths(got.state), leaves(got.state), leaves(wide.state), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=path)


@every_form
def test_a_wide_state_widens_the_inner_loop(form):
    narrow = continued(case_of("inner", "mlp", dtype="float32"))
    wide_state = tree_map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, narrow.state)
    got = answer(NUMPY, Problem(narrow.spec, narrow.params, narrow.inputs, wide_state), Options(form))
    wide = answer(NUMPY, narrow.map(lambda x: x.astype(np.float64)), Options(form))
    np.testing.assert_array_equal(got.y, wide.y.astype(np.float32))
    for x, y in zip(leaves(got.state), leaves(wide.state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_output_norm_of_a_narrow_layer_is_computed_in_float32():
    """With an identity for projection, the layer's output is the float32 LayerNorm of the heads, rounded once."""
    spec = LayerSpec(width=64, heads=2)
    rng = np.random.default_rng(8)
    params = {name: (x + rng.normal(size=x.shape)).astype(np.float16) for name, x in init(spec, 0).items()} | {"o_proj": np.eye(64, dtype=np.float16)}
    heads = (30 + rng.normal(size=(2, 5, 2, 32))).astype(np.float16)
    y = spec.views_rule.output(spec, params, rng.normal(size=(2, 5, 64)).astype(np.float16), heads)
    joined, weight, bias = (x.astype(np.float32) for x in (heads.reshape(2, 5, 64), params["out_norm_weight"], params["out_norm_bias"]))
    np.testing.assert_array_equal(y, layer_norm(joined, weight, bias, spec.eps).astype(np.float16))


# Edges of shape.


@pytest.mark.parametrize("start", ["fresh", "resumed", "mask"])
@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_model
@every_form
def test_no_tokens_leave_the_state_as_it_was(form, inner, subject, start):
    case = case_of(subject, inner)
    problem = (case.problem() if start == "fresh" else continued(case)).tokens(0, 0)
    y, end = answer(NUMPY, problem, Options(form, np.zeros((problem.batch, 0), bool) if start == "mask" else None))
    assert y.shape == problem.inputs[0].shape
    names = problem.spec.inner_model.weight_shapes(problem.spec.heads, problem.spec.head_dim)
    first = {name: np.stack([problem.params[name]] * problem.batch) for name in names}
    zeros = {name: np.zeros_like(x) for name, x in first.items()}
    conv = np.zeros((problem.batch, problem.spec.conv_width - 1, problem.spec.width)) if problem.spec.share_qk and subject == "layer" else None
    expected = problem.state or State(first, zeros, np.zeros(problem.batch, np.int32), conv)
    assert list(paths(end)) == list(paths(expected))
    for path, x, old in zip(paths(end), leaves(end), leaves(expected), strict=True):
        np.testing.assert_array_equal(x, old, err_msg=path)


@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_form
def test_no_rows(form, subject):
    problem = case_of(subject, "mlp").problem()
    none = Problem(problem.spec, problem.params, tuple(x[:0] for x in problem.inputs))
    for mask in (None, np.zeros((0, problem.length), bool)):
        y, end = answer(NUMPY, none, Options(form, mask))
        assert y.shape == none.inputs[0].shape
        assert all(x.shape[0] == 0 for x in leaves(end))


@every_form
def test_no_tokens_in_packed_sequences(form):
    problem = case_of("inner", "linear").problem().tokens(0, 0)
    none = Problem(problem.spec, problem.params, tuple(x[:1] for x in problem.inputs))
    y, end = answer(NUMPY, none, Options(form, cu_seqlens=np.asarray([0, 0, 0])))
    assert y.shape == none.inputs[0].shape
    assert {x.shape[0] for x in leaves(end)} == {2}


@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_model
@every_form
def test_a_row_does_not_depend_on_its_batch(form, inner, subject):
    problem, _, allowed = expect(continued(case_of(subject, inner)))
    whole = answer(NUMPY, problem, Options(form))
    for row in range(problem.batch):
        alone = answer(NUMPY, problem.row(row, np.ones(problem.length, bool)), Options(form))
        Trial(NUMPY, form).compare(f"row {row}", alone, tree_map(lambda x, row=row: x[row : row + 1], whole), allowed)


@every_form
def test_heads_of_width_one_read_their_bias(form):
    """LN of one number is its bias, whatever the weights, so nothing is learned either."""
    spec = LayerSpec(width=2, heads=2, mini_batch_size=3, rope_theta=None)
    rng = np.random.default_rng(0)
    params = {name: x + rng.normal(size=x.shape) for name, x in init(spec, 0, np.float64).items()}
    q, k, v = (rng.normal(size=(2, 7, 2, 1)) for _ in range(3))
    y, end = NUMPY.inner(spec, inner_params(spec, params), q, k, v, rng.random((2, 7, 2)), form=form)
    np.testing.assert_array_equal(y, q + params["norm_bias"])
    np.testing.assert_array_equal(end.weights["W1"], np.broadcast_to(params["W1"], (2, 2, 1, 1)))
    x = rng.normal(size=(2, 7, 2))
    assert NUMPY.layer(spec, params, x, form=form)[0].shape == x.shape


@pytest.mark.parametrize("start", ["fresh", "resumed", "mask"])
@pytest.mark.parametrize("rich", [True, False])
@every_form
def test_positions_of_one_row_serve_all(form, rich, start):
    problem, mask, _ = options_of(case_of("layer", "linear", rich=rich), start)
    row = np.asarray([[5, 0, 3, 9, 2, 2, 7, 1, 4, 8, 6, 3]])[:, : problem.length]
    x = problem.inputs[0]
    every = np.broadcast_to(row, x.shape[:2])
    given = {"state": problem.state, "form": form, "mask": mask}
    one, all_rows = (NUMPY.layer(problem.spec, problem.params, x, positions=p, **given) for p in (row, every))
    for name, a, b in zip(paths(tuple(one)), leaves(tuple(one)), leaves(tuple(all_rows)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@every_form
def test_each_row_has_its_own_positions(form):
    """Given as what they are by default, the phase and on, they change nothing; given otherwise in one row, they change that row."""
    problem = continued(case_of("layer", "linear"))
    x = problem.inputs[0]
    counted = problem.state.phase[:, None] + np.arange(problem.length)
    shifted = counted + np.asarray([[0], [1]])
    default, same, other = (
        NUMPY.layer(problem.spec, problem.params, x, state=problem.state, form=form, positions=p)[0] for p in (None, counted, shifted)
    )
    np.testing.assert_array_equal(same, default)
    np.testing.assert_array_equal(other[0], default[0])
    assert (other[1] != default[1]).any(axis=-1).all()


@pytest.mark.parametrize("length", [11, 8, 0])
@pytest.mark.parametrize(("subject", "start"), [(subject, start) for subject in STARTS for start in STARTS[subject]])
@pytest.mark.parametrize("inner", ["linear", "mlp"])
@every_form
def test_arguments_are_never_written_to(form, inner, subject, start, length):
    """Of a ragged tail, of whole mini-batches (which need no padding, so that a slice of an argument goes all the way), of no tokens."""
    problem, mask, cu_seqlens = options_of(case_of(subject, inner, length=length), start)
    arguments = {"params": dict(problem.params), "inputs": problem.inputs, "state": problem.state, "mask": mask, "cu_seqlens": cu_seqlens}
    before = tree_map(np.copy, arguments)
    for x in leaves(arguments):
        x.flags.writeable = False
    out = call(Problem(problem.spec, arguments["params"], problem.inputs, problem.state), form, mask, cu_seqlens)
    assert list(paths(arguments)) == list(paths(before))
    for path, x, old in zip(paths(before), leaves(arguments), leaves(before), strict=True):
        np.testing.assert_array_equal(x, old, err_msg=path)
    own = {name: arguments[name] for name in (("params", "inputs", "state") if length else ("params", "inputs"))}
    kept = [path for x in leaves(out) for path, given in zip(paths(own), leaves(own), strict=True) if np.shares_memory(x, given)]
    assert not kept, "what is returned is the caller's own; but a state without tokens is the state"


def test_every_activation_is_in_the_definition():
    assert set(OWN_ACTIVATIONS) == set(ACTIVATIONS)
    assert isinstance(NUMPY, Backend)


def test_the_inner_models_of_these_tests_differ_in_what_a_stack_can_be():
    """Depth, gates, no bias, no residual norm: what is tested for every inner model is tested for these."""
    stacks = {name: LayerSpec(8, 2, inner=inner).inner_model for name, inner in INNER_MODELS.items()}
    assert {len(stack.hidden) for stack in stacks.values()} == {0, 1, 2}
    assert any(layer.activation == "swiglu" for stack in stacks.values() for layer in stack.hidden)
    assert {"W1"} == set(LayerSpec(8, 2, inner=INNER_MODELS["bare"]).inner_shapes()) - {"token_lr_offset"}
