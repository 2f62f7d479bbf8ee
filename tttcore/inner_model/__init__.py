"""Axis 1, the inner model: what the hidden state computes."""

from .activations import ACTIVATIONS as ACTIVATIONS
from .activations import Activation as Activation
from .norm import layer_norm as layer_norm
from .stack import INNER_MODELS as INNER_MODELS
from .stack import Hidden as Hidden
from .stack import Stack as Stack
