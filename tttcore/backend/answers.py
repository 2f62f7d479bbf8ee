"""Another library's function as the inner loop: it gets the keywords that it has, and its answer is checked before anyone uses it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from ..arrays import Array
from ..errors import InvalidAnswer, InvalidInput
from ..spec import LayerSpec
from ..state import State
from ..tree import leaves, paths
from .supports import Supports

OPTIONAL = ("state", "form", "mask", "cu_seqlens")


def adapted(name: str, function: Any, supports: Supports) -> Any:
    """The function with all keywords of an ``InnerFunction``; those that it lacks it must not claim.

    The result always is (y, state), the state None where the backend claims none and returns y alone.
    """
    accepted = _accepted(name, function, supports)

    def inner(spec: LayerSpec, params: Any, q: Array, k: Array, v: Array, lr: Array, **options: Any) -> tuple[Array, Any]:
        rows = q.shape[0] if options["cu_seqlens"] is None else options["cu_seqlens"].shape[0] - 1
        given = {keyword: options[keyword] for keyword in accepted}
        return _answer(name, spec, supports, q, rows, function(spec, params, q, k, v, lr, **given))

    return inner


def check_output(name: str, y: Array, x: Array) -> None:
    """Raise ``InvalidAnswer`` unless y is an array of x's shape."""
    if tuple(getattr(y, "shape", ())) != tuple(x.shape):
        got = f"shape {tuple(y.shape)}" if hasattr(y, "shape") else type(y).__name__
        raise InvalidAnswer(name, what="y", got=got, expected=f"shape {tuple(x.shape)}, as the input", fix="return y in the layout of the input")


def _accepted(name: str, function: Any, supports: Supports) -> tuple[str, ...]:
    """The optional keywords that the function has; ``InvalidInput`` when it lacks one that it claims."""
    if not callable(function):
        raise InvalidInput(f"backend {name!r}", got=type(function).__name__, expected="a function as its inner_function", fix="pass the inner loop")
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # of a function that is not Python's, nothing is known: it gets every keyword
        return OPTIONAL
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return OPTIONAL
    claimed = {"state": supports.state, "mask": supports.mask, "cu_seqlens": supports.cu_seqlens, "form": len(supports.forms) > 1}
    for keyword, claim in claimed.items():
        if claim and keyword not in parameters:
            fix = "claim one form: Supports(forms=('dual',))" if keyword == "form" else f"add the keyword or claim Supports({keyword}=False)"
            raise InvalidInput(f"backend {name!r}", got=f"an inner function without {keyword!r}", expected="what it claims", fix=fix)
    return tuple(keyword for keyword in OPTIONAL if keyword in parameters)


def _answer(name: str, spec: LayerSpec, supports: Supports, q: Array, rows: int, answer: Any) -> tuple[Array, Any]:
    alone = not (isinstance(answer, tuple) and len(cast("tuple[Any, ...]", answer)) == 2)
    y, state = cast("tuple[Any, Any]", (answer, None) if alone else answer)
    check_output(name, y, q)
    if state is None and not supports.state:
        return y, None
    fix = "return (y, state), or claim Supports(state=False) and return y"
    if not isinstance(state, State):
        raise InvalidAnswer(name, what="state", got=type(state).__name__, expected="a tttcore.State", fix=fix)
    shapes = {key: (rows, *shape) for key, shape in spec.inner_model.weight_shapes(spec.heads, spec.head_dim).items()}
    if not (_fits(state.weights, shapes) and _fits(state.grads, shapes) and _shape(state.phase) == (rows,) and state.conv is None):
        found = {path: _shape(x) for path, x in zip(paths(state), leaves(state), strict=True)}
        expected = {f"{part}.{key}": shape for part in ("weights", "grads") for key, shape in sorted(shapes.items())} | {"phase": (rows,)}
        raise InvalidAnswer(name, what="state", got=f"shapes {found}", expected=expected, fix="return arrays of these names and shapes, conv None")
    return y, state


def _fits(arrays: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return isinstance(arrays, Mapping) and arrays.keys() == shapes.keys() and all(_shape(arrays[key]) == shape for key, shape in shapes.items())


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(getattr(x, "shape", ()))
