"""TTT layers on JAX: eager, ``jit``, ``grad``, ``vmap``, and Flax NNX; CPU, CUDA and TPU through XLA."""

from .backend import BACKEND as BACKEND
from .layer import TTTLayer as TTTLayer
