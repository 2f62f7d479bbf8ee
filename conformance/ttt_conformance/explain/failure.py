"""From a broken law to what a report says of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tttcore.tree import leaves, paths

from ..allowance import allowance
from ..laws import LawBroken
from ..laws.expected import exact
from ..matrix import Cell
from ..problem import Call, Outcome, Problem, reference
from ..report.results import Failure
from .causes import likely
from .evidence import Evidence
from .reproducer import script

LONGEST = 4096
"""No script for more tokens than that."""


def explained(cell: Cell, drawn: Any, error: Exception) -> Failure:
    """What a report says of the smallest failure: the law on ``drawn`` raises ``error``."""
    if not isinstance(error, LawBroken):
        return Failure(f"{type(error).__name__}: {error}", [], None, None, None, 0.0, str(drawn), {})
    call = error.call
    expected, allowed = (None, None) if call is None else judged(call)
    place = error.place
    return Failure(
        what=str(error) if place is None else error.what,
        index=[] if place is None else place.index,
        got=None if place is None else place.got,
        expected=None if place is None else place.expected,
        error=None if place is None else place.error,
        allowed=0.0 if place is None else place.allowed,
        case=str(drawn) if call is None or str(drawn).startswith(sizes(call.problem)) else f"{sizes(call.problem)}; from: {drawn}",
        spec={} if call is None else json.loads(call.problem.spec.to_json()),
        cause=likely(error, call, expected, allowed),
        reproducer="" if call is None or expected is None or allowed is None else reproducer(cell, error, call, expected, allowed),
    )


def judged(call: Call) -> tuple[Outcome, Outcome]:
    """The truth of a call and how far from it an answer may be."""

    def run(problem: Problem) -> Outcome:
        return reference(problem, call.options.mask, call.options.cu_seqlens)

    truth = run(exact(call.problem))
    return truth, allowance(call.problem, truth, run)


def reproducer(cell: Cell, error: LawBroken, call: Call, expected: Outcome, allowed: Outcome) -> str:
    """The script, or an empty string where the input is too long for one."""
    if call.problem.length > LONGEST:
        return ""
    place = ", ".join((cell.form, cell.subject, cell.inner, cell.dtype))
    return script(
        Evidence(
            title=f"law {cell.law.name} broken by backend {cell.backend.name!r} ({place})",
            statement=cell.law.statement,
            what=error.what,
            problem=call.problem,
            options=call.options,
            got=_flat(call.got),
            expected=_flat(expected),
            allowed={path: float(limit) for path, limit in _flat(allowed).items()},
        )
    )


def sizes(problem: Problem) -> str:
    """A problem's sizes in the letters of the mathematics."""
    spec = problem.spec
    return f"B = {problem.batch}, T = {problem.length}, H = {spec.heads}, D = {spec.head_dim}, K = {spec.mini_batch_size}"


def _flat(outcome: Outcome) -> dict[str, np.ndarray]:
    return dict(zip(paths(outcome), leaves(outcome), strict=True))
