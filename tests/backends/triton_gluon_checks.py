"""Checks of the scans that are laid out by hand, which nothing but a GPU can run; ``test_ttt_triton`` runs them there."""

import pytest
import torch

import tttcore
from ttt_triton.linear import gluon as linear
from ttt_triton.mlp import gluon as mlp

REFERENCE, BACKEND = tttcore.get_backend("torch"), tttcore.get_backend("triton")
ROUNDING = 2.0**-9
"""Of bfloat16."""


def problem(inner, size, width, lengths, resumed, seed):
    """(spec, parameters, tokens, state, borders) of packed sequences."""
    generator = torch.Generator(device="cuda").manual_seed(seed)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator, device="cuda")

    spec = tttcore.LayerSpec(width=2 * width, heads=2, mini_batch_size=size, inner=inner)
    names = spec.inner_model.weight_shapes(2, width)
    params = {name: normal(*shape, scale=shape[-2] ** -0.5) for name, shape in names.items()}
    params |= {"norm_weight": 1 + normal(2, width, scale=0.1), "norm_bias": normal(2, width, scale=0.1), "token_lr_offset": normal(size, scale=0.01)}
    shape = (1, sum(lengths), 2)
    tokens = [normal(*shape, width).bfloat16() for _ in range(3)] + [torch.rand(shape, generator=generator, device="cuda").bfloat16()]
    borders = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    parts = [{name: normal(len(lengths), *params[name].shape, scale=0.1) for name in names} for _ in range(2)]
    phase = torch.randint(0, size, (len(lengths),), generator=generator, device="cuda", dtype=torch.int32)
    return spec, params, tokens, tttcore.State(*parts, phase) if resumed else None, borders


def answers(backend, dtype, spec, params, tokens, state, borders):
    """Outputs, final state and the cotangents of everything, by name, when all outputs have random cotangents."""
    generator = torch.Generator(device="cuda").manual_seed(0)

    def leaf(x):
        return x.detach().to(dtype or x.dtype).requires_grad_()

    params, tokens = {name: leaf(x) for name, x in params.items()}, [leaf(x) for x in tokens]
    if state is not None:
        state = state._replace(**{part: {name: leaf(x) for name, x in getattr(state, part).items()} for part in ("weights", "grads")})
    y, end = backend.inner(spec, params, *tokens, state, cu_seqlens=borders)
    results = {"y": y} | {f"{part} {name}": x for part in ("weights", "grads") for name, x in getattr(end, part).items()}
    loss = sum((x.double() * torch.randn(x.shape, generator=generator, device="cuda", dtype=torch.float64)).sum() for x in results.values())
    given = params | dict(zip(("q", "k", "v", "lr"), tokens, strict=True))
    given |= {} if state is None else {f"{part} {name}": x for part in ("weights", "grads") for name, x in getattr(state, part).items()}
    grads = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
    cotangents = {f"d {name}": torch.zeros_like(x) if dx is None else dx for (name, x), dx in zip(given.items(), grads, strict=True)}
    return {name: x.detach().double() for name, x in (results | cotangents).items()}


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("inner", "size", "width", "lengths"),
    [
        ("linear", 16, 64, (531,)),
        ("linear", 16, 64, (110, 0, 3, 216)),
        ("linear", 1, 64, (150, 77)),
        ("linear", 5, 16, (170,)),
        ("linear", 32, 64, (130, 65)),
        ("linear", 16, 32, (130, 65)),
        ("linear", 16, 128, (300,)),
        ("mlp", 16, 64, (531,)),
        ("mlp", 16, 64, (110, 0, 3, 216)),
        ("mlp", 5, 32, (170,)),
        ("mlp", 8, 16, (5, 328)),
    ],
)
def test_no_further_from_float64_than_the_other_kernels(monkeypatch, inner, size, width, lengths, resumed):
    asked = problem(inner, size, width, lengths, resumed, seed=size * width)
    exact = answers(REFERENCE, torch.float64, *asked)
    by_hand = answers(BACKEND, None, *asked)
    for module in (linear, mlp):
        monkeypatch.setattr(module, "suits", lambda *_: False)
    plain = answers(BACKEND, None, *asked)
    assert any(not torch.equal(by_hand[name], plain[name]) for name in exact), "the same kernels ran twice"
    # Made by kernels that both share, and a small difference of large numbers.
    del exact["d token_lr_offset"]
    for name, x in exact.items():
        scale = x.norm() + 1e-30
        errors = [float((found[name] - x).norm() / scale) for found in (by_hand, plain)]
        assert errors[0] <= 2 * errors[1] + ROUNDING, (name, errors)
