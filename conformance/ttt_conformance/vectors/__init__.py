"""Frozen vectors: problems with their answers and gradients in float64, made once from the reference and kept with the spec's version."""

from .store import FOLDER as FOLDER
from .store import Vector as Vector
from .store import files as files
from .store import load as load
from .store import save as save
