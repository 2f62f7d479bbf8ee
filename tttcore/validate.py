"""Every check on the arguments of a public call, before anything is computed.

Checks of *values* need concrete arrays; under ``jax.jit`` or ``torch.compile`` those are skipped and shapes and dtypes remain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from .arrays import Array, is_floating, namespace
from .errors import InvalidInput
from .inner_loop import FORMS
from .keywords import refuse_unknown
from .spec import LayerSpec
from .state import State
from .tree import paths

Concrete = Callable[[Array], bool]
"""Whether an array's values can be read now."""


def call(spec: object, form: str, arrays: Mapping[str, Array], array_type: type) -> None:
    """The spec is one, the form exists, and the main arrays are floating-point arrays of this backend, of one dtype."""
    if not isinstance(spec, LayerSpec):
        raise InvalidInput("spec", got=type(spec).__name__, expected="a tttcore.LayerSpec", fix="build one: LayerSpec(width=…, heads=…)")
    form_of(spec, form)
    first = next(iter(arrays))
    for name, x in arrays.items():
        if not isinstance(x, array_type):
            kind = f"{type(x).__module__}.{type(x).__name__}"
            raise InvalidInput(name, got=kind, expected=f"a {array_type.__module__}.{array_type.__name__}", fix=f"pass backend.asarray({name})")
        _floating(name, x)
        if x.dtype != arrays[first].dtype:
            fix = f"cast {name} to {first}'s dtype"
            raise InvalidInput(f"dtype of {name}", got=x.dtype, expected=f"{arrays[first].dtype}, as {first}", fix=fix)


def form_of(spec: LayerSpec, form: str) -> None:
    """The form exists, and there is one for the spec's read-out: in a whole one a token cannot be read before those after it."""
    if form not in FORMS:
        raise InvalidInput("form", got=repr(form), expected=f"one of {list(FORMS)}", fix="pass one of these")
    if form == "decode" and spec.read_out == "whole":
        expected = "'primal' or 'dual' with read_out='whole': a token reads what later ones write"
        raise InvalidInput("form", got="'decode'", expected=expected, fix="pass whole mini-batches in another form, or choose read_out='causal'")


def params(given: object, shapes: Mapping[str, tuple[int, ...]], known: Mapping[str, tuple[int, ...]]) -> None:
    """Every parameter of ``shapes`` is there in its shape, and none that is not ``known``."""
    if not isinstance(given, Mapping):
        raise InvalidInput("params", got=type(given).__name__, expected="a dict of arrays by name", fix="start from tttcore.init(spec, seed)")
    named = cast("Mapping[str, Any]", given)
    refuse_unknown("params", named, known)
    for name, shape in shapes.items():
        if named.get(name) is None:
            raise InvalidInput("params", got=f"no {name!r}", expected=f"{name!r} of shape {shape}", fix="start from tttcore.init(spec, seed)")
        _shape(f"params[{name!r}]", named[name], shape, "by the spec")
        _floating(f"params[{name!r}]", named[name])


def layer_input(spec: LayerSpec, x: Array) -> None:
    """x is ``[B, T, C]``."""
    _rank("x", x, "[B, T, C]")
    _shape("x", x, (*x.shape[:2], spec.width), "[B, T, C] with C = spec.width")


def inner_inputs(spec: LayerSpec, q: Array, k: Array, v: Array, lr: Array, concrete: Concrete) -> None:
    """q, k, v are ``[B, T, H, D]`` and lr is ``[B, T, H]``, finite."""
    _rank("q", q, "[B, T, H, D]")
    _shape("q", q, (*q.shape[:2], spec.heads, spec.head_dim), "[B, T, H, D] by the spec")
    for name, x in (("k", k), ("v", v)):
        _shape(name, x, q.shape, "[B, T, H, D], as q")
    _floating("lr", lr)
    _shape("lr", lr, q.shape[:3], "[B, T, H], as q")
    if concrete(lr) and not _all(namespace(lr).isfinite(lr)):
        raise InvalidInput("lr", got="NaN or infinite inner learning rates", expected="finite values", fix="look for the overflow that made them")


def tokens(like: Array, mask: Array | None, positions: Array | None = None) -> None:
    """mask is ``[B, T]`` bool; positions are ``[B, T]`` (or ``[1, T]``) integers."""
    shape = tuple(like.shape[:2])
    if mask is not None:
        _shape("mask", mask, shape, "[B, T]")
        if not namespace(mask).isdtype(mask.dtype, "bool"):
            raise InvalidInput("dtype of mask", got=mask.dtype, expected="bool, True where a token counts", fix="pass mask != 0")
    if positions is not None:
        _integers("positions", positions)
        if tuple(positions.shape) != (1, shape[1]):
            _shape("positions", positions, shape, "[B, T] or [1, T]")


def packed(like: Array, mask: Array | None, cu_seqlens: Array | None, concrete: Concrete) -> int:
    """cu_seqlens is 0 = c_0 ≤ c_1 ≤ … ≤ c_R = T for a batch of one row without a mask; returns the number of sequences."""
    if cu_seqlens is None:
        return like.shape[0]
    _integers("cu_seqlens", cu_seqlens)
    if cu_seqlens.ndim != 1 or cu_seqlens.shape[0] < 2:
        fix = "pass the cumulative lengths, 0 first"
        raise InvalidInput("shape of cu_seqlens", got=tuple(cu_seqlens.shape), expected="[R + 1] with R ≥ 1 sequences", fix=fix)
    if like.shape[0] != 1:
        raise InvalidInput("batch with cu_seqlens", got=f"B = {like.shape[0]}", expected="B = 1", fix="pack all sequences into one row")
    if mask is not None:
        raise InvalidInput("mask with cu_seqlens", got="both", expected="one of them", fix="leave masked tokens out of the packed row")
    if concrete(cu_seqlens):
        total, ordered = like.shape[1], _all(cu_seqlens[1:] >= cu_seqlens[:-1])
        if not ordered or int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != total:
            expected = f"0 first, never decreasing, T = {total} last"
            raise InvalidInput("cu_seqlens", got=[int(c) for c in cu_seqlens], expected=expected, fix="pass the cumulative lengths of the sequences")
    return cu_seqlens.shape[0] - 1


def state(spec: LayerSpec, given: object, rows: int, conv: bool, concrete: Concrete, what: str = "state") -> None:
    """A state (or its cotangent, without phase) of this spec for ``rows`` sequences; ``conv``: with the convolutions' part."""
    if not isinstance(given, State):
        raise InvalidInput(what, got=type(given).__name__, expected="a tttcore.State", fix="pass the state that a call returned, or None")
    shapes = spec.inner_model.weight_shapes(spec.heads, spec.head_dim)
    for part, arrays in (("weights", given.weights), ("grads", given.grads)):
        found = list(paths(arrays))
        if found != sorted(shapes):
            fix = "pass a state made with this spec"
            raise InvalidInput(f"{what}.{part}", got=found, expected=f"{sorted(shapes)} (a state of this spec)", fix=fix)
        for name, shape in shapes.items():
            _shape(f"{what}.{part}[{name!r}]", arrays[name], (rows, *shape), "[B, H, …] by the spec (one row a sequence)")
            _floating(f"{what}.{part}[{name!r}]", arrays[name])
    if given.phase is None and what == "state":
        raise InvalidInput("state.phase", got="None", expected="[B] integers (one a sequence)", fix="pass a state made with this spec")
    if given.phase is not None:
        _integers(f"{what}.phase", given.phase)
        _shape(f"{what}.phase", given.phase, (rows,), "[B] (one row a sequence)")
        if concrete(given.phase) and not _all((given.phase >= 0) & (given.phase < spec.mini_batch_size)):
            expected = f"0 … K − 1 = {spec.mini_batch_size - 1}"
            raise InvalidInput(f"{what}.phase", got=[int(p) for p in given.phase], expected=expected, fix="pass a state made with this spec")
        if spec.read_out == "whole" and what == "state" and concrete(given.phase) and not _all(given.phase == 0):
            expected = "0: with read_out='whole' a call begins where a mini-batch does"
            fix = f"cut sequences after multiples of K = {spec.mini_batch_size} tokens"
            raise InvalidInput(f"{what}.phase", got=[int(p) for p in given.phase], expected=expected, fix=fix)
    if conv != (given.conv is not None):
        got, expected = ("conv" if given.conv is not None else "no conv"), ("conv" if conv else "no conv")
        raise InvalidInput(f"{what}.conv", got=got, expected=expected, fix="pass a state made with this spec, by the same call")
    if given.conv is not None:
        _shape(f"{what}.conv", given.conv, (rows, spec.conv_width - 1, spec.width), "[B, conv_width − 1, C]")
        _floating(f"{what}.conv", given.conv)


def cotangent(name: str, given: Array, like: Array) -> None:
    """A cotangent has the shape of what it belongs to."""
    if given is None:
        raise InvalidInput(name, got="None", expected="a cotangent of the output", fix=f"pass an array of shape {tuple(like.shape)}")
    _floating(name, given)
    _shape(name, given, like.shape, "as the output")


def _rank(name: str, x: Array, layout: str) -> None:
    rank = layout.count(",") + 1
    if x.ndim != rank:
        raise InvalidInput(f"rank of {name}", got=f"{x.ndim} axes, shape {tuple(x.shape)}", expected=f"{rank} axes {layout}", fix="reshape it")


def _shape(name: str, x: Array, shape: tuple[int, ...], layout: str) -> None:
    if tuple(x.shape) != tuple(shape):
        raise InvalidInput(f"shape of {name}", got=tuple(x.shape), expected=f"{tuple(shape)} {layout}", fix=f"reshape {name} or change the spec")


def _floating(name: str, x: Array) -> None:
    if not is_floating(x):
        raise InvalidInput(f"dtype of {name}", got=x.dtype, expected="a floating-point dtype", fix=f"cast {name}, for example to float32")


def _integers(name: str, x: Array) -> None:
    if not namespace(x).isdtype(x.dtype, "integral"):
        raise InvalidInput(f"dtype of {name}", got=x.dtype, expected="an integer dtype", fix=f"cast {name} to int32")


def _all(x: Array) -> bool:
    return bool(namespace(x).all(x))
