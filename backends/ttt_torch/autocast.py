"""What ``torch.autocast`` means for a TTT layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Params = Mapping[str, torch.Tensor]
Rest = TypeVar("Rest")


def autocasted(run: Callable[[Params, torch.Tensor], tuple[torch.Tensor, Rest]], params: Params, x: torch.Tensor) -> tuple[torch.Tensor, Rest]:
    """run(params, x); where autocast is on, with tokens and projections in its dtype and all else as it is, y in x's dtype again.

    So the layer is the one that gets such tokens: gate, inner loop and state are float32. Left to itself autocast would narrow the products of the
    inner loop, too, and so the state. float64 stays, as in autocast.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return run(params, x)
    dtype = torch.get_autocast_dtype(device)
    narrow = {name: value.to(dtype) if name.endswith("_proj") else value for name, value in params.items()}
    with torch.autocast(device, enabled=False):
        y, rest = run(narrow, x.to(dtype))
    return y.to(x.dtype), rest
