"""The specification of Test-Time-Training layers (arXiv 2407.04620) and its reference, in any array-API namespace.

The folders are the paper's contents: ``inner_model`` (what the hidden state computes), ``loss`` (what it learns), ``views`` (from what),
``update`` (how fast), ``forms`` (primal, dual, decode), ``state``, ``sequence`` (raggedness), ``layer``.
"""

from . import upstream as upstream
from .backend import Backend as Backend
from .backend import BackendInfo as BackendInfo
from .backend import Supports as Supports
from .backend import backends as backends
from .backend import get_backend as get_backend
from .complex_step import directional_derivative as directional_derivative
from .complex_step import inner_derivative as inner_derivative
from .complex_step import layer_derivative as layer_derivative
from .errors import BackendUnavailable as BackendUnavailable
from .errors import InvalidAnswer as InvalidAnswer
from .errors import InvalidInput as InvalidInput
from .errors import UnknownKeyword as UnknownKeyword
from .errors import Unsupported as Unsupported
from .initial import init as init
from .initial import inner_params as inner_params
from .inner_loop import inner_loop as inner_loop
from .inner_model import Hidden as Hidden
from .inner_model import Stack as Stack
from .language_model import ModelSpec as ModelSpec
from .layer import layer_around as layer_around
from .spec import SPEC_VERSION as SPEC_VERSION
from .spec import LayerSpec as LayerSpec
from .state import State as State

__version__ = "0.1.0"
