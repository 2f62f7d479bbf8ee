"""The two scans for bfloat16, a mini-batch a step, with layouts chosen by hand: one barrier a step, and no operand by way of shared memory."""

from .backward_pass import backward as backward
from .reverse_scan import reverse_scan as reverse_scan
from .scan import scan as scan


def suits(size: int, width: int, block: int) -> bool:
    """Whether these scans take K = ``size`` and D = ``width`` in blocks of that many mini-batches: they go two by two, with 16 columns for a warp.

    Larger K would not fit the registers, and leave a block but one mini-batch anyway.
    """
    return width in (16, 32, 64, 128) and size <= 32 and block % 2 == 0
