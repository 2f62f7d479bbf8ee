"""The likely cause: the mistake that was made, where it is a known one; else what the numbers look like; else nothing."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from small import SHAPE, case_of
from wrong import NUMPY, changed

from ttt_conformance.explain import causes
from ttt_conformance.explain.causes import NAMED, likely, pattern
from ttt_conformance.explain.failure import judged
from ttt_conformance.laws import LawBroken
from ttt_conformance.laws.expected import continued
from ttt_conformance.laws.law import Place
from ttt_conformance.matrix import EFFORTS, Effort, cells
from ttt_conformance.mutants import MUTANTS
from ttt_conformance.problem import Call, Options, answer
from ttt_conformance.runner import run
from tttcore import Supports

DOCS = Path(__file__).parents[3]
KNOWN = (
    "strict_causality",
    "eta_transposed",
    "bias_not_updated",
    "mid_state_not_read",
    "packed_not_reset",
    "no_1_over_d",
    "eps_in_backward",
    "rope_halves",
)
TINY = Effort("tiny", 2)


def broken_at(got, expected, error=1.0, allowed=0.1):
    return LawBroken("y", "an error", "none", "less", Place([0], got, expected, error, allowed))


def cause_of(backend, problem=None, error=None):
    """What is said of the backend's answer to the problem."""
    problem = continued(case_of("inner", "linear")) if problem is None else problem
    call = Call(problem, Options(), answer(backend, problem, Options()))
    return likely(error or broken_at(1.0, 3.0), call, *judged(call))


# Known mistakes.


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_mistake_is_told_to_who_made_it(name):
    """From the law to the failure, as in a run: the mistake of the backend is among those named."""
    mutant = MUTANTS[name]
    backend = mutant.backend("mine")
    several = [cell for cell in cells([backend], EFFORTS["default"]) if cell.law.name == mutant.law]
    failure = next(found.failure for found in (run(cell, TINY, explain=True) for cell in several) if found.failure is not None)
    assert f"{mutant.cause} (see {mutant.see})" in failure.cause
    assert failure.cause.count("(see docs/") <= NAMED


@pytest.mark.parametrize("name", KNOWN)
def test_what_a_cause_refers_to_is_there(name):
    page, _, anchor = MUTANTS[name].see.partition("#")
    text = (DOCS / page).read_text(encoding="utf-8")
    headings = [line.lstrip("# ").strip().lower() for line in text.splitlines() if line.startswith("#")]
    assert anchor in {"".join(c for c in heading.replace(" ", "-") if c.isalnum() or c in "-_") for heading in headings}


def test_a_mistake_is_known_over_another_backend():
    torch = MUTANTS["eta_transposed"].backend("mine", "torch")
    # Of more mini-batches PyTorch makes blocks, which the mutant leaves right.
    problem = continued(case_of("inner", "linear", length=SHAPE[3]))
    assert MUTANTS["eta_transposed"].cause in cause_of(torch, problem)


def test_a_mistake_is_known_of_a_backend_that_returns_y_alone():
    problem = case_of("inner", "linear").problem()
    wrong = MUTANTS["strict_causality"].backend("mine")
    alone = dataclasses.replace(
        NUMPY,
        name="mine",
        supports=Supports(forms=("dual",), state=False, mask=False, cu_seqlens=False),
        inner_function=lambda *given: wrong.inner(*given)[0],
    )
    assert MUTANTS["strict_causality"].cause in cause_of(alone, problem)


@pytest.mark.parametrize("subject", ["inner", "layer"])
def test_no_mistake_is_seen_where_none_is(subject):
    problem = continued(case_of(subject, "linear"))
    assert cause_of(NUMPY, problem) == ""


def test_an_unknown_mistake_has_no_name():
    rng = np.random.default_rng(0)
    assert cause_of(changed(lambda y, state: (y + rng.normal(size=y.shape), state), supports=Supports())) == ""


def test_another_layout_has_no_name():
    """Of other shapes or names than the truth's: no mistake of the list gives such."""
    problem = continued(case_of("inner", "linear"))
    got = answer(NUMPY, problem, Options())
    for wrong in (got._replace(y=got.y[:1]), got._replace(state=got.state._replace(weights={"W": got.state.weights["W1"]}))):
        call = Call(problem, Options(), wrong)
        assert likely(broken_at(1.0, 3.0), call, *judged(call)) == ""


def test_not_more_than_so_many_are_named(monkeypatch):
    mutant = MUTANTS["eta_transposed"]
    several = {f"{name}": dataclasses.replace(mutant, cause=f"cause {name}") for name in range(NAMED + 2)}
    monkeypatch.setattr(causes, "MUTANTS", several)
    named = cause_of(mutant.backend("mine"))
    assert named == "; or: ".join(f"cause {name} (see {mutant.see})" for name in range(NAMED))


def test_a_mistake_that_does_not_run_is_not_the_cause(monkeypatch):
    mutant = MUTANTS["eta_transposed"]
    crashing = dataclasses.replace(mutant, new="undefined", cause="crash")
    monkeypatch.setattr(causes, "MUTANTS", {"crashing": crashing, "right": mutant})
    assert cause_of(mutant.backend("mine")).startswith(mutant.cause)


# Patterns.


PATTERNS = [
    (math.nan, 1.0, "not a number: an overflow, 0/0, or a masked value that was multiplied instead of left out"),
    (0.0, 1.0, "zero where it should not be: a term or a cotangent is dropped"),
    (-0.25, 0.25, "-1 times what it should be"),
    (0.5, 1.0, "0.5 times what it should be"),
    (2.0, 1.0, "2 times what it should be"),
    (-4.0, -2.0, "2 times what it should be"),
    (2.001, 1.0, ""),
    (3.0, 1.0, ""),
    (1.0, 0.0, ""),
    (math.inf, 1.0, ""),
    (math.inf, 0.0, ""),
    (1e300, 1e-300, ""),
]


@pytest.mark.parametrize(("got", "expected", "words"), PATTERNS)
def test_patterns_in_the_numbers(got, expected, words):
    assert pattern(broken_at(got, expected)) == words


def test_no_place_no_pattern():
    assert pattern(LawBroken("dtype of y", "float64", "float32", "nothing else")) == ""


def test_a_known_mistake_comes_before_a_pattern():
    error = broken_at(2.0, 1.0)
    assert cause_of(MUTANTS["eta_transposed"].backend("mine"), error=error).startswith(MUTANTS["eta_transposed"].cause)
    assert cause_of(changed(lambda y, state: (2 * y, state), supports=Supports()), error=error) == "2 times what it should be"
