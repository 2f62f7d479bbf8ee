"""Benchmarks are not installed: they are imported from the root of the repository, where their users stand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
