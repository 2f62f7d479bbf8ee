"""The layer as a PyTorch module."""

from __future__ import annotations

import torch
from torch import nn

from tttcore import InvalidInput, LayerSpec, State, get_backend, init, validate

from .autocast import Params, autocasted
from .decoder import LayerDecoder


class TTTLayer(nn.Module):
    """A TTT layer: x ``[B, T, C]`` → (y ``[B, T, C]``, state), with the parameter names and shapes of ``spec.param_shapes()``.

    ``form`` is the default form of a call: "dual", "primal" or "decode"; ``kernel`` names the backend that computes: "torch", or "triton" for its
    kernels on a GPU, which raises ``BackendUnavailable`` where there is none and ``Unsupported`` for calls beyond their claims. Parameters are
    drawn from PyTorch's generator, as ``tttcore.init`` draws them. Law: ``layer(x)`` equals ``get_backend("numpy").layer(spec, params, x)`` on the
    same parameters.
    """

    def __init__(
        self,
        spec: LayerSpec,
        *,
        form: str = "dual",
        kernel: str = "torch",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.form, self.kernel = spec, form, kernel
        self._backend = get_backend(kernel)
        if self._backend.array_type is not torch.Tensor:
            raise InvalidInput("kernel", got=repr(kernel), expected="a backend on PyTorch's tensors", fix="use 'torch' or 'triton'")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        for name, shape in spec.param_shapes().items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all parameters anew, governed by ``torch.manual_seed``; on the meta device there is nothing to draw."""
        if any(x.is_meta for x in self.parameters()):
            return
        seed = int(torch.randint(2**63 - 1, ()).item())
        for name, value in init(self.spec, seed).items():
            self.get_parameter(name).copy_(torch.from_numpy(value))

    def forward(
        self,
        x: torch.Tensor,
        state: State | None = None,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        form: str | None = None,
    ) -> tuple[torch.Tensor, State]:
        """y ``[B, T, C]`` in x's dtype and the state after the last token; arguments as in ``tttcore.Backend.layer``."""

        def run(params: Params, x: torch.Tensor) -> tuple[torch.Tensor, State]:
            return self._backend.layer(self.spec, params, x, state=state, form=self.form if form is None else form, mask=mask, positions=positions)

        return autocasted(run, dict(self.named_parameters(recurse=False)), x)

    def decoder(self, state: State) -> LayerDecoder | None:
        """A decoder from this state on, for tokens without gradients; None where the kernel has none.

        Raises ``InvalidInput`` for another's state, and where the spec's read-out is whole.
        """
        validate.form_of(self.spec, "decode")
        make = self._backend.decoder_function
        if make is None:
            return None
        validate.state(self.spec, state, len(state.phase), conv=self.spec.share_qk, concrete=self._backend.concrete)
        return LayerDecoder(self, make, state)

    def extra_repr(self) -> str:
        """The spec, the form and the kernel."""
        return f"{self.spec}, form={self.form!r}, kernel={self.kernel!r}"
