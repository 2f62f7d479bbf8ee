"""Checks of the scans that are laid out by hand, which nothing but a GPU can run; ``test_ttt_triton`` runs them there."""

import pytest
import torch
from on_triton import answers, assert_no_further, problem

import tttcore
from ttt_triton.linear import gluon as linear
from ttt_triton.linear import launch
from ttt_triton.mlp import gluon as mlp

REFERENCE, BACKEND = tttcore.get_backend("torch"), tttcore.get_backend("triton")
ROUNDING = 2.0**-9
"""Of bfloat16."""


@pytest.mark.parametrize("lie", ["packed", "resumed", "end to end"])
@pytest.mark.parametrize(
    ("inner", "size", "width", "lengths"),
    [
        ("linear", 16, 64, (531,)),
        ("linear", 16, 64, (110, 0, 3, 216)),
        ("linear", 1, 64, (150, 77)),
        ("linear", 5, 16, (170,)),
        ("linear", 32, 64, (130, 65)),
        ("linear", 16, 32, (130, 65)),
        ("linear", 16, 128, (300,)),
        ("mlp", 16, 64, (531,)),
        ("mlp", 16, 64, (110, 0, 3, 216)),
        ("mlp", 5, 32, (170,)),
        ("mlp", 8, 16, (5, 328)),
    ],
)
def test_no_further_from_float64_than_the_other_kernels(monkeypatch, inner, size, width, lengths, lie):
    even = lie == "end to end"
    asked = problem(inner, size, width, 2 * (max(lengths),) if even else lengths, size * width, resumed=lie == "resumed", packed=not even)
    exact = answers(REFERENCE, torch.float64, *asked)
    by_hand = answers(BACKEND, None, *asked)
    for module in (linear, mlp):
        monkeypatch.setattr(module, "suits", lambda *_: False)
    plain = answers(BACKEND, None, *asked)
    assert any(not torch.equal(by_hand[name], plain[name]) for name in exact), "the same kernels ran twice"
    assert_no_further(by_hand, plain, exact, ROUNDING)


@pytest.mark.parametrize("lie", ["packed", "resumed", "end to end"])
@pytest.mark.parametrize(
    ("size", "width", "lengths"), [(16, 64, (531,)), (16, 64, (110, 0, 3, 216)), (1, 64, (77,)), (5, 16, (170,)), (16, 32, (65,))]
)
def test_read_outs_in_the_scan_are_no_further_from_float64(monkeypatch, size, width, lengths, lie):
    even = lie == "end to end"
    asked = problem("linear", size, width, 2 * (max(lengths),) if even else lengths, size * width, resumed=lie == "resumed", packed=not even)
    exact, apart = answers(REFERENCE, torch.float64, *asked), answers(BACKEND, None, *asked)
    monkeypatch.setattr(launch, "leaves_room", lambda programs: False)
    at_once = answers(BACKEND, None, *asked)
    assert not torch.equal(at_once["y"], apart["y"]), "the same kernels ran twice"
    assert_no_further(at_once, apart, exact, ROUNDING)


@pytest.mark.parametrize("mini_batches", [2, 4, 6, 8, 10, 34])
def test_the_backward_pass_in_one_scan_is_no_further_from_float64(monkeypatch, mini_batches):
    asked = problem("linear", 16, 64, 2 * (16 * mini_batches,), mini_batches, packed=False)
    exact, apart = answers(REFERENCE, torch.float64, *asked), answers(BACKEND, None, *asked)
    monkeypatch.setattr(launch, "leaves_room", lambda programs: False)
    at_once = answers(BACKEND, None, *asked)
    assert not torch.equal(at_once["d k"], apart["d k"]), "the same kernels ran twice"
    assert_no_further(at_once, apart, exact, ROUNDING)
    again = answers(BACKEND, None, *asked)
    assert all(torch.equal(at_once[name], again[name]) for name in again)


def test_one_scan_backward_is_an_operator_as_pytorch_wants_them(monkeypatch):
    monkeypatch.setattr(launch, "leaves_room", lambda programs: False)
    spec, params, tokens, _, _ = problem("linear", 16, 64, (64, 64), 0, packed=False)
    leaves = [x.requires_grad_() for x in (*params.values(), *tokens)]

    def gradients(run):
        y, state = run(spec, dict(zip(params, leaves, strict=False)), *leaves[len(params) :])
        return torch.autograd.grad(y.float().square().sum() + state.weights["W1"].sum(), leaves)

    torch._dynamo.reset()
    compiled = gradients(torch.compile(BACKEND.inner, fullgraph=True, backend="aot_eager"))
    for got, expected in zip(compiled, gradients(BACKEND.inner), strict=True):
        assert torch.equal(got, expected)


def test_the_same_is_computed_where_nothing_is_kept(monkeypatch):
    spec, params, tokens, _, _ = problem("linear", 16, 64, (96, 96), 0, packed=False)
    monkeypatch.setattr(launch, "leaves_room", lambda programs: False)
    y, end = BACKEND.inner(spec, params, *tokens)
    kept, other = BACKEND.inner(spec, params, tokens[0].clone().requires_grad_(), *tokens[1:])
    assert torch.equal(y, kept)
    assert all(torch.equal(end.weights[name], other.weights[name]) for name in end.weights)
