"""A complete backend: TTT-Linear in NumPy, one token after another, written from the definition."""

import numpy as np

from tttcore import Backend, State, Supports


def standardise(z, eps):
    """(z − mean z) r and r = 1/√(var z + ε)."""
    centred = z - z.mean(-1, keepdims=True)
    r = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return centred * r, r


def inner(spec, params, q, k, v, lr, *, state, form):
    """y_t = f(q_t; W_t) for every token, and the state after the last one."""
    rows, tokens = q.shape[:2]
    if state is None:
        weights = {name: np.stack([params[name]] * rows) for name in ("W1", "b1")}
        state = State(weights, {name: 0 * w for name, w in weights.items()}, np.zeros(rows, np.int32))
    dtype = np.result_type(np.float32, q, lr, *params.values(), *state.weights.values(), *state.grads.values())
    params = {name: value.astype(dtype) for name, value in params.items()}
    W, b, S_W, S_b = (part[name].astype(dtype) for part in (state.weights, state.grads) for name in ("W1", "b1"))
    phase, scale = state.phase.astype(np.int32), spec.update_rule.scale(spec, params)
    gamma, beta = params["norm_weight"][:, None], params["norm_bias"][:, None]
    y = np.zeros(q.shape, dtype)
    for t in range(tokens):
        qt, kt, vt = (x[:, t, :, None].astype(dtype) for x in (q, k, v))  # [B, H, 1, D]
        standard, r = standardise(kt @ W + b, spec.eps)
        g = gamma * (kt + gamma * standard + beta - vt)
        G = r * (g - g.mean(-1, keepdims=True) - standard * (g * standard).mean(-1, keepdims=True))
        written = lr[:, t, :, None, None] * G
        S_W, S_b = S_W + np.swapaxes(kt, -1, -2) @ written, S_b + written
        step = scale[phase][:, None, None, None]
        W_read, b_read = W - step * S_W, b - step * S_b
        y[:, t] = (qt + gamma * standardise(qt @ W_read + b_read, spec.eps)[0] + beta)[:, :, 0]
        full = (phase == spec.mini_batch_size - 1)[:, None, None, None]
        W, b = np.where(full, W_read, W), np.where(full, b_read, b)
        S_W, S_b = np.where(full, 0, S_W), np.where(full, 0, S_b)
        phase = (phase + 1) % spec.mini_batch_size
    return y.astype(q.dtype), State({"W1": W, "b1": b}, {"W1": S_W, "b1": S_b}, phase)


BACKEND = Backend(
    "mine",
    inner,
    Supports(
        forms=("primal", "decode"),
        inner=("linear",),
        loss=("squared_error",),
        dtypes=("float16", "float32", "float64"),
        mask=False,
        cu_seqlens=False,
    ),
)
