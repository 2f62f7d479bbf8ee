"""The gate in front of the clock."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from ttt_conformance.bench.check import WrongAnswer, errors, relative_error, truth, within
from ttt_conformance.bench.workload import Workload
from tttcore import get_backend

WORKLOAD = Workload(1, 9, 2, 4, 4, dtype="float64")


def test_the_relative_error_is_that_of_frobenius():
    assert relative_error(np.array([[3.0, 0.0]]), np.array([[3.0, 4.0]])) == 0.8
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.full(2, 1.5, ml_dtypes.bfloat16), np.full(2, 1.5)) == 0


@pytest.mark.parametrize("got", [[1.0, np.nan], [np.inf, 1.0], [1.0], [[1.0, 1.0]]], ids=str)
def test_what_is_no_answer_is_infinitely_wrong(got):
    assert relative_error(np.array(got), np.ones(2)) == np.inf


def test_anything_is_infinitely_far_from_zeros():
    assert relative_error(np.ones(2), np.zeros(2)) == np.inf


def test_the_worst_is_named():
    found = errors("ab", (np.array([1.0]), np.array([1.5])), [np.array([1.0]), np.array([1.0])])
    assert within("one", found, 0.5, "mend it") == 0.5
    with pytest.raises(WrongAnswer, match=r"^b of one: got a relative error of 0.5; expected at most 0.1. Fix: mend it.$"):
        within("one", found, 0.1, "mend it")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_nan_and_infinity_never_pass(number):
    with pytest.raises(WrongAnswer):
        within("one", {"y": number}, 1e300, "mend it")


def test_the_truth_is_the_reference():
    problem = WORKLOAD.problem(0)
    known = truth(problem, None)
    y, _ = get_backend("numpy").inner(problem.spec, problem.params, *problem.inputs)
    assert relative_error(y, known.y) < 1e-13
    assert known.gradients is None


def test_gradients_are_those_of_differences():
    pytest.importorskip("torch")
    problem = WORKLOAD.problem(0)
    known = truth(problem, get_backend("torch"))
    backend, step = get_backend("numpy"), 1e-6
    for index, name in ((0, "q"), (3, "lr")):
        moved = [x.copy() for x in problem.inputs]
        moved[index].flat[5] += step
        (after, _), (before, _) = (backend.inner(problem.spec, problem.params, *inputs) for inputs in (moved, problem.inputs))
        assert np.isclose(np.sum(known.y_bar * (after - before)) / step, known.gradients[name].flat[5], rtol=1e-4, atol=1e-6)


def test_a_wrong_oracle_is_found():
    torch = pytest.importorskip("torch")
    backend = get_backend("torch")

    def vjp(function, primals, cotangents):
        return [x if x.ndim < 4 else torch.roll(x, 1, 1) for x in backend.vjp_function(function, primals, cotangents)]

    with pytest.raises(WrongAnswer, match="float64 gradients along a random direction of torch"):
        truth(WORKLOAD.problem(0), dataclasses.replace(backend, vjp_function=vjp))
