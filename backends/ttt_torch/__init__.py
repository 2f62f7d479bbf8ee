"""TTT layers on PyTorch: eager, ``torch.compile``, autograd, CPU and CUDA."""

from .backend import BACKEND as BACKEND
from .layer import TTTLayer as TTTLayer
