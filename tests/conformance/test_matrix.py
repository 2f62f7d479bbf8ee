"""The matrix: what is checked where, by effort and by claims."""

import dataclasses
import itertools

import pytest

from ttt_conformance.laws import LAWS, Law, Scope
from ttt_conformance.laws.law import WIDEST
from ttt_conformance.matrix import EFFORTS, Effort, cells
from ttt_conformance.runner import run
from ttt_conformance.shapes import SHAPES
from tttcore import InvalidInput, Supports, get_backend

NUMPY = get_backend("numpy")
FORMS = ("primal", "dual", "decode")


def claiming(name="mine", **claims):
    return dataclasses.replace(NUMPY, name=name, supports=Supports(**claims))


def names(effort, *backends):
    return [cell.name for cell in cells(backends or (NUMPY,), EFFORTS[effort])]


@pytest.fixture
def law(monkeypatch):
    """A suite of one law; a function that makes it."""

    def only(*scopes, **fields):
        monkeypatch.setattr("ttt_conformance.matrix.LAWS", {"only": Law("only", "…", lambda trial, case: None, scopes, **fields)})

    return only


def places(effort, backend=NUMPY):
    return [(cell.subject, cell.inner, cell.form, cell.dtype) for cell in cells([backend], EFFORTS[effort])]


CLAIMS = [{}, {"dtypes": ("float32",)}, {"dtypes": ("bfloat16",)}, {"dtypes": ()}, {"forms": ("decode",), "inner": ("mlp",)}, {"state": False}]


@pytest.mark.parametrize("claims", CLAIMS, ids=str)
@pytest.mark.parametrize("effort", EFFORTS)
def test_every_cell_has_a_name_of_its_own(effort, claims):
    found = names(effort, claiming(**claims), NUMPY)
    assert found
    assert len(set(found)) == len(found)


def test_a_greater_effort_covers_all_that_a_smaller_one_does():
    quick, default, deep = (set(names(effort)) for effort in EFFORTS)
    assert quick < default < deep
    assert {cell.law.name for cell in cells([NUMPY])} == set(LAWS)
    assert EFFORTS["quick"].examples < EFFORTS["default"].examples < EFFORTS["deep"].examples


def test_the_default_effort_is_the_default():
    assert cells([NUMPY]) == cells([NUMPY], EFFORTS["default"])


def test_a_scope_is_every_form_inner_model_and_dtype_of_it(law):
    law(Scope("inner", ("mlp", "linear"), ("decode", "dual"), ("float64", "float32")), Scope("layer", ("linear",), ("dual",), ("float64",)))
    expected = [
        ("inner", inner, form, dtype) for inner, form, dtype in itertools.product(("linear", "mlp"), ("decode", "dual"), ("float64", "float32"))
    ]
    assert places("default") == [*expected, ("layer", "linear", "dual", "float64")]


def test_scopes_that_overlap_make_no_cell_twice(law):
    law(Scope("inner", ("linear",), ("dual",)), Scope("inner", ("linear",), deep=True))
    assert sorted(place[2] for place in places("deep")) == sorted(FORMS)


def test_what_is_left_to_the_deep_effort(law):
    law(Scope("inner", ("linear",), ("dual",)), Scope("inner", ("mlp",), ("dual",), deep=True))
    assert places("default") == [("inner", "linear", "dual", "float64")]
    assert places("quick") == [("inner", "linear", "dual", "float64")]
    assert [place[1] for place in places("deep")] == ["linear", "mlp"]


@pytest.mark.parametrize(
    ("quick", "expected"),
    [
        ("forms", [("inner", "linear", form) for form in sorted(FORMS)] + [("inner", "mlp", "dual"), ("layer", "linear", "dual")]),
        ("dual", [("inner", "linear", "dual")]),
        ("never", []),
    ],
)
def test_where_the_quick_effort_checks_a_law(law, quick, expected):
    law(Scope("inner"), Scope("layer"), quick=quick)
    assert sorted(place[:3] for place in places("quick")) == sorted(expected)


@pytest.mark.parametrize("inner", [("linear",), ("mlp",), ("mlp", "linear"), None])
@pytest.mark.parametrize("forms", [*itertools.permutations(FORMS, 1), *itertools.permutations(FORMS, 2)])
def test_the_quick_effort_checks_something_whatever_is_claimed(forms, inner):
    """Plain laws in every claimed form, and those that it checks in one form in the first that is claimed."""
    found = {(cell.law.name, cell.form, cell.inner) for cell in cells([claiming(forms=forms, inner=inner)], EFFORTS["quick"])}
    claimed = {place for place in found if place[1] in forms and place[2] in (inner or ("linear",))}
    assert {form for name, form, _ in claimed if name == "reference"} == set(forms)
    assert any(name == "packed" for name, _, _ in claimed)


@pytest.mark.parametrize(
    ("dtypes", "widest"),
    [
        (None, "float64"),
        (("float32", "float64"), "float64"),
        (("float16", "float32"), "float32"),
        (("bfloat16",), "float32"),
        ((), "float32"),
    ],
)
def test_the_widest_dtype_is_the_widest_claimed(law, dtypes, widest):
    law(Scope("inner", ("linear",), ("dual",), (WIDEST,)))
    assert places("default", claiming(dtypes=dtypes)) == [("inner", "linear", "dual", widest)]


def test_a_dtype_by_name_stays_whatever_is_claimed(law):
    law(Scope("inner", ("linear",), ("dual",), ("bfloat16",)))
    assert places("default", claiming(dtypes=("float32",))) == [("inner", "linear", "dual", "bfloat16")]


def test_cells_that_share_a_compiled_program_stand_together():
    every = cells([NUMPY, claiming()])
    groups = [key for key, _ in itertools.groupby(every, key=lambda cell: (cell.backend.name, cell.subject, cell.inner, cell.form))]
    assert len(groups) == len(set(groups))
    assert [name for name, _ in itertools.groupby(cell.backend.name for cell in every)] == ["numpy", "mine"]
    assert next(cell.backend.name for cell in cells([claiming(), NUMPY])) == "mine"


def test_any_iterable_of_backends_will_do():
    assert cells(backend for backend in (NUMPY,)) == cells([NUMPY])
    assert cells([]) == []


@pytest.mark.parametrize("other", [NUMPY, claiming(name="numpy")])
def test_two_backends_of_one_name_are_refused(other):
    with pytest.raises(InvalidInput) as caught:
        cells([NUMPY, claiming(), other])
    fix = "leave one out, or rename it: dataclasses.replace(backend, name=…)"
    assert str(caught.value) == f"backends: got two of the name 'numpy'; expected different names. Fix: {fix}."


def test_a_cells_name_is_its_results():
    cell = next(cell for cell in cells([NUMPY]) if cell.law.name == "linear attention")
    assert cell.name == "numpy-linear attention-decode-inner-bare-float64" == run(cell, Effort("one", 1)).name


@pytest.mark.parametrize("effort", EFFORTS)
def test_the_setting_of_a_cell(effort):
    cell = next(cell for cell in cells([claiming(head_dims=(6,), mini_batch_sizes=(3,))], EFFORTS[effort]))
    setting = cell.setting(EFFORTS[effort])
    assert (setting.subject, setting.inner, setting.dtype) == (cell.subject, cell.inner, cell.dtype)
    assert setting.supports is cell.backend.supports
    assert all((shape.head_dim, shape.mini_batch) == (6, 3) for shape in setting.shapes)
    whole = next(cell for cell in cells([NUMPY], EFFORTS[effort])).setting(EFFORTS[effort])
    assert whole.shapes == (SHAPES[cell.subject][:1] if effort == "quick" else SHAPES[cell.subject])
