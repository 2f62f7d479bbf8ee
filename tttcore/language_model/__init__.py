"""Language models of TTT layers, as far as no framework is needed: what one is, what its parameters are called, and how checkpoints are read."""

from .configs import from_config as from_config
from .configs import from_jax_config as from_jax_config
from .loading import LoadingReport as LoadingReport
from .memory import Memory as Memory
from .naming import JAX as JAX
from .naming import OURS as OURS
from .naming import PYTORCH as PYTORCH
from .naming import Naming as Naming
from .spec import ModelSpec as ModelSpec
