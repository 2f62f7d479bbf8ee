"""The reference in every dtype: computed in the widest, y in that of the tokens."""

import numpy as np
import pytest
from small import case_of, every_form, every_model

from ttt_conformance.laws.expected import continued
from ttt_conformance.problem import Options, Problem, answer
from tttcore import LayerSpec, get_backend, init
from tttcore.inner_model import layer_norm
from tttcore.tree import leaves, paths, tree_map

NUMPY = get_backend("numpy")


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
