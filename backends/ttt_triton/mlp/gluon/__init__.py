"""TTT-MLP's scans for bfloat16 with layouts chosen by hand: both maps, or their cotangents, in registers, two barriers a mini-batch."""

from .reverse_scan import described as described
from .reverse_scan import reverse_scan as reverse_scan
from .scan import destinations as destinations
from .scan import scan as scan


def suits(size: int, width: int, hidden: int) -> bool:
    """Whether ``scan`` takes K = ``size``, D = ``width`` and E = ``hidden``; ``reverse_scan`` copies rows of 16 tokens and so takes K = 16 alone."""
    return size <= 16 and width in (16, 32, 64) and hidden == 4 * width
