"""Checks of the Triton backend that launch its kernel, on a GPU or in Triton's interpreter; ``test_ttt_triton`` runs them in their own process."""

import itertools

import ml_dtypes
import numpy as np
import pytest
import torch
from on_triton import answers, assert_no_further, problem
from torch.utils.checkpoint import checkpoint
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend

import tttcore
from ttt_conformance.allowance import allowance
from ttt_conformance.cases import FLAVOURS, Case
from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect, resumed
from ttt_conformance.laws.gradients import check_gradients
from ttt_conformance.laws.numbers import check_drift, rounding
from ttt_conformance.laws.sequence import check_causality, check_mask, check_packed, check_reference, check_split
from ttt_conformance.problem import Options, Problem, answer, reference
from ttt_conformance.shapes import Shape
from ttt_torch import TTTLayer
from ttt_triton.launcher import kind
from ttt_triton.layout import INTERPRETED, Layout, saved_dtype, tile
from ttt_triton.linear import op, op_backward
from ttt_triton.linear.launch import FULL, Piece, pieces
from ttt_triton.linear.op import forward
from ttt_triton.linear.op_backward import backward
from ttt_triton.overlap import PROGRAMS
from tttcore.tree import leaves, paths, rebuild, tree_map

BACKEND = tttcore.get_backend("triton")
HALF_A_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def case(size, width, length, flavour="normal"):
    return Case("inner", "linear", "float32", Shape(2, 2, width, size), length, flavour, seed=size + width + length)


def lengths(size):
    return sorted({0, 1, size - 1, size, size + 1, 2 * size + 3})


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("width", [4, 8, 20])
def test_equals_the_reference_from_the_initial_state_and_from_mixed_phases(size, width):
    for length, flavour in zip(lengths(size), (*FLAVOURS, *FLAVOURS), strict=False):
        check_reference(Trial(BACKEND, "dual"), case(size, width, length, flavour))


@pytest.mark.parametrize("law", [check_split, check_causality, check_mask, check_packed])
@pytest.mark.parametrize(("size", "width"), [(1, 8), (4, 20), (16, 4)])
def test_laws_of_sequences_in_float32(size, width, law):
    law(Trial(BACKEND, "dual"), case(size, width, 2 * size + 3))


@pytest.mark.parametrize("size", [33, 64])
def test_large_mini_batches(size):
    check_reference(Trial(BACKEND, "dual"), case(size, 8, size + 3))


def test_rounding_does_not_add_up_over_a_long_sequence():
    check_drift(Trial(BACKEND, "dual"), Case("inner", "linear", "float32", Shape(1, 1, 4, 64), 4096, "normal", seed=0))


def test_arguments_of_a_kind_are_one_to_triton():
    backend = make_backend(GPUTarget("cuda", 90, 32))
    numbers = [0, 1, 2, 15, 16, 17, 32, 2**31 - 1, 2**31, 2**31 + 16, 2**32, -1, -16, -(2**31), -(2**31) - 1]
    room = torch.zeros(64)
    tensors = [room.to(dtype)[n:] for dtype in (torch.float32, torch.bfloat16, torch.int32) for n in (0, 1, 4, 8, 16)]
    found = [(kind(x), native_specialize_impl(backend, x, False, True, True)) for x in (*numbers, *tensors, None, 0.5, 1.0)]
    for (one, first), (other, second) in itertools.combinations(found, 2):
        assert one != other or first == second


@pytest.mark.parametrize("blocks", [0, 1, 127, 128, 129, 255, 256, 512, 1000])
def test_pieces_hold_all_blocks_once(blocks):
    found = pieces(2, 1, blocks, None, False)
    assert [block for piece in found for block in range(piece.begin, piece.begin + piece.blocks)] == list(range(blocks))
    assert len(found) <= 4
    assert all(piece.places == 2 * piece.blocks for piece in found)
    assert len(found) == 4 or blocks < 512
    assert len(pieces(2, PROGRAMS, blocks, None, False)) == 1
    halves = pieces(2, PROGRAMS, blocks, None, True)
    assert len(halves) == 1 + (blocks > 1 and 2 * PROGRAMS * blocks >= 2 * FULL)
    assert sum(piece.places for piece in halves) == 2 * blocks


def test_pieces_are_no_further_from_float64_than_one(monkeypatch):
    """Three rows of a batch, in one piece and in three, the last of them shorter; on a GPU beside each other, laid out by hand."""
    size, width, longest, dtype = (4, 8, 33, torch.float32) if INTERPRETED else (16, 64, 4001, torch.bfloat16)
    asked = problem("linear", size, width, 3 * (longest,), 0, packed=False, dtype=dtype)
    exact = answers(tttcore.get_backend("torch"), torch.float64, *asked)
    blocks = -(-longest // (tile(size, width, dtype) // size * size))

    def run(count):
        part = -(-blocks // count)
        cut = [Piece(begin, min(part, blocks - begin), 3 * min(part, blocks - begin)) for begin in range(0, blocks, part)]
        assert len(cut) == count
        for module in (op, op_backward):
            monkeypatch.setattr(module, "pieces", lambda *_: cut)
        return answers(BACKEND, None, *asked)

    whole, cut, again = run(1), run(3), run(3)
    assert_no_further(cut, whole, exact, torch.finfo(saved_dtype(dtype)).eps / 2)
    assert all(torch.equal(cut[name], again[name]) for name in exact)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_tokens_have_a_float32_state_and_a_y_of_one_rounding(dtype):
    narrow = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    problem = resumed(case(4, 8, 11)).problem
    q, k, v, lr = problem.inputs
    tokens = tuple(x.astype(narrow) for x in (q, k, v))
    rounded = Problem(problem.spec, problem.params, (*(x.astype(np.float32) for x in tokens), lr), problem.state)
    _, truth, allowed = expect(rounded)
    if saved_dtype(getattr(torch, dtype)) == torch.bfloat16:
        # On a GPU operands of products are bfloat16, too.
        allowed = allowance(rounded, truth, reference, step=rounding(np.dtype(narrow)))
    got = answer(BACKEND, Problem(problem.spec, problem.params, (*tokens, lr), problem.state), Options("dual"))
    assert got.y.dtype == narrow
    # The interpreter cuts digits off where a GPU rounds: a whole step instead of half of one.
    one_rounding = allowed.y + 2 * HALF_A_STEP[dtype] * np.abs(truth.y)
    assert np.all(np.abs(got.y.astype(np.float64) - truth.y) <= one_rounding)
    Trial(BACKEND, "dual").compare("state", got.state, truth.state, allowed.state)
    assert {x.dtype for x in leaves(got.state[:2])} == {np.dtype("float32")}


@pytest.mark.parametrize(("size", "width"), [(1, 4), (4, 8), (5, 12), (16, 8)])
@pytest.mark.parametrize("flavour", ["normal", "faint", "tied"])
def test_gradients_equal_the_complex_step(size, width, flavour):
    check_gradients(Trial(BACKEND, "dual"), case(size, width, 2 * size + 3, flavour))


def operands():
    """Arguments of the operator: two rows of eleven tokens, H = 2, D = 8, K = 4."""
    torch.manual_seed(0)
    layout = Layout.even(16, 2, 11)
    tokens = [*(torch.randn(22, 2, 8) for _ in range(3)), torch.rand(22, 2)]
    weights = [torch.randn(2, 2, 8, 8), torch.randn(2, 2, 1, 8)]
    learned = [torch.rand(4) / 8, torch.randn(2, 8), torch.randn(2, 8)]
    tensors = [BACKEND.asarray(x.numpy()).requires_grad_() for x in (*tokens, *weights, *learned)]
    return (*tensors, *(None for _ in range(7)), layout.longest, layout.blocks, layout.total, False, False, 1e-6)


def test_the_operators_pass_pytorchs_own_checks():
    torch.library.opcheck(forward, operands())
    q, k, v, lr, W, b, *others, longest, blocks, total, pairs, kept, eps = (x.detach() if isinstance(x, torch.Tensor) else x for x in operands())
    y, *ends, G, Ws, bs, _ = forward(q, k, v, lr, W, b, *others, longest, blocks, total, pairs, kept, eps)
    torch.library.opcheck(backward, (q, k, v, lr, *others, G, Ws, bs, y, *ends, longest, blocks, total, eps))


def test_gradients_of_gradients_are_refused_and_not_dropped():
    q, *others = operands()
    (dq,) = torch.autograd.grad(forward(q, *others)[0].sum(), q, create_graph=True)
    with pytest.raises(tttcore.Unsupported, match=r"support gradients: got gradients of gradients; .* Fix: leave create_graph=True out"):
        dq.sum().backward()


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_the_layer_compiles_without_a_break_and_with_gradients(compiler):
    layer = TTTLayer(spec(), kernel="triton", device=BACKEND.asarray(np.zeros(0)).device)
    x = torch.randn(2, 11, 8, device=layer.W1.device)

    def gradient(run):
        layer.zero_grad()
        y, state = run(x)
        (y.square().sum() + state.weights["W1"].sum()).backward()
        return y, *(p.grad for p in layer.parameters())

    torch._dynamo.reset()
    for got, expected in zip(gradient(torch.compile(layer, fullgraph=True, backend=compiler)), gradient(layer), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_layer_equals_the_one_on_pytorch_alone():
    layer = TTTLayer(spec(), kernel="triton", device=BACKEND.asarray(np.zeros(0)).device)
    plain = TTTLayer(spec(), device=layer.W1.device)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 11, 8, device=layer.W1.device)
    for got, expected in zip(leaves(layer(x)), leaves(plain(x)), strict=True):
        torch.testing.assert_close(got, expected, check_dtype=False)


def test_vmap_equals_a_loop():
    params = tree_map(BACKEND.asarray, {name: x for name, x in tttcore.init(spec(), 0).items() if name in spec().inner_shapes()})
    tokens = [torch.randn(3, 2, 11, 2, 4, device=params["W1"].device) for _ in range(3)]
    tokens.append(torch.rand(3, 2, 11, 2, device=params["W1"].device))

    def run(*tokens):
        y, state = BACKEND.inner(spec(), params, *tokens)
        return y, state.weights["W1"], state.grads["W1"], state.phase

    for got, expected in zip(torch.func.vmap(run)(*tokens), zip(*map(run, *tokens), strict=True), strict=True):
        assert torch.equal(got, torch.stack(expected))


def test_activation_checkpointing_gives_the_same_gradients():
    layer = TTTLayer(spec(), kernel="triton", device=BACKEND.asarray(np.zeros(0)).device)
    x = torch.randn(2, 11, 8, device=layer.W1.device)
    found = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        layer.zero_grad()
        run(x)[0].square().sum().backward()
        found.append([p.grad for p in layer.parameters()])
    for got, expected in zip(*found, strict=True):
        assert torch.equal(got, expected)


def test_no_argument_is_written_to():
    problem = resumed(case(4, 8, 11)).problem
    native = tree_map(BACKEND.asarray, (dict(problem.params), problem.inputs, problem.state))
    before = tree_map(lambda x: x.clone(), native)
    BACKEND.inner(problem.spec, native[0], *native[1], state=native[2])
    assert all((x == y).all() for x, y in zip(leaves(native), leaves(before), strict=True))


def spec(**changes):
    return tttcore.LayerSpec(**{"width": 8, "heads": 2, "mini_batch_size": 4} | changes)


@pytest.mark.parametrize(
    ("field", "changes", "dtype", "form"),
    [
        ("inner", {"inner": tttcore.Stack((tttcore.Hidden(), tttcore.Hidden()))}, "float32", "dual"),
        ("inner", {"inner": tttcore.Stack((tttcore.Hidden(8),))}, "float32", "dual"),
        ("inner", {"inner": "mlp", "width": 132}, "float32", "dual"),
        ("loss", {"loss": "inner_product"}, "float32", "dual"),
        ("mini_batch_size", {"mini_batch_size": 65}, "float32", "dual"),
        ("head_dim", {"width": 260}, "float32", "dual"),
        ("read_out", {"read_out": "whole"}, "float32", "dual"),
        ("dtype", {}, "float64", "dual"),
        ("form", {}, "float32", "primal"),
    ],
)
def test_what_is_not_claimed_is_refused(field, changes, dtype, form):
    asked = spec(**changes)
    x = BACKEND.asarray(np.zeros((1, 3, asked.width), dtype))
    with pytest.raises(tttcore.Unsupported, match=f"'triton' does not support {field}: got") as refused:
        BACKEND.layer(asked, tttcore.init(asked, 0), x, form=form)
    assert refused.value.field == field


def test_float64_among_the_other_arguments_is_refused():
    x = BACKEND.asarray(np.zeros((1, 3, 8), np.float32))
    with pytest.raises(tttcore.Unsupported, match="support dtype: got float64 among the arguments"):
        BACKEND.layer(spec(), tttcore.init(spec(), 0, np.float64), x)


@pytest.mark.parametrize("name", ["cu_seqlens", "state.phase", "params.W1"])
def test_tensors_elsewhere_are_refused(name):
    x = BACKEND.asarray(np.zeros((1, 3, 2, 4), np.float32))
    params = tree_map(BACKEND.asarray, {name: x for name, x in tttcore.init(spec(), 0).items() if name in spec().inner_shapes()})
    arguments = {"params": params, "state": BACKEND.inner(spec(), params, x, x, x, x[..., 0])[1], "cu_seqlens": BACKEND.asarray(np.asarray([0, 3]))}
    moved = {path: value.to("meta") if path == name else value for path, value in zip(paths(arguments), leaves(arguments), strict=True)}
    arguments = rebuild(arguments, (moved[path] for path in paths(arguments)))
    with pytest.raises(tttcore.InvalidInput, match=f"device of {name}: got meta; expected .*, as the tokens. Fix: pass "):
        BACKEND.inner(spec(), arguments["params"], x, x, x, x[..., 0], arguments["state"], cu_seqlens=arguments["cu_seqlens"])


def test_gradients_through_decoding_are_refused_and_not_dropped():
    x = BACKEND.asarray(np.zeros((1, 3, 8), np.float32)).requires_grad_()
    with pytest.raises(tttcore.Unsupported, match=r"support gradients: .* Fix: call it under torch.no_grad\(\)"):
        BACKEND.layer(spec(), tttcore.init(spec(), 0), x, form="decode")
