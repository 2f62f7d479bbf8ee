"""How sequences become mini-batches: padding, packed sequences, phases."""

from .grid import Grid as Grid
from .rows import Rows as Rows
from .rows import longest_sequence as longest_sequence
