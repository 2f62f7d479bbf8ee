"""The decoder: weights, and the rows of the running mini-batch in a buffer, moved on by one launch a token."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import torch

from tttcore import LayerSpec, State, validate
from tttcore.errors import InvalidInput
from tttcore.sequence import Rows
from tttcore.state import initial_state
from tttcore.tree import leaves

from ..claims import check_constant, check_spec, check_tensors
from . import linear, mlp


class Map(NamedTuple):
    """One affine map of B rows: its weights, the sums that they came with (the base), and its buffered rows; float32, in the kernels' order."""

    W: torch.Tensor
    """``[B, H, d, e]``."""
    b: torch.Tensor
    """``[B, H, 1, e]``."""
    S_W: torch.Tensor
    S_b: torch.Tensor
    X: torch.Tensor
    """``[B, H, K, d]``."""
    G: torch.Tensor
    """``[B, H, K, e]``."""


class Decoder:
    """B rows that read a token at a time; between two tokens they are what the public ``State`` is, with S as a sum of rows.

        S_W = base S_W + Σ_{j<p} ℓ_j X_jᵀ G_j        S_b = base S_b + Σ_{j<p} ℓ_j G_j

    A token reads W once and writes one row; the last token of a mini-batch writes W (docs/mathematics.md, 9.2). Rows may be at different phases.
    ``step`` changes the decoder's tensors in place, always the same ones, and never waits for the device: it can be captured in a CUDA graph and
    replayed.
    """

    def __init__(self, spec: LayerSpec, params: Mapping[str, torch.Tensor], state: State | None = None, *, batch: int = 1) -> None:
        """From a state, which is copied, of any phases and sums; from the learned initial weights in ``batch`` rows where it is None.

        params: those of the inner loop at least, whole layers' are welcome. Raises ``Unsupported`` for what no kernel computes: float64, tensors
        that require gradients or are not on a GPU (unless Triton interprets), inner models of more than one hidden layer, K > 64, D > 128.
        """
        validate.params(params, spec.inner_shapes(), spec.param_shapes())
        check_spec(spec)
        params = {name: params[name] for name in spec.inner_shapes()}
        given = (*params.values(), *leaves(None if state is None else state[:2]))
        check_tensors(given)
        check_constant(given)
        params = {name: value.detach().float() for name, value in params.items()}
        fresh = state is None
        state = initial_state(spec, params, batch, torch.float32) if state is None else state
        rows = state.phase.shape[0]
        validate.state(spec, state, rows, conv=state.conv is not None, concrete=_never)
        self.spec = spec
        self._kernel: ModuleType = mlp if spec.inner_model.hidden else linear
        self._options = self._kernel.options(spec)
        self._scale = spec.update_rule.scale(spec, params)
        self._gamma, self._beta = (params[name].contiguous() for name in ("norm_weight", "norm_bias"))
        # One entry for each program of a launch: a program that moved its row's phase on would move it under the other heads.
        self._phase = state.phase.int()[:, None].repeat(1, spec.heads)
        sums = torch.stack([(x != 0).flatten(2).any(2) for x in state.grads.values()])
        self._base = sums.any(0).int()
        self._lr = torch.zeros((rows, spec.heads, spec.mini_batch_size), device=self._phase.device)
        self._maps = [self._map(state, index, fresh) for index in range(1, len(spec.inner_model.hidden) + 2)]

    def _map(self, state: State, index: int, fresh: bool) -> Map:
        W, b = (_copy(state.weights[f"{name}{index}"]) for name in "Wb")
        # Without a base nothing is read there: no memory for it.
        S_W, S_b = (W, b) if fresh else (_copy(state.grads[f"{name}{index}"]) for name in "Wb")
        # Zeros, so that rows of tokens that came within a base add nothing.
        X, G = (W.new_zeros(*self._lr.shape, width) for width in W.shape[2:])
        return Map(W, b, S_W, S_b, X, G)

    @property
    def phase(self) -> torch.Tensor:
        """``[B]`` int32: tokens read of the running mini-batch; the next step changes it."""
        return self._phase[:, 0]

    def step(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lr: torch.Tensor,
        *,
        valid: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """y ``[B, 1, H, D]`` of one token, in q's dtype, by one launch; the decoder moves on in place.

        q, k, v ``[B, 1, H, D]`` and ℓ (lr) ``[B, 1, H]`` in any of bfloat16, float16, float32; valid ``[B, 1]`` bool: a row that is not valid
        reads no token, and its y is 0; ``out``, where it is given, is written to and returned. Raises ``InvalidInput`` for other shapes,
        ``Unsupported`` as the constructor does.
        """
        spec, rows = self.spec, self._phase.shape[0]
        validate.call(spec, "decode", {"q": q, "k": k, "v": v}, torch.Tensor)
        validate.inner_inputs(spec, q, k, v, lr, _never)
        expected = (rows, 1, spec.heads, spec.head_dim)
        if q.shape != expected:
            fix = "pass one token of each of the decoder's rows"
            raise InvalidInput("shape of q", got=tuple(q.shape), expected=f"{expected} [B, 1, H, D]", fix=fix)
        check_tensors((q, k, v, lr))
        check_constant((q, k, v, lr))
        y = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
        tokens = (*(_dense(x) for x in (q, k, v, lr)), y)
        strides = (0 if x is None else x.stride(0) for x in (*tokens, valid))
        with torch.cuda.device_of(q):
            self._kernel.step[(rows * spec.heads,)](
                *tokens,
                valid,
                *strides,
                self._scale,
                self._gamma,
                self._beta,
                self._phase,
                self._base,
                self._lr,
                *(x for part in self._maps for x in part),
                spec.heads,
                spec.eps,
                **self._options,
            )
        return y

    def state(self) -> State:
        """The public state (W, S, p) of all rows, in new float32 tensors; law: ``Decoder(spec, params, state).state()`` equals ``state``."""
        weights, grads = {}, {}
        live = (torch.arange(self._lr.shape[2], device=self._lr.device) < self._phase[:, :, None])[..., None, None]
        based = (self._base != 0)[:, :, None, None]
        for index, part in enumerate(self._maps, start=1):
            weights |= {f"W{index}": part.W.clone(), f"b{index}": part.b.clone()}
            S_W, S_b = (torch.where(based, S, 0.0) for S in (part.S_W, part.S_b))
            for j in range(self._lr.shape[2]):
                # Chosen, not multiplied: what an older mini-batch left there may be anything. No matrix product: its precision is a global setting.
                written = self._lr[:, :, j, None, None] * part.G[:, :, j, None]
                S_W = torch.where(live[:, :, j], S_W + part.X[:, :, j, :, None] * written, S_W)
                S_b = torch.where(live[:, :, j], S_b + written, S_b)
            grads |= {f"W{index}": S_W, f"b{index}": S_b}
        return State(weights, grads, self._phase[:, 0].clone())


def decode(
    spec: LayerSpec,
    params: Mapping[str, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lr: torch.Tensor,
    *,
    state: State | None,
    mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, State]:
    """The inner loop by a decoder, a launch for each token; arguments and results are those of ``tttcore.Backend.inner``, checked already."""
    rows = None if cu_seqlens is None else Rows.of_packed(cu_seqlens, q.shape[1], q.shape[1])
    if rows is not None:
        q, k, v, lr = (rows.gather(x) for x in (q, k, v, lr))
        mask = rows.mask
    decoder = Decoder(spec, params, state, batch=q.shape[0])
    y = torch.empty_like(q, memory_format=torch.contiguous_format)
    for t in range(q.shape[1]):
        one = slice(t, t + 1)
        decoder.step(q[:, one], k[:, one], v[:, one], lr[:, one], valid=None if mask is None else mask[:, one], out=y[:, one])
    return (y if rows is None else rows.scatter(y)), decoder.state()


def _dense(x: torch.Tensor) -> torch.Tensor:
    """x ``[B, 1, H, …]`` with the numbers of one row side by side; rows may lie anywhere."""
    return x if x.shape[0] == 0 or x[0].is_contiguous() else x.contiguous()


def _copy(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _never(x: torch.Tensor) -> bool:
    """Values are not checked: that would wait for the device."""
    return False
