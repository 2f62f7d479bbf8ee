"""Language models of TTT layers: what Hugging Face classes promise, and the authors' checkpoints."""

import copy
import dataclasses
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_models import CLOSE, EXACT, PAD, config_of, every_kind, model_of, tokens_of
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ttt_torch import BACKEND
from ttt_torch.models import TTTCache, TTTConfig, TTTForCausalLM, TTTModel
from tttcore import InvalidInput, ModelSpec, UnknownKeyword, upstream
from tttcore.language_model import from_config
from tttcore.tree import leaves


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@every_kind
def test_a_saved_model_is_the_same(backbone, inner, tmp_path):
    model, ids = model_of(backbone, inner), tokens_of()
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    for loaded in (TTTForCausalLM.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert type(loaded) is TTTForCausalLM
        assert loaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": str(tmp_path)}
        torch.testing.assert_close(dict(loaded.named_parameters()), dict(model.named_parameters()), **EXACT)
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, **CLOSE)
    body, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(body) is TTTModel
    assert not info["missing_keys"]
    torch.testing.assert_close(body(ids).last_hidden_state, model.model(ids).last_hidden_state, **CLOSE)
    assert AutoConfig.from_pretrained(tmp_path).layer_spec == model.config.layer_spec


@every_kind
def test_generation_is_the_argmax_of_whole_sequences(backbone, inner):
    model, ids = model_of(backbone, inner), tokens_of()
    expected = ids
    for _ in range(10):
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    greedy = {"max_new_tokens": 10, "do_sample": False}
    assert torch.equal(model.generate(ids, **greedy), expected)
    assert torch.equal(model.generate(ids, **greedy, use_cache=False), expected)
    assert torch.equal(model.generate(ids, **greedy, prefill_chunk_size=3), expected)
    given = model.generate(ids, **greedy, return_dict_in_generate=True, output_hidden_states=True, past_key_values=TTTCache())
    assert [len(hidden) for hidden in given.hidden_states] == [3] * 10
    assert torch.equal(given.sequences, expected)
    assert given.past_key_values.get_seq_length() == expected.shape[1] - 1
    again = torch.cat([expected, ids[:, :2]], 1)
    every = torch.ones_like(again)  # tokens that happen to be PAD are no padding here
    more = model.generate(again, **greedy, attention_mask=every, past_key_values=given.past_key_values)
    assert torch.equal(more, model.generate(again, **greedy, attention_mask=every)), "a second turn goes on from the first one's cache"


def test_sampling_and_beams():
    model, ids = model_of(), tokens_of()

    def sampled(**changes):
        torch.manual_seed(5)
        return model.generate(ids, max_new_tokens=6, do_sample=True, top_k=0, num_return_sequences=3, **changes)

    assert sampled().shape == (6, 17)
    assert torch.equal(sampled(), sampled(use_cache=False))
    assert not torch.equal(sampled(), model.generate(ids, max_new_tokens=6, do_sample=False).repeat_interleave(3, 0))
    beams = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **beams), model.generate(ids, **beams, use_cache=False))


@every_kind
def test_padding_changes_nothing(backbone, inner):
    model, ids = model_of(backbone, inner), tokens_of(3)
    lengths = (11, 2, 6)
    mask = torch.tensor([[0] * (11 - n) + [1] * n for n in lengths])
    padded = torch.where(mask == 1, ids, PAD)
    out = model(padded, attention_mask=mask, use_cache=True)
    # Two columns more, by a mask of all columns and with padding between.
    after = torch.tensor([[1, 1], [0, 1], [1, 0]])
    later = model(ids[:, :2], attention_mask=torch.cat([mask, after], 1), past_key_values=out.past_key_values).logits
    greedy = {"max_new_tokens": 6, "do_sample": False}
    generated = model.generate(padded, attention_mask=mask, **greedy)
    for chunk in (2, 4):
        assert torch.equal(generated, model.generate(padded, attention_mask=mask, prefill_chunk_size=chunk, **greedy))
    for row, length in enumerate(lengths):
        alone = ids[row : row + 1, 11 - length :]
        torch.testing.assert_close(out.logits[row, 11 - length :], model(alone).logits[0], **CLOSE)
        assert torch.equal(generated[row, 11:], model.generate(alone, **greedy)[0, length:])
        valid = after[row] == 1
        whole = model(torch.cat([alone, ids[row : row + 1, :2][:, valid]], 1)).logits[0, length:]
        torch.testing.assert_close(later[row, valid], whole, **CLOSE)


@every_kind
def test_pieces_are_the_whole(backbone, inner):
    model, ids = model_of(backbone, inner), tokens_of()
    whole = model(ids, use_cache=False)
    assert whole.past_key_values is None
    cache, logits, sizes = TTTCache(), [], []
    for piece in ids.split([3, 1, 6, 1], 1):
        logits.append(model(piece, past_key_values=cache).logits)
        sizes.append(sum(x.nbytes for x in leaves(tuple(cache.memories))))
    torch.testing.assert_close(torch.cat(logits, 1), whole.logits, **CLOSE)
    assert cache.get_seq_length() == 11
    assert len(cache) == 2
    assert len(set(sizes)) == 1, "the size is constant"


def test_a_cache_is_a_value():
    model, ids = model_of(), tokens_of()
    cache = model(ids[:, :5], use_cache=True).past_key_values
    before = copy.copy(cache)
    expected = model(ids, use_cache=False).logits[:, 5:]
    for given in (cache, before):
        torch.testing.assert_close(model(ids[:, 5:], past_key_values=given).logits, expected, **CLOSE)
    assert repr(cache) == "TTTCache(2 blocks, 11 tokens)"
    model(ids[:, :3], past_key_values=cache, use_cache=False)
    assert cache.get_seq_length() == 11
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([0, 2]))
    again = model(ids[:, :1], past_key_values=cache).logits
    torch.testing.assert_close(again, model(torch.cat([ids, ids[:, :1]], 1)).logits[:, -1:], **CLOSE)
    with pytest.raises(InvalidInput, match="expected 0: a state forgets no single token"):
        cache.crop(-1)
    cache.crop(0)
    cache.reset()
    assert (len(cache), cache.get_seq_length(), cache.get_max_length()) == (0, 0, -1)


@every_kind
@torch.enable_grad()
def test_checkpointing_changes_no_gradient(backbone, inner):
    model, ids = model_of(backbone, inner).train(), tokens_of()

    def gradients():
        model.zero_grad()
        first = model(ids, labels=ids, use_cache=True)
        second = model(ids, labels=ids, past_key_values=first.past_key_values)
        (first.loss + second.loss).backward()
        return {name: x.grad.clone() for name, x in model.named_parameters()}

    plain = gradients()
    assert all(x.abs().max() > 0 for x in plain.values())
    model.activation_checkpointing_enable()
    assert all(block.gradient_checkpointing for block in model.model.layers)
    for name, x in gradients().items():
        torch.testing.assert_close(x, plain[name], **CLOSE)
    assert model(ids).past_key_values is None, "training keeps no cache unless asked"


@torch.enable_grad()
def test_a_step_of_training_lowers_the_loss():
    torch.manual_seed(0)
    model, ids = TTTForCausalLM(config_of(inner="mlp")).train(), tokens_of()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert abs(losses[0] - np.log(19)) < 0.1
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_embedding_or_not(tied, tmp_path):
    model = model_of(tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    model.save_pretrained(tmp_path)
    loaded = TTTForCausalLM.from_pretrained(tmp_path)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    torch.testing.assert_close(loaded(tokens_of()).logits, model(tokens_of()).logits, **CLOSE)


def test_outputs_in_part():
    model, ids = model_of(), tokens_of()
    whole = model(ids, output_hidden_states=True)
    assert len(whole.hidden_states) == 3
    torch.testing.assert_close(whole.hidden_states[0], model.model.embed_tokens(ids), **EXACT)
    torch.testing.assert_close(model.lm_head(whole.hidden_states[-1]), whole.logits, **CLOSE)
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, whole.logits[:, -2:], **CLOSE)
    torch.testing.assert_close(model(inputs_embeds=whole.hidden_states[0]).logits, whole.logits, **CLOSE)
    logits, cache = model(ids, return_dict=False)
    assert isinstance(cache, TTTCache)
    torch.testing.assert_close(logits, whole.logits, **CLOSE)


@pytest.mark.parametrize(
    ("size", "width", "layers", "head_dim"), [("125m", 768, 12, 64), ("350m", 1024, 24, 64), ("760m", 1536, 24, 96), ("1.3b", 2048, 24, 64)]
)
def test_the_papers_sizes(size, width, layers, head_dim):
    config = TTTConfig.named(size, backbone="mamba", inner="mlp", vocab_size=100)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (width, layers, 100)
    spec = config.layer_spec
    assert (spec.head_dim, spec.inner, spec.base_lr, spec.share_qk, spec.gate) == (head_dim, "mlp", 0.1, True, True)
    assert config.pre_conv
    with torch.device("meta"):
        count = sum(x.numel() for x in TTTForCausalLM(TTTConfig.named(size, inner="linear")).parameters())
    assert 0.8 < count / {"125m": 125e6, "350m": 350e6, "760m": 760e6, "1.3b": 1.3e9}[size] < 1.2


def test_the_configuration_has_the_fields_of_the_specification():
    assert TTTConfig().model_spec == ModelSpec()
    config = config_of(hidden_act="gelu", rms_norm_eps=1e-3)
    config.eos_token_id = [2, 3]
    assert TTTConfig(**config.model_spec.to_dict()).to_dict() == config.to_dict()
    assert TTTConfig.of_authors(config.model_spec).to_dict() == config.to_dict()
    assert from_config(config) == from_config(config.to_dict()) == config.model_spec


def test_fresh_parameters():
    torch.manual_seed(3)
    model = TTTForCausalLM(config_of(initializer_range=0.5))
    torch.manual_seed(3)
    again = TTTForCausalLM(config_of(initializer_range=0.5))
    for x, y in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(x, y, **EXACT)
    block = model.model.layers[0]
    assert 0.3 < block.seq_modeling_block.q_proj.std() < 0.7
    assert block.seq_modeling_block.W1.std() < 0.04
    assert 0.3 < block.conv.weight.abs().max() <= 0.5
    assert not block.conv.bias.any()
    assert torch.equal(block.seq_modeling_block.norm_weight, torch.ones(2, 8))


def authors_state_dict(model):
    """The model's parameters as the authors' code would save them, by their own names and layouts."""
    ours, found = model.state_dict(), {}
    for number in range(model.config.num_hidden_layers):
        prefix = f"model.layers.{number}.seq_modeling_block."
        layer = {name.removeprefix(prefix): ours.pop(name).numpy() for name in list(ours) if name.startswith(prefix)}
        found |= {prefix + name: torch.tensor(x) for name, x in upstream.to_pytorch(model.config.layer_spec, layer).items()}
        if model.config.pre_conv:
            conv = f"model.layers.{number}.conv."
            found[conv + "conv.weight"] = ours.pop(conv + "weight").T[:, None].contiguous()
            found[conv + "conv.bias"] = ours.pop(conv + "bias")
    return found | ours


@pytest.mark.parametrize("tied", [True, False])
@every_kind
def test_the_authors_checkpoints(backbone, inner, tied):
    model, ids = model_of(backbone, inner, tie_word_embeddings=tied, rms_norm_eps=1e-3, conv_kernel=3), tokens_of()
    state_dict = authors_state_dict(model)
    assert ("model.layers.1.conv.conv.weight" in state_dict) == (backbone == "mamba")
    config = {key: value for key, value in model.config.to_dict().items() if key != "kernel"}
    config |= {"model_type": "ttt", "use_cache": False, "pretraining_tp": 1, "scan_checkpoint_group_size": 4, "max_position_embeddings": 64}
    loaded, report = TTTForCausalLM.from_ttt_lm_pytorch(state_dict, config, output_loading_info=True)
    assert loaded.dtype == torch.float64
    assert not loaded.training
    torch.testing.assert_close(dict(loaded.named_parameters()), dict(model.named_parameters()), **EXACT)
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, **CLOSE)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    generated = loaded.generate(ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    assert torch.equal(generated.sequences, model.generate(ids, max_new_tokens=4, do_sample=False))
    assert isinstance(generated.past_key_values, TTTCache)
    assert (report.unused, report.missing, report.mismatched) == ((), (), {})
    name = "model.layers.0.seq_modeling_block.q_proj.weight"
    assert report.reshaped[name] == "model.layers.0.seq_modeling_block.q_proj"
    with torch.no_grad():
        state_dict[name].zero_()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, **CLOSE)
    theirs_as_an_object = types.SimpleNamespace(**config)
    narrow = TTTForCausalLM.from_ttt_lm_pytorch(authors_state_dict(model), theirs_as_an_object, dtype=torch.float32)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow(ids).logits, copy.deepcopy(model).float()(ids).logits, **EXACT)


def test_a_tied_head_may_be_absent_but_not_different():
    model = model_of()
    state_dict = authors_state_dict(model)
    del state_dict["lm_head.weight"]
    loaded = TTTForCausalLM.from_ttt_lm_pytorch(state_dict, model.config)
    torch.testing.assert_close(loaded(tokens_of()).logits, model(tokens_of()).logits, **CLOSE)
    state_dict["lm_head.weight"] = state_dict["model.embed_tokens.weight"] + 1
    with pytest.raises(InvalidInput, match=r"got other values than the embedding's; .* Fix: set tie_word_embeddings=False"):
        TTTForCausalLM.from_ttt_lm_pytorch(state_dict, model.config)


def test_what_does_not_fit_is_listed():
    model = model_of()
    state_dict = authors_state_dict(model)
    layer = "model.layers.0.seq_modeling_block."
    state_dict["surprise"] = torch.ones(1)
    del state_dict[layer + "W1"]
    state_dict[layer + "b1"] = torch.ones(2, 1, 9)
    expected = f"got 1 unused: surprise; 1 missing: {layer}W1; 1 of other shapes: {layer}b1 (2, 1, 9) instead of (2, 1, 8); expected exactly"
    with pytest.raises(InvalidInput, match=re.escape(expected)):
        TTTForCausalLM.from_ttt_lm_pytorch(state_dict, model.config)
    with pytest.raises(InvalidInput, match=r"missing: .*model.layers.\{0,1\}.seq_modeling_block.W1, .*; expected .* Fix: check sizes, share_qk"):
        TTTForCausalLM.from_ttt_lm_pytorch({}, model.config)
    other = model.config.to_dict() | {"ttt_layer_type": "mlp", "share_qk": False}
    with pytest.raises(InvalidInput, match=r"unused: .*conv_k.bias.*missing: .*W2.*of other shapes: .*W1"):
        TTTForCausalLM.from_ttt_lm_pytorch(authors_state_dict(model), other)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: TTTConfig(mini_batchsize=4), UnknownKeyword, r"got \['mini_batchsize'\]; .* Fix: use 'mini_batch_size'"),
        (lambda: TTTConfig(hidden_size=30, num_attention_heads=4), InvalidInput, "got width=30, heads=4"),
        (lambda: TTTConfig(num_hidden_layers=0), InvalidInput, "num_hidden_layers: got 0; expected an integer ≥ 1"),
        (lambda: TTTConfig.named("13b"), InvalidInput, r"size: got '13b'; expected one of \['1.3b', '125m', '350m', '760m'\]"),
        (lambda: TTTConfig.named("125m", backbone="llama"), InvalidInput, r"backbone: got 'llama'; expected one of \['mamba', 'transformer'\]"),
        (lambda: TTTConfig.from_dict({"model_type": "ttt"}), InvalidInput, r"got 'ttt'; expected 'tttcore'. Fix: .*from_ttt_lm_pytorch\("),
        (lambda: TTTForCausalLM(config_of(kernel="nowhere")), InvalidInput, "got 'nowhere'; expected one of "),
        (lambda: model_of()(), InvalidInput, "got neither; expected one of them"),
        (lambda: model_of()(tokens_of(), past_key_values=()), InvalidInput, "past_key_values: got tuple; expected a TTTCache"),
        (lambda: model_of()(tokens_of(), attention_mask=torch.ones(2, 3)), InvalidInput, r"got \(2, 3\); expected \(2, 11\) or more columns"),
        (
            lambda: model_of().generate(tokens_of(), max_new_tokens=1, cache_implementation="static"),
            InvalidInput,
            "got 'static'; expected None: a TTTCache",
        ),
        (lambda: model_of()(tokens_of(), position_id=None), TypeError, "position_id"),
    ],
)
def test_errors(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_the_kernel_is_chosen_by_the_config(tmp_path, monkeypatch):
    asked = []
    recording = dataclasses.replace(BACKEND, layer_function=lambda *args, **_: asked.append(args[1]) or (args[3], None))
    TTTForCausalLM(config_of()).save_pretrained(tmp_path)
    monkeypatch.setattr("ttt_torch.layer.get_backend", {"triton": recording}.__getitem__)
    model = TTTForCausalLM.from_pretrained(tmp_path, kernel="triton")
    model(tokens_of())
    assert asked == [model.config.layer_spec] * 2


def test_the_package_alone_does_not_import_transformers():
    program = "import sys, ttt_torch; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_transformers_the_error_says_what_to_install():
    program = "import sys; sys.modules['transformers'] = None\nimport ttt_torch.models"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "expected it installed. Fix: pip install 'tttcore[models]'." in done.stderr


def test_the_page_runs(tmp_path):
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "jax" not in block]
    assert len(blocks) == 5
    scope = {"__name__": "models"}
    with torch.enable_grad():
        for block in blocks:
            exec(compile(block, "models.md", "exec"), scope)
    model = model_of()
    save_file(authors_state_dict(model) | {"lm_head.weight": model.lm_head.weight.clone()}, tmp_path / "model.safetensors")
    model.config.to_json_file(tmp_path / "config.json")
    loaded, _ = scope["load"](tmp_path / "model.safetensors", tmp_path / "config.json")
    torch.testing.assert_close(loaded(tokens_of()).logits, model(tokens_of()).logits, **CLOSE)
