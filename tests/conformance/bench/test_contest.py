"""Entries: those that are right are timed, and all others say why not."""

import dataclasses

import numpy as np
import pytest

from ttt_conformance.bench import contest as module
from ttt_conformance.bench.contest import FAILED, NOT_CLAIMED, TIMED, WRONG, Entry, contest, entries, exam, oracle
from ttt_conformance.bench.workload import Workload
from tttcore import InvalidInput, Supports, get_backend
from tttcore.backend import BackendInfo

WORKLOAD = Workload(1, 24, 2, 4, 4)
NUMPY = get_backend("numpy")


def entered(monkeypatch, backend, grad=False):
    """The row of a backend that is registered nowhere."""
    monkeypatch.setattr(module, "get_backend", lambda name: backend if name == "mine" else get_backend(name))
    return contest(Entry("mine", "dual"), WORKLOAD, exam(WORKLOAD, ["numpy"], grad), 0.0)


def changed(function):
    """The reference with ``function`` on its y."""

    def inner(*given, **options):
        y, state = NUMPY.inner_function(*given, **options)
        return function(y), state

    return dataclasses.replace(NUMPY, inner_function=inner)


@pytest.mark.parametrize("form", ["dual", "primal", "decode"])
def test_the_reference_is_timed_without_gradients(form):
    row = contest(Entry("numpy", form), WORKLOAD, exam(WORKLOAD, ["numpy"], False), 0.0)
    assert (row.status, row.gradient_error, row.both) == (TIMED, None, None)
    assert row.error < 1e-5
    assert row.forward.median > 0


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_backends_with_gradients_are_timed_both_ways(name):
    pytest.importorskip(name)
    row = contest(Entry(name, "dual"), WORKLOAD, exam(WORKLOAD, [name], True), 0.0)
    assert row.status == TIMED, row.message
    assert row.gradient_error < 1e-4
    assert row.both.median > 0


@pytest.mark.parametrize("function", [lambda y: 1.1 * y, lambda y: np.nan * y, lambda y: -y], ids=["scaled", "NaN", "negative"])
def test_a_wrong_backend_is_not_timed(monkeypatch, function):
    row = entered(monkeypatch, changed(function))
    assert (row.status, row.forward) == (WRONG, None)
    assert row.message.startswith("y of mine (dual): got a relative error of ")
    assert row.message.endswith("Fix: see what `ttt conform --backend mine` says.")


def test_a_wrong_gradient_is_found(monkeypatch):
    pytest.importorskip("torch")
    torch = get_backend("torch")

    def vjp(*given):
        return [2 * x for x in torch.vjp_function(*given)]

    row = entered(monkeypatch, dataclasses.replace(torch, vjp_function=vjp), grad=True)
    assert row.status == WRONG
    assert "the gradient of " in row.message


def test_a_backend_that_throws_is_a_finding(monkeypatch):
    def crash(y):
        raise ZeroDivisionError("a bug")

    row = entered(monkeypatch, changed(crash))
    assert (row.status, row.message) == (FAILED, "ZeroDivisionError: a bug")


def test_what_is_not_claimed_is_no_failure(monkeypatch):
    row = entered(monkeypatch, dataclasses.replace(NUMPY, supports=Supports(dtypes=("float64",))))
    assert row.status == NOT_CLAIMED
    assert "does not support dtype" in row.message


def test_numbers_that_are_not_finite_at_full_size_are_wrong(monkeypatch):
    def at_size(y):
        return y / 0 if next(counter) >= CHECKS else y

    CHECKS, counter = 1, iter(range(100))
    with np.errstate(all="ignore"):
        row = entered(monkeypatch, changed(at_size))
    assert row.status == WRONG
    assert "at full size" in row.message


def test_forms():
    assert entries(["numpy"], ()) == [Entry("numpy", "dual")]
    assert entries(["numpy"], ("primal", "decode")) == [Entry("numpy", "primal"), Entry("numpy", "decode")]


def test_without_dual_form_the_first_that_is_claimed(monkeypatch):
    backend = dataclasses.replace(NUMPY, supports=Supports(forms=("decode", "primal")))
    monkeypatch.setattr(module, "get_backend", lambda name: backend)
    assert entries(["mine"], ()) == [Entry("mine", "decode")]


def test_gradients_need_a_backend_to_check_them_by(monkeypatch):
    monkeypatch.setattr(module, "backends", lambda: {"numpy": BackendInfo("numpy", "somewhere")})
    with pytest.raises(InvalidInput, match=r"gradients: got no backend .*; expected one.* Fix: .*--no-grad"):
        oracle(["numpy"])
