"""The whole read-out: all tokens of a mini-batch write, then all of them read."""

import dataclasses
import itertools
import json
import tracemalloc

import numpy as np
import pytest

import tttcore
from tttcore import Hidden, InvalidInput, LayerSpec, Stack, Supports, Unsupported, get_backend, inner_loop
from tttcore.inner_loop import usual_block_size
from tttcore.tree import leaves, tree_map

B, H, D, K = 2, 2, 4, 4
LENGTHS = [0, 1, K - 1, K, K + 1, 3 * K + 2]
INNER = ["linear", "mlp", Stack((Hidden(2, "swiglu"), Hidden(1, "silu"))), Stack(bias=False, residual_norm=False)]
# Of float64: roundings of 2e-16 of numbers of size 1 to 10, which the inner LayerNorm may enlarge by up to 1/√ε = 1e3, mini-batch after mini-batch.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
NUMPY = get_backend("numpy")

every_model = pytest.mark.parametrize("inner", INNER, ids=["linear", "mlp", "deep", "bare"])
every_form = pytest.mark.parametrize("form", ["primal", "dual"])


def problem(inner="linear", length=3 * K + 2, batch=B, **options):
    """A spec, parameters that differ from their start, and q, k, v, ℓ."""
    spec = LayerSpec(width=H * D, heads=H, inner=inner, mini_batch_size=K, read_out="whole", **options)
    rng = np.random.default_rng(length)
    params = {name: x + 0.3 * rng.standard_normal(x.shape) for name, x in tttcore.init(spec, 0, np.float64).items()}
    params["token_lr_offset"] = abs(params["token_lr_offset"])  # a negative one may hold a_i at 0, and nothing would be written
    views = [rng.standard_normal((batch, length, H, D)) for _ in range(3)]
    return spec, params, (*views, rng.uniform(0.1, 0.9, (batch, length, H)))


def close(got, expected):
    for x, y in zip(leaves(got), leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)


@every_model
@every_form
@pytest.mark.parametrize("length", LENGTHS)
def test_each_token_reads_what_the_last_of_its_mini_batch_would(inner, form, length):
    """y_i is the causal y of the last token of its mini-batch, were its q that of i; and the state is the causal one."""
    spec, params, (q, k, v, lr) = problem(inner, length)
    y, end = NUMPY.inner(spec, params, q, k, v, lr, form=form)
    causal = dataclasses.replace(spec, read_out="causal")
    close(end, NUMPY.inner(causal, params, q, k, v, lr, form="decode")[1])
    for token in range(length):
        last = min(token // K * K + K, length) - 1
        read = q.copy()
        read[:, last] = q[:, token]
        expected, _ = NUMPY.inner(causal, params, read, k, v, lr, form="decode")
        close(y[:, token], expected[:, last])


@every_model
def test_by_definition(inner):
    """W − s_{n−1} Σ_j ℓ_j ∂L_j/∂W(W) in a ragged mini-batch, every derivative by a complex step."""
    n = K - 1
    spec, params, (q, k, v, lr) = problem(inner, n)
    y, _ = NUMPY.inner(spec, params, q, k, v, lr)
    step = (1 / n + params["token_lr_offset"][n - 1]) * spec.base_lr / D
    start = {name: params[name] for name in spec.inner_model.weight_shapes(H, D)}

    def f(weights, x):
        layers = spec.inner_model.layers({name: value[None] for name, value in weights.items()})
        trace = spec.inner_model.forward(x, lambda index, h: h @ layers[index][0] + layers[index][1])
        return spec.inner_model.output(params, x, trace.outputs[-1], spec.eps)

    for row in range(B):
        queries, keys, labels, gates = (np.moveaxis(x[row : row + 1], 2, 1) for x in (q, k, v, lr))

        def loss(weights, keys=keys, labels=labels, gates=gates):
            return np.sum(gates * spec.loss_function(f(weights, keys), labels))

        stepped = {}
        for name, weight in start.items():
            slope = np.empty_like(weight)
            for index in np.ndindex(weight.shape):
                direction = np.zeros_like(weight)
                direction[index] = 1.0
                slope[index] = np.imag(loss(start | {name: weight + 1e-20j * direction})) / 1e-20
            stepped[name] = weight - step * slope
        close(y[row], np.moveaxis(f(stepped, queries), 1, 2)[0])


@every_form
def test_tokens_of_a_mini_batch_in_another_order(form):
    spec, params, tokens = problem()
    rng = np.random.default_rng(1)
    order = np.concatenate([start + rng.permutation(min(K, 3 * K + 2 - start)) for start in range(0, 3 * K + 2, K)])
    y, end = NUMPY.inner(spec, params, *tokens, form=form)
    moved, same = NUMPY.inner(spec, params, *(x[:, order] for x in tokens), form=form)
    close(moved, y[:, order])
    close(same, end)


@every_form
def test_cut_at_a_border(form):
    spec, params, tokens = problem()
    y, end = NUMPY.inner(spec, params, *tokens, form=form)
    first, state = NUMPY.inner(spec, params, *(x[:, : 2 * K] for x in tokens), form=form)
    second, last = NUMPY.inner(spec, params, *(x[:, 2 * K :] for x in tokens), state=state, form=form)
    close(np.concatenate([first, second], axis=1), y)
    close(last, end)


@every_form
def test_padding_and_packing(form):
    """A mask is what is there without what it hides, packed sequences are each alone; n counts what is left."""
    spec, params, tokens = problem()
    mask = np.random.default_rng(0).random((B, tokens[0].shape[1])) < 0.6
    padded = [np.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, np.nan) for x in tokens[:3]]
    y, end = NUMPY.inner(spec, params, *padded, tokens[3], mask=mask, form=form)
    assert not y[~mask].any()
    for row in range(B):
        expected, state = NUMPY.inner(spec, params, *(x[row : row + 1, mask[row]] for x in tokens), form=form)
        close(y[row : row + 1, mask[row]], expected)
        close(tree_map(lambda x, row=row: x[row : row + 1], end), state)
    borders = [0, 2, 2, 2 + K, 3 * K + 2]
    y, end = NUMPY.inner(spec, params, *(x[:1] for x in tokens), cu_seqlens=np.asarray(borders), form=form)
    for row, (start, stop) in enumerate(itertools.pairwise(borders)):
        expected, state = NUMPY.inner(spec, params, *(x[:1, start:stop] for x in tokens), form=form)
        close(y[:, start:stop], expected)
        close(tree_map(lambda x, row=row: x[row : row + 1], end), state)


def test_blocks_are_causal():
    """A scan that would take mini-batches in blocks takes each by itself."""
    spec, params, tokens = problem()
    assert usual_block_size(spec) == 4
    close(inner_loop(spec, params, *tokens, block_size=4), NUMPY.inner(spec, params, *tokens))


def test_time_is_linear_in_the_mini_batch():
    """No array of the dual form has K² numbers: with K = 4096 one would be 128 MiB a head."""
    spec = LayerSpec(width=D, heads=1, mini_batch_size=4096, read_out="whole")
    tokens = [np.ones((1, 4096, 1, D))] * 3
    params = tttcore.init(spec, 0, np.float64)
    tracemalloc.start()
    NUMPY.inner(spec, params, *tokens, np.ones((1, 4096, 1)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * tokens[0].nbytes


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_array_libraries(name):
    """Inner loop and layer; the conformance suite has more."""
    pytest.importorskip(name, reason=f"the library of backend {name!r}")
    backend = get_backend(name)
    spec, params, tokens = problem("mlp", share_qk=True)
    close(tree_map(backend.to_numpy, backend.inner(spec, params, *map(backend.asarray, tokens))), NUMPY.inner(spec, params, *tokens))
    x = np.random.default_rng(0).standard_normal((B, 2 * K + 3, H * D))
    mask = np.arange(2 * K + 3)[None, :] < np.asarray([[2 * K + 3], [K + 1]])
    close(tree_map(backend.to_numpy, backend.layer(spec, params, backend.asarray(x), mask=mask)), NUMPY.layer(spec, params, x, mask=mask))


def test_json():
    """A causal spec is written as it was before there was another read-out."""
    spec, _, _ = problem()
    assert LayerSpec.from_json(spec.to_json()) == spec
    causal = dataclasses.replace(spec, read_out="causal")
    fields = json.loads(causal.to_json())
    assert "read_out" not in fields
    assert LayerSpec.from_json(json.dumps(fields)) == causal != spec


def test_refusals():
    with pytest.raises(InvalidInput, match=r"read_out: got 'both'; expected one of \['causal', 'whole'\]"):
        LayerSpec(8, 2, read_out="both")
    spec, params, tokens = problem()
    with pytest.raises(InvalidInput, match="form: got 'decode'; expected 'primal' or 'dual' with read_out='whole'"):
        NUMPY.inner(spec, params, *tokens, form="decode")
    _, end = NUMPY.inner(spec, params, *tokens)
    with pytest.raises(InvalidInput, match=r"state.phase: got \[2, 2\]; expected 0: .* after multiples of K = 4"):
        NUMPY.inner(spec, params, *tokens, state=end)
    causal = dataclasses.replace(NUMPY, name="mine", supports=Supports())
    with pytest.raises(Unsupported, match="'mine' does not support read_out: got 'whole'"):
        causal.inner(spec, params, *tokens)
    torch = pytest.importorskip("torch")
    layer = pytest.importorskip("ttt_torch").TTTLayer(spec)
    _, end = layer(torch.ones(1, K, H * D))
    with pytest.raises(InvalidInput, match="form: got 'decode'"):
        layer.decoder(end)
