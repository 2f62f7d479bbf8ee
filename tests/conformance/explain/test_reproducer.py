"""Reproducer scripts: exact, runnable with NumPy alone, and right about what is wrong."""

import ast
import contextlib
import dataclasses
import io
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from small import case_of

from ttt_conformance.explain import Evidence
from ttt_conformance.explain.literals import literal
from ttt_conformance.explain.reproducer import script
from ttt_conformance.laws.expected import expect
from ttt_conformance.problem import Options, answer, reference
from tttcore import get_backend
from tttcore.tree import leaves, paths

NUMPY = get_backend("numpy")


def flat(tree):
    return dict(zip(paths(tree), leaves(tree), strict=True))


def evidence_of(subject="inner", inner="linear", dtype="float64", resumed=True, **changes):
    """Of a right answer, unless ``changes`` says otherwise."""
    problem = case_of(subject, inner, dtype=dtype).problem()
    if resumed:
        past = problem.tokens(0, 7)
        problem = dataclasses.replace(problem, state=reference(past, mask=np.arange(7) < np.asarray([[5], [7]])).state)
    options = Options("dual")
    problem, _, allowed = expect(problem)
    found = {"got": flat(answer(NUMPY, problem, options)), "allowed": {path: float(x) for path, x in flat(allowed).items()}}
    title = f"law reference broken by backend 'mine' (dual, {subject}, {inner}, {dtype})"
    fields = {"title": title, "statement": "primal ≡ dual", "what": "y: y", "problem": problem, "options": options} | found
    return Evidence(**fields | changes)


def spoiled(evidence, path, change):
    return dataclasses.replace(evidence, got=evidence.got | {path: change(evidence.got[path])})


def one_off(evidence, path, index):
    """The answer with one number off by twice what is allowed."""

    def change(x):
        wrong = x.copy()
        wrong[index] += 2 * evidence.allowed[path] + 1e-30
        return wrong

    return spoiled(evidence, path, change)


def load(text):
    names = {"__name__": "script"}
    exec(compile(text, "script.py", "exec"), names)
    return names


def run_here(text):
    """Exit status and table."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = load(text)["main"]()
    return status, out.getvalue()


def wrong_paths(table):
    return [line.split()[0] for line in table.splitlines() if "WRONG" in line]


# Run as its reader runs it.


def write(path, evidence):
    path.write_text(script(evidence), encoding="utf-8")
    return path


def run_alone(path):
    return subprocess.run([sys.executable, "-I", path], capture_output=True, text=True, encoding="utf-8", cwd=path.parent, timeout=60)


def test_a_wrong_answer_exits_1_and_is_named(tmp_path):
    evidence = one_off(evidence_of("layer", "mlp", dtype="float32"), "state.grads.W2", (1, 0, 2, 3))
    done = run_alone(write(tmp_path / "wrong.py", evidence))
    assert (done.returncode, done.stderr) == (1, "")
    assert wrong_paths(done.stdout) == ["state.grads.W2"]
    assert "most at (1, 0, 2, 3)" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(evidence.got), "one line an array"


def test_a_right_answer_exits_0(tmp_path):
    done = run_alone(write(tmp_path / "right.py", evidence_of("inner", "swiglu")))
    assert (done.returncode, done.stderr, wrong_paths(done.stdout)) == (0, "", [])


def test_it_imports_numpy_alone():
    imports = [node for node in ast.walk(ast.parse(script(evidence_of()))) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imports] == ["from typing import Any", "import numpy as np"]


# What it says.


@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.parametrize("inner", ["linear", "mlp", "swiglu"])
@pytest.mark.parametrize("subject", ["inner", "layer"])
def test_each_wrong_array_is_named_and_no_other(subject, inner, resumed):
    evidence = evidence_of(subject, inner, "float32", resumed)
    assert run_here(script(evidence))[0] == 0
    wrong = spoiled(one_off(evidence, "y", (0, 5, 0)), "state.phase", lambda x: x + 1)
    status, table = run_here(script(wrong))
    assert (status, wrong_paths(table)) == (1, ["y", "state.phase"])


def test_the_table_of_numbers_that_are_none():
    evidence = spoiled(evidence_of(), "y", lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x))
    evidence = spoiled(evidence, "state.weights.b1", lambda x: x - np.inf)
    status, table = run_here(script(evidence))
    assert (status, wrong_paths(table)) == (1, ["y", "state.weights.b1"])
    assert "most at (0, 0, 0, 3): got nan" in table


def test_a_wrong_shape_is_said():
    status, table = run_here(script(spoiled(evidence_of(), "y", lambda x: x[:, 1:])))
    assert (status, wrong_paths(table)) == (1, ["y"])
    assert "shape" in table
    assert "got (2, 10, 2, 4), expected (2, 11, 2, 4)" in table


def test_what_the_definition_does_not_give_is_left_out():
    evidence = evidence_of()
    more = dataclasses.replace(evidence, got=evidence.got | {"params.W1": np.ones(3)}, allowed=evidence.allowed | {"params.W1": 0.0})
    assert run_here(script(more)) == run_here(script(evidence))
    none = dataclasses.replace(evidence, got={"params.W1": np.ones(3)})
    status, table = run_here(script(none))
    assert status == 1
    assert table.startswith("nothing to compare: the answer has ['params.W1'], the definition ['y', ")


@pytest.mark.parametrize("subject", ["inner", "layer"])
def test_a_mask_is_part_of_the_problem(subject):
    """NaN in the padding, too."""
    evidence = evidence_of(subject)
    mask = np.arange(11) % 3 != np.asarray([[1], [2]])
    x = evidence.problem.inputs[0].copy()
    x[~mask] = np.nan
    problem = dataclasses.replace(evidence.problem, inputs=(x, *evidence.problem.inputs[1:]))
    options = Options("dual", mask)
    evidence = dataclasses.replace(evidence, problem=problem, options=options, got=flat(answer(NUMPY, problem, options)))
    status, table = run_here(script(evidence))
    assert (status, wrong_paths(table)) == (0, [])


def test_packed_sequences_are_part_of_the_problem():
    evidence = evidence_of(resumed=False)
    problem = dataclasses.replace(evidence.problem, inputs=tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in evidence.problem.inputs))
    options = Options("dual", cu_seqlens=np.asarray([0, 7, 7, 8, 22]))
    evidence = dataclasses.replace(evidence, problem=problem, options=options, got=flat(answer(NUMPY, problem, options)))
    status, table = run_here(script(evidence))
    assert (status, wrong_paths(table)) == (0, [])


def test_the_reader_is_told_what_it_is():
    text = script(evidence_of(title='law "x" of C:\\new', statement='a """ ≡ \\b', what="y: $y"))
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring.splitlines()[:4] == ['law "x" of C:\\new', "", 'The law: a """ ≡ \\b', "Compared: y: $y"]
    assert text.count("# YOUR CODE") == 1
    assert max(map(len, text.splitlines())) <= 160


# What it holds.


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 1, 40), (0,), (2, 0, 3)])
def test_literals_are_exact(shape, dtype):
    bits = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, (int(np.prod(shape)), np.dtype(dtype).itemsize), np.uint8)
    x = bits.reshape(-1).view(dtype).reshape(shape)
    x = np.where(np.isnan(x), np.asarray(-0.0, x.dtype), x) if x.dtype.kind == "f" else x
    again = eval(literal(x), {"np": np, "nan": np.nan, "inf": np.inf})
    assert (again.dtype, again.shape, again.tobytes()) == (x.dtype, x.shape, x.tobytes())


def test_literals_of_what_is_no_number():
    x = np.asarray([np.inf, -np.inf, np.nan, -0.0, 5e-324])
    np.testing.assert_array_equal(eval(literal(x), {"np": np, "nan": np.nan, "inf": np.inf}), x)


def test_bfloat16_is_written_as_float32():
    x = np.asarray([[1.1, -3e38], [1e-40, 0.0]], ml_dtypes.bfloat16)
    again = eval(literal(x), {"np": np})
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, x.astype(np.float32))


def test_all_arrays_arrive_bit_for_bit():
    evidence = evidence_of("layer", "mlp", "float32")
    names, problem = load(script(evidence)), evidence.problem
    pairs = [(names["PARAMS"], problem.params), (names["STATE"], flat(problem.state)), (names["GOT"], evidence.got)]
    for found, given in [*pairs, (names["INPUTS"], {"x": problem.inputs[0]})]:
        assert list(found) == list(given)
        for name, x in given.items():
            assert (found[name].dtype, found[name].shape, found[name].tobytes()) == (x.dtype, x.shape, x.tobytes()), name
    assert names["ALLOWED"] == evidence.allowed
    assert dict(names["OPTIONS"]) == {}
