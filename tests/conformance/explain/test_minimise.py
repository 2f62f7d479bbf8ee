"""The search for the smallest case: in the order that saves most, of what breaks in the same way, within its bounds."""

import dataclasses

import pytest
from small import case_of

from ttt_conformance.explain import minimise
from ttt_conformance.explain.minimise import LEAST_D, TRIES, smaller, smallest
from ttt_conformance.laws import LawBroken
from ttt_conformance.laws.frozen import Frozen
from ttt_conformance.shapes import SHAPES, Shape

LARGE = case_of("layer", "linear", Shape(3, 4, 8, 16, "rich"), 35, "loud", rich=False)
LEAST = dataclasses.replace(LARGE, shape=Shape(1, 1, LEAST_D, 1), length=0, flavour="normal")
ERROR = LawBroken("y", "an error", "none", "0")


def where(condition, error=ERROR):
    """A law that breaks where the condition holds."""
    return lambda drawn: error if condition(drawn) else None


def counted(breaks):
    seen = []

    def counting(drawn):
        seen.append(drawn)
        return breaks(drawn)

    return counting, seen


def test_what_breaks_everywhere_is_made_the_least():
    assert smallest(LARGE, ERROR, where(lambda case: True))[0] == LEAST


def test_what_breaks_nowhere_else_stays():
    found, error = smallest(LARGE, ERROR, where(lambda case: False))
    assert found is LARGE
    assert error is ERROR


CONDITIONS = {
    "length": (lambda case: case.length >= 5, {"length": 5}),
    "odd length": (lambda case: case.length % 2, {"length": 1}),
    "rows": (lambda case: case.shape.batch == 3, {"batch": 3}),
    "heads": (lambda case: case.shape.heads == 4, {"heads": 4}),
    "width": (lambda case: case.shape.head_dim == 8, {"head_dim": 8}),
    "mini-batch": (lambda case: case.shape.mini_batch >= 2, {"mini_batch": 2}),
    "large mini-batch": (lambda case: case.shape.mini_batch > 6, {"mini_batch": 8}),
    "flavour": (lambda case: case.flavour == "loud", {"flavour": "loud"}),
    "variant": (lambda case: case.shape.variant == "rich", {"variant": "rich"}),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_one_thing_that_is_needed_is_kept_and_the_rest_made_the_least(name):
    condition, kept = CONDITIONS[name]
    own = {field: kept[field] for field in kept if field in ("length", "flavour")}
    expected = dataclasses.replace(LEAST, **own, shape=LEAST.shape._replace(**{field: kept[field] for field in kept if field not in own}))
    assert smallest(LARGE, ERROR, where(condition))[0] == expected


def test_a_crash_is_no_smaller_case_of_a_wrong_number():
    def breaks(case):
        return ZeroDivisionError("a bug") if case.length < 5 else ERROR

    found, error = smallest(LARGE, ERROR, breaks)
    assert found.length == 5
    assert error is ERROR
    found, error = smallest(LARGE, ZeroDivisionError("first"), breaks)
    assert found.length == 0
    assert str(error) == "a bug"


def test_the_error_is_the_one_of_the_case():
    error = smallest(LARGE, ERROR, lambda case: LawBroken(f"T = {case.length}", "", "", ""))[1]
    assert error.what == "T = 0"


def test_no_case_is_tried_twice_nor_more_than_so_many():
    breaks, seen = counted(where(lambda case: case.length > 30 and case.shape.mini_batch > 3))
    found = smallest(LARGE, ERROR, breaks)[0]
    assert len(set(seen)) == len(seen) <= TRIES
    assert found.shape.batch == found.shape.heads == 1


def test_time_is_bounded(monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(minimise.time, "perf_counter", lambda: next(clock))
    breaks, seen = counted(where(lambda case: True))
    smallest(LARGE, ERROR, breaks)
    assert len(seen) == 3, "at 4, 8 and 12 of 15 seconds"


@pytest.mark.parametrize("shape", [*SHAPES["inner"], *SHAPES["layer"], Shape(1, 1, 4, 1), Shape(1, 1, 2, 1), Shape(1, 1, 1, 2)])
@pytest.mark.parametrize("length", [0, 1, 2, 11])
def test_every_neighbour_is_a_smaller_case_that_there_is(shape, length):
    case = case_of("inner", "linear", shape if shape[2] % 2 == 0 else shape._replace(variant="odd"), length)
    for other in smaller(case):
        assert min(other.shape[:4]) >= 1, "and of an even width, where RoPE turns pairs"
        assert other.length >= 0
        assert other != case
        assert all(x <= y for x, y in zip(other.shape[:4], case.shape[:4], strict=True))
        assert other.length <= case.length
        assert (other.subject, other.inner, other.dtype, other.seed) == (case.subject, case.inner, case.dtype, case.seed)
        other.problem()


def test_the_one_of_a_family_that_breaks_is_made_smaller():
    usual = case_of("inner", "linear", SHAPES["inner"][0])
    family = dataclasses.replace(usual, others=((Shape(2, 3, 6, 3), 9), (Shape(2, 1, 8, 5), 3)))
    assert family.usual
    assert tuple(smaller(family))[:3] == family.family
    assert [member.others for member in family.family] == [()] * 3

    def breaks(case):
        return ERROR if any(one.shape.head_dim == 6 for one in case.family) else None

    least = dataclasses.replace(family.family[1], shape=Shape(1, 1, 6, 1), length=0, flavour="normal")
    assert smallest(family, ERROR, breaks)[0] == least
    assert smallest(family, ERROR, where(lambda case: case.family == family.family))[0] == family


def test_the_least_case_has_no_neighbour():
    assert list(smaller(LEAST)) == []


def test_of_vectors_one_that_breaks_is_found():
    vectors = Frozen(("right", "wrong", "wrong, too"), "float64")
    found = smallest(vectors, ERROR, where(lambda drawn: "wrong" in drawn.names))[0]
    assert found == vectors._replace(names=("wrong",))
    assert list(smaller(found)) == []
