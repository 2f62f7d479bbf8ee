"""Small cases for tests that run many of them: the suite's own, but with every view that there is at any shape."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import pytest

from ttt_conformance.cases import INNER_MODELS, Case
from ttt_conformance.laws.expected import continued
from ttt_conformance.problem import Problem
from ttt_conformance.shapes import Shape
from tttcore import LayerSpec, inner_loop, layer_around

SHAPE = Shape(2, 2, 4, 4)
STARTS = {"inner": ("fresh", "resumed", "mask", "packed"), "layer": ("fresh", "resumed", "mask")}
"""By subject: how a case can begin."""

every_form = pytest.mark.parametrize("form", ["primal", "dual", "decode"])
every_form_of_core = pytest.mark.parametrize("form", ["primal", "dual", "block", "decode"])
every_model = pytest.mark.parametrize("inner", INNER_MODELS)


@dataclass(frozen=True)
class RichCase(Case):
    """A case with shared Q/K, convolutions and gate, whatever its shape."""

    @property
    def spec(self) -> LayerSpec:
        return dataclasses.replace(super().spec, share_qk=True, gate=True)


def case_of(subject, inner, shape=SHAPE, length=None, flavour="normal", dtype="float64", rich=True):
    """A case of two mini-batches and a ragged tail, unless the length is given."""
    kind = RichCase if rich and subject == "layer" else Case
    return kind(subject, inner, dtype, Shape(*shape), 2 * shape[3] + 3 if length is None else length, flavour, 11)


def options_of(case, start):
    """The problem, mask and cu_seqlens of a start."""
    rng = np.random.default_rng(5)
    if start == "packed":
        problem = case.problem()
        row = Problem(problem.spec, problem.params, tuple(np.reshape(x, (1, -1, *x.shape[2:])) for x in problem.inputs))
        return row, None, np.minimum([0, 4, 4, 5, row.length], row.length)
    problem = case.problem() if start == "fresh" else continued(case)
    return problem, rng.random((problem.batch, problem.length)) < 0.6 if start == "mask" else None, None


def unchecked(problem, form, mask, cu_seqlens):
    """The reference itself, without a backend around it; the form "block" is the dual form over two mini-batches at once."""
    loop = inner_loop
    if form == "block":
        form, loop = "dual", functools.partial(inner_loop, block_size=2)
    if problem.subject == "layer":
        return layer_around(loop, problem.spec, problem.params, *problem.inputs, state=problem.state, form=form, mask=mask)
    return loop(problem.spec, problem.params, *problem.inputs, state=problem.state, form=form, mask=mask, cu_seqlens=cu_seqlens)
