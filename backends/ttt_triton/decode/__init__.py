"""Decoding on NVIDIA GPUs: one token a launch, on a buffer of the running mini-batch's rows (docs/mathematics.md, 9.2)."""

from .decoder import Decoder as Decoder
from .decoder import decode as decode
