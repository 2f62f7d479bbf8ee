"""Threads and hypothesis profiles for every test.

"ci", the default, draws the same examples on every run; ``--hypothesis-profile random`` draws others each time.
"""

import os

# Before NumPy and the frameworks are imported: the problems are tiny, and several threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=50)
settings.register_profile("random", derandomize=False, deadline=None, max_examples=200)
settings.load_profile("ci")
