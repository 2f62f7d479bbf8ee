"""The law of the frozen vectors: on every backend, in its precision, and on a reference that has changed."""

from dataclasses import replace

import pytest

from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.report.results import BROKEN, HOLDS, NOT_CLAIMED
from ttt_conformance.runner import run
from tttcore import Backend, Supports, backends, get_backend
from tttcore.loss import SquaredError

COMPILED = {"jax": ("dual", "inner", "bare")}
"""A backend that compiles takes seconds a vector: one of them here, all of them in `ttt conform`."""


def results(backend, effort="default", only=None):
    chosen = [cell for cell in cells([backend], EFFORTS[effort]) if cell.law.name == "frozen"]
    return [run(cell, EFFORTS[effort]) for cell in chosen if only in (None, (cell.form, cell.subject, cell.inner))]


@pytest.mark.parametrize("name", backends())
def test_every_backend_reproduces_them(name):
    info = backends()[name]
    if not info.available:
        pytest.skip(info.reason)
    found = results(get_backend(name), only=COMPILED.get(name))
    assert any(result.comparisons for result in found)
    assert [(result.name, result.message) for result in found if result.status != HOLDS] == []


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_backend_of_float32_is_checked_in_float32(name):
    if not backends()[name].available:
        pytest.skip(backends()[name].reason)
    backend = get_backend(name)
    found = results(replace(backend, supports=replace(backend.supports, dtypes=("float32",))))
    assert {result.dtype for result in found} == {"float32"}
    assert [(result.name, result.message) for result in found if result.status != HOLDS] == []


def test_a_backend_without_state_is_checked_on_those_that_begin_afresh():
    reference = get_backend("numpy")

    def outputs(*arguments, **options):
        return reference.inner(*arguments, **options)[0]

    claims = Supports(forms=("dual",), inner=("linear",), state=False, mask=False, cu_seqlens=False)
    found = {(one.form, one.inner): one for one in results(Backend("small", outputs, claims)) if one.subject == "inner"}
    assert {key for key, one in found.items() if one.status == HOLDS} == {("dual", "linear")}
    assert {one.status for key, one in found.items() if key != ("dual", "linear")} == {NOT_CLAIMED}
    assert found["dual", "linear"].comparisons == 8, "one-token, whole, initial, cut-first, clamped, faint, tied, offset: y alone"


def test_the_deep_effort_has_every_form():
    found = results(get_backend("numpy"), "deep")
    assert {(result.form, result.subject) for result in found} == {
        (form, subject) for form in ("primal", "dual", "decode") for subject in ("inner", "layer")
    }
    assert [(result.name, result.message) for result in found if result.status != HOLDS] == []


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_reference_that_has_changed_is_found(dtype, monkeypatch):
    """In the whole process, so that whatever the reference is asked agrees with it; what is allowed does not move either."""
    right = SquaredError.gradient
    monkeypatch.setattr(SquaredError, "gradient", lambda self, prediction, label: 1.01 * right(self, prediction, label))
    found = results(replace(get_backend("numpy"), supports=Supports(dtypes=(dtype,))))
    assert {result.status for result in found} == {BROKEN}
    assert "inner-linear-one-token: y and state: y: got an error of" in next(
        result.message for result in found if result.inner == "linear" and result.form == "dual"
    )
