"""Parameters of the authors' code bases: read, written back exactly, and refused when they do not fit."""

import types

import ml_dtypes
import numpy as np
import pytest
import torch

from tttcore import InvalidInput, LayerSpec, UnknownKeyword, init, inner_params
from tttcore.upstream import from_jax, from_pytorch, to_jax, to_pytorch

C, H, D, K, W = 12, 3, 4, 5, 4
DTYPES = ("float16", "float32", "float64")
variants = [(inner, share_qk, gate) for inner in ("linear", "mlp") for share_qk in (False, True) for gate in (False, True)]
every_variant = pytest.mark.parametrize(("inner", "share_qk", "gate"), variants)


def drawn(shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def inner_shapes(inner, one, two):
    """W and b under the names of the two affine maps ``one`` and ``two`` (a format with W or b)."""
    wide = {"W": (H, D, 4 * D), "b": (H, 1, 4 * D)} if inner == "mlp" else {"W": (H, D, D), "b": (H, 1, D)}
    shapes = {one[0]: wide["W"], one[1]: wide["b"]}
    return shapes | ({two[0]: (H, 4 * D, D), two[1]: (H, 1, D)} if inner == "mlp" else {})


def pytorch_dict(inner, share_qk, gate, dtype="float32"):
    """A state dict as ttt-lm-pytorch has it: torch.nn.Linear is [out, in], torch.nn.Conv1d is [channels, 1, width]."""
    shapes = inner_shapes(inner, ("W1", "b1"), ("W2", "b2"))
    shapes |= {"ttt_norm_weight": (H, D), "ttt_norm_bias": (H, D), "learnable_token_idx": (K,)}
    shapes |= {"learnable_ttt_lr_weight": (H, 1, C), "learnable_ttt_lr_bias": (H, 1)}
    shapes |= {f"{name}_proj.weight": (C, C) for name in ("q", "v", "o", *([] if share_qk else ["k"]), *(["g"] if gate else []))}
    if share_qk:
        shapes |= {"conv_q.weight": (C, 1, W), "conv_q.bias": (C,), "conv_k.weight": (C, 1, W), "conv_k.bias": (C,)}
    return drawn(shapes | {"post_norm.weight": (C,), "post_norm.bias": (C,)}, dtype)


def jax_dict(inner, share_qk, gate, dtype="float32"):
    """Parameters as ttt-lm-jax has them: Dense kernels are [in, out], Conv kernels [width, 1, channels]."""
    shapes = inner_shapes(inner, ("ttt_dense_0", "ttt_bias_0"), ("ttt_dense_1", "ttt_bias_1"))
    shapes |= {"ttt_norm/scale": (H, D), "ttt_norm/bias": (H, D), "learnable_token_idx": (K,)}
    shapes |= {"learnable_ttt_lr/kernel": (H, C, 1), "learnable_ttt_lr/bias": (H, 1)}
    shapes |= {f"w{name}/kernel": (C, C) for name in ("q", "v", "o", *([] if share_qk else ["k"]), *(["g"] if gate else []))}
    if share_qk:
        shapes |= {"conv_q/kernel": (W, 1, C), "conv_q/bias": (C,), "conv_k/kernel": (W, 1, C), "conv_k/bias": (C,)}
    return drawn(shapes | {"post_norm/scale": (C,), "post_norm/bias": (C,)}, dtype)


def pytorch_config(inner="linear", share_qk=False, gate=False):
    return {
        "hidden_size": C,
        "num_attention_heads": H,
        "mini_batch_size": K,
        "ttt_base_lr": 0.5,
        "ttt_layer_type": inner,
        "share_qk": share_qk,
        "use_gate": gate,
        "conv_kernel": W,
        "rope_theta": 500.0,
        "vocab_size": 32000,
    }


JAX_CONFIG = {"hidden_size": C, "num_attention_heads": H, "mini_batch_size": K, "ttt_base_lr": 0.5, "conv_width": W, "rope_theta": 500.0}


def nested(flat):
    tree = {}
    for path, x in flat.items():
        *folders, last = path.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[last] = x
    return tree


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype, name
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def expected_spec(inner, share_qk, gate):
    return LayerSpec(C, H, inner=inner, mini_batch_size=K, base_lr=0.5, share_qk=share_qk, gate=gate, conv_width=W, rope_theta=500.0)


@pytest.mark.parametrize("dtype", DTYPES)
@every_variant
def test_pytorch_round_trip(inner, share_qk, gate, dtype):
    theirs = pytorch_dict(inner, share_qk, gate, dtype)
    spec, params = from_pytorch(theirs, pytorch_config(inner, share_qk, gate))
    assert spec == expected_spec(inner, share_qk, gate)
    assert {name: x.shape for name, x in params.items()} == spec.param_shapes()
    assert_same(to_pytorch(spec, params), theirs)
    ours = init(spec, 0)
    assert_same(from_pytorch(to_pytorch(spec, ours), pytorch_config(inner, share_qk, gate))[1], ours)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["paths", "nested"])
@every_variant
def test_jax_round_trip(inner, share_qk, gate, form, dtype):
    theirs = jax_dict(inner, share_qk, gate, dtype)
    spec, params = from_jax(theirs if form == "paths" else nested(theirs), JAX_CONFIG)
    assert spec == expected_spec(inner, share_qk, gate)
    assert {name: x.shape for name, x in params.items()} == spec.param_shapes()
    assert_same(to_jax(spec, params), theirs)
    ours = init(spec, 0)
    assert_same(from_jax(to_jax(spec, ours), JAX_CONFIG)[1], ours)


def test_the_layouts_of_pytorch():
    theirs = pytorch_dict("mlp", True, True)
    _, params = from_pytorch(theirs, pytorch_config("mlp", True, True))
    np.testing.assert_array_equal(params["W1"], theirs["W1"])
    np.testing.assert_array_equal(params["b2"], theirs["b2"])
    np.testing.assert_array_equal(params["norm_bias"], theirs["ttt_norm_bias"])
    np.testing.assert_array_equal(params["token_lr_offset"], theirs["learnable_token_idx"])
    np.testing.assert_array_equal(params["out_norm_weight"], theirs["post_norm.weight"])
    x = np.random.default_rng(1).normal(size=(2, C)).astype(np.float32)
    for letter in "qvog":
        linear = torch.nn.functional.linear(torch.tensor(x), torch.tensor(theirs[f"{letter}_proj.weight"])).numpy()
        np.testing.assert_allclose(x @ params[f"{letter}_proj"], linear, rtol=0, atol=C * np.finfo(np.float32).eps * np.max(np.abs(linear)))
    for h in range(H):
        np.testing.assert_array_equal(params["lr_weight"][:, h], theirs["learnable_ttt_lr_weight"][h, 0])
        assert params["lr_bias"][h] == theirs["learnable_ttt_lr_bias"][h, 0]
    for tap in range(W):
        np.testing.assert_array_equal(params["conv_k_weight"][tap], theirs["conv_k.weight"][:, 0, tap])


def test_the_layouts_of_jax():
    theirs = jax_dict("mlp", True, True)
    _, params = from_jax(theirs, JAX_CONFIG)
    for ours, name in (
        ("W1", "ttt_dense_0"),
        ("b1", "ttt_bias_0"),
        ("W2", "ttt_dense_1"),
        ("norm_weight", "ttt_norm/scale"),
        ("q_proj", "wq/kernel"),
    ):
        np.testing.assert_array_equal(params[ours], theirs[name])
    for h in range(H):
        np.testing.assert_array_equal(params["lr_weight"][:, h], theirs["learnable_ttt_lr/kernel"][h, :, 0])
    for tap in range(W):
        np.testing.assert_array_equal(params["conv_q_weight"][tap], theirs["conv_q/kernel"][tap, 0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_are_accepted_also_those_of_a_module(dtype):
    arrays = pytorch_dict("linear", False, False, "float64")
    tensors = {name: torch.nn.Parameter(torch.tensor(x).to(getattr(torch, dtype))) for name, x in arrays.items()}
    spec, params = from_pytorch(tensors, pytorch_config())
    kept = "float32" if dtype == "bfloat16" else dtype
    assert_same(to_pytorch(spec, params), {name: x.astype(getattr(ml_dtypes, dtype, dtype)).astype(kept) for name, x in arrays.items()})
    assert all(tensor.requires_grad for tensor in tensors.values())


def test_gradients_travel_back_by_the_same_names():
    spec, params = from_pytorch(pytorch_dict("linear", True, False), pytorch_config("linear", True))
    some = {name: params[name] for name in ("q_proj", "W1")}
    assert set(to_pytorch(spec, some)) == {"q_proj.weight", "W1"}
    assert set(to_jax(spec, some)) == {"wq/kernel", "ttt_dense_0"}


@pytest.mark.parametrize("wrap", [dict, lambda config: types.SimpleNamespace(**config)], ids=["dict", "object"])
def test_a_config_is_a_dict_or_an_object(wrap):
    spec, _ = from_pytorch(pytorch_dict("mlp", True, True), wrap(pytorch_config("mlp", True, True)))
    assert spec == expected_spec("mlp", True, True)
    assert from_jax(jax_dict("mlp", True, True), wrap(JAX_CONFIG))[0] == spec


def test_a_short_config_has_the_defaults_of_the_authors():
    theirs = pytorch_dict("linear", False, False) | drawn({"learnable_token_idx": (16,)})
    spec, _ = from_pytorch(theirs, {"hidden_size": C, "num_attention_heads": H})
    assert spec == LayerSpec(C, H, mini_batch_size=16, base_lr=1.0, rope_theta=10000.0)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
@pytest.mark.parametrize("gate", [False, True])
def test_an_inner_loop_alone(inner, gate):
    theirs = pytorch_dict(inner, False, False)
    whole = from_pytorch(theirs, pytorch_config(inner))[1]
    left = {name: x for name, x in theirs.items() if "proj" not in name and "post_norm" not in name and (gate or "ttt_lr" not in name)}
    spec, params = from_pytorch(left, pytorch_config(inner))
    assert_same(params, inner_params(spec, whole) | {name: whole[name] for name in ("lr_weight", "lr_bias") if gate})
    assert_same(to_pytorch(spec, params), left)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("o_proj.weight"), "state_dict: got no 'o_proj.weight'; expected 'o_proj.weight', our 'o_proj'"),
        (lambda d: d.pop("W1"), "state_dict: got no 'W1'"),
        (lambda d: d.update({"W2": d["W1"], "b2": d["b1"]}), "state_dict: got ['W2', 'b2']; expected only what the config asks for"),
        (lambda d: d.update({"g_proj.weight": d["q_proj.weight"]}), "state_dict: got ['g_proj.weight']"),
        (lambda d: d.update({"q_proj.bias": d["post_norm.bias"]}), "state_dict: unknown keyword: got ['q_proj.bias']"),
        (lambda d: d.update({"layers.0.W1": d.pop("W1")}), "state_dict: unknown keyword: got ['layers.0.W1']"),
        (lambda d: d.update({"W1": d["W1"][:1]}), "state_dict['W1']: got (1, 4, 4); expected (3, 4, 4) in our layout"),
        (lambda d: d.update({"q_proj.weight": d["q_proj.weight"][:4]}), "state_dict['q_proj.weight']: got (12, 4); expected (12, 12)"),
        (lambda d: d.update({"learnable_token_idx": np.zeros(16)}), "state_dict['learnable_token_idx']: got (16,); expected (5,)"),
        (lambda d: [d.pop(f"{name}_proj.weight") for name in "qkv"], "state_dict: got no 'q_proj.weight'"),
        (lambda d: d.update({"learnable_ttt_lr_bias": d["learnable_ttt_lr_bias"][:, 0]}), "state_dict['learnable_ttt_lr_bias']: got (3,)"),
        (lambda d: d.update({"learnable_ttt_lr_weight": np.zeros((H, 2, C))}), "state_dict['learnable_ttt_lr_weight']: got (3, 2, 12)"),
        (lambda d: d.update({"q_proj.weight": np.zeros(C)}), "state_dict['q_proj.weight']: got (12,); expected (12, 12)"),
    ],
)
def test_a_state_dict_that_does_not_fit(change, message):
    theirs = pytorch_dict("linear", False, False)
    change(theirs)
    with pytest.raises(InvalidInput) as caught:
        from_pytorch(theirs, pytorch_config())
    assert message in str(caught.value)
    assert "Fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("wo/kernel"), "got no 'wo/kernel'; expected 'wo/kernel', our 'o_proj'"),
        (lambda d: d.pop("wk/kernel"), "got no 'conv_q/kernel'"),
        (lambda d: d.pop("ttt_bias_0"), "got no 'ttt_bias_0'"),
        (lambda d: d.update({"wz/kernel": d["wq/kernel"]}), "unknown keyword: got ['wz/kernel']"),
        (lambda d: d.update({"learnable_ttt_lr/kernel": np.zeros((H, C))}), "state_dict['learnable_ttt_lr/kernel']: got (3, 12)"),
        (lambda d: d.update({"wq/kernel": d["wq/kernel"][:4]}), "state_dict['wq/kernel']: got (4, 12); expected (12, 12)"),
    ],
)
def test_jax_parameters_that_do_not_fit(change, message):
    theirs = jax_dict("linear", False, False)
    change(theirs)
    with pytest.raises(InvalidInput) as caught:
        from_jax(theirs, JAX_CONFIG)
    assert message in str(caught.value)
    assert "Fix: " in str(caught.value)


@pytest.mark.parametrize("wrap", [dict, lambda config: types.SimpleNamespace(**config)], ids=["dict", "object"])
@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads"])
def test_a_config_without_the_sizes(key, wrap):
    config = {name: value for name, value in pytorch_config().items() if name != key}
    with pytest.raises(InvalidInput, match=rf"config: got no '{key}'; expected a value for '{key}'\. Fix: "):
        from_pytorch(pytorch_dict("linear", False, False), wrap(config))


def test_a_config_of_another_layer_type():
    with pytest.raises(InvalidInput, match=r"inner: got 'gru'; expected one of \['linear', 'mlp'\]"):
        from_pytorch(pytorch_dict("linear", False, False), pytorch_config("gru"))
    with pytest.raises(InvalidInput, match=r"state_dict\['W1'\]: got \(3, 4, 4\); expected \(3, 4, 16\)"):
        from_pytorch(pytorch_dict("linear", False, False), pytorch_config("mlp"))


@pytest.mark.parametrize("convert", [to_pytorch, to_jax])
def test_our_own_names_are_checked_on_the_way_back(convert):
    spec = LayerSpec(C, H)
    with pytest.raises(UnknownKeyword, match=r"params: unknown keyword: got \['q_prj'\].*Fix: use 'q_proj'"):
        convert(spec, {"q_prj": np.ones((C, C))})
    with pytest.raises(UnknownKeyword, match=r"got \['g_proj'\]"):
        convert(spec, {"g_proj": np.ones((C, C))})
