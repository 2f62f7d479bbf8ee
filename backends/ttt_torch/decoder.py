"""Decoding: what a call of one token would find out again at each token is found out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tttcore import InvalidInput, LayerSpec, State, layer_around
from tttcore.arrays import arange, cast, compute_dtype
from tttcore.forms import read, token
from tttcore.tree import leaves, tree_map

from .autocast import autocasted

if TYPE_CHECKING:
    from tttcore import backend

    from .layer import TTTLayer


class Decoder:
    """B rows that read a token at a time; a step makes new tensors and writes into none.

    Rows in phase share the steps' size, and all of them or none end their mini-batch: the token is ``tttcore.forms.read`` and no choice by rows.
    Others are ``tttcore.forms.token``. Law: equal to the form "decode" of a call.
    """

    def __init__(self, spec: LayerSpec, params: Mapping[str, torch.Tensor], state: State) -> None:
        dtype = compute_dtype(*params.values(), *leaves(state[:2]))
        self._spec, self._params = spec, {name: cast(x, dtype) for name, x in params.items()}
        self._scale = spec.update_rule.scale(spec, self._params)
        weights, grads = tree_map(lambda x: cast(x, dtype), (state.weights, state.grads))
        self._state = State(weights, grads, state.phase.int())
        phases = set(self._state.phase.tolist())
        self._common = phases.pop() if len(phases) == 1 else None
        rows = len(self._state.phase)
        self._every = torch.ones(rows, dtype=torch.bool, device=state.phase.device)
        self._phases = arange(spec.mini_batch_size, state.phase)[:, None].repeat(1, rows)

    @property
    def phase(self) -> torch.Tensor:
        """``[B]`` int32."""
        return self._state.phase

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        """y ``[B, 1, H, D]`` of one token, in q's dtype; q, k, v ``[B, 1, H, D]``, ℓ (lr) ``[B, 1, H]``."""
        given, spec, params = q.dtype, self._spec, self._params
        q, k, v, lr = (cast(x[:, 0], self._scale.dtype) for x in (q, k, v, lr))
        if self._common is None:
            self._state, y = token(spec, params, self._scale, self._state, q, k, v, lr, self._every)
        else:
            weights, grads, _, _ = self._state
            y, stepped, summed = read(spec, params, self._scale[self._common], weights, grads, q, k, v, lr)
            self._common = (self._common + 1) % spec.mini_batch_size
            after = (weights, summed) if self._common else (stepped, {name: torch.zeros_like(x) for name, x in summed.items()})
            self._state = State(*after, self._phases[self._common])
        return cast(y, given)[:, None]

    def state(self) -> State:
        """The public state (W, S, p)."""
        return self._state


class LayerDecoder:
    """A ``TTTLayer`` that reads a token at a time from a state on, without gradients; laws: those of a call with ``form="decode"``.

    What depends on parameters is kept, so one serves while ``serves`` says so: until a parameter is changed.
    """

    def __init__(self, layer: TTTLayer, make: Callable[..., backend.Decoder], state: State) -> None:
        """``make(spec, params, state)`` is the kernel's decoder of the inner loop; the state is checked already (``TTTLayer.decoder`` does)."""
        self._layer, self._conv = layer, state.conv
        self._params = {name: x.detach() for name, x in layer.named_parameters(recurse=False)}
        self._seen = self._versions()
        self._decoder = make(layer.spec, {name: self._params[name] for name in layer.spec.inner_shapes()}, state._replace(conv=None))

    @property
    def phase(self) -> torch.Tensor:
        """``[B]``: tokens read of the running mini-batch."""
        return self._decoder.phase

    def serves(self, layer: TTTLayer) -> bool:
        """Whether it is this layer's, with the parameters as they are."""
        return layer is self._layer and self._seen == self._versions()

    def step(self, x: torch.Tensor) -> torch.Tensor:
        """y ``[B, 1, C]`` of x ``[B, 1, C]``, in x's dtype."""
        spec = self._layer.spec
        expected = (len(self.phase), 1, spec.width)
        if x.shape != expected:
            raise InvalidInput("shape of x", got=tuple(x.shape), expected=f"{expected} [B, 1, C]", fix="pass one token of each row")
        return autocasted(self._run, self._params, x)[0]

    def state(self) -> State:
        """The state now."""
        return self._decoder.state()._replace(conv=self._conv)

    def _run(self, params: Mapping[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, State]:
        at = State({}, {}, self._decoder.phase, self._conv)
        y, end = layer_around(self._inner, self._layer.spec, params, x, state=at, form="decode")
        self._conv = end.conv
        return y, end

    def _inner(self, spec: LayerSpec, params: Any, q: Any, k: Any, v: Any, lr: Any, *, state: State, **_: Any) -> tuple[torch.Tensor, State]:
        return self._decoder.step(q, k, v, lr), state

    def _versions(self) -> list[tuple[int, int]]:
        """Where parameters are and how often they were written to; tensors of inference mode do not count that."""
        return [(x.data_ptr(), 0 if x.is_inference() else x._version) for x in self._layer._parameters.values() if x is not None]
