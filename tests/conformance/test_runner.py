"""The run: deterministic, whatever a backend does; what is broken is found again, made small and explained."""

import dataclasses
import itertools
import json
import math

import pytest
from wrong import NARROW, NUMPY, changed, crashing

from ttt_conformance import conform
from ttt_conformance.laws import LAWS, LawBroken
from ttt_conformance.laws.refusal import OF_VALUES, WRONG_INNER, WRONG_STATE
from ttt_conformance.matrix import EFFORTS, Effort, cells
from ttt_conformance.report import Report
from ttt_conformance.report.results import BROKEN, HOLDS, NOT_CLAIMED, SHARE_EDGES
from ttt_conformance.runner import UNSTEADY, effort_of, explained_result, run
from tttcore import BackendUnavailable, InvalidInput, Supports, Unsupported, get_backend

TINY = Effort("tiny", 2)


@pytest.fixture
def few_laws(monkeypatch):
    """A few laws, quick and of different kinds."""
    monkeypatch.setattr("ttt_conformance.matrix.LAWS", {name: LAWS[name] for name in ("split", "causality", "rest", "repeat")})


def cell_of(backend, law="rest", form="dual", inner="linear", subject="inner", dtype="float64"):
    wanted = (law, form, subject, inner, dtype)
    return next(cell for cell in cells([backend], EFFORTS["deep"]) if (cell.law.name, cell.form, cell.subject, cell.inner, cell.dtype) == wanted)


def timeless(report):
    """All of a report but its times."""
    content = json.loads(report.to_json())
    for part in (content, *content["results"]):
        del part["seconds"]
    return content


def larger(y, state):
    return 1.5 * y, state


def unsteady(every):
    """Wrong in one call of so many."""
    calls = itertools.count(1)
    return changed(lambda y, state: (2 * y if next(calls) % every == 0 else y, state))


# The whole run.


@pytest.mark.usefixtures("few_laws")
@pytest.mark.parametrize("backend", [NUMPY, changed(larger)], ids=["right", "wrong"])
def test_two_runs_report_the_same(backend):
    first, second = (conform(backend, TINY) for _ in range(2))
    assert timeless(first) == timeless(second)
    assert first.effort == "tiny"
    assert first.seconds >= sum(result.seconds for result in first.results)


@pytest.mark.usefixtures("few_laws")
def test_what_can_be_given():
    narrow = dataclasses.replace(NUMPY, name="mine", supports=NARROW)
    by_object, by_name, by_place = conform(narrow, TINY), conform("numpy", TINY), conform("wrong:NUMPY", TINY)
    assert by_object.backends == ["mine"]
    assert by_name.backends == by_place.backends == ["numpy"]
    assert timeless(by_name) == timeless(by_place)
    several = conform((backend for backend in ("numpy", narrow)), TINY)
    assert several.backends == ["numpy", "mine"]
    assert timeless(several)["results"] == timeless(by_name)["results"] + timeless(by_object)["results"]
    assert isinstance(several, Report)


@pytest.mark.usefixtures("few_laws")
def test_efforts_by_name():
    narrow = dataclasses.replace(NUMPY, supports=NARROW)
    assert conform(narrow).effort == "default"
    quick = conform(narrow, "quick")
    assert quick.effort == "quick"
    assert len(quick.results) == len(cells([narrow], EFFORTS["quick"]))
    assert {result.examples for result in quick.results if result.status == HOLDS} == {EFFORTS["quick"].examples}


@pytest.mark.parametrize("effort", ["slow", "", "Quick"])
def test_an_unknown_effort_is_refused(effort):
    message = f"effort: got {effort!r}; expected one of ['quick', 'default', 'deep']. Fix: use one of these."
    for call in (lambda: conform(NUMPY, effort), lambda: effort_of(effort), lambda: effort_of(effort, 3)):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(("number", "name"), [(1, "quick, 1 example"), (3, "quick, 3 examples")])
def test_an_effort_of_so_many_examples_says_so(number, name):
    assert effort_of("quick", number) == Effort(name, number, few=True)
    assert effort_of("deep") is EFFORTS["deep"]


def test_what_cannot_be_found_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("ttt_conformance.runner.run", lambda *_: pytest.fail("something ran"))
    with pytest.raises(InvalidInput, match=r"^backend: got 'pytorch'; expected one of "):
        conform(["numpy", "pytorch"])
    with pytest.raises(BackendUnavailable, match="no_such_module"):
        conform(["numpy", "no_such_module:BACKEND"])
    with pytest.raises(InvalidInput, match=r"^backends: got two of the name 'numpy'; "):
        conform(["numpy", "numpy"])


def test_no_backend_is_an_error():
    with pytest.raises(InvalidInput, match=r"^backends: got none; expected at least one\. Fix: install one, or name one with --backend\.$"):
        conform([])


CLAIMS = [
    *({"forms": ()}, {"inner": ("none",)}, {"loss": ()}, {"dtypes": ()}, {"dtypes": ("bfloat16",)}),
    *({"head_dims": (7,)}, {"mini_batch_sizes": ()}, {"inner": (), "state": False}),
]
REFUSED = Unsupported("idle", field="days", got="a Sunday", expected="none", fix="wait")


@pytest.mark.parametrize(("error", "claims"), [*((ZeroDivisionError("never called"), claims) for claims in CLAIMS), (REFUSED, {})], ids=str)
def test_that_nothing_is_compared_is_an_error(error, claims):
    idle = crashing(error, "idle", Supports(**claims))
    with pytest.raises(InvalidInput) as caught:
        conform([dataclasses.replace(NUMPY, supports=NARROW), idle], "quick")
    message = str(caught.value)
    assert message.startswith("claims: got nothing to compare on idle: every law is outside its claims (first: backend 'idle' does not support ")
    assert message.endswith("; expected at least one law that can be checked. Fix: claim what the backend can do, in Supports.")


@pytest.mark.usefixtures("few_laws")
def test_progress_is_told_every_cell_before_it_runs():
    told = []
    narrow = changed(larger)
    report = conform(narrow, TINY, progress=told.append)
    assert told == cells([narrow], TINY)
    assert [cell.name for cell in told] == [result.name for result in report.results]


@pytest.mark.usefixtures("few_laws")
def test_the_first_failure_of_each_law_and_backend_is_explained():
    report = conform([changed(larger, "one"), changed(larger, "two")], TINY)
    explained = [(result.backend, result.law) for result in report.results if result.failure is not None]
    assert sorted(explained) == sorted({(result.backend, result.law) for result in report.broken})
    assert {law for _, law in explained} == {"split", "rest"}
    for law in ("split", "rest"):
        first, *others = (result for result in report.broken if (result.backend, result.law) == ("two", law))
        assert first.failure is not None
        assert all(result.failure is None for result in others)


# One cell.


def test_a_cell_that_holds():
    result = run(cell_of(NUMPY, "split"), Effort("some", 5))
    assert (result.status, result.message, result.failure) == (HOLDS, "", None)
    assert result.examples == 5
    assert 0 < result.worst <= 1
    assert 0 < sum(result.shares) <= result.comparisons


@pytest.mark.parametrize(("cost", "examples"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_a_dear_law_gets_its_share_of_the_examples(cost, examples):
    cell = cell_of(NUMPY)
    dear = dataclasses.replace(cell, law=dataclasses.replace(cell.law, cost=cost))
    assert run(dear, Effort("some", 6)).examples == examples


def test_the_draws_differ_within_a_run():
    seen = []
    cell = cell_of(NUMPY)
    run(dataclasses.replace(cell, law=dataclasses.replace(cell.law, check=lambda trial, case: seen.append(case))), Effort("some", 6))
    assert len(set(seen)) == 6


def test_a_broken_cell():
    result = run(cell_of(changed(larger)), TINY)
    assert result.status == BROKEN
    assert result.worst > 1
    assert result.message.startswith("at rest: y: got an error of ")
    assert "; expected none; allowed " in result.message
    assert result.failure is None
    assert sum(result.shares[SHARE_EDGES.index(1.0) + 1 :]) >= 1


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_is_infinitely_wrong(number):
    result = run(cell_of(changed(lambda y, state: (y + number, state))), TINY)
    assert (result.status, result.worst) == (BROKEN, math.inf)
    assert "got an error of " in result.message
    assert result.shares[-1] >= 1


class PanicException(BaseException):  # as those of Rust libraries
    pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (RuntimeError("shape [b, t]"), "RuntimeError: shape [b, t]"),
        (NotImplementedError("later"), "NotImplementedError: later"),
        (AssertionError("q is k"), "AssertionError: q is k"),
        (SystemExit(0), "SystemExit: 0"),
        (PanicException("rust"), "PanicException: rust"),
    ],
)
@pytest.mark.parametrize("explain", [False, True])
def test_a_crash_is_a_finding(error, message, explain):
    result = run(cell_of(crashing(error)), TINY, explain=explain)
    assert (result.status, result.message) == (BROKEN, message)
    assert (result.failure is not None) == explain
    if explain:
        assert result.failure.what == message
        assert result.failure.case.startswith("B = 1, T = 0, H = 1, D = 4, K = 1, normal input")


def test_who_wants_to_stop_can():
    with pytest.raises(KeyboardInterrupt):
        run(cell_of(crashing(KeyboardInterrupt())), TINY)


def test_an_answer_that_is_none_is_told():
    result = run(cell_of(changed(lambda y, state: (y[:, :, 0], state))), TINY, explain=True)
    assert result.status == BROKEN
    assert result.message == (
        "InvalidAnswer: backend 'wrong' returned a wrong y: got shape (1, 0, 4); expected shape (1, 0, 1, 4), as the input. "
        "Fix: return y in the layout of the input."
    )
    assert result.failure.what == result.message


# What is not claimed.


@pytest.mark.parametrize(
    ("backend", "law", "dtype", "message"),
    [
        (NUMPY, "gradients", "float64", "backend 'numpy' has no gradients"),
        (NUMPY, "dtype", "bfloat16", "backend 'numpy' is called with NumPy arrays, and NumPy has no bfloat16"),
        (
            dataclasses.replace(NUMPY, supports=NARROW),
            "dtype",
            "float16",
            "backend 'numpy' does not support dtype: got 'float16'; expected one of ['float32', 'float64']",
        ),
        (
            dataclasses.replace(NUMPY, supports=NARROW),
            "mask",
            "float64",
            "backend 'numpy' does not support mask: got a mask; expected None. Fix: leave mask out or use another backend.",
        ),
        (crashing(REFUSED), "rest", "float64", str(REFUSED)),
    ],
)
def test_what_is_not_claimed_is_said(backend, law, dtype, message):
    result = run(cell_of(backend, law, dtype=dtype), TINY)
    assert result.status == NOT_CLAIMED
    assert result.message == message
    assert (result.worst, result.comparisons, sum(result.shares)) == (0, 0, 0)


def test_what_is_refused_now_and_then_holds_for_the_rest():
    calls = itertools.count(1)

    def picky(y, state):
        if next(calls) % 3 == 0:
            raise REFUSED
        return y, state

    result = run(cell_of(changed(picky)), Effort("some", 6))
    assert (result.status, result.message, result.examples) == (HOLDS, "", 6)
    assert result.comparisons == 4 * run(cell_of(NUMPY), Effort("one", 1)).comparisons


def test_a_backend_without_state_is_checked_from_the_initial_state():
    stateless = changed(lambda y, state: y, supports=dataclasses.replace(NARROW, state=False))
    assert run(cell_of(stateless), TINY).status == HOLDS
    split = run(cell_of(stateless, "split"), TINY)
    assert (split.status, split.comparisons) == (NOT_CLAIMED, 0)
    assert split.message.startswith("backend 'wrong' does not support state: got a state; ")


def test_to_refuse_every_call_is_not_to_refuse_nonsense():
    result = run(cell_of(crashing(REFUSED), "refusal"), TINY)
    assert (result.status, result.comparisons) == (NOT_CLAIMED, 0)
    result = run(cell_of(crashing(InvalidInput("day", got="a Sunday", expected="none", fix="wait")), "refusal"), TINY)
    assert (result.status, result.comparisons) == (BROKEN, 0)
    assert result.message == "InvalidInput: day: got a Sunday; expected none. Fix: wait."


def test_values_that_a_backend_does_not_read_are_not_asked_of_it():
    unread = dataclasses.replace(NUMPY, concrete=lambda x: False)
    every, some = (run(cell_of(backend, "refusal"), TINY) for backend in (NUMPY, unread))
    assert every.status == some.status == HOLDS
    assert (WRONG_INNER | WRONG_STATE).keys() > OF_VALUES
    assert 0 < some.comparisons <= every.comparisons - len(OF_VALUES)


# The second run, which explains.


def test_an_explanation_adds_the_failure_and_changes_no_number():
    cell = cell_of(changed(larger))
    plain = run(cell, TINY)
    told = explained_result(cell, TINY, plain)
    assert told.failure is not None
    kept = ("name", "status", "worst", "comparisons", "examples", "shares", "curve")
    assert [getattr(told, name) for name in kept] == [getattr(plain, name) for name in kept]
    assert told.seconds > plain.seconds
    failure = told.failure
    assert failure.error > failure.allowed > 0
    assert math.isclose(failure.got, 1.5 * failure.expected)
    assert told.message.startswith(f"{failure.what}: got an error of {failure.error:.3g}; ")


def test_the_smallest_case_is_one_token():
    failure = run(cell_of(changed(larger)), TINY, explain=True).failure
    assert failure.case.startswith("B = 1, T = 1, H = 1, D = 4, K = 1, normal input, seed 0")
    assert failure.spec["mini_batch_size"] == 1
    assert failure.index[:3] == [0, 0, 0]


@pytest.mark.parametrize("effort", ["quick", "default"])
def test_the_smallest_case_is_looked_for_among_the_questions_of_the_effort(effort):
    asked = []

    def check(trial, case):
        asked.append(trial.few)
        raise LawBroken("y", "1", "0", "0")

    cell = cell_of(changed(larger))
    run(dataclasses.replace(cell, law=dataclasses.replace(cell.law, check=check)), EFFORTS[effort], explain=True)
    assert set(asked) == {effort == "quick"}


@pytest.mark.parametrize("every", [3, 7])
def test_a_backend_that_is_now_right_now_wrong_stays_broken(every):
    cell = cell_of(unsteady(every))
    result = run(cell, Effort("some", 8))
    assert result.status == BROKEN
    assert result.message.startswith("at rest: y: got an error of ")
    assert result.message.endswith(UNSTEADY)
    assert result.message.count(UNSTEADY) == 1
    told = explained_result(cell, Effort("some", 8), result)
    assert told.status == BROKEN


@pytest.mark.usefixtures("few_laws")
def test_what_is_not_broken_again_stays_broken():
    """Wrong in one call of the whole run."""
    once = iter([False, True])
    report = conform(changed(lambda y, state: (2 * y if y.size and next(once, False) else y, state)), TINY)
    assert [result.message.count(UNSTEADY) for result in report.broken] == [1]
    assert report.broken[0].failure is None


def test_a_backend_named_as_another_is_still_its_own():
    assert get_backend("wrong:NUMPY") is NUMPY
