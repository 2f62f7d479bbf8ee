"""``torch.compile`` of a whole language model: one graph, the same numbers, and no new graph for each call."""

import pytest
import torch
from small_models import CLOSE, model_of, tokens_of

from ttt_torch.models import TTTCache


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model, backend="eager"):
    """Traced as always and then run as it is; "aot_eager" traces gradients, too. Seconds to compile are what this leaves out."""
    return torch.compile(model, fullgraph=True, backend=backend)


def gradients(model, call, **inputs):
    model.zero_grad()
    loss = call(**inputs).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: x.grad.clone() for name, x in model.named_parameters()}


@pytest.mark.parametrize(("backbone", "inner"), [("transformer", "linear"), ("mamba", "mlp")])
def test_a_step_of_training_is_one_graph_that_serves_again(backbone, inner):
    model = model_of(backbone, inner, num_hidden_layers=1).train()
    call = compiled(model, "aot_eager")
    padded = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
    first, second = tokens_of(2, 5), tokens_of(2, 5).flip(0)
    for number, ids in enumerate((first, second)):
        mask = padded if number == 0 else torch.ones_like(padded)
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            found = gradients(model, call, input_ids=ids, labels=ids, attention_mask=mask)
        torch.testing.assert_close(found, gradients(model, model, input_ids=ids, labels=ids, attention_mask=mask), **CLOSE)


def test_lengths_may_differ():
    """Each has a graph of its own: the loop over mini-batches is unrolled."""
    model = model_of("transformer", num_hidden_layers=1)
    call = compiled(model)
    with torch.no_grad():
        for length in (2, 5):
            ids = tokens_of(2, length)
            torch.testing.assert_close(call(ids).logits, model(ids).logits, **CLOSE)


@torch.no_grad()
def test_a_token_with_a_cache():
    model, ids = model_of(inner="mlp", num_hidden_layers=1), tokens_of(2, 11)
    call, cache = compiled(model), TTTCache()
    expected = model(ids).logits
    model(ids[:, :2], past_key_values=cache)
    model(ids[:, 2:3], past_key_values=cache)
    for t in range(3, 9):
        # The first graph begins with a decoder, the second is of this very count of columns, the third of any.
        with torch.compiler.set_stance("fail_on_recompile" if t > 5 else "default"):
            logits = call(ids[:, t : t + 1], past_key_values=cache).logits
        torch.testing.assert_close(logits[:, 0], expected[:, t], **CLOSE)
    for t in (9, 10):
        torch.testing.assert_close(model(ids[:, t : t + 1], past_key_values=cache).logits[:, 0], expected[:, t], **CLOSE)
    assert cache.get_seq_length() == 11


def test_generation_is_that_of_the_model():
    model, ids = model_of(num_hidden_layers=1), tokens_of(2, 3)
    expected = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(compiled(model).generate(ids, max_new_tokens=4, do_sample=False), expected)
    model.compile(backend="eager")
    assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False, cache_implementation=None), expected)
