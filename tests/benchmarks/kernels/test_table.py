"""The table of a run: each number is the one that it says it is."""

import re

import pytest

from benchmarks.kernels.table import fastest, floor_milliseconds, table, three


def rows(record, title):
    """The cells of one of the tables, by the first one of a row."""
    lines = table(record).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(title))
    end = next(index for index in range(start, len(lines)) if not lines[index])
    return {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line) for line in (lines[start], *lines[start + 2 : end]))}


def test_times_stand_under_their_shape_and_pass(record):
    found = rows(record, "median ms")
    assert found["median ms"] == ["4×1024 fwd", "4×1024 f+b", "1×4096 fwd", "1×4096 f+b", "error y / gradients"]
    assert found["attention, cuDNN"] == ["4.00", "16.0", "16.0", "64.0", "2.0e-03 / 2.0e-03"]


def test_what_was_not_timed_says_so(record):
    found = rows(record, "median ms")
    assert found["Mamba-2"] == ["wrong"] * 4
    assert found["TTT-MLP, triton"] == ["20.0", "none", "20.0", "none", "2.0e-03"]
    assert "Mamba-2, fwd, f+b: wrong. y of Mamba-2: got a relative error of 0.3" in table(record)
    assert "TTT-MLP, triton, f+b: no backward. no gradients" in table(record)


def test_ratios_are_of_the_fastest_of_both(record):
    found = rows(record, "ours / theirs")
    assert found["TTT-Linear / attention"] == ["0.500", "0.500", "0.125", "0.125"]
    assert "TTT-Linear / Mamba-2" not in found


def test_the_floor_is_bytes_over_bandwidth(record):
    first = record.results[0]
    assert floor_milliseconds(first, record.copy_bandwidth) == 1.0
    assert rows(record, "floor / time")["TTT-Linear, triton"] == ["50.0%", "25.0%", "50.0%", "25.0%"]


def test_memory_is_in_units_of_the_same_bytes(record):
    assert rows(record, "peak memory")["TTT-Linear, triton"] == ["2.00"] * 4


def test_the_fastest_of_none_is_none(record):
    assert fastest(record, "Mamba-2", False, (4, 1024), "forward") is None
    assert fastest(record, "TTT-Linear", True, (4, 1024), "both") == 8.0


@pytest.mark.parametrize(("number", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")])
def test_three_digits(number, text):
    assert three(number) == text
