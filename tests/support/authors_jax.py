"""A language model of ttt-lm-jax in NumPy, token by token, from its nested parameters and its configuration.

Written from the paper and that code's names and shapes alone; nothing of this project computes here.
"""

import numpy as np

LAYERS = {"ttt_linear": (False, True), "ttt_mlp": (True, True), "ttt_linear_base": (False, False), "ttt_mlp_base": (True, False)}
"""seq_modeling_block → whether the inner model has a hidden layer, and whether q and k share a projection and the output has a gate."""


def shapes_of(config):
    """The tree of parameters, as paths joined by "/"."""
    width, heads, inside = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    head, (mlp, rich), taps = width // heads, LAYERS[config["seq_modeling_block"]], config["conv_width"]
    layer = {"learnable_token_idx": (config["mini_batch_size"],)}
    layer |= {"learnable_ttt_lr/kernel": (heads, width, 1), "learnable_ttt_lr/bias": (heads, 1)}
    layer |= {"ttt_norm/scale": (heads, head), "ttt_norm/bias": (heads, head), "post_norm/scale": (width,), "post_norm/bias": (width,)}
    hidden = 4 * head if mlp else head
    layer |= {"ttt_dense_0": (heads, head, hidden), "ttt_bias_0": (heads, 1, hidden)}
    layer |= {"ttt_dense_1": (heads, hidden, head), "ttt_bias_1": (heads, 1, head)} if mlp else {}
    layer |= {f"{name}/kernel": (width, width) for name in (("wq", "wv", "wo", "wg") if rich else ("wq", "wk", "wv", "wo"))}
    if rich:
        layer |= {f"conv_{view}/kernel": (taps, 1, width) for view in "qk"} | {f"conv_{view}/bias": (width,) for view in "qk"}
    block = {f"seq_modeling_block/{name}": shape for name, shape in layer.items()}
    block |= {"seq_norm/kernel": (width,), "ffn_norm/kernel": (width,)}
    block |= {"feed_forward/w1/kernel": (width, inside), "feed_forward/w2/kernel": (inside, width), "feed_forward/w3/kernel": (width, inside)}
    if config["pre_conv"]:
        block |= {"conv/conv1/kernel": (taps, 1, width), "conv/conv1/bias": (width,), "conv/conv_norm/kernel": (width,)}
    tree = {"model/wte/embedding": (config["vocab_size"], width), "model/ln_f/kernel": (width,)}
    for number in range(config["num_hidden_layers"]):
        tree |= {f"model/h/{number}/{name}": shape for name, shape in block.items()}
    return tree | ({} if config["tie_word_embeddings"] else {"lm_head/kernel": (width, config["vocab_size"])})


def logits_of(flat, config, tokens):
    """tokens ``[T]`` → ``[T, V]``."""
    x = flat["model/wte/embedding"][tokens]
    for number in range(config["num_hidden_layers"]):
        prefix = f"model/h/{number}/"
        params = {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}

        def norm(x, name, params=params):
            return rms(x, params[f"{name}/kernel"], config["rms_norm_eps"])

        if config["pre_conv"]:
            x = x + convolved(norm(x, "conv/conv_norm"), params["conv/conv1/kernel"], params["conv/conv1/bias"])
        own = {name.removeprefix("seq_modeling_block/"): value for name, value in params.items() if name.startswith("seq_modeling_block/")}
        x = x + layer(own, config, norm(x, "seq_norm"))
        z = norm(x, "ffn_norm")
        gate = z @ params["feed_forward/w1/kernel"]
        x = x + (gate / (1 + np.exp(-gate)) * (z @ params["feed_forward/w3/kernel"])) @ params["feed_forward/w2/kernel"]
    x = rms(x, flat["model/ln_f/kernel"], config["rms_norm_eps"])
    return x @ (flat["model/wte/embedding"].T if config["tie_word_embeddings"] else flat["lm_head/kernel"])


def layer(params, config, x):
    """x ``[T, C]`` → ``[T, C]``."""
    (mlp, rich), heads = LAYERS[config["seq_modeling_block"]], config["num_attention_heads"]
    q, v = x @ params["wq/kernel"], x @ params["wv/kernel"]
    if rich:
        q, k = (convolved(q, params[f"conv_{view}/kernel"], params[f"conv_{view}/bias"]) for view in "qk")
    else:
        k = x @ params["wk/kernel"]
    found = [head(params, config, x, *(view.reshape(len(x), heads, -1)[:, number] for view in (q, k, v)), number, mlp) for number in range(heads)]
    z = layer_norm(np.concatenate(found, axis=1), params["post_norm/scale"], params["post_norm/bias"])
    return (z * gelu(x @ params["wg/kernel"]) if rich else z) @ params["wo/kernel"]


def head(params, config, x, q, k, v, number, mlp):
    """One head: each token reads weights that its own step and those before it in the mini-batch have changed."""
    size, width = config["mini_batch_size"], q.shape[1]
    scale, shift = params["ttt_norm/scale"][number], params["ttt_norm/bias"][number]
    start = [params[name][number] for name in ("ttt_dense_0", "ttt_bias_0", *(("ttt_dense_1", "ttt_bias_1") if mlp else ()))]
    rates = 1 / (1 + np.exp(-(x @ params["learnable_ttt_lr/kernel"][number, :, 0] + params["learnable_ttt_lr/bias"][number, 0])))
    ys = []
    for t in range(len(x)):
        place = t % size
        if place == 0:
            steps = [np.zeros_like(w) for w in start]
        query, key = rotated(q[t], place, config["rope_theta"]), rotated(k[t], place, config["rope_theta"])
        reader = config["ttt_base_lr"] / width * max(0.0, 1 / (place + 1) + params["learnable_token_idx"][place])
        steps = [step + rates[t] * gradient for step, gradient in zip(steps, slopes(start, key, v[t] - key, scale, shift), strict=True)]
        weights = [w - reader * step for w, step in zip(start, steps, strict=True)]
        ys.append(query + layer_norm(run(weights, query)[-1][0], scale, shift))
        if place == size - 1:
            start = weights
    return np.stack(ys)


def run(weights, row):
    """The inputs of the affine maps and the last one's output, as rows ``[1, ·]``."""
    first = row[None] @ weights[0] + weights[1]
    return (row[None], first) if len(weights) == 2 else (row[None], first, gelu(first), gelu(first) @ weights[2] + weights[3])


def slopes(weights, row, target, scale, shift):
    """The gradient of ½‖LN(f(row)) − target‖² with respect to all weights."""
    x, first, *rest = run(weights, row)
    z = (rest[-1] if rest else first)[0]
    deviation = np.sqrt(np.var(z) + 1e-6)
    normal = (z - z.mean()) / deviation
    by_normal = (normal * scale + shift - target) * scale
    by_z = ((by_normal - by_normal.mean() - normal * (by_normal * normal).mean()) / deviation)[None]
    if not rest:
        return [x.T @ by_z, by_z]
    by_first = by_z @ weights[2].T * gelu_slope(first)
    return [x.T @ by_first, by_first, rest[0].T @ by_z, by_z]


def rotated(row, place, theta):
    """Pairs of neighbours, as complex numbers, turned."""
    turned = (row[0::2] + 1j * row[1::2]) * np.exp(1j * place * theta ** (-np.arange(0, len(row), 2) / len(row)))
    return np.stack([turned.real, turned.imag], axis=1).ravel()


def convolved(x, kernel, bias):
    """Causal and by channel; kernel ``[taps, 1, C]``."""
    padded = np.concatenate([np.zeros((len(kernel) - 1, x.shape[1])), x])
    return np.stack([np.sum(padded[t : t + len(kernel)] * kernel[:, 0], axis=0) for t in range(len(x))]) + bias


def rms(x, weight, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x, scale, shift):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + shift


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    tanh = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
