"""The forms of one mini-batch: primal (the definition), dual (matrix products of rows) and decode (a token at a time)."""

from . import dual as dual
from . import primal as primal
from .decode import token as token
from .gradients import token_gradients as token_gradients
