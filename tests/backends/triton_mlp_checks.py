"""Checks of TTT-MLP's operator against autograd through the reference; ``test_ttt_triton`` runs them in a process of their own."""

import numpy as np
import pytest
import torch

import tttcore
from ttt_triton.layout import INTERPRETED, Layout, packed, padded_rows, tile
from ttt_triton.mlp import mlp, op, op_backward
from ttt_triton.mlp.launch import SHORTEST, borders, pieces, turns
from ttt_triton.overlap import PROGRAMS

NAMES = ("W1", "b1", "W2", "b2")
DEVICE = "cpu" if INTERPRETED else "cuda"


def block(size, width=4):
    return tile(size, width, torch.float32) // size * size


def answers(size, width, lengths, resumed, seed=0):
    """(expected, found) by name: outputs, final state, and all cotangents under random ones of both."""
    rng = np.random.default_rng(seed)
    spec = tttcore.LayerSpec(width=2 * width, heads=2, mini_batch_size=size, inner="mlp", base_lr=1.0)
    params = {name: 0.3 * rng.normal(size=x.shape) for name, x in tttcore.init(spec, 0).items() if name in (*NAMES, "norm_bias")}
    params |= {"norm_weight": 1 + 0.3 * rng.normal(size=(2, width)), "token_lr_offset": 0.1 * rng.normal(size=size)}
    rows, count = len(lengths), sum(lengths)
    tokens = {name: rng.normal(size=(1, count, 2, width)) for name in "qkv"} | {"lr": rng.uniform(size=(1, count, 2))}
    states = {f"{part} {name}": 0.3 * rng.normal(size=(rows, *params[name].shape)) for part in ("weights", "grads") for name in NAMES}
    phase = torch.tensor(rng.integers(0, size, size=rows), dtype=torch.int32, device=DEVICE)
    cu_seqlens = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=DEVICE)
    given = params | tokens | (states if resumed else {})
    shapes = {"y": tokens["q"].shape} | {name: x.shape for name, x in states.items()}
    cotangents = {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def differentiate(dtype, compute):
        leaves = {name: torch.tensor(x, dtype=dtype, device=DEVICE, requires_grad=True) for name, x in given.items()}
        results = compute(leaves)
        loss = sum((results[name] * torch.tensor(x, dtype=dtype, device=DEVICE)).sum() for name, x in cotangents.items())
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        found = {f"cotangent of {name}": torch.zeros_like(x) if dx is None else dx for (name, x), dx in zip(leaves.items(), grads, strict=True)}
        return {name: x.detach().double().cpu().numpy() for name, x in (results | found).items()}

    def reference(leaves):
        parts = ({name: leaves[f"{part} {name}"] for name in NAMES} for part in ("weights", "grads") if resumed)
        state = tttcore.State(*parts, phase) if resumed else None
        inner = {name: leaves[name] for name in params}
        y, end = tttcore.get_backend("torch").inner(spec, inner, *(leaves[name] for name in tokens), state, cu_seqlens=cu_seqlens)
        return {"y": y} | {f"{part} {name}": getattr(end, part)[name] for part in ("weights", "grads") for name in NAMES}

    def kernels(leaves):
        if resumed or len(set(lengths)) > 1:
            layout = Layout.ragged(size, block(size, width), count, *packed(cu_seqlens, count), phase if resumed else None)
        else:
            layout = Layout.even(block(size, width), rows, lengths[0])
        learned = spec.update_rule.scale(spec, leaves), leaves["norm_weight"], leaves["norm_bias"]
        weights = [leaves[f"weights {name}"] if resumed else leaves[name].expand(rows, *leaves[name].shape) for name in NAMES]
        sums = [leaves[f"grads {name}"] for name in NAMES] if resumed else None
        y, *ends = mlp([leaves[name].flatten(0, 1) for name in tokens], weights, learned, sums, layout, spec.eps)
        named = {f"{part} {name}": x for part, end in zip(("weights", "grads"), ends, strict=True) for name, x in zip(NAMES, end, strict=True)}
        return {"y": y.reshape(1, count, 2, width)} | named

    return differentiate(torch.float64, reference), differentiate(torch.float32, kernels)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("size", "width", "lengths"),
    [
        *[
            (1, 4, (9,)),
            (4, 8, (31, 31)),
            (4, 8, (21, 21, 21)),
            (5, 12, (38,)),
            (5, 8, (96,)),
            (16, 8, (37,)),
            (64, 4, (70,)),
            (4, 8, (2,)),
            (4, 8, (0,)),
        ],
        *[(4, 8, (13, 0, 3, 21, 4)), (5, 12, (7, 0, 22))],
    ],
)
def test_equals_autograd_through_the_reference(size, width, lengths, resumed):
    expected, found = answers(size, width, lengths, resumed)
    for name, x in expected.items():
        error = np.linalg.norm(found[name] - x) / max(np.linalg.norm(x), 1e-30)
        assert error <= 2e-5, (name, error)


@pytest.mark.parametrize("rooms", [1, 2])
@pytest.mark.parametrize("joined", [1, 4])
@pytest.mark.parametrize(("longest", "block"), [(0, 64), (1, 64), (300, 60), (2048, 64), (2049, 60), (32768, 64)])
def test_pieces_hold_all_blocks_once(longest, block, joined, rooms):
    begins = borders(longest, block, rooms)
    assert len(begins) <= 16 * rooms
    order = pieces(5, 32, longest, block, None, rooms, joined)
    found = [(piece.top + row, piece.begin + place * block) for piece in order for row in range(piece.rows) for place in range(piece.blocks)]
    assert sorted(found) == [(row, token) for row in range(5) for token in range(0, longest, block)]
    assert [piece.before for piece in order] == [sum(piece.places for piece in order[:i]) for i in range(len(order))]


def test_several_rooms_where_half_of_a_gpu_would_wait_for_long():
    long = 32 * SHORTEST
    assert turns(1, PROGRAMS // 2, long) == 2
    assert turns(1, PROGRAMS // 2, long - 1) == turns(1, PROGRAMS // 2 + 1, long) == turns(2, PROGRAMS // 2, long) == 1


def even(heads, size, width, longest, dtype, seed=0):
    """A call's answers and cotangents, as a function without arguments: two sequences of as many tokens, in pieces that ``turns`` does not change."""
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def leaf(*shape, scale=1.0, dtype=torch.float32):
        return (scale * torch.randn(shape, generator=generator, device=DEVICE)).to(dtype).requires_grad_()

    tokens = [leaf(2 * longest, heads, width, dtype=dtype) for _ in range(3)] + [leaf(2 * longest, heads, scale=0.1, dtype=dtype)]
    shapes = (width, 4 * width), (1, 4 * width), (4 * width, width), (1, width)
    weights = [leaf(2, heads, *shape, scale=0.1) for shape in shapes]
    learned = [leaf(size, scale=0.1), leaf(heads, width), leaf(heads, width)]
    layout = Layout.even(tile(size, width, dtype) // size * size, 2, longest)

    def run():
        y, *ends = mlp(tokens, weights, learned, None, layout, 1e-6)
        results = y, *ends[0], *ends[1]
        leaves = (*tokens, *weights, *learned)
        return *results, *torch.autograd.grad(results, leaves, [torch.ones_like(x) for x in results])

    return run


CALL = (2, 16, 4, 75, torch.float32) if INTERPRETED else (16, 16, 64, 4001, torch.bfloat16)
"""What ``even`` is given: five or sixteen pieces, two or four forward."""


@pytest.mark.parametrize("rooms", [2, 3])
def test_rooms_change_nothing(monkeypatch, rooms):
    run = even(*CALL)
    found = []
    for count in (1, rooms, rooms):
        for module in (op, op_backward):
            monkeypatch.setattr(module, "turns", lambda *_, count=count: count)
        found.append(run())
    for name in range(len(found[0])):
        assert torch.equal(found[0][name], found[1][name]), name
        assert torch.equal(found[0][name], found[2][name]), name


@pytest.mark.skipif(INTERPRETED, reason="there are no graphs in the interpreter")
def test_a_graph_holds_all_streams(monkeypatch):
    for module in (op, op_backward):
        monkeypatch.setattr(module, "turns", lambda *_: 2)
    run = even(*CALL)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        expected = run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    for _ in range(2):
        for x in found:
            x.detach().zero_()
        graph.replay()
        assert all(map(torch.equal, found, expected))


def test_without_gradients_the_answer_is_the_same():
    tokens = [torch.randn(70, 1, 4, device=DEVICE) for _ in range(3)] + [torch.rand(70, 1, device=DEVICE)]
    weights = [torch.randn(1, 1, *shape, device=DEVICE) for shape in ((4, 16), (1, 16), (16, 4), (1, 4))]
    learned = torch.rand(4, device=DEVICE), torch.rand(1, 4, device=DEVICE), torch.rand(1, 4, device=DEVICE)
    layout = Layout.even(block(4), 1, 70)
    y = mlp(tokens, weights, learned, None, layout, 1e-6)[0]
    grown = [x.requires_grad_() for x in weights]
    assert torch.equal(y, mlp(tokens, grown, learned, None, layout, 1e-6)[0])


def test_vmap_equals_a_loop():
    tokens = [torch.randn(2, 18, 1, 4, device=DEVICE) for _ in range(3)] + [torch.rand(2, 18, 1, device=DEVICE)]
    weights = [torch.randn(1, 1, *shape, device=DEVICE) for shape in ((4, 16), (1, 16), (16, 4), (1, 4))]
    learned = torch.rand(4, device=DEVICE), torch.rand(1, 4, device=DEVICE), torch.rand(1, 4, device=DEVICE)

    def run(*tokens):
        y, *ends = mlp(tokens, weights, learned, None, Layout.even(block(4), 1, 18), 1e-6)
        return y, *ends[0], *ends[1]

    for got, expected in zip(torch.func.vmap(run)(*tokens), zip(*map(run, *tokens), strict=True), strict=True):
        assert torch.equal(got, torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ragged", [False, True])
def test_operator_is_registered_as_pytorch_asks(dtype, ragged):
    from ttt_triton.mlp.op import forward

    tokens = [torch.randn(9, 2, 4, dtype=dtype, device=DEVICE) for _ in range(3)] + [torch.rand(9, 2, dtype=dtype, device=DEVICE)]
    weights = [torch.randn(1, 2, *shape, device=DEVICE) for shape in ((4, 16), (1, 16), (16, 4), (1, 4))]
    learned = [torch.rand(4, device=DEVICE), torch.rand(2, 4, device=DEVICE), torch.rand(2, 4, device=DEVICE)]
    start, length = padded_rows(tokens[0], 1, 9, None)
    layout = Layout.ragged(4, block(4), 9, start, length, None) if ragged else Layout.even(block(4), 1, 9)
    for x in (*tokens, *weights, *learned):
        x.requires_grad_()
    where = (layout.start, layout.length, layout.first, layout.row, layout.longest, layout.total)
    torch.library.opcheck(forward, (*tokens, *weights, *learned, *where, True, 1e-6))
