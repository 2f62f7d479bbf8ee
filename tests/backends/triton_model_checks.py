"""Checks of language models on the Triton kernels, on a GPU or in Triton's interpreter; ``test_ttt_triton`` runs them on their own."""

import copy

import pytest
import torch
from on_triton import DEVICE
from small_models import CLOSE, model_of, tokens_of

import ttt_triton.decode.decoder
from tttcore.tree import leaves

MORE = 8
"""How much further from float64 the kernels may be than PyTorch in float32: they sum in another order, on a GPU in tf32 thrice."""


def of_both(inner, dtype=torch.float32):
    """Equal models in float64 and float32 on PyTorch, and in ``dtype`` on the kernels."""
    exact = model_of(inner=inner, num_hidden_layers=1)
    kernels = model_of(inner=inner, num_hidden_layers=1, kernel="triton", dtype=torch.float32)
    kernels.load_state_dict(exact.state_dict())
    return exact.to(DEVICE), copy.deepcopy(exact).float().to(DEVICE), kernels.to(DEVICE, dtype)


def near(found, exact, other):
    """``found`` is not much further from ``exact`` than ``other``, and a rounding of the largest."""
    band = torch.finfo(torch.float32).eps * exact.abs().max()
    assert (found.double() - exact).abs().max() <= MORE * ((other.double() - exact).abs().max() + band)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_a_step_of_training(inner):
    ids, found = tokens_of(2, 6).to(DEVICE), []
    for model in of_both(inner):
        out = model(ids, labels=ids)
        out.loss.backward()
        found.append([out.logits.detach(), *(x.grad for x in model.parameters())])
    for exact, other, kernels in zip(*found, strict=True):
        near(kernels, exact, other)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
@torch.no_grad()
def test_tokens_one_by_one_and_a_copy(inner, monkeypatch):
    """Across a border of mini-batches; a decoder for each layer and time that a cache is taken up."""
    made, init = [], ttt_triton.decode.decoder.Decoder.__init__
    monkeypatch.setattr(ttt_triton.decode.decoder.Decoder, "__init__", lambda self, *args, **options: made.append(1) or init(self, *args, **options))
    ids, found = tokens_of(2, 7).to(DEVICE), []
    for model in of_both(inner):
        out = model(ids[:, :2], use_cache=True)
        logits, cache = [out.logits], out.past_key_values
        for t in range(2, 7):
            logits.append(model(ids[:, t : t + 1], past_key_values=cache).logits)
            if t == 3:
                before = copy.copy(cache)
        logits.append(model(ids[:, 4:5], past_key_values=before).logits)
        found.append([torch.cat(logits, 1), *(x.double() for x in leaves(cache.memories))])
    torch.testing.assert_close(found[0][0][:, 7], found[0][0][:, 4], **CLOSE)
    for exact, other, kernels in zip(*found, strict=True):
        near(kernels, exact, other)
    assert len(made) == 2


@torch.no_grad()
def test_generation():
    ids = tokens_of(2, 5).to(DEVICE)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    exact, _, kernels = of_both("linear")
    found = [model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False) for model in (exact, kernels)]
    assert torch.equal(*found)


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter does not compute in bfloat16")
def test_narrow_tokens():
    ids = tokens_of(2, 40).to(DEVICE)
    exact, other, kernels = of_both("linear")
    with torch.autocast("cuda", torch.bfloat16):
        found = [model(ids, labels=ids) for model in (other, kernels)]
    found[1].loss.backward()
    assert {x.grad.dtype for x in kernels.parameters()} == {torch.float32}
    losses = [out.loss.double() - exact(ids, labels=ids).loss for out in found]
    assert abs(losses[1]) <= MORE * abs(losses[0]) + 2.0**-8
