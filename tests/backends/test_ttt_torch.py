"""The PyTorch backend as a part of PyTorch: autograd, checkpoints, ``torch.compile``, dtypes."""

import contextlib
import copy
import functools
import importlib
import warnings
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch
from on_torch import TRIAL, every_form, module_of, native, sensitivity
from small import case_of, every_model
from torch.utils._python_dispatch import TorchDispatchMode

import ttt_torch.backend
from ttt_conformance.laws.expected import continued
from ttt_conformance.problem import Differentiable, Options, Outcome, Problem, gradient, random_like
from ttt_torch import BACKEND, TTTLayer
from tttcore import LayerSpec, init
from tttcore.scan import whole_scan
from tttcore.tree import leaves, paths, tree_map


def bars_of(outputs, seed=0):
    """A cotangent for every floating-point output, None for others."""
    rng = np.random.default_rng(seed)
    return [random_like(rng, x.detach().numpy()) if x.is_floating_point() else None for x in leaves(outputs)]


def pull_back(outputs, bars):
    """Gradients of ⟨bars, outputs⟩ in the leaves of the graph."""
    sum(torch.sum(x * torch.tensor(bar)) for x, bar in zip(leaves(outputs), bars, strict=True) if bar is not None).backward()


# Autograd.


@every_model
@every_form
def test_a_modules_gradients_are_the_vector_jacobian_product(inner, form):
    problem = continued(case_of("layer", inner))
    layer = module_of(problem, form)
    x, state = native(problem.inputs[0]), native(problem.state)
    outputs = layer(x, state)
    bars = bars_of(outputs)
    pull_back(outputs, bars)
    given = Outcome(*_rebuilt(outputs, bars))

    def run(problem):
        return gradient(BACKEND, problem, Options(form), given)

    expected, allowed = sensitivity(problem, run)
    params = {
        name: parameter.grad.numpy() if parameter.grad is not None else np.zeros(parameter.shape) for name, parameter in layer.named_parameters()
    }
    found = Differentiable(params, (x.grad.numpy(),), tree_map(lambda x: x.grad.numpy(), state._replace(phase=None)))
    TRIAL.compare("gradients", found, expected, allowed)
    assert any(np.any(bar) for bar in leaves(found.state)), "the carried state has a gradient"


def _rebuilt(outputs, bars):
    """The cotangents in the structure of the outputs, without the phase."""
    arrays = iter([bar for bar in bars if bar is not None])
    return next(arrays), tree_map(lambda _: next(arrays), outputs[1]._replace(phase=None))


@every_form
def test_packed_sequences_have_the_gradients_of_each_alone(form):
    problem = case_of("inner", "mlp", (1, 2, 4, 3), 11).problem()
    borders = np.asarray([0, 4, 4, 10, 11])
    y_bar = random_like(np.random.default_rng(0), problem.inputs[0])

    def alone(problem):
        """The gradients of each sequence in its own call, but for the empty one, which has none."""
        total = Differentiable(tree_map(np.zeros_like, problem.params), tree_map(np.zeros_like, problem.inputs), None)
        for start, stop in ((0, 4), (4, 10), (10, 11)):
            params, inputs = native(problem.params), native(tuple(x[:, start:stop] for x in problem.inputs))
            y, _ = BACKEND.inner(problem.spec, params, *inputs, form=form)
            pull_back(y, [y_bar[:, start:stop]])
            for x, bar in zip(leaves(total.params), leaves(params), strict=True):
                x += np.zeros_like(x) if bar.grad is None else bar.grad.numpy()
            for x, bar in zip(total.inputs, inputs, strict=True):
                x[:, start:stop] = bar.grad.numpy()
        return total

    expected, allowed = sensitivity(problem, alone)
    params, inputs = native(problem.params), native(problem.inputs)
    y, _ = BACKEND.inner(problem.spec, params, *inputs, form=form, cu_seqlens=torch.tensor(borders))
    pull_back(y, [y_bar])
    TRIAL.compare("packed", tree_map(lambda x: x.grad.numpy(), Differentiable(params, inputs, None)), expected, allowed)


@every_model
@every_form
def test_padding_gives_and_gets_no_gradient(inner, form):
    problem = continued(case_of("layer", inner))
    holes = np.random.default_rng(3).choice([np.nan, np.inf, -np.inf], problem.inputs[0].shape)
    mask = np.random.default_rng(4).random((problem.batch, problem.length)) < 0.6
    mask[0, :2] = False
    padded = Problem(problem.spec, problem.params, (np.where(mask[..., None], problem.inputs[0], holes),), problem.state)

    def run(problem):
        layer = module_of(problem, form)
        x, state = native(problem.inputs[0]), native(problem.state)
        outputs = layer(x, state, mask=torch.tensor(mask))
        pull_back(outputs, bars_of(outputs))
        params = {name: p.grad.numpy() for name, p in layer.named_parameters() if p.grad is not None}
        return Differentiable(params, (x.grad.numpy(),), tree_map(lambda x: x.grad.numpy(), state._replace(phase=None)))

    expected, allowed = sensitivity(problem, run)
    found = run(padded)
    assert all(np.isfinite(x).all() for x in leaves(found))
    assert not found.inputs[0][~mask].any()
    assert found.inputs[0][mask].all()
    TRIAL.compare("padded with holes", found, expected, allowed)


# Checkpoints.


class Storages(TorchDispatchMode):
    """The storages that operations make, by weak reference: what is alive after a forward pass is kept for the backward pass."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.made[storage.data_ptr()] = weakref.ref(storage)
        return out

    def alive(self):
        found = {id(storage): storage for storage in (reference() for reference in self.made.values()) if storage is not None}
        return sum(storage.nbytes() for storage in found.values())


def kept(steps, monkeypatch, scan=None):
    """Bytes alive after the forward pass over that many mini-batches of one token, a step each, D = 32, and the gradients."""
    spec = LayerSpec(width=32, heads=1, mini_batch_size=1, rope_theta=None)
    rng = np.random.default_rng(0)
    params = native({name: x for name, x in init(spec, 0, np.float64).items() if name in spec.inner_shapes()})
    inputs = native((*(rng.normal(size=(1, steps, 1, 32)) for _ in range(3)), rng.random((1, steps, 1))))
    with monkeypatch.context() as patch, Storages() as storages:
        patch.setattr(importlib.import_module("tttcore.inner_loop"), "BLOCK_ROWS", 1)
        if scan is not None:
            patch.setattr(ttt_torch.backend, "checkpointed_scan", scan)
        y, _ = BACKEND.inner(spec, params, *inputs)
        alive = storages.alive()
    torch.sum(y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).backward()
    return alive, [x.grad for x in leaves((params, inputs))]


def test_checkpoints_keep_memory_sublinear(monkeypatch):
    """Eight times the mini-batches: √8 times the carries and 8 times the tokens, which are small; without checkpoints 8 times all."""
    few, many = (kept(steps, monkeypatch)[0] for steps in (16, 128))
    plain_few, plain_many = (kept(steps, monkeypatch, whole_scan)[0] for steps in (16, 128))
    assert plain_many > 7 * plain_few, "the measure sees what is kept"
    assert many < 5 * few
    assert many < plain_many / 8


@every_model
@every_form
def test_checkpoints_do_not_change_gradients(inner, form, monkeypatch):
    problem = continued(case_of("inner", inner, length=19))
    y, state = problem.inputs[0], problem.state._replace(phase=None)
    rng = np.random.default_rng(2)
    bars = Outcome(random_like(rng, y), tree_map(lambda x: random_like(rng, x), state))

    def run(problem):
        return gradient(BACKEND, problem, Options(form), bars)

    found = run(problem)
    used = []
    monkeypatch.setattr(ttt_torch.backend, "checkpointed_scan", lambda *args: used.append(1) or whole_scan(*args))
    plain, allowed = sensitivity(problem, run)
    assert used
    TRIAL.compare("checkpointed", found, plain, allowed)


def test_no_checkpoints_without_gradients(monkeypatch):
    monkeypatch.setattr(ttt_torch.backend, "checkpointed_scan", lambda *_: pytest.fail("a checkpoint in a forward pass"))
    layer, x = TTTLayer(LayerSpec(8, 2)), torch.ones(1, 3, 8)
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x)
    layer.requires_grad_(False)(x)


# torch.compile.


@contextlib.contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("form", "length"), [("dual", 5), ("decode", 2)])
def test_compiles_as_one_graph(form, length):
    """Forward, backward, a carried state and a mask, two steps of the scan; no graph break (fullgraph raises on one) and no warning."""
    problem = continued(case_of("layer", "linear", length=length))
    mask = torch.tensor(np.random.default_rng(4).random((problem.batch, problem.length)) < 0.7)

    def run(problem, wrap=lambda layer: layer):
        layer = module_of(problem, form)
        x, state = native(problem.inputs[0]), native(problem.state)
        outputs = wrap(layer)(x, state, mask=mask)
        pull_back(outputs, bars_of(outputs))
        grads = {name: p.grad.numpy() for name, p in layer.named_parameters() if p.grad is not None}
        return tree_map(lambda x: x.detach().numpy(), tuple(outputs)), grads, x.grad.numpy()

    torch._dynamo.reset()
    expected, allowed = sensitivity(problem, run)
    with no_warnings():
        found = run(problem, functools.partial(torch.compile, fullgraph=True, backend="aot_eager"))
    TRIAL.compare("compiled", found, expected, allowed)
    torch._dynamo.reset()


# Dtypes.


@every_model
@every_form
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_tokens_are_computed_in_float32(inner, form, dtype):
    """y is the float32 result rounded once; the state stays float32."""
    problem = case_of("inner", inner, dtype="float32").problem()
    inputs = [torch.tensor(x).to(getattr(torch, dtype)) for x in problem.inputs]
    params = {name: torch.tensor(x).to(getattr(torch, dtype)) for name, x in problem.params.items()}
    y, state = BACKEND.inner(problem.spec, params, *inputs, form=form)
    wide, wide_state = BACKEND.inner(problem.spec, {name: x.float() for name, x in params.items()}, *(x.float() for x in inputs), form=form)
    assert y.dtype == getattr(torch, dtype)
    assert {x.dtype for x in leaves((state.weights, state.grads))} == {torch.float32}
    torch.testing.assert_close(y, wide.to(y.dtype), rtol=0, atol=0)
    for x, z in zip(leaves(state), leaves(wide_state), strict=True):
        torch.testing.assert_close(x, z, rtol=0, atol=0)


@every_model
def test_a_bfloat16_layer(inner):
    """Tokens in bfloat16 with parameters in float32 lose nothing but the last rounding; all in bfloat16, every projection rounds."""
    problem = case_of("layer", inner, dtype="float32").problem()
    x = torch.tensor(problem.inputs[0]).bfloat16()
    layer = TTTLayer(problem.spec, dtype=torch.float32)
    layer.load_state_dict({name: torch.tensor(value) for name, value in problem.params.items()})
    y, state = layer(x)
    wide, _ = layer(x.float())
    torch.testing.assert_close(y, wide.bfloat16(), rtol=0, atol=0)
    low, low_state = copy.deepcopy(layer).bfloat16()(x)
    assert y.dtype == low.dtype == torch.bfloat16
    for end in (state, low_state):
        assert {value.dtype for value in leaves((end.weights, end.grads, end.conv))} == {torch.float32}
    # The error that 16 roundings to bfloat16 of the parameters and the tokens make, at the least, is the error of rounding every projection.
    rounded = _rounded(layer, x.float(), torch.finfo(torch.bfloat16).eps)
    assert torch.max(torch.abs(low - wide)) <= 16 * torch.max(torch.abs(rounded - wide)) + 8 * torch.finfo(torch.bfloat16).eps * torch.max(
        torch.abs(wide)
    )
    assert torch.any(low != y)


def _rounded(layer, x, step):
    """The layer's output after one rounding step of every parameter and token, in float32."""
    generator = torch.Generator().manual_seed(0)

    def disturbed(value):
        return value * (1 + step * torch.randint(-1, 2, value.shape, generator=generator))

    params = {name: disturbed(value.detach()) for name, value in layer.named_parameters()}
    return BACKEND.layer(layer.spec, params, disturbed(x))[0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "int64", "bool", "bfloat16"])
def test_arrays_come_and_go_with_their_dtype(dtype):
    array = np.asarray([[0, 1, 2], [3.5, -1e-3, 1e3]]).astype(getattr(ml_dtypes, dtype, dtype))
    tensor = BACKEND.asarray(array)
    assert tensor.dtype == getattr(torch, dtype)
    back = BACKEND.to_numpy(tensor)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    tensor.zero_()
    assert array.any(), "the tensor has values of its own"


def test_an_array_that_is_read_only_or_strided_is_taken():
    array = np.broadcast_to(np.arange(6.0).reshape(2, 3).T, (2, 3, 2))
    np.testing.assert_array_equal(BACKEND.asarray(array).numpy(), array)


def test_paths_name_what_gradients_belong_to():
    found = BACKEND.layer_vjp(LayerSpec(8, 2), init(LayerSpec(8, 2), 0), torch.ones(1, 3, 8), torch.ones(1, 3, 8))
    assert set(found[0]) == set(LayerSpec(8, 2).param_shapes())
    assert found[2] is None
    assert len(list(paths(found))) == len(found[0]) + 1
