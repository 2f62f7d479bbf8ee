"""From a broken law to what a report says of it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from tttcore.tree import Tree, leaves, paths

from ..allowance import allowance
from ..laws import LawBroken
from ..laws.expected import exact
from ..laws.gradients import directions
from ..matrix import Cell
from ..problem import Call, GradientCall, Outcome, Problem, argument_paths, reference
from ..report.results import Failure
from . import gradient_causes
from .causes import likely, pattern
from .evidence import Evidence, GradientEvidence
from .reproducer import script

LONGEST = 4096
"""No script for more tokens than that."""


class Finding(NamedTuple):
    """The likely cause, or an empty string, and what a script needs to show the failure, if one can."""

    cause: str
    evidence: Evidence | None


def explained(cell: Cell, drawn: Any, error: BaseException) -> Failure:
    """What a report says of the smallest failure: the law on ``drawn`` raises ``error``."""
    if not isinstance(error, LawBroken):
        return Failure(f"{type(error).__name__}: {error}", [], None, None, None, 0.0, str(drawn), {})
    call, place, (cause, evidence) = error.call, error.place, finding(cell, error)
    return Failure(
        what=str(error) if place is None else error.what,
        index=[] if place is None else place.index,
        got=None if place is None else place.got,
        expected=None if place is None else place.expected,
        error=None if place is None else place.error,
        allowed=0.0 if place is None else place.allowed,
        case=str(drawn) if call is None or str(drawn).startswith(sizes(call.problem)) else f"{sizes(call.problem)}; from: {drawn}",
        spec={} if call is None else json.loads(call.problem.spec.to_json()),
        cause=cause,
        reproducer="" if evidence is None or evidence.problem.length > LONGEST else script(evidence),
    )


def finding(cell: Cell, error: LawBroken) -> Finding:
    """What is found of a broken law from the call that broke it, where that is known."""
    call, place = error.call, ", ".join((cell.form, cell.subject, cell.inner, cell.dtype))
    if call is None:
        return Finding(pattern(error), None)
    about: dict[str, Any] = {
        "title": f"law {cell.law.name} broken by backend {cell.backend.name!r} ({place})",
        "statement": cell.law.statement,
        "what": error.what,
        "problem": call.problem,
        "options": call.options,
    }
    return _of_gradient(error, call, about) if isinstance(call, GradientCall) else _of_answer(error, call, about)


def _of_answer(error: LawBroken, call: Call, about: dict[str, Any]) -> Finding:
    truth, allowed = judged(call)
    limits = {path: float(limit) for path, limit in _flat(allowed).items()}
    return Finding(likely(error, call, truth, allowed), Evidence(**about, got=_flat(call.got), allowed=limits))


def _of_gradient(error: LawBroken, call: GradientCall, about: dict[str, Any]) -> Finding:
    _, mask, cu_seqlens, *_ = call.options
    several = directions(call.problem, call.bars, mask, cu_seqlens)
    evidence = GradientEvidence(
        **about,
        got=dict(zip(argument_paths(call.problem), leaves(call.got), strict=True)),
        allowed={direction.path: float(direction.allowed) for direction in several},
        bars=_flat(call.bars),
        along={direction.path: direction.along for direction in several},
    )
    return Finding(gradient_causes.likely(evidence) or pattern(error), evidence)


def judged(call: Call) -> tuple[Outcome, Outcome]:
    """The truth of a call and how far from it an answer may be."""

    def run(problem: Problem) -> Outcome:
        return reference(problem, call.options.mask, call.options.cu_seqlens)

    truth = run(exact(call.problem))
    return truth, allowance(call.problem, truth, run)


def sizes(problem: Problem) -> str:
    """A problem's sizes in the letters of the mathematics."""
    spec = problem.spec
    return f"B = {problem.batch}, T = {problem.length}, H = {spec.heads}, D = {spec.head_dim}, K = {spec.mini_batch_size}"


def _flat(outcome: Tree) -> dict[str, np.ndarray]:
    return dict(zip(paths(outcome), leaves(outcome), strict=True))
