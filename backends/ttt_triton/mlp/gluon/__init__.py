"""TTT-MLP's scan for bfloat16 with layouts chosen by hand: two barriers a mini-batch, both maps in registers."""

from .scan import scan as scan


def suits(size: int, width: int, hidden: int) -> bool:
    """Whether this scan takes K = ``size``, D = ``width`` and E = ``hidden``."""
    return size <= 16 and width in (16, 32, 64) and hidden == 4 * width
