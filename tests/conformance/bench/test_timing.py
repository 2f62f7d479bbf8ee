"""The clock, and what waits for results."""

import itertools

import numpy as np
import pytest

from ttt_conformance.bench import memory
from ttt_conformance.bench.timing import LEAST, MOST, measure, summary, waiting
from tttcore import get_backend


def test_a_summary_is_of_the_median():
    assert summary([5.0, 1.0, 3.0, 2.0, 100.0]) == (3.0, pytest.approx(1.8), pytest.approx(24.0), 5)


def run(lasting, seconds):
    """The timing of a call that lasts so long, by a clock that it moves itself; and how often it was called."""
    now, calls = [0.0], []

    def call():
        calls.append(now[0])
        return "result"

    def wait(result):
        assert result == "result"
        now[0] += lasting if len(calls) > 1 else 100 * lasting

    return measure(call, wait, seconds, lambda: now[0]), len(calls)


def test_repeats_fill_the_time_and_the_first_calls_do_not_count():
    timing, calls = run(0.25, 2.0)
    assert timing == (250.0, 250.0, 250.0, 8)
    assert calls == 2 + 8


def test_dear_calls_are_repeated_a_few_times_and_cheap_ones_not_for_ever():
    assert run(60.0, 2.0)[0].repeats == LEAST
    assert run(1e-9, 1e9)[0].repeats == MOST


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_waiting_reads_one_number_of_every_array(name):
    if name != "numpy":
        pytest.importorskip(name)
    backend, read = get_backend(name), []

    class Spy:
        @staticmethod
        def to_numpy(x):
            read.append(backend.to_numpy(x))

    arrays = [backend.asarray(np.ones(shape, np.float32)) for shape in ((2, 3), (1,), ())]
    waiting(Spy)((arrays[0], {"a": arrays[1], "b": None}, arrays[2]))
    assert [x.size for x in read] == [1, 1, 1]


@pytest.mark.skipif(not memory.RESET.exists(), reason="Linux alone says")
def test_the_peak_of_a_call_is_what_it_holds_at_once():
    def call():
        for _ in range(3):
            np.ones(2**25, np.uint8)
        return np.ones(2**26, np.uint8)

    found = memory.peak(call, "cpu")
    assert found is None or 2**26 <= found < 2**26 + 2**25


def test_where_nobody_knows_the_peak_is_unknown():
    assert memory.peak(itertools.count, "tpu:0") is None
