"""Checks of the steps' scales in one launch; ``test_ttt_triton`` runs them."""

import pytest
import torch
from on_triton import DEVICE

import tttcore
from ttt_triton.scale import scale, scales
from tttcore.update import MiniBatch

ROUNDINGS = 4
"""Of float32: 1/(i + 1), its sum with δ and the product; on a GPU the quotient is one of two roundings."""


def spec(size, update="mini_batch"):
    return tttcore.LayerSpec(width=8, heads=2, mini_batch_size=size, update=update)


@pytest.mark.parametrize("size", [1, 5, 16, 64])
def test_they_are_those_of_the_update_and_so_are_their_gradients(size):
    generator = torch.Generator(DEVICE).manual_seed(size)
    offset, cotangent = (torch.randn(size, generator=generator, device=DEVICE) for _ in range(2))
    offset.requires_grad_()
    found, expected = scales(spec(size), {"token_lr_offset": offset}), spec(size).update_rule.scale(spec(size), {"token_lr_offset": offset})
    # Digits lost where 1/(i + 1) and δ cancel are of the larger of them.
    atol = ROUNDINGS * torch.finfo(torch.float32).eps * spec(size).base_lr / spec(size).head_dim
    torch.testing.assert_close(found, expected, rtol=0, atol=atol * (1 + float(offset.detach().abs().max())))
    slopes = (torch.autograd.grad(s, offset, cotangent)[0] for s in (found, expected))
    torch.testing.assert_close(*slopes, rtol=ROUNDINGS * torch.finfo(torch.float32).eps, atol=0)


def test_no_step_is_scaled_below_zero():
    offset = torch.tensor([-1.0, -2.0, 0.5, -0.25], device=DEVICE, requires_grad=True)
    found = scale(offset, 1.0)
    found.sum().backward()
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[3] == 0
    assert offset.grad.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_pytorchs_own_checks():
    torch.library.opcheck(scale, (torch.randn(5, device=DEVICE, requires_grad=True), 0.25))


def test_another_update_scales_by_its_own_rule():
    class Constant(MiniBatch):
        def scale(self, spec, params):
            return torch.full_like(params["token_lr_offset"], 2.0)

    assert torch.equal(scales(spec(4, Constant()), {"token_lr_offset": torch.zeros(4)}), torch.full((4,), 2.0))
