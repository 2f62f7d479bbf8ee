"""The definition with changes: without any it is the reference, and each of them is a change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ttt_conformance.allowance import allowance
from ttt_conformance.cases import FLAVOURS, Case
from ttt_conformance.peers.account import draws, exact, sizes
from ttt_conformance.peers.changed import CHANGES, Answer, linear
from ttt_conformance.shapes import Shape
from tttcore import get_backend


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("shape", "length"), [(Shape(2, 2, 4, 4), 11), (Shape(1, 1, 6, 3), 2), (Shape(2, 1, 4, 1), 3), (Shape(1, 2, 4, 4), 0)])
def test_without_changes_it_is_the_reference(flavour, shape, length):
    problem = Case("inner", "linear", "float64", shape, length, flavour, 1).problem()
    y, state = get_backend("numpy").inner(problem.spec, problem.params, *problem.inputs)
    found, expected = linear(problem), Answer(y, state.weights["W1"], state.weights["b1"])
    for x, truth, allowed in zip(found, expected, allowance(problem, expected, linear), strict=True):
        assert x.shape == truth.shape
        assert np.all(np.abs(x - truth) <= allowed)


def test_what_each_change_touches():
    touched = {change: [bool(size) for size in found] for change, found in sizes().items()}
    assert touched == {
        "gate": [True, True, True],
        "residual": [True, False, False],
        "tail": [False, True, True],
        "padding": [False, False, True],
    }


def test_the_page_has_the_sizes():
    page = (Path(__file__).parents[3] / "docs/peers.md").read_text(encoding="utf-8")
    for change, found in sizes().items():
        row = next(line for line in page.splitlines() if line.startswith(f"| **{change}**"))
        assert [cell.strip() for cell in row.split("|")[-4:-1]] == [f"{size:.0%}" if size else "" for size in found]


def test_where_changes_show_nothing():
    """A gate that does not vary within a mini-batch, and tokens that fill their mini-batches."""
    problem = exact(draws("normal")[0]).tokens(0, 32)
    *tokens, lr = problem.inputs
    constant = dataclasses.replace(problem, inputs=(*tokens, lr[:, :1] + 0 * lr))
    for changes in (("gate",), ("gate", "tail"), ("gate", "tail", "padding")):
        for x, y in zip(linear(constant, changes), linear(constant), strict=True):
            np.testing.assert_array_equal(x, y)
    assert not np.array_equal(linear(problem, ("gate",)).y, linear(problem).y)
    assert not np.array_equal(linear(constant, CHANGES).y, linear(constant).y)
