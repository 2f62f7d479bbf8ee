"""The PyTorch backend with its arrays on the GPU: ``ttt conform --backend ttt_torch.cuda:BACKEND``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tttcore import BackendUnavailable

from . import backend

if not torch.cuda.is_available():
    fix = "use a machine with an NVIDIA GPU and a CUDA build of PyTorch, or the backend 'torch'"
    raise BackendUnavailable("torch-cuda", got="no CUDA device", expected="torch.cuda.is_available()", fix=fix)


def from_numpy(array: np.ndarray, like: torch.Tensor | None) -> torch.Tensor:
    """As ``backend.from_numpy``, on the current CUDA device where ``like`` does not say."""
    return backend.from_numpy(array, torch.empty(0, device="cuda") if like is None else like)


BACKEND = replace(backend.BACKEND, name="torch-cuda", from_numpy=from_numpy)
