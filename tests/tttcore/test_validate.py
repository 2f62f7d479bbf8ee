"""Every wrong call is refused by name before anything is computed, and leaves its arguments alone."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import array_api_strict
import numpy as np
import pytest

from tttcore import Backend, InvalidInput, LayerSpec, UnknownKeyword, Unsupported, get_backend, init, inner_params
from tttcore.tree import leaves, tree_map

BACKENDS = ("numpy", "torch")
INNER, LAYER = ("inner", "inner_vjp"), ("layer", "layer_vjp")
EVERY = INNER + LAYER
VJP = ("inner_vjp", "layer_vjp")
FOREIGN = "array_api_strict._array_object.Array"
B, T, H, D, K = 2, 5, 2, 4, 3
C = H * D
SPEC = LayerSpec(width=C, heads=H, mini_batch_size=K, share_qk=True)
MLP = replace(SPEC, inner="mlp", base_lr=0.1)
UNSHARED = replace(SPEC, share_qk=False)


def valid(call: str, spec: LayerSpec = SPEC, batch: int = B) -> dict[str, Any]:
    """Valid arguments of a call, all of the optional ones among them, in NumPy; the arrays are shared by all tests, and read-only."""
    return dict(_valid(call, spec, batch))


@functools.cache
def _valid(call: str, spec: LayerSpec, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    reference, params = get_backend("numpy"), init(spec, 0)
    x = rng.normal(size=(batch, T, C)).astype(np.float32)
    mask = rng.random((batch, T)) < 0.7
    if call in LAYER:
        positions = np.arange(batch * T).reshape(batch, T)
        state = reference.layer(spec, params, x)[1]
        given = {"spec": spec, "params": params, "x": x, "state": state, "form": "dual", "mask": mask, "positions": positions}
    else:
        q, k, v = (rng.normal(size=(batch, T, H, D)).astype(np.float32) for _ in "qkv")
        lr = rng.random((batch, T, H)).astype(np.float32)
        params = inner_params(spec, params)
        state = reference.inner(spec, params, q, k, v, lr)[1]
        given = {"spec": spec, "inner_params": params, "q": q, "k": k, "v": v, "lr": lr, "state": state, "form": "dual", "mask": mask}
        given["cu_seqlens"] = None
    if call.endswith("vjp"):
        given |= {"y_bar": np.ones_like(given.get("x", given.get("q"))), "state_bar": state._replace(phase=None)}
    for x in leaves({name: tree for name, tree in given.items() if name not in ("spec", "form")}):
        x.flags.writeable = False
    return given


def packed(call: str) -> dict[str, Any]:
    """Valid arguments with packed sequences, an empty one among them."""
    borders = np.asarray([0, 2, 2, T])
    rows = valid(call, batch=3)
    return {name: x[:1] if isinstance(x, np.ndarray) else x for name, x in rows.items()} | {"mask": None, "cu_seqlens": borders}


def native(backend: Backend, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the backend's own arrays."""

    def convert(x: Any) -> Any:
        return backend.asarray(x) if isinstance(x, np.ndarray) else x

    return {name: x if name in ("spec", "form") else tree_map(convert, x) for name, x in given.items()}


def numpy_copy(x: Any) -> np.ndarray:
    return np.asarray(x.detach() if hasattr(x, "detach") else x).copy()


def copies(given: dict[str, Any]) -> list[np.ndarray]:
    return [numpy_copy(x) for name, tree in given.items() if name not in ("spec", "form") for x in leaves(tree) if hasattr(x, "dtype")]


def never(*_: Any, **__: Any) -> Any:
    pytest.fail("something was computed")


def idle(backend: Backend) -> Backend:
    """The backend, which fails the test when it computes anything."""
    return replace(backend, inner_function=never, layer_function=never, vjp_function=never)


@dataclass(frozen=True)
class Bad:
    """A wrong call: what is changed in the valid arguments, and what the message must say."""

    calls: tuple[str, ...]
    change: Callable[[dict[str, Any]], dict[str, Any]]
    message: str
    base: Callable[[str], dict[str, Any]] = valid


def argument(name: str, function: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One argument changed."""
    return lambda given: {name: function(given[name])}


def entry(name: str, key: str, function: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One entry of a dict changed."""
    return lambda given: {name: given[name] | {key: function(given[name].get(key))}}


def part(name: str, field: str, function: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One field of a state changed."""
    return lambda given: {name: given[name]._replace(**{field: function(getattr(given[name], field))})}


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: x for name, x in tree.items() if name != key}


def filled(hole: float) -> Callable[[np.ndarray], np.ndarray]:
    """The array with one entry replaced."""

    def fill(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[0, -1] = hole
        return x

    return fill


def integer(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int64)


def double(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


BAD: dict[str, Bad] = {
    # The spec and the form.
    "no spec": Bad(EVERY, argument("spec", lambda _: "linear"), "spec: got str; expected a tttcore.LayerSpec"),
    "unknown form": Bad(EVERY, argument("form", lambda _: "parallel"), "form: got 'parallel'; expected one of ['primal', 'dual', 'decode']"),
    "form none": Bad(EVERY, argument("form", lambda _: None), "form: got None"),
    # The main arrays: rank, every axis, dtype, kind.
    "q of rank 3": Bad(INNER, argument("q", lambda q: q[:, :, 0]), "rank of q: got 3 axes, shape (2, 5, 4); expected 4 axes [B, T, H, D]"),
    "x of rank 2": Bad(LAYER, argument("x", lambda x: x[0]), "rank of x: got 2 axes, shape (5, 8); expected 3 axes [B, T, C]"),
    "x of rank 4": Bad(LAYER, argument("x", lambda x: x[None]), "rank of x: got 4 axes"),
    "x of another width": Bad(LAYER, argument("x", lambda x: x[..., :-1]), "shape of x: got (2, 5, 7); expected (2, 5, 8)"),
    "q of other heads": Bad(INNER, argument("q", lambda q: q[:, :, :1]), "shape of q: got (2, 5, 1, 4); expected (2, 5, 2, 4)"),
    "q of another head width": Bad(INNER, argument("q", lambda q: q[..., :2]), "shape of q: got (2, 5, 2, 2)"),
    "k shorter": Bad(INNER, argument("k", lambda k: k[:, 1:]), "shape of k: got (2, 4, 2, 4); expected (2, 5, 2, 4)"),
    "k of rank 3": Bad(INNER, argument("k", lambda k: k[0]), "shape of k: got (5, 2, 4)"),
    "v of another batch": Bad(INNER, argument("v", lambda v: v[:1]), "shape of v: got (1, 5, 2, 4)"),
    "lr of rank 2": Bad(INNER, argument("lr", lambda lr: lr[..., 0]), "shape of lr: got (2, 5); expected (2, 5, 2)"),
    "lr of rank 4": Bad(INNER, argument("lr", lambda lr: lr[..., None]), "shape of lr: got (2, 5, 2, 1)"),
    "lr shorter": Bad(INNER, argument("lr", lambda lr: lr[:, 1:]), "shape of lr: got (2, 4, 2)"),
    "lr with NaN": Bad(INNER, argument("lr", filled(np.nan)), "lr: got NaN or infinite inner learning rates; expected finite values"),
    "lr infinite": Bad(INNER, argument("lr", filled(-np.inf)), "lr: got NaN or infinite"),
    "x none": Bad(LAYER, argument("x", lambda _: None), "x: got builtins.NoneType"),
    "x a list": Bad(LAYER, argument("x", lambda x: x.tolist()), "x: got builtins.list"),
    "k none": Bad(INNER, argument("k", lambda _: None), "k: got builtins.NoneType"),
    **{
        f"{name} of integers": Bad(calls, argument(name, integer), f"dtype of {name}: got")
        for calls, names in ((INNER, ("q", "k", "v", "lr")), (LAYER, ("x",)))
        for name in names
    },
    **{f"{name} of another dtype than q": Bad(INNER, argument(name, double), f"dtype of {name}: got") for name in ("k", "v")},
    "q of another dtype than k": Bad(INNER, argument("q", double), "dtype of k: got"),
    # Parameters.
    "parameters none": Bad(LAYER, argument("params", lambda _: None), "params: got NoneType; expected a dict of arrays by name"),
    "parameters a list": Bad(LAYER, argument("params", lambda p: list(p.values())), "params: got builtins.list"),
    "parameter missing": Bad(LAYER, argument("params", lambda p: without(p, "o_proj")), "params: got no 'o_proj'; expected 'o_proj' of shape (8, 8)"),
    "inner parameter missing": Bad(INNER, argument("inner_params", lambda p: without(p, "b1")), "params: got no 'b1'"),
    "parameter unknown": Bad(LAYER, entry("params", "q_prj", lambda _: np.ones((C, C))), "params: unknown keyword: got ['q_prj']"),
    "inner parameter unknown": Bad(INNER, entry("inner_params", "W9", lambda _: np.ones((C, C))), "params: unknown keyword: got ['W9']"),
    "parameter of another shape": Bad(LAYER, entry("params", "out_norm_bias", lambda x: x[None]), "params['out_norm_bias']: got (1, 8);"),
    "parameter of a larger K": Bad(LAYER, entry("params", "token_lr_offset", lambda x: x[:-1]), "params['token_lr_offset']: got (2,); expected (3,)"),
    "weights of other heads": Bad(INNER, entry("inner_params", "W1", lambda x: x[:1]), "params['W1']: got (1, 4, 4); expected (2, 4, 4)"),
    "bias without its axis": Bad(INNER, entry("inner_params", "b1", lambda x: x[:, 0]), "params['b1']: got (2, 4); expected (2, 1, 4)"),
    "parameter of integers": Bad(LAYER, entry("params", "v_proj", integer), "dtype of params['v_proj']: got"),
    "parameter none": Bad(LAYER, entry("params", "v_proj", lambda _: None), "params: got no 'v_proj'"),
    "parameters of another model": Bad(EVERY, argument("spec", lambda _: MLP), "params['W1']: got (2, 4, 4); expected (2, 4, 16)"),
    # States.
    "state no State": Bad(EVERY, argument("state", lambda s: tuple(s)), "state: got tuple; expected a tttcore.State"),
    "state of another batch": Bad(EVERY, argument("state", lambda s: tree_map(lambda x: x[:1], s)), "state.weights['W1']: got (1, 2, 4, 4)"),
    "state of another model": Bad(INNER, argument("state", lambda _: valid("inner", MLP)["state"]), "state.weights: got ['W1', 'W2', 'b1', 'b2']"),
    "state of another model, layer": Bad(LAYER, argument("state", lambda _: valid("layer", MLP)["state"]), "state.weights: got ['W1', 'W2',"),
    "state without a bias": Bad(EVERY, part("state", "grads", lambda g: without(g, "b1")), "state.grads: got ['W1']"),
    "state without weights": Bad(EVERY, part("state", "weights", lambda _: None), "state.weights: got []"),
    "state with a weight none": Bad(EVERY, part("state", "weights", lambda w: w | {"b1": None}), "state.weights: got ['W1']; expected ['W1', 'b1']"),
    "state of another shape": Bad(EVERY, part("state", "grads", lambda g: g | {"b1": g["b1"][:, :, 0]}), "state.grads['b1']: got (2, 2, 4)"),
    "state of integers": Bad(EVERY, part("state", "weights", lambda w: w | {"W1": integer(w["W1"])}), "dtype of state.weights['W1']: got"),
    "phase K": Bad(EVERY, part("state", "phase", lambda p: p * 0 + K), "state.phase: got [3, 3]; expected 0 … K − 1 = 2"),
    "phase negative": Bad(EVERY, part("state", "phase", lambda p: p * 0 - 1), "state.phase: got [-1, -1]"),
    "phase of another K": Bad(EVERY, part("state", "phase", lambda p: p + np.asarray([0, K], p.dtype)), "state.phase: got [2, 5]"),
    "phase of floats": Bad(EVERY, part("state", "phase", lambda p: p.astype(np.float32)), "dtype of state.phase: got"),
    "phase of one row": Bad(EVERY, part("state", "phase", lambda p: p[:1]), "state.phase: got (1,); expected (2,)"),
    "phase missing": Bad(EVERY, part("state", "phase", lambda _: None), "state.phase: got None"),
    "conv missing": Bad(LAYER, part("state", "conv", lambda _: None), "state.conv: got no conv; expected conv"),
    "conv in an inner loop": Bad(INNER, part("state", "conv", lambda _: np.zeros((B, 3, C), np.float32)), "state.conv: got conv; expected no conv"),
    "conv of another width": Bad(LAYER, part("state", "conv", lambda c: c[:, 1:]), "state.conv: got (2, 2, 8); expected (2, 3, 8)"),
    "conv of integers": Bad(LAYER, part("state", "conv", integer), "dtype of state.conv: got"),
    # Masks and positions.
    "mask of integers": Bad(EVERY, argument("mask", integer), "dtype of mask: got"),
    "mask of floats": Bad(EVERY, argument("mask", double), "dtype of mask: got"),
    "mask shorter": Bad(EVERY, argument("mask", lambda m: m[:, 1:]), "shape of mask: got (2, 4); expected (2, 5)"),
    "mask of one row": Bad(EVERY, argument("mask", lambda m: m[0]), "shape of mask: got (5,)"),
    "mask of another batch": Bad(EVERY, argument("mask", lambda m: m[:1]), "shape of mask: got (1, 5)"),
    "positions of floats": Bad(LAYER, argument("positions", double), "dtype of positions: got"),
    "positions boolean": Bad(LAYER, argument("positions", lambda p: p > 0), "dtype of positions: got"),
    "positions of rank 1": Bad(LAYER, argument("positions", lambda p: p[0]), "shape of positions: got (5,); expected (2, 5)"),
    "positions shorter": Bad(LAYER, argument("positions", lambda p: p[:, 1:]), "shape of positions: got (2, 4)"),
    # Packed sequences.
    "cu_seqlens decreasing": Bad(INNER, argument("cu_seqlens", lambda _: np.asarray([0, 4, 2, T])), "cu_seqlens: got [0, 4, 2, 5]", packed),
    "cu_seqlens too short": Bad(INNER, argument("cu_seqlens", lambda _: np.asarray([0, 2, 2, T - 1])), "cu_seqlens: got [0, 2, 2, 4]", packed),
    "cu_seqlens too long": Bad(INNER, argument("cu_seqlens", lambda _: np.asarray([0, 2, 2, T + 1])), "cu_seqlens: got [0, 2, 2, 6]", packed),
    "cu_seqlens not from 0": Bad(INNER, argument("cu_seqlens", lambda _: np.asarray([1, 2, 2, T])), "cu_seqlens: got [1, 2, 2, 5]", packed),
    "cu_seqlens of floats": Bad(INNER, argument("cu_seqlens", double), "dtype of cu_seqlens: got", packed),
    "cu_seqlens of rank 2": Bad(INNER, argument("cu_seqlens", lambda c: c[None]), "shape of cu_seqlens: got (1, 4)", packed),
    "cu_seqlens of no sequence": Bad(INNER, argument("cu_seqlens", lambda c: c[:1]), "shape of cu_seqlens: got (1,)", packed),
    "cu_seqlens with a mask": Bad(INNER, lambda given: {"mask": np.ones((1, T), bool)}, "mask with cu_seqlens: got both", packed),
    "cu_seqlens with a batch": Bad(INNER, lambda _: {"mask": None, "cu_seqlens": np.asarray([0, T])}, "batch with cu_seqlens: got B = 2;"),
    "a state a token row": Bad(INNER, argument("state", lambda s: tree_map(lambda x: x[:1], s)), "state.weights['W1']: got (1, 2, 4, 4)", packed),
    # Cotangents.
    "y_bar shorter": Bad(VJP, argument("y_bar", lambda y: y[:, 1:]), "shape of y_bar: got (2, 4"),
    "y_bar of integers": Bad(VJP, argument("y_bar", integer), "dtype of y_bar: got"),
    "y_bar none": Bad(VJP, argument("y_bar", lambda _: None), "y_bar: got None; expected a cotangent of the output"),
    "state_bar no State": Bad(VJP, argument("state_bar", lambda s: s.weights), "state_bar: got dict; expected a tttcore.State"),
    "state_bar of another batch": Bad(VJP, argument("state_bar", lambda s: tree_map(lambda x: x[:1], s)), "state_bar.weights['W1']"),
    "state_bar without conv": Bad(("layer_vjp",), part("state_bar", "conv", lambda _: None), "state_bar.conv: got no conv"),
    "state_bar without a bias": Bad(VJP, part("state_bar", "grads", lambda g: without(g, "b1")), "state_bar.grads: got ['W1']"),
    # Keywords.
    "unknown keyword": Bad(EVERY, lambda given: {"attention_mask": given["mask"]}, "unknown keyword: got ['attention_mask']"),
    "cu_seqlens to a layer": Bad(LAYER, lambda given: {"cu_seqlens": np.asarray([0, T])}, "unknown keyword: got ['cu_seqlens']"),
    "positions to an inner loop": Bad(INNER, lambda given: {"positions": np.zeros((B, T), int)}, "unknown keyword: got ['positions']"),
    # Arrays of another library.
    **{
        f"{name} of another library": Bad(calls, argument(name, array_api_strict.asarray), f"{name}: got {FOREIGN}; expected a ")
        for calls, names in ((INNER, ("q", "k", "v", "lr")), (LAYER, ("x", "positions")), (EVERY, ("mask",)), (VJP, ("y_bar",)))
        for name in names
    },
    "cu_seqlens of another library": Bad(INNER, argument("cu_seqlens", array_api_strict.asarray), f"cu_seqlens: got {FOREIGN}", packed),
    "parameter of another library": Bad(LAYER, entry("params", "W1", array_api_strict.asarray), f"params.W1: got {FOREIGN}"),
    "inner parameter of another library": Bad(INNER, entry("inner_params", "W1", array_api_strict.asarray), f"params.W1: got {FOREIGN}"),
    "state of another library": Bad(EVERY, part("state", "phase", array_api_strict.asarray), f"state.phase: got {FOREIGN}"),
    "state_bar of another library": Bad(("layer_vjp",), part("state_bar", "conv", array_api_strict.asarray), f"state_bar.conv: got {FOREIGN}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("call", "base"), [*((call, valid) for call in EVERY), *((call, packed) for call in INNER)])
def test_what_the_table_starts_from_is_valid(name, call, base):
    backend = get_backend(name)
    given = native(backend, base(call))
    if call.endswith("vjp") and backend.vjp_function is None:
        with pytest.raises(Unsupported):
            getattr(backend, call)(**given)
        return
    out = getattr(backend, call)(**given)
    assert all(np.isfinite(numpy_copy(x)).all() for x in leaves(tuple(out)))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("case", "call"), [(case, call) for case, bad in BAD.items() for call in bad.calls])
def test_a_wrong_call_is_refused(case, call, name):
    bad, backend = BAD[case], get_backend(name)
    given = bad.base(call)
    given = native(backend, given | bad.change(given))
    before, names = copies(given), {key: list(x) for key, x in given.items() if isinstance(x, dict)}
    with pytest.raises(InvalidInput) as caught:
        getattr(idle(backend), call)(**given)
    message = str(caught.value)
    assert bad.message in message
    assert re.search(r": got .+; expected .+\. Fix: .+\.$", message, re.DOTALL)
    assert isinstance(caught.value, UnknownKeyword) == ("unknown keyword" in bad.message)
    for x, old in zip(copies(given), before, strict=True):
        np.testing.assert_array_equal(x, old)
    assert names == {key: list(x) for key, x in given.items() if isinstance(x, dict)}


@pytest.mark.parametrize(("call", "argument"), [("inner", "q"), ("inner", "lr"), ("layer", "x")])
def test_numpy_tokens_are_not_converted(call, argument):
    backend, tokens = get_backend("torch"), valid(call)
    given = native(backend, tokens) | {argument: tokens[argument]}
    with pytest.raises(InvalidInput) as caught:
        getattr(idle(backend), call)(**given)
    assert str(caught.value) == f"{argument}: got numpy.ndarray; expected a torch.Tensor. Fix: pass backend.asarray({argument})."


@pytest.mark.parametrize("call", EVERY)
def test_numpy_parameters_state_and_masks_are_converted(call):
    backend, given = get_backend("torch"), valid(call)
    tokens = {name: backend.asarray(given[name]) for name in ("q", "k", "v", "lr", "x") if name in given}
    some, every = (getattr(backend, call)(**given | arrays) for arrays in (tokens, native(backend, given)))
    for x, y in zip(leaves(tuple(some)), leaves(tuple(every)), strict=True):
        assert type(x) is type(y)
        np.testing.assert_array_equal(numpy_copy(x), numpy_copy(y))


def test_an_unknown_parameter_names_the_nearest():
    given = valid("layer")
    given["params"] = without(given["params"], "q_proj") | {"q_prj": given["params"]["q_proj"]}
    with pytest.raises(UnknownKeyword, match=r"Fix: use 'q_proj'\."):
        get_backend("numpy").layer(**given)


def test_a_layer_without_shared_views_takes_no_convolution_state():
    given = valid("layer", UNSHARED)
    given["state"] = given["state"]._replace(conv=np.zeros((B, 3, C), np.float32))
    with pytest.raises(InvalidInput, match=r"state\.conv: got conv; expected no conv"):
        get_backend("numpy").layer(**given)
