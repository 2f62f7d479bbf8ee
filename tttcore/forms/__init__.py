"""The forms of one mini-batch: primal (the definition), dual (matrix products of rows) and decode (a token at a time).

``block`` is the dual form of several mini-batches at once.
"""

from . import block as block
from . import dual as dual
from . import primal as primal
from .decode import read as read
from .decode import token as token
from .gradients import apply as apply
from .gradients import gated_sums as gated_sums
from .gradients import maps as maps
from .gradients import token_gradients as token_gradients
