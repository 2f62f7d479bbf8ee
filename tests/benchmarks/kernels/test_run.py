"""Contenders on the CPU: the right ones pass, the wrong ones are found before a clock starts, and one that throws is a finding."""

import dataclasses
import math
import re

import pytest
import torch
from torch.nn.attention import SDPBackend

from benchmarks.kernels import attention, layers, measure, peers
from benchmarks.kernels import run as runs
from benchmarks.kernels.check import check_backward, check_forward, numbers
from benchmarks.kernels.record import FAILED, NO_BACKWARD, NOT_CLAIMED, TIMED, WRONG
from ttt_conformance.bench.check import TOLERANCE, WrongAnswer, relative_error
from ttt_conformance.bench.workload import Workload
from tttcore import get_backend

WORKLOAD = Workload(batch=1, tokens=24, heads=2, head_dim=8, mini_batch_size=4)
LAYER = layers.contender("torch", get_backend("torch"), "linear")
ATTENTION = attention.contender("flash", SDPBackend.FLASH_ATTENTION)


def changed(contender, function):
    """The contender with ``function`` on its y."""
    return dataclasses.replace(contender, call=lambda workload, arguments: function(contender.call(workload, arguments)))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_our_layers_are_right(inner, dtype):
    contender = layers.contender("torch", get_backend("torch"), inner)
    workload = dataclasses.replace(WORKLOAD, dtype=dtype)
    assert 0 < check_forward(contender, workload, "cpu") < TOLERANCE[dtype]
    assert 0 < check_backward(contender, workload, "cpu") < 2 * TOLERANCE[dtype]


def test_attention_is_right():
    workload = dataclasses.replace(WORKLOAD, head_dim=16, dtype="bfloat16")
    assert check_forward(ATTENTION, workload, "cpu") < 1e-2
    assert check_backward(ATTENTION, workload, "cpu") < 2e-2


@pytest.mark.parametrize(
    "wrong",
    [lambda y: 1.01 * y, lambda y: math.nan * y, lambda y: y.roll(1, 1), lambda y: y[:, :-1]],
    ids=["scaled", "NaN", "shifted", "cut"],
)
@pytest.mark.parametrize("contender", [LAYER, ATTENTION], ids=lambda contender: contender.name)
def test_a_wrong_answer_is_found(contender, wrong):
    with pytest.raises(WrongAnswer, match=r"y of .*: got a relative error of .*; expected at most .*\. Fix: "):
        check_forward(changed(contender, wrong), WORKLOAD, "cpu")


def test_one_nan_is_found():
    def one(y):
        return y.masked_fill(torch.arange(y.numel()).view(y.shape) == 5, math.nan)

    with pytest.raises(WrongAnswer, match="relative error of inf"):
        check_forward(changed(LAYER, one), WORKLOAD, "cpu")


def test_a_wrong_gradient_is_found_and_the_forward_pass_is_timed(calls):
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, y_bar):
            return 0.5 * y_bar

    forward, both, *_ = outcome(changed(LAYER, Half.apply))
    assert (forward.status, both.status) == (TIMED, WRONG)
    assert re.search(r"the gradient of \w+ of .*: got a relative error of 0\.5;", both.message)


# Peers' definitions, against forms of them that are no recurrence.


def test_the_recurrence_without_beta_is_gated_linear_attention():
    arguments = {name: x.double() for name, x in peers.draw_gated(WORKLOAD, "cpu").items()}
    q, k, v, g = (arguments[name].movedim(2, 1) for name in "qkvg")
    decay = (g.cumsum(-1)[..., :, None] - g.cumsum(-1)[..., None, :]).tril().exp().tril()
    expected = ((q @ k.mT * decay) @ v).movedim(1, 2)
    assert relative_error(numbers(peers.recurrence(WORKLOAD, arguments)), numbers(expected)) < 1e-12


def test_the_recurrence_with_beta_is_the_delta_rule():
    arguments = {name: x.double() for name, x in peers.draw_gated(WORKLOAD, "cpu").items()} | {"beta": torch.rand(1, 24, 2).double()}
    arguments["g"] = 0 * arguments["g"]
    q, k, v, beta = (arguments[name].movedim(2, 1) for name in ("q", "k", "v", "beta"))
    earlier = torch.eye(24, dtype=torch.float64) + beta[..., None] * (k @ k.mT).tril(-1)
    expected = ((q @ k.mT).tril() @ torch.linalg.solve(earlier, beta[..., None] * v)).movedim(1, 2)
    assert relative_error(numbers(peers.recurrence(WORKLOAD, arguments)), numbers(expected)) < 1e-9


def test_the_state_space_is_the_recurrence():
    arguments = {name: x.double() for name, x in peers.draw_mamba2(WORKLOAD, "cpu").items()}
    x, dt, A, B, C = (arguments[name] for name in ("x", "dt", "A", "B", "C"))
    steps = (dt * A).movedim(2, 1).cumsum(-1)
    decay = (steps[..., :, None] - steps[..., None, :]).tril().exp().tril()
    scores = (C[:, :, 0] @ B[:, :, 0].mT)[:, None]
    expected = ((scores * decay) @ (dt[..., None] * x).movedim(2, 1)).movedim(1, 2)
    assert relative_error(numbers(peers.state_space(WORKLOAD, arguments)), numbers(expected)) < 1e-12


# A whole run, by a clock that counts.


@pytest.fixture
def calls(monkeypatch):
    """How often a clock was started; each call counts as 2 ms."""
    found = []

    def clock(call):
        found.append([call() for _ in range(3)])
        return [2.0] * 3

    for name, pass_ in (("forward", measure.forward), ("both", measure.both)):
        monkeypatch.setitem(runs.MEASURES, name, lambda *given, pass_=pass_: pass_(*given, clock))
    return found


def outcome(contender, passes=("forward", "both")):
    workloads = [WORKLOAD, dataclasses.replace(WORKLOAD, batch=2)]
    return list(runs.run(contender, workloads, passes, "cpu"))


def test_a_right_contender_is_timed_at_every_shape(calls):
    results = outcome(LAYER)
    assert [(result.batch, result.passes, result.status) for result in results] == [
        (batch, passes, TIMED) for batch in (1, 2) for passes in ("forward", "both")
    ]
    assert {result.timing.median for result in results} == {2.0}
    assert len(calls) == 4


def test_inputs_take_turns(calls):
    outcome(ATTENTION, ["forward"])
    first, second, third = (results["y"] for results in calls[0])
    assert not torch.equal(first, second)
    assert torch.equal(first, third)


def test_floors_count_every_tensor_once(calls):
    forward, both, *_ = outcome(ATTENTION)
    assert forward.floor_bytes == 4 * (24 * 2 * 8) * 4
    assert both.floor_bytes == 2 * forward.floor_bytes


def test_a_wrong_contender_is_not_timed(calls):
    assert {result.status for result in outcome(changed(LAYER, lambda y: 2 * y))} == {WRONG}
    assert calls == []


def test_without_gradients_the_forward_pass_is_timed(calls):
    results = outcome(changed(LAYER, torch.detach))
    assert [result.status for result in results] == [TIMED, NO_BACKWARD] * 2
    assert "does not support gradients" in results[1].message


def test_a_contender_that_throws_is_a_finding(calls):
    def broken(y):
        raise ZeroDivisionError("a bug")

    assert {(result.status, result.message) for result in outcome(changed(LAYER, broken))} == {(FAILED, "ZeroDivisionError: a bug")}
    narrow = dataclasses.replace(get_backend("torch"), supports=dataclasses.replace(get_backend("torch").supports, dtypes=("float16",)))
    assert {result.status for result in outcome(layers.contender("narrow", narrow, "linear"))} == {NOT_CLAIMED}


def test_numbers_that_are_not_finite_at_full_size_are_wrong(calls):
    def at_size(y):
        return y if y.shape[1] < 200 else y / 0

    first, *_ = runs.run(changed(LAYER, at_size), [dataclasses.replace(WORKLOAD, tokens=200)], ["forward"], "cpu")
    assert first.status == WRONG
    assert "not finite" in first.message


def test_the_bandwidth_of_a_copy():
    assert measure.copy_bandwidth("cpu", lambda call: [call() is None or 1.0], 10**6) == 2 * 10**6 / 1e-3
