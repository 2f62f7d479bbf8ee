"""ℓ(W_0), ℓ at the mini-batch's start and ℓ(W_t), against the reference's weights one token at a time."""

import numpy as np
import pytest
import torch

from ttt_lm.inner_loss import inner_losses
from ttt_torch import TTTLayer
from tttcore import LayerSpec, get_backend
from tttcore.forms import maps
from tttcore.state import initial_state


@pytest.mark.parametrize("options", [{"inner": "linear"}, {"inner": "mlp", "share_qk": True, "gate": True}])
def test_inner_losses(options):
    torch.manual_seed(0)
    spec = LayerSpec(width=16, heads=2, mini_batch_size=4, **options)
    layer = TTTLayer(spec)
    with torch.no_grad():
        for x in layer.parameters():
            x.add_(0.3 * torch.randn_like(x))
        layer.token_lr_offset.abs_()  # so that a_i > 0: what is learned is carried on
    x = torch.randn(2, 10, 16)
    found = inner_losses(layer, x)

    params = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    inner = {name: params[name] for name in spec.inner_shapes()}
    _, k, v, _ = spec.views_rule.project(spec, params, x.double().numpy(), np.arange(10)[None], None, None)
    lr = spec.update_rule.gate(spec, params, x.double().numpy())

    def loss(weights, t):
        keys = k[:, t, :, None, :]
        z = spec.inner_model.forward(keys, maps(spec, weights)[0]).outputs[-1]
        return spec.loss_function(spec.inner_model.output(inner, keys, z, spec.eps)[:, :, 0], v[:, t]).mean()

    start = state = initial_state(spec, inner, 2, np.float64)
    scale = spec.update_rule.scale(spec, inner)
    expected = np.empty((3, 10))
    for t in range(10):
        token = slice(t, t + 1)
        _, after = get_backend("numpy").inner(spec, inner, k[:, token], k[:, token], v[:, token], lr[:, token], state=state, form="decode")
        last = t % 4 == 3
        read = after.weights if last else {name: w - scale[t % 4] * after.grads[name] for name, w in state.weights.items()}
        expected[:, t] = loss(start.weights, t), loss(state.weights, t), loss(read, t)
        state = after
    # float32 against float64: sums of 16 products, LayerNorms of numbers near 1.
    np.testing.assert_allclose(np.stack(found), expected, rtol=2e-5)
    assert (found.initial[:4] == found.before[:4]).all()
    assert not np.isclose(found.before[4:], found.initial[4:], rtol=1e-3).any()
    assert not np.isclose(found.after, found.before, rtol=1e-3).any()
