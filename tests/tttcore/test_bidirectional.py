"""The bidirectional read-out: all tokens write, then all read."""

import numpy as np
import pytest

import tttcore
from tttcore import Hidden, InvalidInput, LayerSpec, Stack, get_backend, read_whole

B, T, K = 2, 6, 7
INNER = ["linear", "mlp", Stack((Hidden(2, "swiglu"), Hidden(1, "silu"))), Stack(bias=False, residual_norm=False)]
# Of float64: roundings of 2e-16 of numbers of size 1 to 10, which the inner LayerNorm may enlarge by up to 1/√ε = 1e3.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}

every_model = pytest.mark.parametrize("inner", INNER, ids=["linear", "mlp", "deep", "bare"])


def problem(inner, seed=0):
    """A spec, parameters that differ from their start, and q, k, v, ℓ."""
    spec = LayerSpec(width=8, heads=2, inner=inner, mini_batch_size=K)
    rng = np.random.default_rng(seed)
    params = {name: x + 0.3 * rng.standard_normal(x.shape) for name, x in tttcore.init(spec, 0, np.float64).items()}
    params["token_lr_offset"] = abs(params["token_lr_offset"])  # a negative one may hold a_i at 0, and nothing would be written
    views = [rng.standard_normal((B, T, 2, 4)) for _ in range(3)]
    return spec, params, (*views, rng.uniform(0.1, 0.9, (B, T, 2)))


@every_model
@pytest.mark.parametrize("form", ["primal", "dual", "decode"])
def test_each_token_reads_what_the_last_one_would(inner, form):
    """y_i = y_{n−1} of the causal inner loop, there with q_i as the last token's."""
    spec, params, (q, k, v, lr) = problem(inner)
    y = read_whole(spec, params, q, k, v, lr)
    for token in range(T):
        read = q.copy()
        read[:, -1] = q[:, token]
        expected, _ = get_backend("numpy").inner(spec, params, read, k, v, lr, form=form)
        np.testing.assert_allclose(y[:, token], expected[:, -1], **CLOSE)


@every_model
def test_by_definition(inner):
    """Theorem 1's sum without its triangle, for the bare model; every gradient by a complex step for the others."""
    spec, params, (q, k, v, lr) = problem(inner)
    y, scale = read_whole(spec, params, q, k, v, lr), spec.update_rule.scale(spec, params)[T - 1]
    names = spec.inner_model.weight_shapes(2, 4)

    def f(weights, x):
        full = {name: value[None] for name, value in weights.items()}
        layers = spec.inner_model.layers(full)
        trace = spec.inner_model.forward(x, lambda index, h: h @ layers[index][0] + layers[index][1])
        return spec.inner_model.output(params, x, trace.outputs[-1], spec.eps)

    for row in range(B):
        rows, keys, labels = (np.moveaxis(x[row : row + 1], 2, 1) for x in (q, k, v))
        gates = np.moveaxis(lr[row : row + 1], 2, 1)

        def loss(weights, keys=keys, labels=labels, gates=gates):
            return np.sum(gates * spec.loss_function(f(weights, keys), labels))

        start = {name: params[name] for name in names}
        stepped = {}
        for name, weight in start.items():
            slope = np.empty_like(weight)
            for index in np.ndindex(weight.shape):
                direction = np.zeros_like(weight)
                direction[index] = 1.0
                slope[index] = np.imag(loss(start | {name: weight + 1e-20j * direction})) / 1e-20
            stepped[name] = weight - scale * slope
        np.testing.assert_allclose(y[row], np.moveaxis(f(stepped, rows), 1, 2)[0], **CLOSE)


@every_model
def test_tokens_in_another_order(inner):
    spec, params, tokens = problem(inner)
    order = np.random.default_rng(1).permutation(T)
    y = read_whole(spec, params, *(x[:, order] for x in tokens))
    np.testing.assert_allclose(y, read_whole(spec, params, *tokens)[:, order], **CLOSE)


@every_model
def test_padding_changes_nothing(inner):
    spec, params, tokens = problem(inner)
    mask = np.array([[True, False, True, True, False, True], [False] * T])
    padded = [np.where(mask.reshape(B, T, *(1,) * (x.ndim - 2)), x, np.nan) for x in tokens]
    given = [x.copy() for x in padded]
    y = read_whole(spec, params, *padded, mask=mask)
    np.testing.assert_allclose(y[0, mask[0]], read_whole(spec, params, *(x[:1, mask[0]] for x in tokens))[0], **CLOSE)
    assert not y[~mask].any()
    for x, before in zip(padded, given, strict=True):
        np.testing.assert_array_equal(x, before)


@every_model
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_array_libraries(inner, name):
    """In float32: roundings of 6e-8, enlarged by the LayerNorm by 1/σ of rows of size 1, and sums of six terms."""
    pytest.importorskip(name)
    backend = get_backend(name)
    spec, params, tokens = problem(inner)
    native = [backend.asarray(x.astype(np.float32)) for x in tokens]
    y = read_whole(
        spec, {key: backend.asarray(x.astype(np.float32)) for key, x in params.items()}, *native, mask=backend.asarray(np.ones((B, T), bool))
    )
    assert backend.to_numpy(y).dtype == np.float32
    np.testing.assert_allclose(backend.to_numpy(y), read_whole(spec, params, *tokens), rtol=1e-4, atol=1e-4)


@every_model
def test_gradients(inner):
    """PyTorch's against a complex step, ⟨ȳ, f′u⟩ = ⟨x̄, u⟩."""
    torch = pytest.importorskip("torch")
    backend = get_backend("torch")
    spec, params, tokens = problem(inner)
    params = {name: params[name] for name in spec.inner_shapes()}
    rng = np.random.default_rng(2)
    direction = [rng.standard_normal(x.shape) for x in (*params.values(), *tokens)]

    def value(*arrays):
        return np.sum(weights * read_whole(spec, dict(zip(params, arrays, strict=False)), *arrays[len(params) :]))

    weights = rng.standard_normal(tokens[0].shape)
    arrays = [*params.values(), *tokens]
    expected = np.imag(value(*(x + 1e-20j * u for x, u in zip(arrays, direction, strict=True)))) / 1e-20
    native = [backend.asarray(x).requires_grad_() for x in arrays]
    y = read_whole(spec, dict(zip(params, native, strict=False)), *native[len(params) :])
    (y * torch.from_numpy(weights)).sum().backward()
    found = sum(float((x.grad.numpy() * u).sum()) for x, u in zip(native, direction, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_no_tokens():
    spec, params, tokens = problem("linear")
    assert read_whole(spec, params, *(x[:, :0] for x in tokens)).shape == (B, 0, 2, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"spec": LayerSpec(8, 2, mini_batch_size=5)}, "T = 6; expected T ≤ K = 5"),
        ({"k": np.ones((B, 3, 2, 4))}, "shape of k"),
        ({"params": {}}, "no 'W1'"),
        ({"mask": np.ones((B, T))}, "dtype of mask"),
        ({"spec": "linear"}, "spec: got str"),
    ],
)
def test_errors(change, says):
    spec, params, (q, k, v, lr) = problem("linear")
    if isinstance(change.get("spec"), LayerSpec):
        params["token_lr_offset"] = np.zeros(5)
    with pytest.raises(InvalidInput, match=says):
        read_whole(**{"spec": spec, "params": params, "q": q, "k": k, "v": v, "lr": lr, **change})
