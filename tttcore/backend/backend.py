"""What a backend is: one function, ``inner``, and how its arrays come and go; the rest is made from these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from .. import validate
from ..arrays import Array
from ..errors import InvalidInput, Unsupported
from ..keywords import explain_keywords
from ..layer import layer_around
from ..spec import LayerSpec
from ..state import State
from ..tree import Tree, leaves, paths, rebuild, tree_map
from .answers import adapted, check_output
from .supports import Supports


class InnerFunction(Protocol):
    """The inner loop on arguments that are checked already; see ``Backend.inner`` for shapes."""

    def __call__(
        self,
        spec: LayerSpec,
        params: Mapping[str, Array],
        q: Array,
        k: Array,
        v: Array,
        lr: Array,
        *,
        state: State | None,
        form: str,
        mask: Array | None,
        cu_seqlens: Array | None,
    ) -> tuple[Array, State]:
        """(y, state)."""
        ...


class Decoder(Protocol):
    """Rows that read a token at a time, and between two tokens are what a ``State`` is; it may move on in place, in tensors of its own."""

    @property
    def phase(self) -> Array:
        """``[B]``: tokens read of the running mini-batch."""
        ...

    def step(self, q: Array, k: Array, v: Array, lr: Array) -> Array:
        """y ``[B, 1, H, D]`` of one token; q, k, v ``[B, 1, H, D]``, ℓ (lr) ``[B, 1, H]``."""
        ...

    def state(self) -> State:
        """The state now, which no later step changes."""
        ...


Vjp = Callable[[Callable[..., list[Array]], list[Array], list[Array]], list[Array]]
"""vjp(function, primals, cotangents) → one cotangent per primal, for function(*primals) → list of arrays."""


def _as_given(array: np.ndarray, like: Array | None = None) -> Array:
    return array


def _always(array: Array) -> bool:
    return True


@dataclass(frozen=True)
class Backend:
    """An implementation of TTT layers for one array library.

    A new backend needs ``name`` and ``inner_function``, an ``InnerFunction`` or one with fewer keywords and no state to return, where ``supports``
    does not claim them; the defaults take and return NumPy arrays. ``from_numpy(array, like)`` makes a native array with its dtype kept, on the
    device of ``like``; ``concrete(x)`` says whether x's values can be read now, and so are checked: not those of a tracer, nor on a device that a
    call should not wait for; ``vjp_function`` gives gradients; ``layer_function`` is core's ``layer_around`` unless the backend has a better one;
    ``decoder_function(spec, params, state)`` makes a ``Decoder`` of a state that is checked already.
    """

    name: str
    inner_function: InnerFunction | Callable[..., Any]
    supports: Supports = field(default_factory=Supports)
    array_type: type = np.ndarray
    from_numpy: Callable[[np.ndarray, Array | None], Array] = _as_given
    to_numpy: Callable[[Array], np.ndarray] = np.asarray
    concrete: Callable[[Array], bool] = _always
    vjp_function: Vjp | None = None
    layer_function: Callable[..., tuple[Array, State]] = layer_around
    decoder_function: Callable[[LayerSpec, Mapping[str, Array], State], Decoder] | None = None
    _inner: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Adapt the function; ``InvalidInput`` when it lacks a keyword that ``supports`` claims."""
        object.__setattr__(self, "_inner", adapted(self.name, self.inner_function, self.supports))

    def asarray(self, array: np.ndarray) -> Array:
        """A NumPy array as the backend's own, dtype kept."""
        return self.from_numpy(np.asarray(array), None)

    @explain_keywords
    def inner(
        self,
        spec: LayerSpec,
        inner_params: Mapping[str, Array],
        q: Array,
        k: Array,
        v: Array,
        lr: Array,
        state: State | None = None,
        form: str = "dual",
        mask: Array | None = None,
        cu_seqlens: Array | None = None,
    ) -> tuple[Array, State]:
        """The inner loop alone: y_t = f(q_t; W_t) and the state after the last token.

        q, k, v, y ``[B, T, H, D]`` of one floating dtype; ℓ (lr) ``[B, T, H]``; mask ``[B, T]`` bool, True where a token counts (y is 0 elsewhere);
        cu_seqlens ``[R + 1]`` int: R packed sequences in the one row of a batch, state of R rows. inner_params: a whole layer's are welcome.
        NumPy arrays among params, state, mask and cu_seqlens are converted. Computes in float32 or wider; y keeps q's dtype.

        Raises ``InvalidInput`` before any compute, ``Unsupported`` for what this backend does not claim, ``InvalidAnswer`` when its function
        returns no output or state of the spec's shapes. The state is None where the backend claims none and returns y alone.
        """
        named, state, mask, cu_seqlens = self._checked_inner(spec, inner_params, q, k, v, lr, state, form, mask, cu_seqlens)
        return self._inner(spec, named, q, k, v, lr, state=state, form=form, mask=mask, cu_seqlens=cu_seqlens)

    @explain_keywords
    def layer(
        self,
        spec: LayerSpec,
        params: Mapping[str, Array],
        x: Array,
        state: State | None = None,
        form: str = "dual",
        mask: Array | None = None,
        positions: Array | None = None,
    ) -> tuple[Array, State]:
        """The whole layer: views, inner loop, output projection (paper, figure 4).

        x, y ``[B, T, C]``; mask ``[B, T]`` bool; positions ``[B, T]`` int, for RoPE alone (default: the tokens each row has read so far).
        Law: splitting the sequence anywhere and carrying the state gives the same y and state. Raises as ``inner`` does.
        """
        params, state, mask, positions = self._checked_layer(spec, params, x, state, form, mask, positions)
        y, end = self.layer_function(self._inner, spec, params, x, state=state, form=form, mask=mask, positions=positions)
        check_output(self.name, y, x)
        return y, end

    @explain_keywords
    def layer_vjp(
        self,
        spec: LayerSpec,
        params: Mapping[str, Array],
        x: Array,
        y_bar: Array,
        state: State | None = None,
        state_bar: State | None = None,
        form: str = "dual",
        mask: Array | None = None,
        positions: Array | None = None,
    ) -> tuple[dict[str, Array], Array, State | None]:
        """(params̄, x̄, state̅) for the cotangents ȳ of the output and state̅ of the final state (None: zero).

        state̅ in and out is a ``State`` whose ``phase`` is None or ignored; None comes back when no state was given.
        Raises ``Unsupported`` on a backend without gradients.
        """
        params, state, mask, positions = self._checked_layer(spec, params, x, state, form, mask, positions)
        y_bar, state_bar = self._native({"y_bar": y_bar, "state_bar": state_bar}, x)
        validate.cotangent("y_bar", y_bar, x)
        if state_bar is not None:
            validate.state(spec, state_bar, x.shape[0], conv=spec.share_qk, concrete=self.concrete, what="state_bar")

        def run(params: Tree, x: Array, state: State | None) -> tuple[Array, State]:
            return self.layer_function(self._inner, spec, params, x, state=state, form=form, mask=mask, positions=positions)

        return self._vjp(run, (dict(params), x), state, y_bar, state_bar)

    @explain_keywords
    def inner_vjp(
        self,
        spec: LayerSpec,
        inner_params: Mapping[str, Array],
        q: Array,
        k: Array,
        v: Array,
        lr: Array,
        y_bar: Array,
        state: State | None = None,
        state_bar: State | None = None,
        form: str = "dual",
        mask: Array | None = None,
        cu_seqlens: Array | None = None,
    ) -> tuple[dict[str, Array], Array, Array, Array, Array, State | None]:
        """(inner_params̄, q̄, k̄, v̄, ℓ̄, state̅), as ``layer_vjp`` for ``inner``."""
        named, state, mask, cu_seqlens = self._checked_inner(spec, inner_params, q, k, v, lr, state, form, mask, cu_seqlens)
        y_bar, state_bar = self._native({"y_bar": y_bar, "state_bar": state_bar}, q)
        validate.cotangent("y_bar", y_bar, q)
        if state_bar is not None:
            rows = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
            validate.state(spec, state_bar, rows, conv=False, concrete=self.concrete, what="state_bar")

        def run(params: Tree, q: Array, k: Array, v: Array, lr: Array, state: State | None) -> tuple[Array, State]:
            return self._inner(spec, params, q, k, v, lr, state=state, form=form, mask=mask, cu_seqlens=cu_seqlens)

        return self._vjp(run, (named, q, k, v, lr), state, y_bar, state_bar)

    def _checked_inner(
        self,
        spec: LayerSpec,
        params: Tree,
        q: Array,
        k: Array,
        v: Array,
        lr: Array,
        state: State | None,
        form: str,
        mask: Array | None,
        cu_seqlens: Array | None,
    ) -> tuple[dict[str, Array], State | None, Array | None, Array | None]:
        """The arguments of ``inner`` as native arrays, all of them checked, the parameters without those of the layer around."""
        validate.call(spec, form, {"q": q, "k": k, "v": v}, self.array_type)
        validate.call(spec, form, {"lr": lr}, self.array_type)
        params, state, mask, cu_seqlens = self._native({"params": params, "state": state, "mask": mask, "cu_seqlens": cu_seqlens}, q)
        shapes = spec.inner_shapes()
        validate.params(params, shapes, spec.param_shapes())
        validate.inner_inputs(spec, q, k, v, lr, self.concrete)
        validate.tokens(q, mask)
        rows = validate.packed(q, mask, cu_seqlens, self.concrete)
        if state is not None:
            validate.state(spec, state, rows, conv=False, concrete=self.concrete)
        self.supports.check(self.name, spec, q, form=form, state=state, mask=mask, cu_seqlens=cu_seqlens)
        return {name: params[name] for name in shapes}, state, mask, cu_seqlens

    def _checked_layer(
        self, spec: LayerSpec, params: Tree, x: Array, state: State | None, form: str, mask: Array | None, positions: Array | None
    ) -> tuple[Any, State | None, Array | None, Array | None]:
        """The arguments of ``layer`` as native arrays, all of them checked."""
        validate.call(spec, form, {"x": x}, self.array_type)
        validate.layer_input(spec, x)
        params, state, mask, positions = self._native({"params": params, "state": state, "mask": mask, "positions": positions}, x)
        validate.params(params, spec.param_shapes(), spec.param_shapes())
        validate.tokens(x, mask, positions)
        if state is not None:
            validate.state(spec, state, x.shape[0], conv=spec.share_qk, concrete=self.concrete)
        self.supports.check(self.name, spec, x, form=form, state=state, mask=mask, cu_seqlens=None)
        return params, state, mask, positions

    def _native(self, named: Mapping[str, Tree], like: Array) -> tuple[Any, ...]:
        """The trees with NumPy arrays as this backend's, on the device of ``like``; any other array that is not its own is refused."""
        if self.array_type is not np.ndarray and all(isinstance(x, self.array_type) for x in leaves(dict(named))):
            return tuple(named.values())
        names = iter(list(paths(dict(named))))

        def native(x: Array) -> Array:
            name = next(names)
            if not isinstance(x, (np.ndarray, self.array_type)):
                expected = f"a {self.array_type.__module__}.{self.array_type.__name__} or a numpy.ndarray"
                raise InvalidInput(name, got=f"{type(x).__module__}.{type(x).__name__}", expected=expected, fix=f"pass numpy.asarray({name})")
            return self.from_numpy(cast("np.ndarray", x), like) if isinstance(x, np.ndarray) else x

        return tuple(tree_map(native, dict(named)).values())

    def _vjp(self, run: Callable[..., tuple[Array, State]], inputs: tuple[Tree, ...], state: State | None, y_bar: Array, state_bar: Any) -> Any:
        if self.vjp_function is None:
            raise Unsupported(
                self.name,
                field="gradients",
                got="a vjp",
                expected="forward calls",
                fix="use another backend, or tttcore.layer_derivative (complex step) for directional derivatives",
            )
        if state_bar is not None and not self.supports.state:
            fix = "leave state_bar out or use another backend"
            raise Unsupported(self.name, field="state", got="a state_bar", expected="None", fix=fix)
        primals = (*inputs, None if state is None else state._replace(phase=None))
        cotangents = y_bar if state_bar is None else (y_bar, state_bar._replace(phase=None))

        def function(*arrays: Array) -> list[Array]:
            *values, carried = rebuild(primals, iter(arrays))
            y, end = run(*values, None if state is None else carried._replace(phase=state.phase))
            return list(leaves(y if state_bar is None else (y, end._replace(phase=None))))

        found = self.vjp_function(function, list(leaves(primals)), list(leaves(cotangents)))
        return rebuild(primals, iter(found))
