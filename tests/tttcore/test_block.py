"""The dual form over blocks of mini-batches is the primal form, whatever the stack, the loss, and where rows begin and end."""

import dataclasses
import functools

import numpy as np
import pytest
from small import STARTS, case_of, every_model, options_of

from ttt_conformance.allowance import allowance
from ttt_conformance.laws import Trial
from ttt_conformance.problem import Outcome
from tttcore import get_backend, inner_loop

NUMPY = get_backend("numpy")


@pytest.mark.parametrize("block_size", [1, 2, 3, 5])
@pytest.mark.parametrize("start", STARTS["inner"])
@pytest.mark.parametrize("loss", ["squared_error", "inner_product"])
@every_model
def test_blocks_compute_the_definition(inner, loss, start, block_size):
    problem, mask, cu_seqlens = options_of(case_of("inner", inner, length=27), start)
    problem = dataclasses.replace(problem, spec=dataclasses.replace(problem.spec, loss=loss))

    def run(problem, form="primal", size=None):
        loop = functools.partial(inner_loop, form=form, block_size=size, mask=mask, cu_seqlens=cu_seqlens)
        return Outcome(*loop(problem.spec, problem.params, *problem.inputs, state=problem.state))

    truth = run(problem)
    Trial(NUMPY, "dual").compare("block", run(problem, "dual", block_size), truth, allowance(problem, truth, run))


@pytest.mark.parametrize("length", [1, 4, 8, 9, 12])
def test_a_row_that_ends_early_keeps_its_state(length):
    problem, _, _ = options_of(case_of("inner", "mlp", length=27), "resumed")
    mask = np.broadcast_to(np.arange(27) < length, (problem.batch, 27))
    y, whole = inner_loop(problem.spec, problem.params, *problem.inputs, state=problem.state, mask=mask, block_size=3)
    short = dataclasses.replace(problem, inputs=tuple(x[:, :length] for x in problem.inputs))

    def cut(problem):
        return Outcome(*inner_loop(problem.spec, problem.params, *problem.inputs, state=problem.state, form="primal"))

    truth = cut(short)
    np.testing.assert_array_equal(whole.phase, truth.state.phase)
    Trial(NUMPY, "dual").compare("block", Outcome(y[:, :length], whole), truth, allowance(short, truth, cut))
