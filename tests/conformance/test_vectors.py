"""Frozen vectors: kept exactly, of this version of the spec, reproduced by every backend."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ttt_conformance.cases import INNER_MODELS, SHAPES, Case
from ttt_conformance.laws import LAWS, Trial
from ttt_conformance.laws.expected import continued, expect
from ttt_conformance.results import HOLDS
from ttt_conformance.runner import cells, run
from ttt_conformance.vectors import files, load, save
from ttt_conformance.vectors.regenerate import vector
from tttcore import SPEC_VERSION, InvalidInput, backends, get_backend
from tttcore.tree import leaves, paths

every_file = pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)


def named(found):
    """Every array of a vector by path; the spec apart."""
    problem = found.problem
    tree = found._asdict() | {"problem": {"params": problem.params, "inputs": problem.inputs, "state": problem.state}}
    return dict(zip(paths(tree), leaves(tree), strict=True))


def assert_same(found, expected):
    assert found.problem.spec == expected.problem.spec
    assert list(named(found)) == list(named(expected))
    for path, x in named(expected).items():
        assert named(found)[path].dtype == x.dtype, path
        np.testing.assert_array_equal(named(found)[path], x, err_msg=path)


def test_there_is_a_vector_of_every_subject_and_inner_model():
    names = {path.stem.rpartition("-")[0] for path in files()}
    assert names == {f"{scope.subject}-{inner}" for scope in LAWS["frozen"].scopes for inner in scope.inner}
    assert {f"inner-{inner}" for inner in INNER_MODELS} < names


@every_file
def test_a_shipped_vector_is_whole(path):
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["spec"])["spec_version"] == SPEC_VERSION
    found = load(path)
    arrays = named(found)
    assert {str(x.dtype) for name, x in arrays.items() if not name.endswith("phase")} == {"float64"}
    assert all(np.isfinite(x).all() for x in arrays.values())
    spec, problem = found.problem.spec, found.problem
    subject = path.stem.partition("-")[0]
    assert problem.subject == subject
    shapes = spec.param_shapes() if subject == "layer" else spec.inner_shapes()
    assert {name: x.shape for name, x in problem.params.items()} == shapes
    assert problem.length > 2 * spec.mini_batch_size
    assert problem.state is not None
    for state in (problem.state, found.truth.state, found.bars.state, found.gradients.state):
        assert (state.conv is not None) == (subject == "layer" and spec.share_qk)
    if subject == "inner":
        assert len(set(problem.state.phase.tolist())) == problem.batch > 1, "rows at different phases"
    assert found.truth.y.shape == problem.inputs[0].shape
    assert {name: x.shape for name, x in found.gradients.params.items()} == shapes
    assert all(x.any() for x in leaves(found.bars)), "a cotangent of every output"
    assert all(x > 0 for x in leaves((found.allowed.y, found.allowed.state._replace(phase=None))))


@every_file
def test_an_allowance_is_smaller_than_what_it_bounds(path):
    """One that were not would let anything pass."""
    found = load(path)
    for truth, allowed in ((found.truth, found.allowed), (found.gradients, found.gradients_allowed)):
        for name, x, limit in zip(paths(truth), leaves(truth), leaves(allowed), strict=True):
            assert limit <= 1e-9 * max(1.0, np.max(np.abs(x))), name


@every_file
def test_saved_and_loaded_again_it_is_the_same(path, tmp_path):
    found = load(path)
    save(found, tmp_path / "again.safetensors")
    assert_same(load(tmp_path / "again.safetensors"), found)


def test_a_new_vector_survives_the_file(tmp_path):
    """Made by the code that made the shipped ones, of a smaller case."""
    made = vector(Case("inner", "linear", "float64", (2, 1, 2, 2), 3, "normal", 5))
    save(made, tmp_path / "new.safetensors")
    assert_same(load(tmp_path / "new.safetensors"), made)


@pytest.mark.parametrize("name", ["inner-linear-0", "inner-mlp-0", "inner-swiglu-0"])
def test_the_shipped_vectors_are_made_by_the_generator(name):
    """The same case makes the same problem, and the same answer to rounding: within what the vector itself allows.

    A layer's input is the text of the standard library, which another Python changes.
    """
    found = load(next(path for path in files() if path.stem == name))
    subject, inner, _ = name.split("-")
    shape = SHAPES[subject][0]
    problem, truth, _ = expect(continued(Case(subject, inner, "float64", shape, 2 * shape[3] + 3, "normal", 100)))
    assert problem.spec == found.problem.spec
    for path, x, y in zip(paths(problem.params), leaves(problem.params), leaves(found.problem.params), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=path)
    for x, y in zip(problem.inputs, found.problem.inputs, strict=True):
        np.testing.assert_array_equal(x, y)
    Trial(get_backend("numpy"), "primal").compare(name, truth, found.truth, found.allowed)


def test_a_vector_of_another_version_is_refused(tmp_path):
    path = files()[0]
    with safe_open(path, "numpy") as file:
        spec = json.loads(file.metadata()["spec"]) | {"spec_version": "0.1"}
    save_file(load_file(path), tmp_path / "old.safetensors", metadata={"spec": json.dumps(spec)})
    with pytest.raises(InvalidInput, match=rf"spec_version: got 0\.1; expected {SPEC_VERSION}"):
        load(tmp_path / "old.safetensors")


# A backend that compiles takes seconds a case: one of them here, all of them in `ttt conform`.
COMPILED = {"jax": ("dual", "inner", "linear")}


@pytest.mark.parametrize("name", backends())
def test_every_backend_reproduces_them(name):
    info = backends()[name]
    if not info.available:
        pytest.skip(info.reason)
    chosen = [cell for cell in cells([get_backend(name)]) if cell.law.name == "frozen"]
    if name in COMPILED:
        chosen = [cell for cell in chosen if (cell.form, cell.subject, cell.inner) == COMPILED[name]]
    results = [run(cell, max_examples=8) for cell in chosen]
    assert any(result.comparisons for result in results)
    assert [(result.form, result.subject, result.inner, result.message) for result in results if result.status != HOLDS] == []
