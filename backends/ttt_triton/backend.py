"""The backend object: its claims, and which kernels answer a form. Tensors come and go as in ``ttt_torch``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import triton

from ttt_torch.backend import concrete as readable
from ttt_torch.backend import from_numpy as tensor_from_numpy
from ttt_torch.backend import to_numpy, vjp
from tttcore import Backend, LayerSpec, State, Supports, Unsupported
from tttcore.tree import leaves

from .claims import NAME, SIZES, WIDTHS, check_device, check_tensors
from .decode import Decoder, decode
from .inner import dual
from .layout import INTERPRETED


def inner(
    spec: LayerSpec,
    params: Mapping[str, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lr: torch.Tensor,
    *,
    state: State | None,
    form: str,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, State]:
    """The inner loop; in dual form differentiable in every floating-point argument. See ``tttcore.Backend.inner``.

    Raises ``Unsupported`` for float64 anywhere, for tensors on the CPU unless Triton interprets, for gradients through decoding, and for D and K
    whose matrices do not fit the shared memory of this GPU.
    """
    check_device(q, {"params": params, "state": state, "k": k, "v": v, "lr": lr, "mask": mask, "cu_seqlens": cu_seqlens})
    check_tensors((*params.values(), q, k, v, lr, *leaves(None if state is None else state[:2])))
    run = decode if form == "decode" else dual
    try:
        return run(spec, params, q, k, v, lr, state=state, mask=mask, cu_seqlens=cu_seqlens)
    except triton.OutOfResources as error:
        got = f"D = {spec.head_dim} with K = {spec.mini_batch_size}, which take {error.required} of {error.name}"
        raise Unsupported(NAME, field="head_dim", got=got, expected=f"at most {error.limit}", fix="use another backend") from error


def from_numpy(array: np.ndarray, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor of the array's dtype and values on the device of ``like``; without one, on the device that kernels run on here."""
    home = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
    return tensor_from_numpy(array, torch.empty(0, device=home) if like is None else like)


def concrete(tensor: torch.Tensor) -> bool:
    """Whether values can be read at no cost: never a GPU's, because each call would wait for the one before it to end."""
    return tensor.device.type == "cpu" and readable(tensor)


SUPPORTS = Supports(
    forms=("dual", "decode"),
    inner=("linear", "mlp"),
    loss=("squared_error",),
    dtypes=("bfloat16", "float16", "float32"),
    mini_batch_sizes=SIZES,
    head_dims=WIDTHS,
)
BACKEND = Backend(
    NAME,
    inner,
    SUPPORTS,
    array_type=torch.Tensor,
    from_numpy=from_numpy,
    to_numpy=to_numpy,
    concrete=concrete,
    vjp_function=vjp,
    decoder_function=Decoder,
)
