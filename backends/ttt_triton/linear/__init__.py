"""TTT-Linear in the block dual form: a scan over blocks of mini-batches, and parallel kernels for all that does not wait for it."""

from .op import linear as linear
