"""How fast the kernels are on a GPU: the inner loop beside what else mixes tokens, each checked before it is timed.

``python -m benchmarks.kernels`` measures, ``python -m benchmarks.kernels.plot`` draws what it wrote. docs/benchmarks.md says how to read both.
"""
