"""Somebody else's TTT-Linear, and the adapter that shows it to the suite."""

import numpy as np

from tttcore import Backend, Supports


def their_layer(q, k, v, gate, steps, W, b, gamma, beta, eps):
    """Their code: one sequence and head, q, k, v [T, D], gate [T], steps [K]; mini-batches of K tokens."""

    def standardise(z):
        centred = z - z.mean(-1, keepdims=True)
        r = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return centred * r, r

    y = np.empty_like(q)
    for start in range(0, len(q), len(steps)):
        batch = slice(start, start + len(steps))
        Q, X, label, rate = q[batch], k[batch], v[batch], gate[batch]
        standard, r = standardise(X @ W + b)
        g = gamma * (gamma * standard + beta - (label - X))
        G = r * (g - g.mean(-1, keepdims=True) - standard * (g * standard).mean(-1, keepdims=True))
        attention = np.tril((Q @ X.T + 1) * rate[None, :])  # a column for the token that writes
        read = Q @ W + b - steps[: len(Q), None] * (attention @ G)
        y[batch] = Q + gamma * standardise(read)[0] + beta
        W, b = W - steps[-1] * X.T @ (rate[:, None] * G), b - steps[-1] * rate @ G
    return y


def inner(spec, params, q, k, v, lr):
    """The adapter: rows and heads in turn; the reader's factor and η₀/D come finished from the spec."""
    steps, y = spec.update_rule.scale(spec, params), np.empty_like(q)
    for row, head in np.ndindex(q.shape[0], spec.heads):
        weights = (params["W1"][head], params["b1"][head], params["norm_weight"][head], params["norm_bias"][head])
        tokens = (x[row, :, head] for x in (q, k, v, lr))
        y[row, :, head] = their_layer(*tokens, steps, *weights, spec.eps)
    return y


BACKEND = Backend(
    "outside",
    inner,
    Supports(
        forms=("dual",),
        inner=("linear",),
        loss=("squared_error",),
        dtypes=("float32", "float64"),
        state=False,
        mask=False,
        cu_seqlens=False,
    ),
)
