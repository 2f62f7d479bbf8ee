"""A port learns from the model that it was made of."""

import copy
import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from hugging_face_models import DECODERS, K, decoder, encoder, tokens_of

from ttt_torch import port
from ttt_torch.porting import ARCHITECTURES, distill
from ttt_torch.porting.observe import observed
from tttcore import InvalidInput

QUIET = {"progress": False}


def pair(name="grouped", layers="alternate"):
    """A teacher and its port, in float32 as one trains."""
    torch.manual_seed(0)
    teacher = copy.deepcopy(decoder(name)).float()
    return port(teacher, layers, mini_batch_size=K), teacher


@pytest.mark.parametrize(("name", "layers"), [("grouped", "alternate"), ("gpt2", "all")])
def test_only_ported_layers_learn(name, layers):
    student, teacher = pair(name, layers)
    student.train()
    before = {key: x.clone() for key, x in teacher.state_dict().items()}
    own = {id(x): x.clone() for layer in student.modules() if type(layer).__name__ == "TTTAttention" for x in layer.parameters()}
    done = distill(student, teacher, [tokens_of(4)], layer_steps=12, whole_steps=12, learning_rate=1e-2, **QUIET)
    assert (len(done.layers), len(done.whole)) == (12, 12)
    assert done.layers[-1] < 0.9 * done.layers[0]
    assert done.whole[-1] < done.whole[0]
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)
    assert (student.training, teacher.training) == (True, False)
    for x in student.parameters():
        assert id(x) in own or x.grad is None
        assert id(x) not in own or not torch.equal(x, own[id(x)])


@torch.no_grad()
def test_what_is_minimised():
    """The first losses, from the models' own outputs."""
    student, teacher = pair()
    mask = torch.tensor([[0] * 4 + [1] * 7, [1] * 11])
    batch = {"input_ids": tokens_of(), "attention_mask": mask}
    x, y = [], []
    handles = [
        teacher.model.layers[1].input_layernorm.register_forward_hook(lambda *given: x.append(given[2])),
        teacher.model.layers[1].self_attn.register_forward_hook(lambda *given: y.append(given[2][0])),
    ]
    expected = teacher(**batch).logits.double().log_softmax(-1)
    for handle in handles:
        handle.remove()
    ours = student.model.layers[1].self_attn(x[0], attention_mask=mask)[0]
    error = (ours - y[0]).square().sum() / y[0].square().sum()
    divergence = (expected.exp() * (expected - student(**batch).logits.double().log_softmax(-1))).sum(-1)
    with torch.enable_grad():
        done = distill(student, teacher, [batch], layer_steps=1, whole_steps=0, learning_rate=1e-9, **QUIET)
        again = distill(student, teacher, [batch], layer_steps=0, whole_steps=1, learning_rate=1e-9, **QUIET)
    # Of float32: sums of some hundred roundings of 6e-8.
    torch.testing.assert_close(done.layers[0], error.item(), rtol=1e-4, atol=0)
    torch.testing.assert_close(again.whole[0], divergence[mask == 1].mean().item(), rtol=1e-4, atol=0)
    assert (done.whole, again.layers) == ((), ())


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_what_is_observed(name):
    """Attention, called with what was observed of it, gives what was observed of it."""
    model = decoder(name)
    attentions = [getattr(parent, attribute) for parent, attribute in ARCHITECTURES[model.config.model_type].modules(model)]
    found = observed(model, attentions, {"input_ids": tokens_of()})
    for attention, (inputs, y) in zip(attentions, found, strict=True):
        rotary = getattr(model.base_model, "rotary_emb", None)
        angles = {} if rotary is None else {"position_embeddings": rotary(inputs["hidden_states"], inputs["position_ids"])}
        mask = {"attention_mask": inputs.get("attention_mask")}
        torch.testing.assert_close(attention(hidden_states=inputs["hidden_states"], **mask, **angles)[0], y)
    assert not any(module._forward_hooks for attention in attentions for module in attention.modules())


def test_encoders_learn_hidden_states():
    torch.manual_seed(0)
    teacher = copy.deepcopy(encoder("vit")).float()
    student = port(teacher)
    done = distill(student, teacher, [torch.randn(2, 3, 12, 12)], layer_steps=15, whole_steps=15, learning_rate=1e-2, **QUIET)
    assert done.layers[-1] < 0.7 * done.layers[0]
    assert done.whole[-1] < done.whole[0]


def test_progress_is_shown(capsys):
    student, teacher = pair()
    distill(student, teacher, [tokens_of()], layer_steps=1, whole_steps=1)
    shown = capsys.readouterr()
    assert "layers" in shown.err
    assert "whole model" in shown.err
    assert not shown.out


def test_distillation_closes_most_of_the_gap():
    path = Path(__file__).parents[3] / "docs/examples/distil_a_port.py"
    spec = importlib.util.spec_from_file_location("distil_a_port", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    teacher = example.trained(example.corpus()[0], steps=150, width=32)
    result = example.experiment(teacher, "all", "linear", steps=30, progress=False)
    assert result.teacher < result.whole < result.layers < result.ported
    assert result.closed > 0.7, "0.8 with this seed; attention that gives nothing would close none"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s, t: distill(t, t, [tokens_of()], **QUIET), "student: got LlamaForCausalLM; expected a ported model"),
        (lambda s, t: distill(s, s, [tokens_of()], **QUIET), "expected a llama model with attention"),
        (lambda s, t: distill(s, decoder("gpt2"), [tokens_of()], **QUIET), "teacher: got GPT2LMHeadModel; expected a llama model"),
        (
            lambda s, t: distill(s, decoder("llama", num_hidden_layers=2), [tokens_of()], **QUIET),
            "teacher: got 2 layers; expected 3, as the student",
        ),
        (lambda s, t: distill(s, t, [tokens_of()], layer_steps=-1, **QUIET), "layer_steps: got -1"),
        (lambda s, t: distill(s, t, [tokens_of()], learning_rate=0, **QUIET), "learning_rate: got 0; expected a positive"),
        (
            lambda s, t: distill(s, t, itertools.repeat(tokens_of(), 2), layer_steps=3, **QUIET),
            "batches: got no more of them",
        ),
    ],
)
def test_errors(call, says):
    student, teacher = pair()
    with pytest.raises(InvalidInput, match=says):
        call(student, teacher)
