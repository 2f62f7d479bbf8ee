"""A TTT layer from its definition: row by row, token by token, head by head, in NumPy and nothing else.

An implementation of its own, which shares no line with any backend and is written to be read. Vectors are rows; letters are those of
docs/mathematics.md. ``spec`` is a layer's JSON as a dict. A state is a flat dict of arrays with a leading axis of rows: "weights.W1",
"grads.W1", … (W and S of the running mini-batch), "phase" (its tokens read so far) and, in a layer with ``share_qk``, "conv".
The functions between affine maps return their value h and its Jacobian J[i, j] = ∂h_j/∂z_i. Complex arguments pass through: what is compared
is the real part.
"""

from typing import Any

import numpy as np

Spec = dict[str, Any]
Array = np.ndarray
Arrays = dict[str, np.ndarray]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), as a tanh, which does not overflow."""
    return (1 + np.tanh(x / 2)) / 2


def gelu(z: Array) -> tuple[Array, Array]:
    """h = ½ z (1 + tanh u), u = √(2/π) (z + 0.044715 z³)."""
    held = np.where(abs(np.real(z)) < 10, z, 10 * np.sign(np.real(z)))  # beyond, tanh u is ±1 to the last bit and z³ might overflow
    root = (2 / np.pi) ** 0.5
    tanh = np.tanh(root * (held + 0.044715 * held * held * held))
    slope = (1 + tanh) / 2 + held / 2 * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * held * held)
    return z / 2 * (1 + tanh), np.diag(slope)


def silu(z: Array) -> tuple[Array, Array]:
    """h = z s, s = sigmoid(z)."""
    s = sigmoid(z)
    return z * s, np.diag(s + z * s * (1 - s))


def swiglu(z: Array) -> tuple[Array, Array]:
    """h = silu(z₁) ⊙ z₂ of the two halves of z."""
    z1, z2 = np.split(z, 2)
    h1, J1 = silu(z1)
    return h1 * z2, np.concatenate([J1 * z2, np.diag(h1)])


def layer_norm(z: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array]:
    """h = γ ⊙ ẑ + β, ẑ = r (z − mean z), r = 1/√(var z + ε)."""
    D, centred = len(z), z - z.mean()
    r = 1 / np.sqrt((centred * centred).mean() + eps)
    z_hat = r * centred
    return gamma * z_hat + beta, r * (np.eye(D, dtype=z.dtype) - 1 / D - np.outer(z_hat, z_hat) / D) * gamma


LINEAR: dict[str, Any] = {"hidden": [], "bias": True, "residual_norm": True}
INNER_MODELS = {"linear": LINEAR, "mlp": LINEAR | {"hidden": [{"expansion": 4, "activation": "gelu"}]}}
ACTIVATIONS = {"gelu": gelu, "silu": silu, "swiglu": swiglu}


def named(axis: str, name: str, known: dict[str, Any]) -> Any:
    """What has that name on an axis of the spec; ``ValueError`` when the definition knows no such thing."""
    if name not in known:
        raise ValueError(f"{axis}: got {name!r}; expected one of {sorted(known)}. Fix: add it to the definition.")
    return known[name]


def inner_model(spec: Spec) -> dict[str, Any]:
    """The inner model: its "hidden" layers, whether it has a "bias", and whether "residual_norm"."""
    given = spec["inner"]
    return named("inner", given, INNER_MODELS) if isinstance(given, str) else given


def forward(spec: Spec, norm: Arrays, W: Arrays, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
    """f(x; W) of one token and head; and of every affine map hW + b its input h and the Jacobian of what follows the map.

    f = x + LN(z) of the last map's z, or z itself in a model without ``residual_norm``.
    """
    model, trace = inner_model(spec), list[tuple[Array, Array]]()
    h = x
    for n, hidden in enumerate([*model["hidden"], None], start=1):
        z = h @ W[f"W{n}"] + (W[f"b{n}"][0] if model["bias"] else 0)
        if hidden is not None:
            value, jacobian = named("activation", hidden["activation"], ACTIVATIONS)(z)
        elif model["residual_norm"]:
            value, jacobian = layer_norm(z, norm["norm_weight"], norm["norm_bias"], spec["eps"])
            value = x + value
        else:
            value, jacobian = z, np.eye(len(z), dtype=z.dtype)
        trace.append((h, jacobian))
        h = value
    return h, trace


def gradient(spec: Spec, norm: Arrays, W: Arrays, k: Array, v: Array) -> Arrays:
    """∂L/∂W of one token's loss L = ½ ‖f(k; W) − v‖² or −⟨f(k; W), v⟩, an array for each of W: the chain rule, from the loss down."""
    f, trace = forward(spec, norm, W, k)
    g = named("loss", spec["loss"], {"squared_error": f - v, "inner_product": -v})  # ∂L/∂f
    found: Arrays = {}
    for n in range(len(trace), 0, -1):
        h, jacobian = trace[n - 1]
        g = jacobian @ g  # ∂L/∂z of affine map n
        found |= {f"W{n}": np.outer(h, g), f"b{n}": g[None, :]}
        g = W[f"W{n}"] @ g  # ∂L/∂h
    return {name: found[name] for name in W}


def write(spec: Spec, norm: Arrays, W: Arrays, S: Arrays, k: Array, v: Array, lr: Array) -> None:
    """One token of one head: S ← S + ℓ ∂L/∂W(W), which is written to S."""
    for name, slope in gradient(spec, norm, W, k, v).items():
        S[name] += lr * slope


def read(spec: Spec, norm: Arrays, W: Arrays, S: Arrays, step: float, q: Array) -> Array:
    """y = f(q; W − step S)."""
    y, _ = forward(spec, norm, {name: W[name] - step * S[name] for name in W}, q)
    return y


def inner(
    spec: Spec, params: Arrays, q: Array, k: Array, v: Array, lr: Array, state: Arrays | None = None, mask: Any = None, cu_seqlens: Any = None
) -> tuple[Array, Arrays]:
    """y_t = f(q_t; W_t) for every token, and the state after the last one, in the widest dtype given, float32 at the least.

    q, k, v, y ``[B, T, H, D]``, ℓ (lr) ``[B, T, H]``; mask ``[B, T]`` bool: the other tokens are skipped and have y = 0; cu_seqlens ``[R + 1]``:
    tokens cu_seqlens[r] … cu_seqlens[r + 1] − 1 of a single row are sequence r, with a row of its own in the state.
    A token reads once it has written, in a whole read-out once all tokens of its mini-batch have.
    """
    named("update", spec["update"], {"mini_batch": None})
    causal = named("read_out", spec.get("read_out", "causal"), {"causal": True, "whole": False})
    (B, T, H, D), K, model = q.shape, spec["mini_batch_size"], inner_model(spec)
    rows = [(b, [t for t in range(T) if mask is None or mask[b, t]]) for b in range(B)]
    if cu_seqlens is not None:
        rows = [(0, list(range(cu_seqlens[r], cu_seqlens[r + 1]))) for r in range(len(cu_seqlens) - 1)]
    names = [f"{letter}{n}" for n in range(1, len(model["hidden"]) + 2) for letter in ("Wb" if model["bias"] else "W")]
    zeros = {name: np.zeros((len(rows), *params[name].shape), params[name].dtype) for name in names}
    start = {f"weights.{name}": zeros[name] + params[name] for name in names} | {f"grads.{name}": zeros[name] for name in names}
    state = start | {"phase": np.zeros(len(rows), np.int32)} if state is None else state
    dtype = np.result_type(np.float32, q, k, v, lr, *params.values(), *(state[name] for name in start))
    end = {name: state[name].astype(dtype) for name in start} | {"phase": state["phase"].astype(np.int32)}
    params = {name: x.astype(dtype) for name, x in params.items()}
    y = np.zeros(q.shape, dtype)
    for row, (b, tokens) in enumerate(rows):
        waiting = list[int]()
        for t in tokens:
            i = int(end["phase"][row])
            a = 1 / (i + 1) + params["token_lr_offset"][i]
            step = spec["base_lr"] / D * (a if a.real > 0 else 0)
            waiting.append(t)
            readers = waiting if causal or i == K - 1 or t == tokens[-1] else []
            for head in range(H):
                norm = {name: params[name][head] for name in ("norm_weight", "norm_bias") if model["residual_norm"]}
                # Slices, so that what is written to W and S is written to the state.
                W, S = ({name: end[f"{part}.{name}"][row, head] for name in names} for part in ("weights", "grads"))
                write(spec, norm, W, S, *(x[b, t, head] for x in (k, v, lr)))
                for reader in readers:
                    y[b, reader, head] = read(spec, norm, W, S, step, q[b, reader, head])
                if i == K - 1:
                    for name in names:
                        W[name][:], S[name][:] = W[name] - step * S[name], 0
            waiting = waiting[len(readers) :]
            end["phase"][row] = (i + 1) % K
    return y.astype(q.dtype), end


def rotate(x: Array, place: int, theta: float | None) -> Array:
    """The pairs (x[2m], x[2m + 1]) of each head turned by the angle place · θ^(−2m/D); x ``[H, D]``."""
    turned, D = x.copy(), x.shape[1]
    for m in range(0 if theta is None else D // 2):
        angle = place * theta ** (-2 * m / D)
        even, odd = x[:, 2 * m], x[:, 2 * m + 1]
        turned[:, 2 * m] = even * np.cos(angle) - odd * np.sin(angle)
        turned[:, 2 * m + 1] = even * np.sin(angle) + odd * np.cos(angle)
    return turned


def layer(spec: Spec, params: Arrays, x: Array, state: Arrays | None = None, mask: Any = None) -> tuple[Array, Arrays]:
    """y and the state after the last token: the views of each token, the inner loop, the output projection; x, y ``[B, T, C]``, mask as above."""
    named("views", spec["views"], {"projections": None})
    (B, T, C), H, K = x.shape, spec["heads"], spec["mini_batch_size"]
    dtype = np.result_type(np.float32, x, *params.values())
    q, k, v = (np.zeros((B, T, H, C // H), dtype) for _ in range(3))
    lr, y, conv = np.zeros((B, T, H), dtype), np.zeros((B, T, C), dtype), np.zeros((B, spec["conv_width"] - 1, C), dtype)
    place = [0] * B
    if state is not None:
        place = [int(phase) for phase in state["phase"]]
        conv[:] = state.get("conv", 0)
    valid = [(b, t) for b in range(B) for t in range(T) if mask is None or mask[b, t]]
    for b, t in valid:
        q_t, v_t = x[b, t] @ params["q_proj"], x[b, t] @ params["v_proj"]
        if spec["share_qk"]:
            window = np.concatenate([conv[b], q_t[None, :]])
            q_t, k_t = (params[f"conv_{view}_bias"] + (params[f"conv_{view}_weight"] * window).sum(axis=0) for view in "qk")
            conv[b] = window[1:]
        else:
            k_t = x[b, t] @ params["k_proj"]
        q[b, t], k[b, t] = (rotate(view.reshape(H, -1), place[b] % K, spec["rope_theta"]) for view in (q_t, k_t))
        v[b, t] = v_t.reshape(H, -1)
        lr[b, t] = sigmoid(x[b, t] @ params["lr_weight"] + params["lr_bias"])
        place[b] += 1
    heads, end = inner(spec, params, q, k, v, lr, state, mask)
    for b, t in valid:
        normed, _ = layer_norm(heads[b, t].reshape(C), params["out_norm_weight"], params["out_norm_bias"], spec["eps"])
        if spec["gate"]:
            normed = normed * gelu(x[b, t] @ params["g_proj"])[0]
        y[b, t] = normed @ params["o_proj"]
    return y.astype(x.dtype), end | ({"conv": conv} if spec["share_qk"] else {})
