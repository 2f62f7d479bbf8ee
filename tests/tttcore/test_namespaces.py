"""The reference in any array-API namespace: in array-api-strict it computes what it computes in NumPy, complex steps too."""

import functools

import array_api_strict
import numpy as np
import pytest
from small import STARTS, case_of, every_form_of_core, every_model, options_of, unchecked

from ttt_conformance.allowance import allowance
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import continued
from ttt_conformance.laws.gradients import derivative
from ttt_conformance.problem import Differentiable, Outcome, Problem, differentiable, random_like
from tttcore import get_backend
from tttcore.complex_step import STEP
from tttcore.tree import leaves, tree_map

NUMPY = get_backend("numpy")
DEVICE = array_api_strict.Device("device1")


def strict(x):
    """On a device that is not the default, so that a constant made elsewhere is refused."""
    return array_api_strict.asarray(x, device=DEVICE)


@pytest.mark.parametrize(
    ("subject", "start", "rich"),
    [(subject, start, rich) for subject in STARTS for start in STARTS[subject] for rich in (True, False) if subject == "layer" or rich],
)
@every_model
@every_form_of_core
def test_array_api_strict_computes_the_same(form, inner, subject, start, rich):
    problem, mask, cu_seqlens = options_of(case_of(subject, inner, rich=rich), start)

    def primal(problem):
        return Outcome(*unchecked(problem, "primal", mask, cu_seqlens))

    truth = primal(problem)
    given = [strict(x) if x is not None else None for x in (mask, cu_seqlens)]
    with array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
        native = Problem(problem.spec, *(tree_map(strict, tree) for tree in (problem.params, problem.inputs, problem.state)))
        got = Outcome(*unchecked(native, form, *given))
    assert all(x.device == DEVICE for x in leaves(got))
    assert [str(x.dtype).rpartition(".")[2] for x in leaves(got)] == [str(x.dtype) for x in leaves(truth)]
    Trial(NUMPY, form).compare("strict", tree_map(plain, got), truth, allowance(problem, truth, primal))


def plain(x):
    """NumPy again; array-api-strict hands out arrays of its default device only."""
    return np.asarray(array_api_strict.asarray(x, device=array_api_strict.Device("CPU_DEVICE")))


@pytest.mark.parametrize("subject", ["inner", "layer"])
@every_model
@every_form_of_core
def test_array_api_strict_takes_a_complex_step(form, inner, subject):
    problem = continued(case_of(subject, inner))
    rng = np.random.default_rng(6)
    tangents: Differentiable = tree_map(lambda x: random_like(rng, x), differentiable(problem))
    run = functools.partial(derivative, tangents)
    slopes = run(problem)
    arguments = differentiable(problem)
    params, inputs, state = tree_map(lambda x, u: strict(x + 1j * STEP * u), arguments, tangents)
    native = Problem(problem.spec, params, inputs, state._replace(phase=strict(problem.state.phase)))
    y, end = tree_map(plain, unchecked(native, form, None, None))
    found = Outcome(*tree_map(lambda x: np.imag(x) / STEP, (y, end._replace(phase=None))))
    Trial(NUMPY, form).compare("slope", found, slopes, allowance(problem, slopes, run))
