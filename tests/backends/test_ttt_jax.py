"""The JAX backend against the reference, and what only JAX has: transforms, compilations, rematerialisation, NNX."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small import case_of, options_of

import tttcore
from ttt_jax import TTTLayer
from ttt_jax.backend import compiled, loop
from ttt_jax.heads import fits, loop_by_heads
from ttt_jax.scan import remat_scan
from tttcore.inner_loop import inner_loop
from tttcore.layer import layer_around
from tttcore.tree import leaves, tree_map

JAX, REFERENCE = tttcore.get_backend("jax"), tttcore.get_backend("numpy")
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
ROUNDINGS = 1024  # in a row, each of one ε of the largest number: more than any chain of operations here has


@pytest.fixture(autouse=True, scope="module")
def _compile_in_a_hurry():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def problem(inner="linear", length=7, rich=False, dtype="float64"):
    rng = np.random.default_rng(0)
    spec = tttcore.LayerSpec(width=8, heads=2, inner=inner, mini_batch_size=4, share_qk=rich, gate=rich)
    params = {name: (value + 0.3 * rng.standard_normal(value.shape)).astype(dtype) for name, value in tttcore.init(spec, 0).items()}
    return spec, params, rng.standard_normal((2, length, spec.width)).astype(dtype)


def assert_close(got, expected, dtype="float64"):
    for x, y in zip(leaves(got), leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(x, y.dtype), y, rtol=0, atol=ROUNDINGS * EPS[dtype] * np.max(np.abs(y), initial=1.0))


@pytest.mark.parametrize("form", ["primal", "dual", "decode"])
@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_equals_the_reference_in_pieces(inner, form):
    spec, params, x = problem(inner, rich=inner == "mlp")
    expected = REFERENCE.layer(spec, params, x)
    state, ys = None, []
    for start, stop in ((0, 0), (0, 3), (3, 7)):
        y, state = JAX.layer(spec, params, JAX.asarray(x[:, start:stop]), state=state, form=form)
        ys.append(np.asarray(y))
    assert_close((np.concatenate(ys, axis=1), state), expected)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_blocks_as_on_accelerators_change_nothing(inner, monkeypatch):
    spec, params, x = problem(inner, length=38)
    plain = JAX.layer(spec, params, JAX.asarray(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    compiled.cache_clear()
    blocks = JAX.layer(spec, params, JAX.asarray(x))
    compiled.cache_clear()
    assert_close(blocks, plain)
    assert any(not np.array_equal(a, b) for a, b in zip(leaves(blocks), leaves(plain), strict=True)), "the same program ran twice"


@pytest.mark.parametrize(("inner", "start"), [("linear", "mask"), ("linear", "packed"), ("mlp", "resumed")])
def test_a_kernel_for_each_head_and_row_is_the_inner_loop_with_its_gradients(inner, start):
    with jax.enable_x64(True):
        problem, *options = options_of(case_of("inner", inner, length=27), start)
        mask, cu_seqlens = jax.tree.map(jnp.asarray, options)
        primals = jax.tree.map(jnp.asarray, (problem.params, problem.inputs, problem.state and problem.state[:2]))

        def value_and_gradients(loop):
            def run(params, inputs, held):
                state = None if held is None else tttcore.State(*held, jnp.asarray(problem.state.phase))
                y, end = loop(problem.spec, params, *inputs, state=state, mask=mask, cu_seqlens=cu_seqlens)
                return y, end[:2]

            value, pull_back = jax.vjp(jax.jit(run), *primals)
            return value, pull_back(jax.tree.map(jnp.cos, value))

        expected = jax.tree.map(np.asarray, value_and_gradients(inner_loop))
        assert_close(value_and_gradients(loop_by_heads), expected)


def test_kernels_are_for_narrow_tokens_on_gpus_and_sizes_that_tiles_have(monkeypatch):
    spec = tttcore.LayerSpec(width=128, heads=2, mini_batch_size=16)
    assert loop(spec, "dual", narrow=True) is not loop_by_heads
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loop(spec, "dual", narrow=True) is loop_by_heads
    assert loop_by_heads not in (loop(spec, "dual", narrow=False), loop(spec, "primal", narrow=True))
    changes = [{"mini_batch_size": 8}, {"mini_batch_size": 24}, {"width": 96}, {"inner": "mlp"}, {"read_out": "whole"}]
    assert not any(fits(dataclasses.replace(spec, **change)) for change in changes)
    assert not fits(dataclasses.replace(spec, inner=tttcore.Stack((tttcore.Hidden(4, "swiglu"),))))
    assert fits(dataclasses.replace(spec, inner="mlp", width=32))


@pytest.mark.parametrize(("dtypes", "rounded"), [(("bfloat16", "float32"), True), (("bfloat16", "float64"), False), (("float16", "float32"), False)])
def test_operands_of_products_are_rounded_to_bfloat16_if_all_tokens_are_bfloat16(dtypes, rounded):
    spec, params, x = problem(dtype=dtypes[1])
    heads = JAX.asarray(x.astype(np.float32).reshape(2, 7, 2, 4)).astype(dtypes[0])
    traced = str(jax.make_jaxpr(lambda q: JAX.inner(spec, params, q, q, q, q[..., 0] ** 2)[0])(heads))
    assert ("BF16_BF16_F32" in traced, "HIGHEST" in traced) == (rounded, not rounded)


@pytest.mark.parametrize(("inner", "form"), [("linear", "primal"), ("mlp", "dual"), ("linear", "decode")])
def test_gradients_equal_the_complex_step(inner, form):
    spec, params, x = problem(inner, rich=inner == "mlp")
    rng = np.random.default_rng(1)
    state = REFERENCE.layer(spec, params, x)[1]
    primals = (params, x, state._replace(phase=None))
    along, y_bar = tree_map(lambda z: rng.standard_normal(z.shape), (primals, x))
    state_bar = tree_map(lambda z: rng.standard_normal(z.shape), primals[2])
    mask = rng.random(x.shape[:2]) < 0.8
    before = tree_map(np.copy, (params, state))
    found = JAX.layer_vjp(spec, params, JAX.asarray(x), JAX.asarray(y_bar), state, state_bar, form=form, mask=mask)
    assert all(map(np.array_equal, leaves((params, state)), leaves(before)))
    state_dot = along[2]._replace(phase=np.zeros_like(state.phase))
    y_dot, end_dot = tttcore.layer_derivative(spec, params, x, along[0], along[1], state=state, state_dot=state_dot, mask=mask)
    by_jax = [np.asarray(a) * b for a, b in zip(leaves(tuple(found)), leaves(along), strict=True)]
    by_step = [a * b for a, b in zip(leaves((y_bar, state_bar)), leaves((y_dot, end_dot._replace(phase=None))), strict=True)]
    magnitude = sum(np.abs(term).sum() for term in (*by_jax, *by_step))
    assert abs(sum(term.sum() for term in by_jax) - sum(term.sum() for term in by_step)) <= ROUNDINGS * EPS["float64"] * magnitude


def test_transforms_agree_with_plain_calls():
    spec, params, x = problem(dtype="float32")
    _, state = expected = REFERENCE.layer(spec, params, x)
    params, x, state = tree_map(jnp.asarray, (params, x, state))
    assert_close(jax.jit(lambda x: JAX.layer(spec, params, x))(x), expected, "float32")
    rows = jax.vmap(lambda x: JAX.layer(spec, params, x[None]))(x)
    assert_close(tree_map(lambda z: z[:, 0], rows), expected, "float32")

    def total(params, x):
        return jnp.sum(JAX.layer(spec, params, x, state=state)[0])  # the state is concrete inside the transforms

    expected = JAX.layer_vjp(spec, params, x, jnp.ones_like(x), state=state)[:2]
    assert_close(jax.jit(jax.grad(total, argnums=(0, 1)))(params, x), expected, "float32")


def test_packed_sequences_equal_each_alone_also_under_jit():
    spec, params, x = problem(dtype="float32")
    q, k, v = (jnp.asarray(np.roll(x[:1], shift).reshape(1, 7, 2, 4)) for shift in range(3))
    lr = jnp.full((1, 7, 2), 0.5)
    borders = np.asarray([0, 2, 2, 7])
    expected = REFERENCE.inner(spec, params, *map(np.asarray, (q, k, v, lr)), cu_seqlens=borders)
    assert_close(JAX.inner(spec, params, q, k, v, lr, cu_seqlens=borders), expected, "float32")
    under_jit = jax.jit(lambda cu_seqlens: JAX.inner(spec, params, q, k, v, lr, cu_seqlens=cu_seqlens))
    assert_close(under_jit(jnp.asarray(borders, jnp.int32)), expected, "float32")


def test_ragged_lengths_share_a_compilation():
    spec, params, x = problem(dtype="float32")
    heads = jnp.asarray(x.reshape(2, 7, 2, 4))
    compiled.cache_clear()
    for length in (5, 6, 7):
        JAX.layer(spec, params, jnp.asarray(x[:, :length]))
        JAX.inner(spec, params, *(heads[:, :length],) * 3, heads[:, :length, :, 0])
    functions = (layer_around, JAX._inner, spec), (loop(spec, "dual", narrow=False), spec)
    programs = [compiled(*function, form="dual", narrow=False) for function in functions]
    assert [program._cache_size() for program in programs] == [1, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_its_dtype_outside_and_float32_inside(dtype):
    spec, params, x = problem(dtype="float32")
    y, state = JAX.layer(spec, params, jnp.asarray(x, dtype))
    assert y.dtype == dtype
    assert {z.dtype.name for z in leaves(state)} == {"float32", "int32"}
    assert JAX.to_numpy(y).dtype == dtype


def test_conversion_copies():
    given = np.zeros(4)
    taken = JAX.asarray(given)
    given += 1
    np.testing.assert_array_equal(taken, np.zeros(4))


def test_64_bits_stay_without_the_global_flag():
    spec, params, x = problem()
    assert not jax.config.jax_enable_x64
    assert [JAX.asarray(np.zeros(2, dtype)).dtype for dtype in ("float64", "int64", "float32")] == ["float64", "int64", "float32"]
    y, state = JAX.layer(spec, params, jnp.asarray(x, jnp.float32))  # parameters in float64 make it compute so
    assert (y.dtype, state.weights["W1"].dtype) == ("float32", "float64")
    assert_close(state, REFERENCE.layer(spec, params, x.astype(np.float32))[1])


def test_backward_memory_grows_with_the_root_of_the_length():
    def backward_bytes(steps, scan):
        def loss(weight, xs):
            def stretch(loop, carry, xs):
                return loop(lambda carry, x: (jnp.tanh(carry @ carry) + x[0], carry[0]), carry, xs)

            return jnp.sum(scan(stretch, weight, (xs,))[1])

        compiled = jax.jit(jax.grad(loss)).lower(jnp.ones((64, 64)), jnp.ones(steps)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def one_scan(stretch, carry, xs):
        return stretch(jax.lax.scan, carry, xs)

    assert backward_bytes(1024, one_scan) > 12 * backward_bytes(64, one_scan)
    assert backward_bytes(1024, remat_scan) < 6 * backward_bytes(64, remat_scan)


@pytest.mark.parametrize("steps", [1, 15, 16, 23])
def test_remat_scan_is_a_scan(steps):
    xs = (jnp.arange(steps), jnp.ones((steps, 2)))

    def body(carry, x):
        return carry + x[0], carry * x[1]

    def stretch(loop, carry, xs):
        return loop(body, carry, xs)

    assert_close(remat_scan(stretch, jnp.int32(0), xs), jax.tree.map(np.asarray, jax.lax.scan(body, jnp.int32(0), xs)))


def test_module_equals_the_backend_and_learns():
    spec, _, x = problem(dtype="float32")
    x = jnp.asarray(x)
    layer = TTTLayer(spec, rngs=nnx.Rngs(3))
    drawn = tttcore.init(spec, int(jax.random.bits(nnx.Rngs(3).params(), dtype=jnp.uint32)))
    assert_close({name: getattr(layer, name)[...] for name in drawn}, drawn)
    assert_close(nnx.jit(lambda layer, x: layer(x, form="primal"))(layer, x), REFERENCE.layer(spec, drawn, np.asarray(x)), "float32")
    assert {z.shape for z in jax.tree.leaves(nnx.eval_shape(lambda: TTTLayer(spec, rngs=nnx.Rngs(0))))} == set(spec.param_shapes().values())

    @nnx.jit
    def step(layer):
        loss, grads = nnx.value_and_grad(lambda layer: jnp.mean((layer(x)[0] - 1) ** 2))(layer)
        nnx.update(layer, jax.tree.map(lambda value, grad: value - 1e-4 * grad, nnx.state(layer), grads))
        return loss

    assert step(layer) > step(layer)
    graph, state = nnx.split(layer)
    assert_close(nnx.merge(graph, state)(x), layer(x), "float32")
