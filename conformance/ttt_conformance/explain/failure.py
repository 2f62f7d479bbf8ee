"""From a broken law to what a report says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tttcore.tree import Tree, leaves, paths

from ..allowance import allowance
from ..cases import Case
from ..laws import LawBroken
from ..laws.expected import exact
from ..laws.gradients import directions
from ..laws.numbers import rounding
from ..matrix import Cell
from ..problem import Call, GradientCall, Outcome, Problem, argument_paths, reference
from ..report.results import Failure
from . import gradient_causes
from .causes import close, likely, pattern
from .evidence import Evidence, GradientEvidence
from .reproducer import script

LONGEST = 4096
"""No script for more tokens than that, and no search for a cause."""


class Finding(NamedTuple):
    """The likely cause, or an empty string, and what a script needs to show the failure; None where it would show nothing wrong."""

    cause: str
    evidence: Evidence | None


def explained(cell: Cell, drawn: Any, error: BaseException) -> Failure:
    """What a report says of the smallest failure: the law on ``drawn`` raises ``error``."""
    if not isinstance(error, LawBroken):
        spec: dict[str, Any] = json.loads(drawn.spec.to_json()) if isinstance(drawn, Case) else {}
        return Failure(f"{type(error).__name__}: {error}", [], None, None, None, 0.0, str(drawn), spec)
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
        reproducer="" if evidence is None else script(evidence),
    )


def finding(cell: Cell, error: LawBroken) -> Finding:
    """What is found of a broken law from the call that broke it, where that is known."""
    call, place = error.call, ", ".join((cell.form, cell.subject, cell.inner, cell.dtype))
    if call is None or call.problem.length > LONGEST:
        return Finding(pattern(error), None)
    about: dict[str, Any] = {
        "title": f"law {cell.law.name} broken by backend {cell.backend.name!r} ({place})",
        "statement": cell.law.statement,
        "what": error.what,
        "problem": call.problem,
        "options": call.options,
    }
    if isinstance(call, GradientCall):
        found = of_gradient(call, about)
        return Finding(gradient_causes.likely(found) or pattern(error), found if gradient_causes.wrong(found) else None)
    truth, allowed = judged(call)
    limits = {path: float(limit) for path, limit in _flat(allowed).items()}
    evidence = None if close(call.got, truth, allowed) else Evidence(**about, got=_flat(call.got), allowed=limits)
    return Finding(likely(error, call, truth, allowed), evidence)


def of_gradient(call: GradientCall, about: Mapping[str, Any]) -> GradientEvidence:
    """The evidence of a call of a vjp, with the directions of the law of gradients; ``about``: the fields that every evidence has."""
    _, mask, cu_seqlens, *_ = call.options
    several = directions(call.problem, call.bars, mask, cu_seqlens)
    return GradientEvidence(
        **about,
        got=dict(zip(argument_paths(call.problem), leaves(call.got), strict=True)),
        allowed={direction.path: float(direction.allowed) for direction in several},
        bars=_flat(call.bars),
        along={direction.path: direction.along for direction in several},
    )


def judged(call: Call) -> tuple[Outcome, Outcome]:
    """The truth of a call and how far from it an answer may be."""

    def run(problem: Problem) -> Outcome:
        return reference(problem, call.options.mask, call.options.cu_seqlens)

    problem, step = call.problem, None
    if problem.dtype.itemsize < 4:  # as the law of dtypes has it
        problem, step = problem.map(lambda x: x.astype(np.float32)), rounding(problem.dtype)
    truth = run(exact(problem))
    return truth, allowance(problem, truth, run, step)


def sizes(problem: Problem) -> str:
    """A problem's sizes in the letters of the mathematics."""
    spec = problem.spec
    return f"B = {problem.batch}, T = {problem.length}, H = {spec.heads}, D = {spec.head_dim}, K = {spec.mini_batch_size}"


def _flat(outcome: Tree) -> dict[str, np.ndarray]:
    return dict(zip(paths(outcome), leaves(outcome), strict=True))
