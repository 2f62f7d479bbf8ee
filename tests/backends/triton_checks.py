"""Checks of the Triton backend that launch its kernel, on a GPU or in Triton's interpreter; ``test_ttt_triton`` runs them in their own process."""

import ml_dtypes
import numpy as np
import pytest

import tttcore
from ttt_conformance.cases import FLAVOURS, Case
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect, resumed
from ttt_conformance.laws.sequence import check_causality, check_mask, check_packed, check_reference, check_split
from ttt_conformance.problem import Options, Problem, answer
from ttt_conformance.shapes import Shape
from tttcore.tree import leaves, tree_map

BACKEND = tttcore.get_backend("triton")
HALF_A_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def case(size, width, length, flavour="normal"):
    return Case("inner", "linear", "float32", Shape(2, 2, width, size), length, flavour, seed=size + width + length)


def lengths(size):
    return sorted({0, 1, size - 1, size, size + 1, 2 * size + 3})


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("width", [4, 8, 20])
def test_equals_the_reference_from_the_initial_state_and_from_mixed_phases(size, width):
    for length, flavour in zip(lengths(size), (*FLAVOURS, *FLAVOURS), strict=False):
        check_reference(Trial(BACKEND, "dual"), case(size, width, length, flavour))


@pytest.mark.parametrize("law", [check_split, check_causality, check_mask, check_packed])
@pytest.mark.parametrize(("size", "width"), [(1, 8), (4, 20), (16, 4)])
def test_laws_of_sequences_in_float32(size, width, law):
    law(Trial(BACKEND, "dual"), case(size, width, 2 * size + 3))


@pytest.mark.parametrize("size", [33, 64])
def test_large_mini_batches(size):
    check_reference(Trial(BACKEND, "dual"), case(size, 8, size + 3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_tokens_have_a_float32_state_and_a_y_of_one_rounding(dtype):
    narrow = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    problem = resumed(case(4, 8, 11)).problem
    q, k, v, lr = problem.inputs
    tokens = tuple(x.astype(narrow) for x in (q, k, v))
    rounded = Problem(problem.spec, problem.params, (*(x.astype(np.float32) for x in tokens), lr), problem.state)
    _, truth, allowed = expect(rounded)
    got = answer(BACKEND, Problem(problem.spec, problem.params, (*tokens, lr), problem.state), Options("dual"))
    assert got.y.dtype == narrow
    # The interpreter cuts digits off where a GPU rounds: a whole step instead of half of one.
    one_rounding = allowed.y + 2 * HALF_A_STEP[dtype] * np.abs(truth.y)
    assert np.all(np.abs(got.y.astype(np.float64) - truth.y) <= one_rounding)
    Trial(BACKEND, "dual").compare("state", got.state, truth.state, allowed.state)
    assert {x.dtype for x in leaves(got.state[:2])} == {np.dtype("float32")}


def test_no_argument_is_written_to():
    problem = resumed(case(4, 8, 11)).problem
    native = tree_map(BACKEND.asarray, (dict(problem.params), problem.inputs, problem.state))
    before = tree_map(lambda x: x.clone(), native)
    BACKEND.inner(problem.spec, native[0], *native[1], state=native[2])
    assert all((x == y).all() for x, y in zip(leaves(native), leaves(before), strict=True))


def spec(**changes):
    return tttcore.LayerSpec(**{"width": 8, "heads": 2, "mini_batch_size": 4} | changes)


@pytest.mark.parametrize(
    ("field", "changes", "dtype", "form"),
    [
        ("inner", {"inner": "mlp"}, "float32", "dual"),
        ("loss", {"loss": "inner_product"}, "float32", "dual"),
        ("mini_batch_size", {"mini_batch_size": 65}, "float32", "dual"),
        ("head_dim", {"width": 260}, "float32", "dual"),
        ("dtype", {}, "float64", "dual"),
        ("form", {}, "float32", "primal"),
        ("form", {}, "float32", "decode"),
    ],
)
def test_what_is_not_claimed_is_refused(field, changes, dtype, form):
    asked = spec(**changes)
    x = BACKEND.asarray(np.zeros((1, 3, asked.width), dtype))
    with pytest.raises(tttcore.Unsupported, match=f"'triton' does not support {field}: got") as refused:
        BACKEND.layer(asked, tttcore.init(asked, 0), x, form=form)
    assert refused.value.field == field


def test_float64_among_the_other_arguments_is_refused():
    x = BACKEND.asarray(np.zeros((1, 3, 8), np.float32))
    with pytest.raises(tttcore.Unsupported, match="support dtype: got float64 among the arguments"):
        BACKEND.layer(spec(), tttcore.init(spec(), 0, np.float64), x)


def test_gradients_are_refused_and_not_dropped():
    x = BACKEND.asarray(np.zeros((1, 3, 8), np.float32))
    params = tree_map(BACKEND.asarray, tttcore.init(spec(), 0))
    with pytest.raises(tttcore.Unsupported, match="support gradients"):
        BACKEND.layer_vjp(spec(), params, x, x)
    with pytest.raises(tttcore.Unsupported, match=r"support gradients: .* Fix: call it under torch.no_grad\(\)"):
        BACKEND.layer(spec(), params, x.requires_grad_())
