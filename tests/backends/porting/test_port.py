"""What ``port`` makes and refuses: plans, sharing, disk, training."""

import copy
import dataclasses
import subprocess
import sys

import pytest
import torch
from hugging_face_models import DECODERS, ENCODERS, PORTS, K, decoder, encoder, tokens_of
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, T5Config, T5Model, Trainer, TrainingArguments

import ttt_torch
from ttt_torch import port
from ttt_torch.porting import Plan, TTTAttention
from ttt_torch.porting.ported import ported_class
from tttcore import InvalidInput, Supports, UnknownKeyword

EXACT = {"rtol": 0, "atol": 0}
# Of float64: sums in another order where weights lie elsewhere in memory; roundings of 2e-16, which LayerNorms enlarge by up to 1/√ε = 1e3 each.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}
every_model = pytest.mark.parametrize("name", DECODERS)


def ported_layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, TTTAttention)]


@every_model
def test_a_dry_run_counts_what_a_port_has(name, capsys):
    model = decoder(name)
    plan = port(model, [-1, 0], inner="mlp", gate=True, dry_run=True)
    assert isinstance(plan, Plan)
    printed = capsys.readouterr().out
    assert f"{plan.before:,}" in printed
    assert f"{plan.after:,}" in printed
    assert not ported_layers(model)
    made = port(model, [-1, 0], inner="mlp", gate=True)
    assert (plan.layers, [change.becomes != "–" for change in plan.changes]) == ((0, 2), [True, False, True])
    assert [plan.before, plan.after] == [sum(x.numel() for x in m.parameters()) for m in (model, made)]
    assert [change.after for change in plan.changes if change.index in plan.layers] == [
        sum(x.numel() for x in made.get_submodule(layer).parameters()) for layer in ported_layers(made)
    ]


@pytest.mark.parametrize(
    ("layers", "found"), [("all", [0, 1, 2]), ("alternate", [1]), (slice(1, None), [1, 2]), (range(2), [0, 1]), ([2, -1, 0], [0, 2]), ([1], [1])]
)
def test_which_layers(layers, found):
    model = port(decoder("llama"), layers)
    assert model.config.ttt["layers"] == found
    assert ported_layers(model) == [f"model.layers.{i}.self_attn" for i in found]


@every_model
@torch.no_grad()
def test_the_model_stays_as_it_is(name):
    model, ids = copy.deepcopy(decoder(name)), tokens_of()
    before, state = model(ids).logits, {key: x.clone() for key, x in model.state_dict().items()}
    made = port(model, "alternate")
    assert type(model) is type(decoder(name))
    assert getattr(model.config, "ttt", None) is None
    torch.testing.assert_close(model(ids).logits, before, **EXACT)
    mine, theirs = ({id(x) for x in m.parameters()} for m in (made, model))
    own = {id(x) for layer in ported_layers(made) for x in made.get_submodule(layer).parameters()}
    assert mine & theirs == mine - own, "all that is not of a ported layer is shared"
    for layer in ported_layers(made):
        for x in made.get_submodule(layer).parameters():
            x.zero_()
    torch.testing.assert_close(dict(model.state_dict()), state, **EXACT)
    torch.testing.assert_close(model(ids).logits, before, **EXACT)


@pytest.mark.parametrize(("name", "layers"), PORTS)
@torch.no_grad()
def test_a_saved_model_is_the_same(name, layers, tmp_path):
    model, ids = port(decoder(name), layers, inner="mlp", mini_batch_size=K, gate=True), tokens_of()
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert loaded.config.ttt == model.config.ttt == AutoConfig.from_pretrained(tmp_path).ttt
    torch.testing.assert_close(dict(loaded.named_parameters()), dict(model.named_parameters()), **EXACT)
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, **CLOSE)
    assert type(loaded).from_pretrained(tmp_path).config.model_type == f"ttt_{decoder(name).config.model_type}"
    body = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(body(ids).last_hidden_state, model.base_model(ids).last_hidden_state, **CLOSE)


@torch.no_grad()
def test_tied_embeddings_stay_tied(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(**{**DECODERS["llama"][1], "tie_word_embeddings": True})
    model = port(LlamaForCausalLM(config).eval(), inner="mlp")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    torch.testing.assert_close(loaded(tokens_of()).logits, model(tokens_of()).logits, **EXACT)


def test_a_class_of_its_own_makes_fresh_models():
    config = port(decoder("llama"), "alternate", mini_batch_size=K).config
    torch.manual_seed(0)
    model = ported_class(LlamaForCausalLM)(config)
    assert ported_layers(model) == ["model.layers.1.self_attn"]
    assert model.model.layers[1].self_attn.spec.mini_batch_size == K
    assert all(x.isfinite().all() for x in model.parameters())
    assert model(tokens_of(), labels=tokens_of()).loss.isfinite()


def test_transformers_alone_refuses_a_ported_model(tmp_path):
    port(decoder("llama")).save_pretrained(tmp_path)
    program = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "model type `ttt_llama`" in done.stderr


@pytest.mark.parametrize("name", ["grouped", "gpt2"])
def test_checkpointing_changes_no_gradient(name):
    model, ids = copy.deepcopy(port(decoder(name), "alternate", inner="mlp", mini_batch_size=K)).train(), tokens_of()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def gradients():
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return {name: x.grad.clone() for name, x in model.named_parameters()}

    plain = gradients()
    assert all(x.abs().max() > 0 for x in plain.values())
    model.activation_checkpointing_enable()
    for name, x in gradients().items():
        torch.testing.assert_close(x, plain[name], rtol=1e-9, atol=1e-12)  # the same sums of float64, in the same order


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_bfloat16(name, tmp_path):
    model, ids = copy.deepcopy(port(decoder(name), "alternate")), tokens_of()
    small = copy.deepcopy(model).bfloat16()
    loss = small(ids, labels=ids).loss
    loss.backward()
    assert small(ids).logits.dtype == torch.bfloat16
    # Eight bits: roundings of 4e-3 of logits of size 10, in three layers.
    torch.testing.assert_close(loss, model(ids, labels=ids).loss, rtol=0.1, atol=0)
    small.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    torch.testing.assert_close(dict(loaded.named_parameters()), dict(small.named_parameters()), **EXACT)
    assert torch.equal(small.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)[:, :11], ids)


def test_the_trainer_trains(tmp_path):
    torch.manual_seed(0)
    model = copy.deepcopy(port(decoder("grouped"), "alternate")).float()
    data = [{"input_ids": ids, "labels": ids} for ids in tokens_of(8)]
    settings = {"num_train_epochs": 6, "learning_rate": 1e-2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    trainer = Trainer(model, TrainingArguments(str(tmp_path), **settings), train_dataset=data)
    before = trainer.evaluate(data)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(data)["eval_loss"] < before - 0.2


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: port(torch.nn.Linear(2, 2)), InvalidInput, "model: got Linear; expected a transformers.PreTrainedModel"),
        (lambda: port(port(decoder("llama"))), InvalidInput, "model: got a ported model; expected one with attention in all layers"),
        (
            lambda: port(T5Model(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))),
            InvalidInput,
            "architecture: got 't5'; expected one of .*'llama'",
        ),
        (lambda: port(decoder("llama"), []), InvalidInput, r"layers: got \[\]; expected at least one layer"),
        (lambda: port(decoder("llama"), slice(3, None)), InvalidInput, "expected at least one layer"),
        (lambda: port(decoder("llama"), [0, 3]), InvalidInput, r"layers: got \[3\]; expected indices from -3 to 2. Fix: the model has 3 layers"),
        (lambda: port(decoder("llama"), [True]), InvalidInput, r"layers: got \[True\]"),
        (lambda: port(decoder("llama"), "some"), InvalidInput, r"layers: got 'some'; expected one of \['all', 'alternate'\]"),
        (lambda: port(decoder("llama"), init="zero"), InvalidInput, "init: got 'zero'"),
        (lambda: port(decoder("llama"), inner="cubic"), InvalidInput, "inner: got 'cubic'"),
        (lambda: port(decoder("llama"), mini_batch=4), UnknownKeyword, r"got \['mini_batch'\]; .* Fix: use 'mini_batch_size'"),
        (lambda: port(decoder("llama"), share_qk=True), InvalidInput, "share_qk: got a choice; expected the model's own"),
        (lambda: port(encoder("vit"), read_out="causal"), InvalidInput, "read_out: got a choice; expected the model's own"),
        (lambda: port(decoder("llama"), mini_batch_size=0), InvalidInput, "mini_batch_size: got 0"),
        (lambda: port(decoder("llama"), kernel="nowhere"), InvalidInput, "got 'nowhere'"),
        (lambda: port(decoder("llama"), kernel="numpy"), InvalidInput, "kernel: got 'numpy'; expected a backend on PyTorch's tensors"),
        (lambda: port(decoder("llama"), causal=False), InvalidInput, "causal=False: got a decoder, .*; expected an encoder"),
        (lambda: port(encoder("vit"), causal=True), InvalidInput, "causal=True: got an encoder, .*; expected a decoder"),
        (lambda: port(of_heads(4, 3)), InvalidInput, "heads: got 4 heads of queries, 3 of keys and values"),
        (lambda: ttt_torch.parts, AttributeError, "'ttt_torch' has no attribute 'parts'"),
    ],
)
def test_errors(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_kernel_without_that_read_out(monkeypatch):
    causal = dataclasses.replace(ttt_torch.BACKEND, supports=Supports())
    monkeypatch.setattr("ttt_torch.porting.plan.get_backend", lambda name: causal)
    assert port(decoder("llama"), [0]).config.ttt["spec"].get("read_out", "causal") == "causal"
    with pytest.raises(InvalidInput, match="kernel: got 'torch'; expected one with read-out 'whole', as tokens of an encoder read"):
        port(encoder("bert"))


def of_heads(queries, keys):
    """A model whose config was changed to what cannot be."""
    model = copy.deepcopy(decoder("llama"))
    model.config.num_attention_heads, model.config.num_key_value_heads = queries, keys
    return model


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_what_cannot_be_leaves_no_trace(name):
    model = copy.deepcopy((decoder if name in DECODERS else encoder)(name))
    before, modules = model.config.to_dict(), [type(module) for module in model.modules()]
    with pytest.raises(InvalidInput):
        port(model, [0, 99])
    assert (model.config.to_dict(), [type(module) for module in model.modules()]) == (before, modules)


def test_without_a_package_the_error_says_what_to_install():
    program = """
import sys
for package in ("rich", "transformers"):
    sys.modules[package] = None
    try:
        from ttt_torch import port
    except ImportError as error:
        print(error)
    del sys.modules[package]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = "ttt_torch.porting: got no package {!r}; expected it installed. Fix: pip install 'tttcore[models]'.\n"
    assert done.stdout == expected.format("rich") + expected.format("transformers")
