"""Parameters of the authors' public code bases, to ours and back."""

from .jax import from_jax as from_jax
from .jax import to_jax as to_jax
from .pytorch import from_pytorch as from_pytorch
from .pytorch import to_pytorch as to_pytorch
