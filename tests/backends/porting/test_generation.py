"""Ported models in ``generate``: states of TTT layers beside keys and values of attention."""

import copy

import pytest
import torch
from hugging_face_models import PAD, PORTS, K, decoder, tokens_of
from transformers import DynamicCache, StaticCache

from ttt_torch import port
from ttt_torch.porting import TTTCacheLayer
from tttcore import InvalidInput
from tttcore.tree import leaves

# Of float64: roundings of 2e-16, which LayerNorms enlarge by up to 1/√ε = 1e3 each; Hugging Face's angles are the same float32 numbers either way.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}
GREEDY = {"max_new_tokens": 10, "do_sample": False}

every_port = pytest.mark.parametrize(("name", "layers"), PORTS)
every_kind = pytest.mark.parametrize("layers", ["all", "alternate", [0]])


def ported(name="grouped", layers="alternate", inner="linear"):
    torch.manual_seed(0)
    return port(decoder(name), layers, inner=inner, mini_batch_size=K)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@every_port
def test_generation_is_the_argmax_of_whole_sequences(name, layers):
    model, ids = ported(name, layers, "mlp" if name == "llama" else "linear"), tokens_of()
    every = torch.ones_like(ids)
    expected = ids
    for _ in range(10):
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(model.generate(ids, attention_mask=every, **GREEDY), expected)
    assert torch.equal(model.generate(ids, attention_mask=every, **GREEDY, use_cache=False), expected)
    assert torch.equal(model.generate(ids, attention_mask=every, **GREEDY, prefill_chunk_size=3), expected)
    given = model.generate(ids, attention_mask=every, **GREEDY, return_dict_in_generate=True, past_key_values=DynamicCache())
    assert torch.equal(given.sequences, expected)
    kinds = [isinstance(layer, TTTCacheLayer) for layer in given.past_key_values.layers]
    assert [i for i, kind in enumerate(kinds) if kind] == model.config.ttt["layers"]
    assert {layer.get_seq_length() for layer in given.past_key_values.layers} == {20}
    again = torch.cat([expected, ids[:, :2]], 1)
    every = torch.ones_like(again)
    more = model.generate(again, **GREEDY, attention_mask=every, past_key_values=given.past_key_values)
    assert torch.equal(more, model.generate(again, **GREEDY, attention_mask=every)), "a second turn goes on from the first one's cache"


@every_kind
def test_sampling_and_beams(layers):
    model, ids = ported("mistral", layers), tokens_of()
    every = torch.ones_like(ids)

    def sampled(**changes):
        torch.manual_seed(5)
        return model.generate(ids, attention_mask=every, max_new_tokens=6, do_sample=True, top_k=0, num_return_sequences=3, **changes)

    assert sampled().shape == (6, 17)
    assert torch.equal(sampled(), sampled(use_cache=False))
    assert not torch.equal(sampled(), model.generate(ids, attention_mask=every, max_new_tokens=6, do_sample=False).repeat_interleave(3, 0))
    beams = {"attention_mask": every, "max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **beams), model.generate(ids, **beams, use_cache=False))


@every_port
def test_padding_changes_nothing(name, layers):
    model, ids, lengths = ported(name, layers), tokens_of(3), (11, 2, 6)
    mask = torch.tensor([[0] * (11 - n) + [1] * n for n in lengths])
    padded = torch.where(mask == 1, ids, PAD)
    generated = model.generate(padded, attention_mask=mask, **GREEDY)
    assert torch.equal(generated, model.generate(padded, attention_mask=mask, **GREEDY, prefill_chunk_size=4))
    # As generate counts them.
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    left = model(padded, attention_mask=mask, position_ids=position_ids).logits
    right = model(torch.stack([row.roll(n) for row, n in zip(padded, lengths, strict=True)]), attention_mask=mask.flip(1)).logits
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, 11 - length :]
        assert torch.equal(generated[row, 11:], model.generate(alone, attention_mask=torch.ones_like(alone), **GREEDY)[0, length:])
        torch.testing.assert_close(left[row, 11 - length :], model(alone).logits[0], **CLOSE)
        torch.testing.assert_close(right[row, :length], model(alone).logits[0], **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_of_every_attention(attention):
    """An additive mask says the same as a boolean one."""
    model = copy.deepcopy(ported("grouped")).float()  # its own copy: in float64 transformers' eager attention is NaN in padding
    model.set_attn_implementation(attention)
    mask = torch.tensor([[0] * 4 + [1] * 7, [1] * 11])
    ids = tokens_of()
    alone = model(ids[:1, 4:]).logits
    padded = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    # Of float32: roundings of 6e-8, which LayerNorms of rows as large as these enlarge tenfold each, in three layers.
    torch.testing.assert_close(padded[:1, 4:], alone, rtol=1e-3, atol=1e-3)


def test_what_is_in_padding_stays_there():
    layer = ported(layers="all").model.layers[1].self_attn
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    expected = layer(x, mask)[0][0, 4:]
    x[0, :4] = torch.nan
    torch.testing.assert_close(layer(x, mask)[0][0, 4:], expected, rtol=0, atol=0)


@every_port
def test_pieces_are_the_whole(name, layers):
    model, ids = ported(name, layers), tokens_of()
    whole = model(ids, use_cache=False).logits
    cache, logits, sizes = None, [], []
    for piece in ids.split([3, 1, 6, 1], 1):
        out = model(piece, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits)
        sizes.append(sum(x.nbytes for layer in cache.layers if isinstance(layer, TTTCacheLayer) for x in leaves(layer.state)))
    torch.testing.assert_close(torch.cat(logits, 1), whole, **CLOSE)
    assert cache.get_seq_length() == 11
    assert len(set(sizes)) == 1, "the size is constant"
    assert sizes[0]


def test_a_cache_is_a_value():
    model, ids = ported(layers="all"), tokens_of()
    whole = model(torch.cat([ids, ids[:, :1]], 1), use_cache=False).logits
    cache = model(ids[:, :5], use_cache=True).past_key_values
    before = copy.deepcopy(cache)
    for given in (cache, before):
        torch.testing.assert_close(model(ids[:, 5:], past_key_values=given).logits, whole[:, 5:11], **CLOSE)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.reorder_cache(torch.tensor([1, 0]))
    again = model(ids[:, :1], past_key_values=cache).logits
    torch.testing.assert_close(again, whole[:, -1:], **CLOSE)
    with pytest.raises(InvalidInput, match="expected 0: a state forgets no single token"):
        cache.crop(-1)
    assert cache.get_max_length() == -1
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(model(ids, past_key_values=cache).logits, whole[:, :11], **CLOSE)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, ids: m(ids, past_key_values=StaticCache(config=m.config, max_cache_len=20)), InvalidInput, "got StaticLayer in layer 1; expected"),
        (
            lambda m, ids: m(ids, past_key_values=decoder("grouped")(ids, use_cache=True).past_key_values),
            InvalidInput,
            "layer 1, which holds tokens;",
        ),
        (lambda m, ids: decoder("grouped")(ids, past_key_values=m(ids, use_cache=True).past_key_values), InvalidInput, "got a TTT layer's place"),
        (lambda m, ids: m.generate(ids, assistant_model=decoder("grouped"), max_new_tokens=3), ValueError, "stateful"),
        (
            lambda m, ids: m(ids, position_ids=torch.arange(11)[None] % 6, use_cache=False),
            InvalidInput,
            "begin anew within a row; expected one sequence",
        ),
        (lambda m, ids: m.model.layers[1].self_attn(torch.ones(2, 3, 16), torch.ones(2, 1, 2, 3)), InvalidInput, r"got \(2, 1, 2, 3\); expected"),
        (lambda m, ids: m.model.layers[1].self_attn(torch.ones(2, 3, 16), object()), NotImplementedError, "got object; expected a tensor"),
    ],
)
def test_what_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call(ported(), tokens_of())
