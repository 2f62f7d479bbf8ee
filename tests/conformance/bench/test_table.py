"""What a contest says."""

import dataclasses
import json

import pytest
from rich.console import Console

from ttt_conformance.bench.contest import FAILED, NOT_CLAIMED, TIMED, WRONG, Row
from ttt_conformance.bench.table import advice, rate, record, short, size, table
from ttt_conformance.bench.timing import Timing
from ttt_conformance.bench.workload import Workload

WORKLOAD = Workload(batch=2, tokens=1000)


def timing(milliseconds):
    return Timing(milliseconds, milliseconds, milliseconds, 5)


ROWS = [
    Row("numpy", "dual", TIMED, "", 1e-7, None, timing(20.0), None, 2**20),
    Row("jax", "dual", TIMED, "", 2e-7, 3e-7, timing(2.0), timing(41.0), None),
    Row("torch", "dual", TIMED, "", 2e-7, 3e-7, timing(4.0), timing(10.0), 2**30),
    Row("torch", "primal", TIMED, "", 2e-7, 3e-7, timing(3.0), timing(30.0), 2**30),
    Row("mine", "dual", WRONG, "y of mine: got [B, T]"),
    Row("other", "dual", NOT_CLAIMED, "no dtype"),
]


def shown(rows, grad=True, width=200):
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table(rows, WORKLOAD, grad), highlight=False)
    return captured.get()


def test_the_fastest_stands_first_and_ratios_are_of_it():
    lines = [line.split() for line in shown(ROWS).splitlines()]
    found = [line for line in lines if len(line) > 2 and line[1] in ("(dual)", "(primal)")]
    assert [" ".join(line[:2]) for line in found] == ["torch (dual)", "torch (primal)", "jax (dual)", "numpy (dual)"]
    assert found[0] == ["torch", "(dual)", "4.0", "2.0", "500", "k", "10.0", "1.0", "200", "k", "1.00", "GiB"]
    assert found[3] == ["numpy", "(dual)", "20.0", "10.0", "100", "k", "none", "1", "MiB"]


def test_without_gradients_the_order_is_of_the_forward_pass():
    found = shown(ROWS, grad=False)
    assert found.index("jax (dual)") < found.index("torch (primal)") < found.index("torch (dual)") < found.index("numpy (dual)")
    assert "f + b" not in found


def test_what_was_not_timed_says_why():
    found = shown(ROWS)
    assert "mine (dual): wrong. y of mine: got [B, T]" in found
    assert "other (dual): not claimed. no dtype" in found


def test_the_largest_error_is_told():
    assert "2e-07 of y, 3e-07 of gradients" in shown(ROWS)


def test_advice_is_against_the_best_of_every_other_backend():
    assert list(advice(ROWS, True)) == [
        "forward, on this machine, for this shape: jax (dual), 1.5× torch (primal), 10.0× numpy (dual)",
        "forward and backward, on this machine, for this shape: torch (dual), 4.1× jax (dual)",
    ]
    assert len(list(advice(ROWS, False))) == 1


def test_advice_without_a_rival_says_so():
    assert list(advice(ROWS[:1], False)) == ["forward, on this machine, for this shape: numpy (dual), which nothing else was timed against"]
    assert list(advice(ROWS[4:], True)) == []


def test_nothing_fits_a_narrow_terminal_worse_than_80_columns():
    found = shown(ROWS[:4], width=80)
    assert "torch (primal)" in found
    assert "…" not in found


def test_times_that_differ_are_told():
    wild = dataclasses.replace(ROWS[1], forward=Timing(2.0, 1.5, 2.5, 9))
    assert "unsteady: jax (dual), forward: 1.5 to 2.5 ms in the middle of 9 repeats. Fix: " in shown([ROWS[0], wild])
    assert "unsteady" not in shown(ROWS)


def test_json_has_it_all():
    found = json.loads(record(ROWS, WORKLOAD))
    assert found["workload"]["tokens"] == 1000
    assert [row["status"] for row in found["results"]] == [TIMED] * 4 + [WRONG, NOT_CLAIMED]
    assert found["results"][1]["both"] == {"median": 41.0, "low": 41.0, "high": 41.0, "repeats": 5}
    assert "numpy" in found["versions"]


@pytest.mark.parametrize(("number", "text"), [(0.04, "0.0"), (9.94, "9.9"), (12.34, "12.3"), (1234.5, "1234")])
def test_short(number, text):
    assert short(number) == text


def test_sizes_and_rates():
    assert [size(None), size(3 * 2**20), size(2**31)] == ["–", "3 MiB", "2.00 GiB"]
    assert [rate(1.5e9), rate(2.34e6), rate(9.45e3), rate(12)] == ["1.5 G", "2.34 M", "9.45 k", "12"]


def test_a_crash_is_shown_whatever_it_says():
    assert "[/bold]" in shown([Row("mine", "dual", FAILED, "ValueError: [/bold]")])
