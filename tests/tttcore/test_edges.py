"""The reference at the edges of shape; positions, row by row; arguments that stay as they were."""

import numpy as np
import pytest
from small import STARTS, case_of, every_form, every_model, options_of, unchecked

from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import continued, expect
from ttt_conformance.problem import Options, Problem, answer
from tttcore import LayerSpec, State, get_backend, init, inner_params
from tttcore.tree import leaves, paths, tree_map

NUMPY = get_backend("numpy")


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
    out = unchecked(Problem(problem.spec, arguments["params"], problem.inputs, problem.state), form, mask, cu_seqlens)
    assert list(paths(arguments)) == list(paths(before))
    for path, x, old in zip(paths(before), leaves(arguments), leaves(before), strict=True):
        np.testing.assert_array_equal(x, old, err_msg=path)
    own = {name: arguments[name] for name in (("params", "inputs", "state") if length else ("params", "inputs"))}
    kept = [path for x in leaves(out) for path, given in zip(paths(own), leaves(own), strict=True) if np.shares_memory(x, given)]
    assert not kept, "what is returned is the caller's own; but a state without tokens is the state"
