"""What docs/peers.md says of flash-linear-attention is what its function does and what the suite finds."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ttt_conformance.allowance import allowance
from ttt_conformance.matrix import Effort, cells
from ttt_conformance.peers.account import draws, exact, left, native
from ttt_conformance.peers.changed import CHANGES, linear
from ttt_conformance.problem import Problem
from ttt_conformance.report.results import BROKEN, HOLDS, NOT_CLAIMED
from ttt_conformance.runner import run
from tttcore import backends, get_backend
from tttcore.backend import peers
from tttcore.complex_step import STEP
from tttcore.tree import leaves, tree_map

INFO = peers()["fla"]
pytestmark = pytest.mark.skipif(not INFO.available, reason=INFO.reason)


@pytest.fixture(scope="module")
def fla():
    """The adapter's module."""
    return importlib.import_module("ttt_conformance.peers.fla")


@pytest.fixture(scope="module")
def statuses(fla):
    """Every (law, status) that the suite finds of the inner loop on one draw, but for the laws that only take longer to say the same."""
    every = [cell for cell in cells([fla.BACKEND]) if (cell.subject, cell.inner, cell.form) == ("inner", "linear", "dual")]
    return {(cell.law.name, run(cell, Effort("one", 1)).status) for cell in every if cell.law.name not in ("gradients", "hostile", "drift")}


def whole(problem, gate=None):
    """The problem's full mini-batches, with one gate for all tokens of each if told."""
    problem = problem.tokens(0, 32)
    *tokens, lr = problem.inputs
    lr = np.repeat(lr[:, ::16], 16, axis=1) if gate == "constant" else lr
    return dataclasses.replace(problem, inputs=(*tokens, lr))


def agree(fla, problem, changes):
    """Whether y, W and b are those of the definition with these changes, each array within its allowance."""

    def answer(problem):
        return linear(problem, changes)

    truth = answer(exact(problem))
    found = zip(native(fla, problem), truth, allowance(problem, truth, answer), strict=True)
    return [bool(np.max(np.abs(x - y)) <= limit) for x, y, limit in found]


def test_it_is_listed_and_found_by_name_and_in_no_default_run(fla):
    assert get_backend("fla") is fla.BACKEND
    assert "fla" not in backends()


def test_the_suite_finds_the_differences_that_are_stated(fla, statuses):
    holds, broken, refused = ({law for law, found in statuses if found == status} for status in (HOLDS, BROKEN, NOT_CLAIMED))
    assert {"causality", "repeat", "refusal"} <= holds
    assert {"reference", "rest", "online", "dtype"} <= broken
    assert {"split", "mask", "packed"} <= refused
    assert {law for difference in fla.DIFFERENCES.values() for law in difference.laws} <= broken | refused


def test_nothing_is_left_unexplained(fla):
    assert tuple(fla.DIFFERENCES)[: len(CHANGES)] == CHANGES
    assert np.all(left(fla) <= 1)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_needed(fla, change):
    assert not all(agree(fla, draws("normal")[0], [other for other in CHANGES if other != change]))


def test_a_constant_gate_and_full_mini_batches_leave_the_residual_alone(fla):
    for problem in draws("normal"):
        assert agree(fla, whole(problem, "constant"), ()) == [False, True, True]
        assert agree(fla, whole(problem, "constant"), ("residual",)) == [True, True, True]
        assert not all(agree(fla, whole(problem), ("residual",)))


def test_at_the_identity_the_residual_is_the_papers(fla):
    """W = I, b = 0 and no step: z = q, so that z + LN(z) is q + LN(z)."""
    problem = draws("normal")[0]
    spec, params = problem.spec, dict(problem.params)
    params |= {"W1": np.stack([np.eye(spec.head_dim, dtype=np.float32)] * spec.heads), "b1": 0 * params["b1"]}
    still = Problem(spec, params, (*problem.inputs[:3], 0 * problem.inputs[3]))
    assert agree(fla, still, ()) == [True, True, True]


def test_the_final_bias_depends_on_tokens_that_are_not_there(fla):
    """The same five tokens with the same step sizes, as a mini-batch of five and in one of sixteen."""
    torch = importlib.import_module("torch")
    problem = draws("normal")[0].tokens(0, 5)
    q, k, v, eta = map(torch.tensor, problem.inputs)
    gamma, beta, W, b = (torch.tensor(problem.params[name]) for name in ("norm_weight", "norm_bias", "W1", "b1"))
    state = {"initial_state": torch.stack([W] * 2), "initial_state_bias": torch.stack([b] * 2), "output_final_state": True}

    def answer(size):
        return fla.function(q.clone(), k, v, gamma, beta, eta[..., None] / 16, mini_batch_size=size, **state)

    (y5, W5, b5), (y16, W16, b16) = answer(5), answer(16)
    torch.testing.assert_close(y5, y16)
    torch.testing.assert_close(W5, W16)
    assert (b5 - b16).abs().max() > 0.1 * b5.abs().max()


def test_its_function_scales_q_in_place_and_the_adapter_does_not(fla):
    torch = importlib.import_module("torch")
    q, k, v, eta = map(torch.tensor, whole(draws("normal")[0]).inputs)
    given = q.clone()
    fla.function(given, k, v, torch.ones(2, 16), torch.zeros(2, 16), eta[..., None])
    torch.testing.assert_close(given, q / 4)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        fla.function(q.clone().requires_grad_(), k, v, torch.ones(2, 16), torch.zeros(2, 16), eta[..., None])
    problem = whole(draws("normal")[0])
    params = tree_map(fla.BACKEND.asarray, problem.params)
    given = [q, k, v, eta, *leaves(params)]
    kept = [x.clone() for x in given]
    fla.BACKEND.inner(problem.spec, params, q, k, v, eta)
    for x, y in zip(given, kept, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_float64_comes_back_as_float32(fla):
    torch = importlib.import_module("torch")
    q, k, v, eta = map(torch.tensor, exact(whole(draws("normal")[0])).inputs)
    norm = torch.ones(2, 16), torch.zeros(2, 16)
    y, W, _ = fla.function(q, k, v, *norm, eta[..., None], output_final_state=True)
    assert y.dtype == W.dtype == torch.float32
    with pytest.raises(RuntimeError, match="Double"):
        fla.function(q, k, v, *norm, eta[..., None], initial_state=torch.zeros(2, 2, 16, 16, dtype=torch.float64))


def test_its_gradients_are_those_of_what_it_computes(fla):
    """⟨x̄, u⟩ against a complex step of the definition with all changes, every argument disturbed at once."""
    problem = draws("normal")[1]
    rng = np.random.default_rng(0)
    y_bar = rng.normal(size=problem.inputs[0].shape).astype(np.float32)
    along = problem.map(lambda x: rng.normal(size=x.shape).astype(x.dtype))

    def slope(problem):
        def moved(x, u):
            return x + 1j * x.dtype.type(STEP) * u.astype(x.dtype)

        params = {name: moved(x, along.params[name]) for name, x in problem.params.items()}
        inputs = tuple(map(moved, problem.inputs, along.inputs))
        return np.sum(np.imag(linear(Problem(problem.spec, params, inputs), CHANGES).y) / STEP * y_bar)

    backend = fla.BACKEND
    found = backend.inner_vjp(problem.spec, problem.params, *map(backend.asarray, problem.inputs), backend.asarray(y_bar))
    params, *inputs, _ = tree_map(backend.to_numpy, tuple(found))
    got = sum(np.sum(params[name].astype(np.float64) * u) for name, u in along.params.items())
    got += sum(np.sum(x.astype(np.float64) * u) for x, u in zip(inputs, along.inputs, strict=True))
    truth = slope(exact(problem))
    assert abs(got - truth) <= allowance(problem, truth, slope)


def test_its_fused_kernel_is_the_same_function_but_for_one_gradient():
    """In Triton's interpreter: outputs, states and gradients agree, except those of the final bias of a ragged sequence."""
    done = subprocess.run([sys.executable, "-W", "ignore", Path(__file__).parent / "fla_kernel.py"], capture_output=True, text=True, check=True)
    full, ragged = ([line.rsplit(" ", 1) for line in text.splitlines()[1:]] for text in done.stdout.split("T = ")[1:])
    assert max(float(size) for _, size in full) < 1e-5
    assert {name.strip() for name, size in ragged if float(size) > 1e-5} == {"gradients of b"}
