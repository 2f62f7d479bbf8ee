"""Checks of the Triton decoder that launch its kernels, on a GPU or in Triton's interpreter; ``test_ttt_triton`` runs them on their own."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import torch

import tttcore
from ttt_conformance.cases import FLAVOURS, INNER_MODELS, Case
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect, fresh, resumed
from ttt_conformance.laws.sequence import check_causality, check_mask, check_packed, check_reference, check_split
from ttt_conformance.problem import Options, Problem, answer
from ttt_conformance.shapes import VARIANTS, Shape
from ttt_triton.decode import Decoder, decode
from tttcore.tree import leaves, tree_map


def inner(spec, params, q, k, v, lr, *, state, form, mask, cu_seqlens):
    return decode(spec, params, q, k, v, lr, state=state, mask=mask, cu_seqlens=cu_seqlens)


SUPPORTS = tttcore.Supports(forms=("decode",), dtypes=("bfloat16", "float16", "float32"))
BACKEND = dataclasses.replace(tttcore.get_backend("triton"), inner_function=inner, supports=SUPPORTS)
HALF_A_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
# RoPE, of which the inner loop knows nothing, would refuse an odd D.
VARIANTS["unrotated"] = {"rope_theta": None}
INNER_MODELS["narrow"] = tttcore.Stack((tttcore.Hidden(1),))


def case(model, size, width, length=None, flavour="normal"):
    length = 2 * size + 3 if length is None else length
    return Case("inner", model, "float32", Shape(2, 2, width, size, "unrotated"), length, flavour, seed=size + width + length)


def decoder(problem):
    params, state = tree_map(BACKEND.asarray, (dict(problem.params), problem.state))
    return Decoder(problem.spec, params, state, batch=problem.batch)


def token(problem, t):
    return tuple(BACKEND.asarray(x[:, t : t + 1]) for x in problem.inputs)


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize(("size", "width"), [(1, 4), (1, 12), (4, 5), (4, 12), (16, 4), (16, 5)])
def test_equals_the_reference_from_mixed_phases_across_borders(model, size, width):
    check_reference(Trial(BACKEND, "decode"), case(model, size, width))


@pytest.mark.parametrize("model", ["linear", "mlp", "narrow"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_equals_the_reference_from_the_initial_state_in_every_flavour(model, flavour):
    problem, truth, allowed = fresh(case(model, 4, 6, flavour=flavour))
    Trial(BACKEND, "decode").compare("y and state", answer(BACKEND, problem, Options("decode")), truth, allowed)


@pytest.mark.parametrize("law", [check_split, check_causality, check_mask, check_packed])
@pytest.mark.parametrize(("model", "size", "width"), [("linear", 1, 8), ("linear", 4, 20), ("mlp", 3, 5)])
def test_laws_of_sequences(model, size, width, law):
    law(Trial(BACKEND, "decode"), case(model, size, width))


@pytest.mark.parametrize(("model", "width"), [("linear", 100), ("mlp", 40)])
def test_wide_heads_on_several_warps(model, width):
    check_reference(Trial(BACKEND, "decode"), case(model, 3, width, 5))


@pytest.mark.parametrize(("model", "size"), [("linear", 33), ("linear", 64), ("mlp", 33)])
def test_large_mini_batches(model, size):
    check_reference(Trial(BACKEND, "decode"), case(model, size, 4, size + 2))


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_sums_at_a_border_are_read_and_folded_like_any(model):
    problem = resumed(case(model, 4, 6)).problem
    grads = {name: np.random.default_rng(0).normal(size=x.shape).astype(x.dtype) for name, x in problem.state.grads.items()}
    problem = dataclasses.replace(problem, state=problem.state._replace(grads=grads, phase=np.zeros(2, np.int32)))
    problem, truth, allowed = expect(problem)
    Trial(BACKEND, "decode").compare("y and state", answer(BACKEND, problem, Options("decode")), truth, allowed)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_state_comes_back_as_it_went_in(model):
    state = resumed(case(model, 16, 5)).problem.state
    assert state.phase.all()
    problem = resumed(case(model, 16, 5)).problem
    back = tree_map(BACKEND.to_numpy, decoder(problem).state())
    assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(leaves(back), leaves(state), strict=True))


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_tokens_have_a_float32_state_and_a_y_of_one_rounding(model, dtype):
    narrow = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    problem = resumed(case(model, 4, 8)).problem
    tokens = tuple(x.astype(narrow) for x in problem.inputs)
    _, truth, allowed = expect(Problem(problem.spec, problem.params, tuple(x.astype(np.float32) for x in tokens), problem.state))
    got = answer(BACKEND, Problem(problem.spec, problem.params, tokens, problem.state), Options("decode"))
    assert got.y.dtype == narrow
    # The interpreter cuts digits off where a GPU rounds: a whole step instead of half of one.
    one_rounding = allowed.y + 2 * HALF_A_STEP[dtype] * np.abs(truth.y)
    assert np.all(np.abs(got.y.astype(np.float64) - truth.y) <= one_rounding)
    Trial(BACKEND, "decode").compare("state", got.state, truth.state, allowed.state)
    assert {x.dtype for x in leaves(got.state[:2])} == {np.dtype("float32")}


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_step_writes_to_the_decoder_alone_and_to_the_same_memory(model):
    problem = resumed(case(model, 4, 8)).problem
    native = tree_map(BACKEND.asarray, (dict(problem.params), problem.inputs, problem.state))
    before = tree_map(lambda x: x.clone(), native)
    running = Decoder(problem.spec, native[0], native[2])
    held = [x for part in running._maps for x in part] + [running._phase, running._base, running._lr]
    places = [x.data_ptr() for x in held]
    for t in range(5):
        running.step(*(x[:, t : t + 1] for x in native[1]))
    assert all((x == y).all() for x, y in zip(leaves(native), leaves(before), strict=True))
    now = [x for part in running._maps for x in part] + [running._phase, running._base, running._lr]
    assert [x.data_ptr() for x in now] == places


def test_tokens_may_lie_anywhere():
    problem = fresh(case("mlp", 4, 6)).problem
    expected = decoder(problem).step(*token(problem, 0))
    spread = tuple(torch.stack([x, x + 1], -1)[..., 0] for x in token(problem, 0))
    assert not spread[0].is_contiguous()
    assert (decoder(problem).step(*spread) == expected).all()


@pytest.mark.skipif(BACKEND.asarray(np.zeros(1)).device.type != "cuda", reason="no GPU: there are no graphs in the interpreter")
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_replays_of_a_graph_move_the_decoder_on(model):
    problem, truth, allowed = resumed(case(model, 4, 16))
    decoder(problem).step(*token(problem, 0))  # compiles
    running, inputs, graph = decoder(problem), token(problem, 0), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = running.step(*inputs)
    ys = []
    for t in range(problem.length):
        for x, new in zip(inputs, token(problem, t), strict=True):
            x.copy_(new)
        graph.replay()
        ys.append(BACKEND.to_numpy(y.clone()))
    Trial(BACKEND, "decode").compare("y", np.concatenate(ys, 1), truth.y, allowed.y)
    Trial(BACKEND, "decode").compare("state", tree_map(BACKEND.to_numpy, running.state()), truth.state, allowed.state)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("inner", {"inner": tttcore.Stack((tttcore.Hidden(2, "swiglu"),))}),
        ("inner", {"inner": tttcore.Stack((tttcore.Hidden(1), tttcore.Hidden(1)))}),
        ("inner", {"inner": tttcore.Stack(bias=False)}),
        ("loss", {"loss": "inner_product"}),
        ("mini_batch_size", {"mini_batch_size": 65}),
        ("head_dim", {"width": 260}),
        ("read_out", {"read_out": "whole"}),
    ],
)
def test_what_no_kernel_computes_is_refused(field, changes):
    spec = tttcore.LayerSpec(**{"width": 8, "heads": 2} | changes)
    with pytest.raises(tttcore.Unsupported, match=f"'triton' does not support {field}: got") as refused:
        Decoder(spec, tree_map(BACKEND.asarray, tttcore.init(spec, 0)))
    assert refused.value.field == field


def test_float64_and_gradients_are_refused_and_not_dropped():
    spec = tttcore.LayerSpec(width=8, heads=2)
    params = tree_map(BACKEND.asarray, tttcore.init(spec, 0))
    with pytest.raises(tttcore.Unsupported, match="support dtype: got float64 among the arguments"):
        Decoder(spec, params | {"W1": params["W1"].double()})
    with pytest.raises(tttcore.Unsupported, match="support gradients"):
        Decoder(spec, params | {"W1": params["W1"].clone().requires_grad_()})
    x, lr = BACKEND.asarray(np.zeros((1, 1, 2, 4), np.float32)), BACKEND.asarray(np.zeros((1, 1, 2), np.float32))
    with pytest.raises(tttcore.Unsupported, match="support gradients"):
        Decoder(spec, params).step(x.clone().requires_grad_(), x, x, lr)


def test_tokens_of_another_shape_are_refused():
    spec = tttcore.LayerSpec(width=8, heads=2)
    running = Decoder(spec, tree_map(BACKEND.asarray, tttcore.init(spec, 0)), batch=3)
    for rows, length in ((3, 2), (1, 1)):
        x, lr = BACKEND.asarray(np.zeros((rows, length, 2, 4), np.float32)), BACKEND.asarray(np.zeros((rows, length, 2), np.float32))
        with pytest.raises(tttcore.InvalidInput, match=r"shape of q: .* expected \(3, 1, 2, 4\)"):
            running.step(x, x, x, lr)
