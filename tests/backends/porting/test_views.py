"""A ported layer has the views of the attention that it stands for, and is a layer of the specification."""

import copy
import types

import pytest
import torch
from hugging_face_models import DECODERS, K, decoder, tokens_of
from transformers import AttentionInterface

import tttcore
from ttt_torch import port
from ttt_torch.porting import ARCHITECTURES, TTTAttention
from ttt_torch.porting.observe import observed
from tttcore import LayerSpec, Stack, get_backend

LENGTHS = (1, K - 1, K, 2 * K + 3)


def attention_of(model, layer=1):
    """The self-attention of a layer, ported or not."""
    model_type = model.config.model_type.removeprefix("ttt_")
    parent, name = ARCHITECTURES[model_type].modules(model)[layer]
    return getattr(parent, name)


def own_views(attention, x, model, position):
    """q, k, v ``[B, T, H, D]`` that the module as transformers has it hands to softmax, at these positions."""
    found = []

    def record(module, query, key, value, mask, **_):
        groups = query.shape[1] // key.shape[1]
        # Head h of the queries sees head h // groups of the keys and values: this is what grouped attention means.
        chosen = torch.arange(query.shape[1]) // groups
        found.extend(x.transpose(1, 2) for x in (query, key[:, chosen], value[:, chosen]))
        return query.transpose(1, 2), None

    AttentionInterface.register("recording", record)
    attention = copy.deepcopy(attention)
    attention.config._attn_implementation = "recording"
    rotary = getattr(model.base_model, "rotary_emb", None)
    attention(x, attention_mask=None, **({} if rotary is None else {"position_embeddings": rotary(x, position)}))
    return found


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_views_are_those_of_attention(name, length, monkeypatch):
    """q_t, k_t, v_t of the inner loop = attention's own at position t mod K, bit for bit; at t < K, plainly its own."""
    model = decoder(name)
    ported = port(model, mini_batch_size=K)
    x = torch.randn(2, length, 16, dtype=torch.float64)
    layer, given = attention_of(ported), []

    def inner(*args, **options):
        given.extend(args[2:5])
        return get_backend("torch").inner(*args, **options)

    monkeypatch.setattr(layer, "_backend", types.SimpleNamespace(inner=inner))
    layer(x)
    position = torch.arange(length)[None].expand(2, -1)
    for views in (given, layer.views(x, position % K)):
        for ours, theirs in zip(views, own_views(attention_of(model), x, model, position % K), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    if length <= K:
        for ours, theirs in zip(given, own_views(attention_of(model), x, model, position), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def as_layer(attention, theta, gate):
    """The specification's layer with the same weights, and its spec: Hugging Face turns dimensions m and m + D/2 of a head, tttcore 2m and 2m + 1.

    So everything that has a head's dimensions on an axis is put in the order 0, D/2, 1, D/2 + 1, …; heads of keys and values are repeated.
    """
    module, spec = attention.attention, attention.spec
    heads, dim = spec.heads, spec.head_dim
    order = torch.arange(dim).view(2, -1).T.flatten()
    joined = (torch.arange(heads)[:, None] * dim + order).flatten()

    def projection(linear):
        weight = linear.weight.view(-1, dim, linear.in_features)
        return weight.repeat_interleave(heads // weight.shape[0], 0).flatten(0, 1)[joined].T

    own = dict(attention.named_parameters(recurse=False))
    params = {name: own[name] for name in ("token_lr_offset", "lr_weight", "lr_bias")}
    last = f"{len(spec.inner_model.hidden) + 1}"
    for name in spec.inner_model.weight_shapes(heads, dim):
        weight = own[name][:, order] if name == "W1" else own[name]
        params[name] = weight[..., order] if name[1:] == last else weight
    params |= {name: own[name][:, order] for name in ("norm_weight", "norm_bias")}
    params |= {name: own[name][joined] for name in ("out_norm_weight", "out_norm_bias")}
    params |= {f"{view}_proj": projection(getattr(module, f"{view}_proj")) for view in "qkv"}
    params["o_proj"] = module.o_proj.weight.T[joined]
    if gate:
        params["g_proj"] = own["g_proj"][:, joined]
    layer = LayerSpec(width=heads * dim, heads=heads, inner=spec.inner, mini_batch_size=K, gate=gate, rope_theta=theta)
    return layer, {name: x.contiguous().numpy() for name, x in params.items()}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("inner", "gate"), [("linear", False), ("linear", True), ("mlp", False)])
@pytest.mark.parametrize("shared", [4, 2])
@torch.no_grad()
def test_a_ported_layer_is_the_specifications(shared, inner, gate, length):
    """Up to the order of a head's dimensions; with keys and values of two heads, too, and with padding."""
    torch.manual_seed(0)
    model = decoder("llama", num_key_value_heads=shared)
    ported = port(model, [1], inner=inner, gate=gate, mini_batch_size=K)
    attention = attention_of(ported)
    for x in attention.parameters():
        x.add_(0.1 * torch.randn_like(x))
    spec, params = as_layer(attention, model.config.rope_parameters["rope_theta"], gate)
    x = torch.randn(2, length, 16, dtype=torch.float64)
    mask = torch.rand(2, length) < 0.7
    for given in (None, mask):
        expected, _ = get_backend("numpy").layer(spec, params, x.numpy(), mask=None if given is None else given.numpy())
        y, weights = attention(x, attention_mask=given)
        assert weights is None
        valid = torch.ones_like(mask) if given is None else given
        # Hugging Face's angles are of float32: 6e-8 of up to K radians, which an inner LayerNorm enlarges, tenfold here.
        torch.testing.assert_close(y[valid], torch.from_numpy(expected)[valid], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_bare_model_begins_as_linear_attention(monkeypatch):
    """Theorem 1: y_i = s_i Σ_j≤i ℓ_j (q_i · k_j) v_j with the model's own q, k and v, as long as all tokens are in one mini-batch."""
    model, length = decoder("grouped"), 9
    ported = port(model, inner=Stack(bias=False, residual_norm=False), mini_batch_size=16)
    attention, heads = attention_of(ported), []
    monkeypatch.setattr(TTTAttention, "_output", lambda self, x, y: heads.append(y) or y)
    x = torch.randn(2, length, 16, dtype=torch.float64)
    attention(x)
    params = dict(attention.named_parameters(recurse=False))
    q, k, v = own_views(attention_of(model), x, model, torch.arange(length)[None])
    gates = torch.sigmoid(x @ params["lr_weight"] + params["lr_bias"])
    scores = torch.einsum("bihd,bjhd->bhij", q, k).tril() * gates.transpose(1, 2)[:, :, None]
    scale = attention.spec.base_lr / attention.spec.head_dim / torch.arange(1, length + 1)
    torch.testing.assert_close(heads[0], torch.einsum("bhij,bjhd->bihd", scores * scale[:, None], v))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_a_fresh_port_is_sane(name):
    """Outputs of ported layers are of the size that v has, so o meets what it is used to: between a tenth of attention's and ten times."""
    model = decoder(name)
    ported = port(model, mini_batch_size=K)
    batch = {"input_ids": tokens_of()}
    for layer, (inputs, y) in enumerate(observed(model, [attention_of(model, layer) for layer in range(3)], batch)):
        ours = attention_of(ported, layer)(**inputs)[0]
        assert 0.1 < ours.std() / y.std() < 10


def test_views_are_kept_or_drawn_anew():
    model = decoder("qwen2")
    kept, fresh = (dict(attention_of(port(model, init=init)).attention.named_parameters()) for init in ("attention", "fresh"))
    for name, x in attention_of(model).named_parameters():
        torch.testing.assert_close(kept[name], x, rtol=0, atol=0)
        assert kept[name] is not x
        assert not torch.equal(fresh[name], x)
    assert fresh["q_proj.weight"].std() < 0.04
    assert not fresh["q_proj.bias"].any()


def test_draws_are_those_of_the_seed():
    def drawn():
        torch.manual_seed(3)
        return dict(port(decoder("llama"), inner="mlp", gate=True).named_parameters())

    torch.testing.assert_close(drawn(), drawn(), rtol=0, atol=0)
    params = drawn()
    prefix = "model.layers.1.self_attn."
    assert 0.015 < params[prefix + "W2"].std() < 0.025
    assert torch.equal(params[prefix + "norm_weight"], torch.ones(4, 4, dtype=torch.float64))
    assert tttcore.initial.STANDARD_DEVIATION == 0.02
