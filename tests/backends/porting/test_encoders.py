"""Encoders: every token reads what its whole mini-batch wrote, by default the whole sequence."""

import copy

import numpy as np
import pytest
import torch
from hugging_face_models import DECODERS, PAD, encoder, tokens_of
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, LlamaConfig, ViTConfig, ViTForImageClassification

from ttt_torch import port
from tttcore import InvalidInput, UnknownKeyword, get_backend
from tttcore.inner_model import layer_norm

# Of float64: roundings of 2e-16, which LayerNorms enlarge by up to 1/√ε = 1e3 each, in three layers.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}
every_model = pytest.mark.parametrize("inner", ["linear", "mlp"])


def images(rows=2, size=12):
    return torch.randn(rows, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def vit(inner="linear", layers="all", **options):
    torch.manual_seed(0)
    return port(encoder("vit"), layers, inner=inner, **options)


@every_model
@pytest.mark.parametrize("size", [10, 4], ids=["one mini-batch", "three"])
def test_a_layer_in_numpy(inner, size):
    """o(LN(inner loop of xΘ_Q + b_Q, …)) + b_O, from the weights alone."""
    layer = vit(inner, mini_batch_size=size).layers[1].attention
    own = {name: x.detach().numpy() for name, x in layer.named_parameters()}
    x = np.random.default_rng(0).standard_normal((2, 10, 16))
    views = [(x @ own[f"attention.{name}.weight"].T + own[f"attention.{name}.bias"]).reshape(2, 10, 4, 4) for name in ("q_proj", "k_proj", "v_proj")]
    lr = 1 / (1 + np.exp(-(x @ own["lr_weight"] + own["lr_bias"])))
    heads, _ = get_backend("numpy").inner(layer.spec, {name: own[name] for name in layer.spec.inner_shapes()}, *views, lr)
    normed = layer_norm(heads.reshape(2, 10, 16), own["out_norm_weight"], own["out_norm_bias"], layer.spec.eps)
    expected = normed @ own["attention.o_proj.weight"].T + own["attention.o_proj.bias"]
    torch.testing.assert_close(layer(torch.from_numpy(x))[0], torch.from_numpy(expected), **CLOSE)


@every_model
def test_patches_in_another_order(inner):
    """Without position embeddings, an image whose patches are moved gives the same hidden states, moved."""
    model = vit(inner)
    model.embeddings.position_embeddings = torch.nn.Parameter(torch.zeros(1, 10, 16, dtype=torch.float64))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    patches = images().unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, order]
    moved = patches.unflatten(2, (3, 3)).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 12, 12)
    hidden, expected = model(moved).last_hidden_state, model(images()).last_hidden_state
    torch.testing.assert_close(hidden[:, 1:], expected[:, 1:][:, order], **CLOSE)
    torch.testing.assert_close(hidden[:, 0], expected[:, 0], **CLOSE)


@every_model
def test_every_token_sees_every_other(inner):
    layer = vit(inner).layers[0].attention
    x = torch.randn(1, 10, 16, dtype=torch.float64).requires_grad_()
    for token in range(10):
        (slope,) = torch.autograd.grad(layer(x)[0][0, token].square().sum(), x)
        assert (slope[0].abs().amax(-1) > 0).all()


def test_a_decoder_may_see_all():
    """transformers' ``is_causal=False``: then the first tokens read what the last ones wrote."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**DECODERS["grouped"][1], "is_causal": False, "max_position_embeddings": 16})
    model, ids = port(AutoModelForCausalLM.from_config(config).double().eval(), [0]), tokens_of()
    assert model.config.ttt["spec"]["read_out"] == "whole"
    mask = torch.tensor([[1] * 7 + [0] * 4, [1] * 11])
    whole, padded = model(ids, use_cache=False).logits, model(ids, attention_mask=mask, use_cache=False).logits
    assert (whole[0, :7] - padded[0, :7]).abs().amin(0).max() > 1e-6
    torch.testing.assert_close(padded[:1, :7], model(ids[:1, :7], use_cache=False).logits, **CLOSE)


def test_a_cache_goes_on_at_borders():
    torch.manual_seed(0)
    config = LlamaConfig(**{**DECODERS["grouped"][1], "is_causal": False})
    model, ids = port(AutoModelForCausalLM.from_config(config).double().eval(), mini_batch_size=4), tokens_of()
    whole = model(ids, use_cache=False).logits
    first = model(ids[:, :8], use_cache=True)
    rest = model(ids[:, 8:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole, **CLOSE)
    with pytest.raises(InvalidInput, match=r"state.phase: got \[3, 3\]; expected 0"):
        model(ids[:, :1], past_key_values=rest.past_key_values)


@torch.no_grad()
def test_one_token_alone():
    """Not decoded, as a decoder's would be."""
    torch.manual_seed(0)
    model, ids = port(encoder("bert")), tokens_of()[:, :1]
    with torch.enable_grad():
        expected = model(ids).last_hidden_state
    torch.testing.assert_close(model(ids).last_hidden_state, expected, **CLOSE)


def test_images_larger_than_a_mini_batch():
    """The first patches read what their mini-batch wrote, and not what the next one did."""
    model = vit()
    assert model.layers[0].attention.spec.mini_batch_size == 10
    assert model(images(size=16), interpolate_pos_encoding=True).last_hidden_state.shape == (2, 17, 16)
    layer = model.layers[0].attention
    x = torch.randn(1, 17, 16, dtype=torch.float64).requires_grad_()
    for token, seen in ((0, 10), (9, 10), (10, 17)):
        (slope,) = torch.autograd.grad(layer(x)[0][0, token].square().sum(), x)
        assert (slope[0].abs().amax(-1) > 0).tolist() == [True] * seen + [False] * (17 - seen)


def test_a_folder_of_another_layout_is_refused(tmp_path):
    """Once the read-out stood beside the spec, where it would go unread."""
    model = vit()
    model.config.ttt["causal"] = False
    model.save_pretrained(tmp_path)
    with pytest.raises(UnknownKeyword, match=r"config.ttt: unknown keyword: got \['causal'\]"):
        AutoModel.from_pretrained(tmp_path)


def test_padding_of_text_changes_nothing():
    torch.manual_seed(0)
    model, ids = port(encoder("bert"), "alternate"), tokens_of()
    mask = torch.tensor([[1] * 7 + [0] * 4, [1] * 11])
    padded = model(torch.where(mask == 1, ids, PAD), attention_mask=mask).last_hidden_state
    torch.testing.assert_close(padded[:1, :7], model(ids[:1, :7]).last_hidden_state, **CLOSE)
    torch.testing.assert_close(padded[1:], model(ids[1:]).last_hidden_state, **CLOSE)


@torch.no_grad()
def test_saved_encoders_are_the_same(tmp_path):
    model = vit("mlp", "alternate")
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path)(images()).last_hidden_state, model(images()).last_hidden_state, **CLOSE)
    torch.manual_seed(0)
    config = ViTConfig(**{key: value for key, value in encoder("vit").config.to_dict().items() if key != "model_type"}, num_labels=3)
    classifier = port(ViTForImageClassification(config).double().eval())
    classifier.save_pretrained(tmp_path / "classifier")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "classifier")
    torch.testing.assert_close(loaded(images()).logits, classifier(images()).logits, **CLOSE)


def test_a_step_of_training_lowers_the_loss():
    torch.manual_seed(0)
    model = copy.deepcopy(vit("mlp")).float().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = (model(images().float()).last_hidden_state - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
