"""Autocast and models in bfloat16: what is narrow, what is not, and how far that moves the loss."""

import copy

import pytest
import torch
from small_models import EXACT, every_kind, model_of, tokens_of

from ttt_torch import BACKEND, TTTLayer
from tttcore import LayerSpec
from tttcore.tree import leaves

BF16, STEP = torch.bfloat16, 2.0**-8
"""The distance of neighbours among bfloat16 numbers, of the number: rounding moves one by half of it."""


def dtypes(cache):
    return {x.dtype for x in leaves(cache.memories)}


def moved(model, ids):
    """The most that the loss moves when every parameter moves by up to a step: as much as rounding it and what it is multiplied with."""
    loss, most = model(ids, labels=ids).loss, 0.0
    for seed in range(8):
        generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(model)
        with torch.no_grad():
            for x in other.parameters():
                x.mul_(1 + STEP * (2 * torch.rand(x.shape, generator=generator) - 1))
        most = max(most, abs(other(ids, labels=ids).loss - loss).item())
    return most


@every_kind
def test_autocast_trains_a_float32_model(backbone, inner):
    model, ids = model_of(backbone, inner, dtype=torch.float32), tokens_of()
    exact = model(ids, labels=ids).loss
    with torch.autocast("cpu", BF16):
        out = model(ids, labels=ids, use_cache=True, output_hidden_states=True)
    out.loss.backward()
    assert out.logits.dtype == BF16
    assert {x.dtype for x in (out.loss, *out.hidden_states, *(x.grad for x in model.parameters()))} == {torch.float32}
    assert dtypes(out.past_key_values) <= {torch.float32, torch.int32}
    assert all(torch.isfinite(x.grad).all() for x in model.parameters())
    # Twice: results of products are rounded, too, the queries, keys, values and outputs of the layers among them.
    assert 0 < abs(out.loss - exact) < 2 * moved(model, ids)


@every_kind
def test_a_bfloat16_model_trains(backbone, inner):
    model, ids = model_of(backbone, inner, dtype=torch.float32), tokens_of()
    exact, most = model(ids, labels=ids).loss, moved(model, ids)
    out = model.to(BF16)(ids, labels=ids, use_cache=True, output_hidden_states=True)
    out.loss.backward()
    assert {x.dtype for x in (out.logits, *out.hidden_states, *(x.grad for x in model.parameters()))} == {BF16}
    assert out.loss.dtype == torch.float32
    assert dtypes(out.past_key_values) <= {torch.float32, torch.int32, BF16}
    assert {x.dtype for memory in out.past_key_values.memories for x in leaves(memory.state[:2])} == {torch.float32}
    # Three times: the residual stream is rounded, too.
    assert 0 < abs(out.loss - exact) < 3 * most


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
@pytest.mark.parametrize("rich", [False, True])
def test_a_layer_under_autocast_is_one_of_narrow_tokens_and_projections(rich, dtype):
    spec = LayerSpec(16, 2, inner="mlp" if rich else "linear", mini_batch_size=4, share_qk=rich, gate=rich)
    torch.manual_seed(0)
    layer, x = TTTLayer(spec), torch.randn(2, 11, 16)
    params = {name: p.to(dtype) if name.endswith("_proj") else p for name, p in layer.named_parameters()}
    expected, state = BACKEND.layer(spec, params, x.to(dtype))
    with torch.autocast("cpu", dtype):
        y, end = layer(x)
        again, _ = layer(x.double())
    torch.testing.assert_close(y, expected.float(), **EXACT)
    torch.testing.assert_close(tuple(end), tuple(state), **EXACT)
    torch.testing.assert_close(again, layer(x.double())[0], **EXACT)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        decoder = layer.decoder(end)
        found = decoder.step(x[:, :1]), tuple(decoder.state())
        y, state = layer(x[:, :1], end, form="decode")
    torch.testing.assert_close(found, (y, tuple(state)), **EXACT)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
@pytest.mark.parametrize("cast", [False, True])
@torch.no_grad()
def test_generation_in_bfloat16(inner, cast):
    model, ids = model_of(inner=inner, dtype=torch.float32), tokens_of()
    model = model.to(BF16) if cast else model
    with torch.autocast("cpu", BF16, enabled=not cast):
        found = model.generate(ids, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True)
        # What a token is must be near the best one of the whole sequence, by the roundings of its logits.
        whole = model(found.sequences).logits.float()
    assert found.logits[0].dtype in (BF16, torch.float32)
    for t, logits in enumerate(found.logits, start=10):
        allowed = 64 * STEP * whole[:, t].abs().amax(-1)
        assert ((logits.float() - whole[:, t]).abs().amax(-1) <= allowed).all()
    assert {x.dtype for memory in found.past_key_values.memories for x in leaves(memory.state[:2])} == {torch.float32}
