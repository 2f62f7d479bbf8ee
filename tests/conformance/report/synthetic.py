"""Reports that no run made: what holds, is broken, is not claimed, drifts; what nobody compared; what tries to break out of its page."""

import dataclasses
import itertools
import math

from ttt_conformance.laws import LAWS
from ttt_conformance.report import Failure, Point, Report, Result
from ttt_conformance.report.results import BROKEN, HOLDS, NOT_CLAIMED, bin_of

ENVIRONMENT = {"python": "3.11.2", "platform": "Linux-6.1", "tttcore": "0.1.0", "torch": "not installed"}
HOSTILE = "</script></pre><script>alert('[red]')</script> \x1b[31m \x00 \ud800 ]]> & [B, T]"
SCRIPT = "import numpy as np\n\nprint(np.abs(1 - 2) < 1e-12, '</pre>')\n"
LAW = next(iter(LAWS))

FAILURE = Failure(
    what="final state: weights.W1",
    index=[1, 0, 3],
    got=0.25,
    expected=0.1234567890123,
    error=0.1265432109877,
    allowed=2.5e-13,
    case="2 rows of 5 tokens, mini-batches of 4, normal draws",
    spec={"width": 8, "heads": 2, "inner": "mlp"},
    cause="the mini-batch's gradient is divided by its length",
    reproducer=SCRIPT,
)


def shares(*errors):
    counts = [0] * len(Result.__dataclass_fields__["shares"].default_factory())
    for error in errors:
        counts[bin_of(error)] += 1
    return counts


def result(backend="numpy", law=LAW, form="dual", subject="inner", inner="mlp", dtype="float64", status=HOLDS, worst=0.25, **others):
    """A cell that holds, unless told otherwise."""
    compared = {"comparisons": 3, "examples": 2, "seconds": 0.5, "shares": shares(0.0, worst / 2, worst)}
    fields = {**compared, **others} if status != NOT_CLAIMED else {"comparisons": 0, "examples": 0, "seconds": 0.0, **others}
    return Result(backend, law, form, subject, inner, dtype, status, worst if status != NOT_CLAIMED else 0.0, **fields)


def broken(backend="jax", failure=FAILURE, **others):
    message = "final state: weights.W1: got an error of 0.127; expected none; allowed 2.5e-13"
    return result(backend, **{"status": BROKEN, "worst": 5.06e11, "message": message, "failure": failure, **others})


def unclaimed(backend="triton", **others):
    return result(backend, **{"status": NOT_CLAIMED, "message": f"backend {backend!r} has no gradients", **others})


def curve(slope=1e-15, length=15):
    return [Point(2**place, slope * 2**place, 2e-14 * 2**place) for place in range(length)]


def report(*results, **others):
    return Report(list(results), **{"seconds": 12.5, "environment": ENVIRONMENT, **others})


def holding():
    """Every law, in every form and two dtypes, on two backends; the last has a curve, and is not claimed by the second."""
    laws = list(LAWS)
    cells = itertools.product(("numpy", "torch"), laws, ("primal", "dual"), ("float64", "float32"))
    results = [
        result(backend, law, form, dtype=dtype, worst=0.02 + 0.04 * laws.index(law) if law != laws[1] else 0.0, seconds=0.3 + laws.index(law))
        for backend, law, form, dtype in cells
        if (backend, law) != ("torch", laws[-1])
    ]
    results = [dataclasses.replace(x, curve=curve(1e-15 + 1e-15 * (x.form == "dual"))) if x.law == laws[2] else x for x in results]
    return report(*results, unclaimed("torch", law=laws[-1]), unclaimed("torch", law=laws[0], inner="swiglu"))


def mixed():
    """The holding report with a backend that breaks two laws, one by a crash, and one that claims nothing."""
    laws = list(LAWS)
    diverging = [Point(2**place, 1e-14 * 4**place if place < 10 else math.inf, 2e-14 * 2**place) for place in range(15)]
    results = [
        broken(law=laws[0]),
        broken(law=laws[0], form="primal", failure=dataclasses.replace(FAILURE, got=None, error=None, cause="", reproducer="")),
        broken(law=laws[1], failure=None, message="ZeroDivisionError: a bug\nshape [b, t] [/red]", worst=math.inf, comparisons=0),
        result("jax", laws[2], curve=[*diverging, *diverging]),
        unclaimed(law=laws[0]),
    ]
    whole = holding()
    return dataclasses.replace(whole, results=[*whole.results, *results])


def hostile():
    """One broken cell, every text of which would like to be markup."""
    failure = dataclasses.replace(FAILURE, what=HOSTILE, case=HOSTILE, cause=HOSTILE, reproducer=HOSTILE, spec={HOSTILE: HOSTILE})
    names = dict.fromkeys(("backend", "law", "form", "subject", "inner", "dtype"), HOSTILE)
    return report(broken(**names, message=HOSTILE, failure=failure), effort=HOSTILE, environment={HOSTILE: HOSTILE}, spec_version=HOSTILE)


def empty():
    return report()
