"""Threads, hypothesis profiles and the path of shared helpers for every test.

"ci", the default, draws the same examples on every run; ``--hypothesis-profile random`` draws others each time.
"""

import os
import sys
from pathlib import Path

# Before NumPy and the frameworks are imported: the problems are tiny, and several threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=50)
settings.register_profile("random", derandomize=False, deadline=None, max_examples=200)
settings.load_profile("ci")
