"""Random problems for the Triton backend on the device that its kernels run on, and answers with all cotangents."""

import torch

import tttcore
from ttt_triton.layout import INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"


def problem(inner, size, width, lengths, seed, resumed=False, packed=True, dtype=torch.bfloat16):
    """(spec, parameters, tokens, state, borders) of packed sequences, or of as many rows of a batch as there are lengths, all of them equal."""
    generator = torch.Generator(DEVICE).manual_seed(seed)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator, device=DEVICE)

    spec = tttcore.LayerSpec(width=2 * width, heads=2, mini_batch_size=size, inner=inner)
    names = spec.inner_model.weight_shapes(2, width)
    params = {name: normal(*shape, scale=shape[-2] ** -0.5) for name, shape in names.items()}
    params |= {"norm_weight": 1 + normal(2, width, scale=0.1), "norm_bias": normal(2, width, scale=0.1), "token_lr_offset": normal(size, scale=0.01)}
    shape = (1, sum(lengths), 2) if packed else (len(lengths), lengths[0], 2)
    tokens = [normal(*shape, width).to(dtype) for _ in range(3)] + [torch.rand(shape, generator=generator, device=DEVICE).to(dtype)]
    borders = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int() if packed else None
    parts = [{name: normal(len(lengths), *params[name].shape, scale=0.1) for name in names} for _ in range(2)]
    phase = torch.randint(0, size, (len(lengths),), generator=generator, device=DEVICE, dtype=torch.int32)
    return spec, params, tokens, tttcore.State(*parts, phase) if resumed else None, borders


def answers(backend, dtype, spec, params, tokens, state, borders):
    """Outputs, final state and the cotangents of everything, by name, when all outputs have random cotangents."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def leaf(x):
        return x.detach().to(dtype or x.dtype).requires_grad_()

    params, tokens = {name: leaf(x) for name, x in params.items()}, [leaf(x) for x in tokens]
    if state is not None:
        state = state._replace(**{part: {name: leaf(x) for name, x in getattr(state, part).items()} for part in ("weights", "grads")})
    y, end = backend.inner(spec, params, *tokens, state, cu_seqlens=borders)
    results = {"y": y} | {f"{part} {name}": x for part in ("weights", "grads") for name, x in getattr(end, part).items()}
    loss = sum((x.double() * torch.randn(x.shape, generator=generator, device=DEVICE, dtype=torch.float64)).sum() for x in results.values())
    given = params | dict(zip(("q", "k", "v", "lr"), tokens, strict=True))
    given |= {} if state is None else {f"{part} {name}": x for part in ("weights", "grads") for name, x in getattr(state, part).items()}
    grads = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
    cotangents = {f"d {name}": torch.zeros_like(x) if dx is None else dx for (name, x), dx in zip(given.items(), grads, strict=True)}
    return {name: x.detach().double() for name, x in (results | cotangents).items()}


def assert_no_further(found, other, exact, rounding):
    """That ``found`` is no further from ``exact`` than twice ``other`` and one rounding; Δδ, a small difference of large numbers, left out."""
    for name in exact.keys() - {"d token_lr_offset"}:
        scale = exact[name].norm() + 1e-30
        errors = [float((answers[name] - exact[name]).norm() / scale) for answers in (found, other)]
        assert errors[0] <= 2 * errors[1] + rounding, (name, errors)
