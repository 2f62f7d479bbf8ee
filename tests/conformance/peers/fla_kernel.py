"""flash-linear-attention's fused kernel in Triton's interpreter against the function that the adapter calls: ``python tests/…/fla_kernel.py``.

Prints, for a length of full mini-batches and for a ragged one, the largest differences as shares of the largest value: of y, W and b, then of
the gradients of all arguments for a cotangent of each of these three alone. (The other kernel, ``chunk_ttt_linear``, does not run there.)
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from fla.ops.ttt import fused_chunk_ttt_linear
from fla.ops.ttt.naive import chunk_ttt_linear_ref
from triton.runtime.autotuner import Autotuner

K, D = 16, 16
LENGTHS = (32, 21)

Autotuner._bench = lambda *_, **__: 0.0  # the interpreter has no driver to time configurations with: take the first


def compare(length: int) -> dict[str, float]:
    """The differences at one length."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, length, 2, D, generator=draw) for _ in range(3))
    gamma, beta = 1 + 0.4 * torch.randn(2, D, generator=draw), 0.4 * torch.randn(2, D, generator=draw)
    eta = torch.rand(1, length, 2, 1, generator=draw) / D
    W, b = 0.4 * torch.randn(1, 2, D, D, generator=draw), 0.4 * torch.randn(1, 2, 1, D, generator=draw)
    arguments = [x.requires_grad_() for x in (q, k, v, gamma, beta, eta, W, b)]
    options = {"scale": 1.0, "initial_state": W, "initial_state_bias": b, "output_final_state": True}
    expected = chunk_ttt_linear_ref(q.clone(), *arguments[1:6], mini_batch_size=K, **options)
    got = fused_chunk_ttt_linear(q.clone(), *arguments[1:6], chunk_size=K, **options)
    found = {name: share(x, y) for name, x, y in zip("yWb", got, expected, strict=True)}
    for name, x, y in zip("yWb", got, expected, strict=True):
        bar = torch.randn(x.shape, generator=draw)
        pairs = (torch.autograd.grad(z, arguments, bar, retain_graph=True, allow_unused=True, materialize_grads=True) for z in (x, y))
        found[f"gradients of {name}"] = max(map(share, *pairs))
    return found


def share(x: torch.Tensor, y: torch.Tensor) -> float:
    """The largest difference, over the largest of y."""
    return float((x - y).abs().max() / y.abs().max().clamp_min(1e-30))


if __name__ == "__main__":
    for length in LENGTHS:
        print(f"T = {length}:", *(f"{name} {size:.1g}" for name, size in compare(length).items()), sep="\n  ")
