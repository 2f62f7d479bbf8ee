"""What is timed."""

import numpy as np
import pytest

from ttt_conformance.bench.workload import CHECKED, DTYPES, Workload
from tttcore import InvalidInput
from tttcore.tree import leaves


@pytest.mark.parametrize("dtype", DTYPES)
def test_problems_are_of_the_size_and_dtype(dtype):
    problem = Workload(2, 5, 3, 4, 2, "mlp", dtype).problem(0)
    assert [x.shape for x in problem.inputs] == [(2, 5, 3, 4)] * 3 + [(2, 5, 3)]
    assert {x.dtype.name for x in problem.inputs} == {dtype}
    assert {x.dtype.name for x in problem.params.values()} == {"float64" if dtype == "float64" else "float32"}


def test_a_seed_is_a_problem():
    first, again, other = (Workload(tokens=4).problem(seed) for seed in (0, 0, 1))
    assert all(np.array_equal(x, y) for x, y in zip(leaves(first.inputs), leaves(again.inputs), strict=True))
    assert not np.array_equal(first.inputs[0], other.inputs[0])


def test_the_small_one_has_a_ragged_tail_and_is_no_larger():
    small = Workload(16, 2048, 32, 64, 16).small
    assert (small.batch, small.heads, small.head_dim, small.mini_batch_size) == (2, 2, 64, 16)
    assert CHECKED < small.tokens < 2 * CHECKED
    assert small.tokens % 16
    assert Workload(1, 3, 1, 4, 2).small == Workload(1, 3, 1, 4, 2)


@pytest.mark.parametrize(
    "field", [{"batch": 0}, {"tokens": -1}, {"head_dim": 0}, {"mini_batch_size": 0}, {"dtype": "int8"}, {"inner": "gru"}], ids=str
)
def test_what_is_no_workload_is_refused(field):
    with pytest.raises(InvalidInput, match=r"got .*; expected .*\. Fix: "):
        Workload(**field)


def test_in_words():
    assert str(Workload(inner="mlp")) == "TTT-MLP, B = 1, T = 2048, H = 8, D = 64, K = 16, float32"
