"""What ``generate`` takes, and what a model refuses."""

import re

import pytest
import tokenizers
import torch
from small_models import CLOSE, PAD, config_of, model_of, tokens_of
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline
from transformers.generation.streamers import BaseStreamer

from ttt_torch.models import TTTCache, TTTConfig, TTTForCausalLM
from tttcore import InvalidInput

GREEDY = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def padded():
    """Three rows of 6, 2 and 4 tokens, padded on the left."""
    mask = torch.tensor([[0] * (6 - n) + [1] * n for n in (6, 2, 4)])
    return {"input_ids": torch.where(mask == 1, tokens_of(3, 6), PAD), "attention_mask": mask}


class Collector(BaseStreamer):
    """What a streamer gets."""

    def __init__(self):
        self.got = []

    def put(self, value):
        self.got.append(value.reshape(-1))

    def end(self):
        self.got.append(torch.tensor([-1]))


def test_a_streamer_gets_every_token():
    model, streamer = model_of(), Collector()
    whole = model.generate(tokens_of(1, 6), **GREEDY, streamer=streamer)
    assert torch.equal(torch.cat(streamer.got), torch.cat([whole[0], torch.tensor([-1])]))
    assert len(streamer.got) == 7


def test_several_sequences_of_a_prompt():
    model, inputs = model_of(), padded()
    torch.manual_seed(3)
    found = model.generate(**inputs, max_new_tokens=5, do_sample=True, num_return_sequences=2)
    torch.manual_seed(3)
    twice = {name: x.repeat_interleave(2, 0) for name, x in inputs.items()}
    assert torch.equal(found, model.generate(**twice, max_new_tokens=5, do_sample=True))
    assert found.shape == (6, 11)


def test_the_end_may_be_forbidden_for_a_while():
    model, ids = model_of(), tokens_of(1, 6)
    first = int(model.generate(ids, **GREEDY)[0, 6])
    assert model.generate(ids, **GREEDY, eos_token_id=first).shape == (1, 7)
    held = model.generate(ids, **GREEDY, eos_token_id=first, min_new_tokens=3)
    assert held.shape[1] >= 9
    assert first not in held[0, 6:9]


@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_may_be_embeddings_alone(use_cache):
    model, inputs = model_of(), padded()
    expected = model.generate(**inputs, **GREEDY)[:, 6:]
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    mask = inputs["attention_mask"]
    assert torch.equal(model.generate(inputs_embeds=embeddings, attention_mask=mask, **GREEDY, use_cache=use_cache), expected)


def test_under_inference_mode():
    model, inputs = model_of(), padded()
    expected = model.generate(**inputs, **GREEDY)
    with torch.inference_mode():
        assert torch.equal(model.generate(**inputs, **GREEDY), expected)
        made_there = TTTForCausalLM(config_of()).double().eval()
        made_there.load_state_dict(model.state_dict())
        assert torch.equal(made_there.generate(**inputs, **GREEDY), expected)


@pytest.mark.parametrize("assistance", [{"assistant_model": model_of()}, {"prompt_lookup_num_tokens": 2}])
def test_assisted_generation_is_refused(assistance):
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models, such as TTTForCausalLM"):
        model_of().generate(tokens_of(1), **GREEDY, **assistance)


@pytest.fixture(scope="module")
def tokenizer():
    """A token a byte, and padding."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", padding_side="left")


def test_text_goes_in_and_comes_out(tokenizer):
    model = model_of(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    texts = ["hello", "hi, you"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    expected = tokenizer.batch_decode(model.generate(**inputs, **GREEDY), skip_special_tokens=True)
    found = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")(texts, batch_size=2, **GREEDY)
    assert [row[0]["generated_text"] for row in found] == expected
    assert [text.startswith(given) for text, given in zip(expected, texts, strict=True)] == [True, True]
    stop = expected[0].removeprefix("hello")[1]
    one = tokenizer("hello", return_tensors="pt", return_token_type_ids=False)
    stopped = model.generate(**one, **GREEDY, stop_strings=[stop], tokenizer=tokenizer)
    assert tokenizer.decode(stopped[0]) == "hello" + expected[0].removeprefix("hello")[: 1 + expected[0].removeprefix("hello").index(stop)]


def test_a_vocabulary_of_another_size(tokenizer):
    model, ids = model_of(), tokenizer("hello", return_tensors="pt").input_ids
    fix = r"model.resize_token_embeddings\(len\(tokenizer\)\) if it has tokens of its own"
    with pytest.raises(InvalidInput, match=rf"input_ids: got token {ids.max()}; expected 0 … 18, the model's vocabulary. Fix: .*{fix}"):
        model(ids)
    before = model(tokens_of()).logits
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    assert model.config.vocab_size == len(tokenizer) == model.lm_head.out_features
    assert model.lm_head.weight is model.get_input_embeddings().weight
    torch.testing.assert_close(model(tokens_of()).logits[..., :19], before, **CLOSE)
    assert model(ids, labels=ids).loss > 0


def after(model, rows=2):
    return model(tokens_of(rows), use_cache=True).past_key_values


def given(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: given(torch.full((1, 3), 19)), "input_ids: got token 19; expected 0 … 18, the model's vocabulary. Fix: use the model's tokenizer"),
        (lambda m: given(torch.tensor([[3, -1]])), "input_ids: got token -1; expected 0 … 18"),
        (lambda m: given(tokens_of()[0]), r"shape of input_ids: got (11,); expected [B, T]. Fix: pass ids[None]"),
        (lambda m: given(tokens_of()[0], labels=tokens_of()[0]), r"shape of input_ids: got (11,); expected [B, T]"),
        (lambda m: given(tokens_of().float()), "dtype of input_ids: got torch.float32; expected int64 or int32"),
        (lambda m: given(inputs_embeds=torch.ones(2, 3, 8)), "shape of inputs_embeds: got (2, 3, 8); expected [B, T, 16]: hidden_size columns"),
        (lambda m: given(tokens_of(), inputs_embeds=torch.ones(2, 11, 16)), "input_ids and inputs_embeds: got both; expected one of them"),
        (lambda m: given(tokens_of(), labels=tokens_of()[:, 1:]), "shape of labels: got (2, 10); expected (2, 11), as the tokens. Fix: pass the ids"),
        (lambda m: given(tokens_of(), labels=tokens_of() + 9), "labels: got token 27; expected 0 … 18, the model's vocabulary or -100"),
        (lambda m: given(tokens_of(), labels=tokens_of() - 9), "labels: got token -8; expected 0 … 18, the model's vocabulary or -100"),
        (lambda m: given(tokens_of(), labels=tokens_of(), logits_to_keep=1), "logits_to_keep with labels: got both; expected one of them"),
        (
            lambda m: given(tokens_of(3), past_key_values=after(m)),
            "rows of past_key_values: got 2; expected 3, as input_ids has. Fix: pass as many rows",
        ),
        (
            lambda m: given(tokens_of(), past_key_values=after(model_of(num_hidden_layers=1))),
            "past_key_values: got TTTCache(1 blocks, 11 tokens); expected one of 2 blocks with a convolution ahead of the layer, as this model has",
        ),
        (lambda m: given(tokens_of(), past_key_values=after(model_of(pre_conv=False))), "expected one of 2 blocks with a convolution ahead"),
        (
            lambda m: given(tokens_of(), past_key_values=after(model_of(inner="mlp"))),
            "state.weights: got ['W1', 'W2', 'b1', 'b2']; expected ['W1', 'b1']",
        ),
        (
            lambda m: given(tokens_of()[:, :1], past_key_values=after(model_of(num_attention_heads=1))),
            "shape of state.weights['W1']: got (2, 1, 16, 16)",
        ),
    ],
)
def test_wrong_inputs(call, says):
    model, computed = model_of(), []
    args, kwargs = call(model)
    model.model.embed_tokens.register_forward_hook(lambda *_: computed.append(1))
    model.model.layers[0].seq_modeling_block.register_forward_hook(lambda *_: computed.append(1))
    with pytest.raises(InvalidInput, match=re.escape(says)):
        model(*args, **kwargs)
    # Of what is in a cache the layers know more.
    assert not computed or says.startswith(("state.", "shape of state.")), "nothing is computed before"


def test_nothing_in_is_nothing_out():
    model, cache = model_of(), TTTCache()
    assert model(torch.zeros(2, 0, dtype=torch.long), past_key_values=cache).logits.shape == (2, 0, 19)
    assert model(torch.zeros(0, 3, dtype=torch.long)).logits.shape == (0, 3, 19)
    torch.testing.assert_close(model(tokens_of(), past_key_values=cache).logits, model(tokens_of()).logits, **CLOSE)


def test_the_auto_class_makes_one():
    model = AutoModelForCausalLM.from_config(TTTConfig(**config_of().to_dict() | {"dtype": "bfloat16"}))
    assert type(model) is TTTForCausalLM
    assert {x.dtype for x in model.parameters()} == {torch.bfloat16}
