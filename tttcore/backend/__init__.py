"""Backends: what one is, what it claims, and how it is found."""

from .backend import Backend as Backend
from .backend import Decoder as Decoder
from .registry import BackendInfo as BackendInfo
from .registry import backends as backends
from .registry import get_backend as get_backend
from .registry import peers as peers
from .supports import Supports as Supports
