"""Token by token: decoders in a cache, one for each layer, and that nobody sees them."""

import copy
import dataclasses
import pickle

import pytest
import torch
from small_models import CLOSE, EXACT, every_kind, model_of, tokens_of

from ttt_torch import BACKEND, TTTLayer
from ttt_torch.decoder import Decoder
from ttt_torch.models import TTTCache
from tttcore import InvalidInput, LayerSpec
from tttcore.tree import leaves, tree_map


class InPlace(Decoder):
    """As kernels do it: the same tensors at every step, written over."""

    def __init__(self, spec, params, state):
        super().__init__(spec, params, tree_map(torch.clone, state))

    def step(self, q, k, v, lr):
        before = self._state
        y = super().step(q, k, v, lr)
        for x, new in zip(leaves(before), leaves(self._state), strict=True):
            x.copy_(new)
        self._state = before
        return y

    def state(self):
        return tree_map(torch.clone, self._state)


@pytest.fixture(params=[Decoder, InPlace])
def made(request, monkeypatch):
    """The decoders that were made, of either kind."""
    made = []

    def decoder(*args):
        made.append(request.param(*args))
        # In place, the table of phases must not be what is written over.
        made[-1]._state = made[-1]._state._replace(phase=made[-1]._state.phase.clone())
        return made[-1]

    backend = dataclasses.replace(BACKEND, decoder_function=decoder)
    monkeypatch.setattr("ttt_torch.layer.get_backend", lambda name: backend)
    return made


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def steps(model, ids, cache):
    return torch.cat([model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(ids.shape[1])], 1)


def same(cache, other):
    torch.testing.assert_close(list(leaves(cache.memories)), list(leaves(other.memories)), **CLOSE)


@every_kind
@pytest.mark.parametrize("in_phase", [True, False])
def test_tokens_one_by_one_are_the_whole(backbone, inner, in_phase, made):
    model, ids = model_of(backbone, inner), tokens_of(2, 16)
    mask = torch.ones_like(ids[:, :5])
    mask[0, :2] = int(in_phase)
    cache = model(ids[:, :5], attention_mask=mask, use_cache=True).past_key_values
    whole = model(ids, attention_mask=torch.cat([mask, torch.ones_like(ids[:, 5:])], 1), use_cache=True)
    torch.testing.assert_close(steps(model, ids[:, 5:], cache), whole.logits[:, 5:], **CLOSE)
    assert len(made) == 2, "one for each layer"
    same(cache, whole.past_key_values)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copy_is_a_place_to_come_back_to(copied, made):
    model, ids = model_of(inner="mlp"), tokens_of(2, 12)
    cache = model(ids[:, :3], use_cache=True).past_key_values
    steps(model, ids[:, 3:5], cache)
    before = copied(cache)
    expected, first = cache.memories, steps(model, ids[:, 5:], cache)
    torch.testing.assert_close(list(leaves(before.memories)), list(leaves(expected)), **EXACT)
    torch.testing.assert_close(steps(model, ids[:, 5:], before), first, **CLOSE)
    assert (before.get_seq_length(), cache.get_seq_length()) == (12, 12)
    same(before, cache)


def test_other_calls_between_tokens(made):
    """Several tokens, a mask, rows chosen, a look without moving on, gradients."""
    model, ids = model_of(), tokens_of(2, 14)
    whole = model(ids).logits
    cache = model(ids[:, :3], use_cache=True).past_key_values
    found = [steps(model, ids[:, 3:5], cache), model(ids[:, 5:8], past_key_values=cache).logits, steps(model, ids[:, 8:9], cache)]
    model(ids[:, :1], past_key_values=cache, use_cache=False)
    found.append(steps(model, ids[:, 9:10], cache))
    with torch.enable_grad():
        found.append(model(ids[:, 10:11], past_key_values=cache).logits.detach())
    cache.batch_select_indices(torch.tensor([1, 0]))
    found.append(steps(model, ids.flip(0)[:, 11:12], cache).flip(0))
    cache.batch_select_indices(torch.tensor([1, 0]))
    one = torch.tensor([[1], [0]])
    found.append(model(ids[:, 12:13], attention_mask=one, past_key_values=cache).logits)
    found.append(steps(model, ids[:, 13:], cache))
    torch.testing.assert_close(torch.cat(found, 1)[0], whole[0, 3:], **CLOSE)
    without = torch.cat([ids[:, :12], ids[:, 13:]], 1)
    torch.testing.assert_close(found[-1][1], model(without).logits[1, -1:], **CLOSE)


def test_parameters_may_change_between_tokens(made):
    model, ids = model_of(), tokens_of(2, 8)
    cache = model(ids[:, :3], use_cache=True).past_key_values
    steps(model, ids[:, 3:4], cache)
    layer = model.model.layers[0].seq_modeling_block
    changes = [lambda: layer.token_lr_offset.add_(0.5), lambda: setattr(layer.norm_bias, "data", layer.norm_bias + 1), lambda: model.float().double()]
    for number, change in enumerate(changes, start=4):
        change()
        before = copy.copy(cache)
        torch.testing.assert_close(steps(model, ids[:, number : number + 1], cache), steps(model, ids[:, number : number + 1], before), **CLOSE)
        same(cache, before)


def test_a_cache_may_go_on_in_a_copy_of_the_model(made):
    model, ids = model_of(), tokens_of(2, 8)
    cache = model(ids[:, :3], use_cache=True).past_key_values
    steps(model, ids[:, 3:5], cache)
    other = copy.deepcopy(model)
    other.model.layers[1].seq_modeling_block.norm_weight.mul_(2)
    expected = steps(other, ids[:, 5:], copy.copy(cache))
    torch.testing.assert_close(steps(other, ids[:, 5:], cache), expected, **CLOSE)


def test_a_call_that_ends_within_a_token(made, monkeypatch):
    model, ids = model_of(), tokens_of(2, 8)
    cache = model(ids[:, :3], use_cache=True).past_key_values
    steps(model, ids[:, 3:4], cache)
    before = copy.copy(cache)
    with monkeypatch.context() as patch:
        patch.setattr(model.model.layers[1].mlp, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            steps(model, ids[:, 4:5], cache)
    for use in (lambda: steps(model, ids[:, 4:5], cache), lambda: model(ids, past_key_values=cache), lambda: copy.copy(cache)):
        with pytest.raises(
            InvalidInput, match=r"got a cache whose last call ended within a token; .* Fix: go on from a copy.copy\(cache\) of before"
        ):
            use()
    torch.testing.assert_close(steps(model, ids[:, 4:], before), model(ids).logits[:, 4:], **CLOSE)
    cache.reset()
    torch.testing.assert_close(steps(model, ids, cache), model(ids).logits, **CLOSE)


def test_a_kernel_without_a_decoder_computes_calls(monkeypatch):
    backend = dataclasses.replace(BACKEND, decoder_function=None)
    monkeypatch.setattr("ttt_torch.layer.get_backend", lambda name: backend)
    model, ids = model_of(), tokens_of(2, 8)
    assert model.model.layers[0].seq_modeling_block.decoder(None) is None
    torch.testing.assert_close(steps(model, ids, TTTCache()), model(ids).logits, **CLOSE)


def test_a_layers_decoder_says_what_it_wants():
    layer = TTTLayer(LayerSpec(8, 2))
    _, state = layer(torch.ones(2, 3, 8))
    with pytest.raises(InvalidInput, match=r"shape of x: got \(2, 2, 8\); expected \(2, 1, 8\)"):
        layer.decoder(state).step(torch.ones(2, 2, 8))
    with pytest.raises(InvalidInput, match=r"state.weights: got \['W1', 'b1'\]; expected \['W1', 'W2', 'b1', 'b2'\]"):
        TTTLayer(LayerSpec(8, 2, inner="mlp")).decoder(state)
