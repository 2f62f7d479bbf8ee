"""Why a law is broken: what was compared, and a script that shows it with NumPy alone."""

from .evidence import Evidence as Evidence
from .evidence import GradientEvidence as GradientEvidence
