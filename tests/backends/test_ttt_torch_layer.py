"""The PyTorch backend's module: its parameters, its calls, copies of it, and that it learns."""

import copy
import dataclasses

import pytest
import torch
from on_torch import TRIAL, every_form, module_of, native, sensitivity
from small import case_of, every_model

from ttt_conformance.cases import INNER_MODELS
from ttt_conformance.laws.expected import continued
from ttt_conformance.problem import Outcome
from ttt_torch import BACKEND, TTTLayer
from tttcore import InvalidInput, LayerSpec, UnknownKeyword, get_backend, init
from tttcore.tree import tree_map


@pytest.mark.parametrize("rich", [False, True])
@every_model
def test_the_modules_parameters_are_the_specs(inner, rich):
    spec = LayerSpec(8, 2, inner=INNER_MODELS[inner], share_qk=rich, gate=rich)
    layer = TTTLayer(spec)
    expected = init(spec, 0)
    assert list(layer.state_dict()) == list(expected)
    assert {name: tuple(x.shape) for name, x in layer.state_dict().items()} == {name: x.shape for name, x in expected.items()}
    assert {x.dtype for x in layer.parameters()} == {torch.float32}
    assert {x.dtype for x in TTTLayer(spec, dtype=torch.float64).parameters()} == {torch.float64}
    assert all(x.requires_grad for x in layer.parameters())
    assert repr(spec) in repr(layer)


@pytest.mark.parametrize(
    ("kernel", "error"), [("nowhere", "got 'nowhere'; expected one of "), ("numpy", "got 'numpy'; expected a backend on PyTorch's")]
)
def test_a_kernel_is_a_backend_on_pytorch(kernel, error):
    with pytest.raises(InvalidInput, match=error):
        TTTLayer(LayerSpec(8, 2), kernel=kernel)


def test_parameters_are_drawn_from_the_generator_of_torch():
    spec = LayerSpec(16, 2, share_qk=True)
    torch.manual_seed(3)
    one, two = TTTLayer(spec), TTTLayer(spec)
    torch.manual_seed(3)
    again = TTTLayer(spec)
    for name, x in one.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], x, rtol=0, atol=0)
    assert not torch.equal(one.q_proj, two.q_proj)
    # As tttcore.init draws: normal weights of 0.02 (512 of them: their deviation is good to 1/√1024), ones and zeros.
    assert abs(float(torch.std(torch.cat([one.q_proj, one.v_proj]).detach())) - 0.02) < 5 * 0.02 / 32
    assert torch.equal(one.norm_weight, torch.ones(2, 8))
    assert not one.token_lr_offset.any()


@every_form
@every_model
def test_the_module_is_the_layer(inner, form):
    problem = continued(case_of("layer", inner))
    layer = module_of(problem)

    def run(problem):
        return Outcome(*get_backend("numpy").layer(problem.spec, problem.params, *problem.inputs, state=problem.state, form="primal"))

    truth, allowed = sensitivity(problem, run)
    with torch.no_grad():
        got = layer(torch.tensor(problem.inputs[0]), native(problem.state), form=form)
    TRIAL.compare(form, Outcome(*tree_map(BACKEND.to_numpy, tuple(got))), truth, allowed)
    positions = torch.arange(problem.length)[None] + 1
    with torch.no_grad():
        shifted, _ = layer(torch.tensor(problem.inputs[0]), native(problem.state), positions=positions, form=form)
    assert not torch.equal(shifted, got[0])


def test_the_modules_form_is_its_calls_default(monkeypatch):
    asked = []
    recording = dataclasses.replace(BACKEND, layer_function=lambda *args, form, **_: asked.append(form) or (args[3], None))
    monkeypatch.setattr("ttt_torch.layer.get_backend", lambda name: recording)
    layer, x = TTTLayer(LayerSpec(8, 2), form="decode"), torch.ones(1, 2, 8)
    layer(x)
    layer(x, form="primal")
    TTTLayer(LayerSpec(8, 2))(x)
    assert asked == ["decode", "primal", "dual"]


def test_copies_and_saved_parameters_compute_the_same():
    problem = case_of("layer", "mlp").problem()
    layer = module_of(problem)
    x = torch.tensor(problem.inputs[0])
    y, _ = layer(x)
    loaded = TTTLayer(problem.spec, dtype=torch.float64)
    assert not torch.equal(loaded(x)[0], y)
    loaded.load_state_dict(layer.state_dict())
    copied = copy.deepcopy(layer)
    for other in (loaded, copied):
        torch.testing.assert_close(other(x)[0], y, rtol=0, atol=0)
    with torch.no_grad():
        copied.q_proj.zero_()
    torch.testing.assert_close(layer(x)[0], y, rtol=0, atol=0)


@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_a_small_model_learns(inner):
    """Next-token prediction of a repeated pattern."""
    torch.manual_seed(0)
    spec = LayerSpec(16, 2, inner=INNER_MODELS[inner], mini_batch_size=4, share_qk=True, gate=True)
    embed, layer, head = torch.nn.Embedding(8, 16), TTTLayer(spec), torch.nn.Linear(16, 8)
    parameters = [*embed.parameters(), *layer.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2)
    tokens = torch.randint(8, (4, 6)).repeat(1, 3)
    losses = []
    for _ in range(25):
        x = embed(tokens[:, :-1])
        logits = head(x + layer(x)[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        assert all(torch.isfinite(x.grad).all() for x in parameters)
        optimiser.step()
        losses.append(loss.item())
    assert all(x.grad.any() for x in layer.parameters()), "every parameter takes part"
    assert losses[-1] < losses[0] / 2


def test_errors_are_those_of_the_core():
    layer = TTTLayer(LayerSpec(8, 2))
    with pytest.raises(InvalidInput, match=r"shape of x: got \(1, 3, 7\); expected \(1, 3, 8\)"):
        layer(torch.ones(1, 3, 7))
    with pytest.raises(UnknownKeyword, match=r"got \['attention_mask'\]"):
        BACKEND.layer(layer.spec, dict(layer.named_parameters()), torch.ones(1, 3, 8), attention_mask=None)
