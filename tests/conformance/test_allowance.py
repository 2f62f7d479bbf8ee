"""The allowance: wide where the problem is ill-conditioned, narrow elsewhere, and blind to the forms under test."""

import dataclasses
import importlib

import numpy as np
import pytest

from ttt_conformance.allowance import BAND, SAFETY, allowance
from ttt_conformance.cases import INNER_MODELS, SHAPES, Case
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect
from ttt_conformance.laws.law import LawBroken
from ttt_conformance.problem import Problem
from tttcore import LayerSpec, get_backend
from tttcore.tree import leaves, paths, tree_map

SUBJECTS = ("inner", "layer")
TRIAL = Trial(get_backend("numpy"), "dual")

every_subject = pytest.mark.parametrize("subject", SUBJECTS)
every_dtype = pytest.mark.parametrize("dtype", ["float64", "float32"])


def case_of(subject, inner="linear", dtype="float64", flavour="normal", seed=21):
    shape = SHAPES[subject][0]
    return Case(subject, inner, dtype, shape, 2 * shape[3] + 3, flavour, seed)


def largest(tree):
    return {path: float(np.max(np.abs(x), initial=0.0)) for path, x in zip(paths(tree), leaves(tree), strict=True)}


def exact(problem):
    """Sums of a few inputs, correctly rounded: a run as benign as can be."""
    x = problem.inputs[0].astype(np.float64)
    return {"sum": np.sum(x[:, :2], axis=1).astype(problem.dtype), "double": (2 * x).astype(problem.dtype)}


def benign(dtype):
    problem = case_of("layer", dtype=dtype).problem()
    wide = problem.map(lambda x: x.astype(np.float64))
    return exact(wide), allowance(problem, exact(wide), exact)


@every_dtype
def test_an_error_of_100_roundings_on_a_benign_problem_is_caught(dtype):
    """A rounding of the inputs moves a sum of two by at most two, so 16 × 2 + 8 roundings are allowed and 100 are not."""
    truth, allowed = benign(dtype)
    step = np.finfo(dtype).eps
    for path, limit in largest(allowed).items():
        assert BAND * step * largest(truth)[path] < limit < 100 * step * largest(truth)[path]
    for path in truth:
        wrong = tree_map(np.copy, truth)
        index = np.unravel_index(np.argmax(np.abs(wrong[path])), wrong[path].shape)
        wrong[path][index] *= 1 + 100 * step
        with pytest.raises(LawBroken, match=path):
            TRIAL.compare("benign", wrong, truth, allowed)
        wrong[path][index] = truth[path][index] * (1 + BAND / 2 * step)
        TRIAL.compare("benign", wrong, truth, allowed)


@every_subject
@every_dtype
@pytest.mark.parametrize("inner", INNER_MODELS)
def test_a_normal_problem_is_allowed_little(subject, inner, dtype):
    """Layers amplify a rounding; on normal draws by less than 10⁴ times, most of it the safety factor."""
    _, truth, allowed = expect(case_of(subject, inner, dtype).problem())
    step = np.finfo(dtype).eps
    for path, limit in largest(allowed).items():
        if path != "state.phase":
            assert 0 < limit < 1e4 * SAFETY * step * largest(truth)[path], path


def ill(scale, dtype):
    """A problem whose pre-activations have a spread of that size, far below √ε = 1e-3: the gradient LayerNorm divides by it."""
    rng = np.random.default_rng(0)
    spec = LayerSpec(width=4, heads=1, mini_batch_size=4, eps=1e-20)
    weights = {"W1": scale * rng.normal(size=(1, 4, 4)), "b1": np.ones((1, 1, 4)), "norm_weight": np.ones((1, 4)), "norm_bias": np.zeros((1, 4))}
    q, k, v = (rng.normal(size=(1, 6, 1, 4)) for _ in range(3))
    inputs = (q, k, v, rng.random((1, 6, 1)))
    return Problem(spec, weights | {"token_lr_offset": np.zeros(4)}, inputs).map(lambda x: x.astype(dtype))


@every_dtype
def test_grows_with_ill_conditioning(dtype):
    """A row of spread s around 1 is known to eps/s of it: ten times less spread, ten times the share that is allowed, or more."""
    shares = []
    for scale in (1e-1, 1e-2, 1e-3):
        _, truth, allowed = expect(ill(scale, dtype))
        shares.append(largest(allowed)["y"] / largest(truth)["y"])
    assert shares[1] > 3 * shares[0]
    assert shares[2] > 3 * shares[1]


@every_subject
@pytest.mark.parametrize("inner", INNER_MODELS)
def test_follows_the_precision(subject, inner):
    """float32 is allowed more than float64 by the ratio of their steps, give or take what 3 samples of an error vary."""
    narrow, wide = (largest(expect(case_of(subject, inner, dtype).problem()).allowed) for dtype in ("float32", "float64"))
    ratio = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    for path, limit in narrow.items():
        if path != "state.phase":
            assert ratio / 32 < limit / wide[path] < 32 * ratio, path


@every_subject
def test_integers_are_allowed_nothing_but_their_last_digits(subject):
    """The phase is an integer, right or wrong by 1."""
    assert expect(case_of(subject).problem()).allowed.state.phase < 1e-10


def test_does_not_depend_on_the_forms_under_test(monkeypatch):
    """With dual and decode broken, the truth and the allowance are what they were."""
    case = case_of("layer", "mlp")
    before = expect(case.problem())

    def never(*_, **__):
        pytest.fail("a form under test was run")

    loop = importlib.import_module("tttcore.inner_loop")
    monkeypatch.setitem(loop._MINI_BATCH, "dual", never)
    monkeypatch.setattr(loop, "token", never)
    after = expect(case.problem())
    for x, y in zip(leaves(tuple(after[1:])), leaves(tuple(before[1:])), strict=True):
        np.testing.assert_array_equal(x, y)


def test_is_the_same_each_time_and_leaves_the_problem_alone():
    problem = case_of("layer", "swiglu").problem()
    copies = [x.copy() for x in leaves((problem.params, problem.inputs))]
    one, two = expect(problem), expect(problem)
    for x, y in zip(leaves(one.allowed), leaves(two.allowed), strict=True):
        assert x == y
    for x, y in zip(leaves((problem.params, problem.inputs)), copies, strict=True):
        np.testing.assert_array_equal(x, y)


def test_nothing_is_allowed_to_be_infinite():
    """An overflow in the reference's own precision would allow anything."""
    for flavour in ("normal", "faint", "tied", "loud"):
        for dtype in ("float64", "float32"):
            for subject in SUBJECTS:
                allowed = expect(case_of(subject, "mlp", dtype, flavour).problem()).allowed
                assert all(np.isfinite(x) for x in leaves(allowed))


def test_a_wrong_shape_and_a_nan_are_never_within_an_allowance():
    _, truth, allowed = expect(case_of("inner").problem())
    wide = tree_map(lambda x: np.asarray(np.inf), allowed)
    short = truth._replace(y=truth.y[:, :-1])
    with pytest.raises(LawBroken, match=r"y: got shape"):
        TRIAL.compare("y and state", short, truth, wide)
    hole = truth._replace(y=np.where(np.arange(truth.y.size).reshape(truth.y.shape) == 3, np.nan, truth.y))
    with pytest.raises(LawBroken, match=r"got an error of nan"):
        TRIAL.compare("y and state", hole, truth, wide)
    with pytest.raises(ValueError, match="shorter"):
        TRIAL.compare("y and state", (truth.y,), tuple(truth), tuple(allowed))
    trial = dataclasses.replace(TRIAL, worst=0.0, comparisons=0)
    trial.compare("y and state", truth, truth, allowed)
    assert (trial.worst, trial.comparisons) == (0.0, len(list(leaves(truth))))
