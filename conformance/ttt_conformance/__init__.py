"""The conformance suite: laws that every backend of ``tttcore`` must hold, checked on hypothesis draws and on real text.

``conform(backends)`` returns a ``Report``; ``LAWS`` are the laws by name; ``ttt`` is the command line; as a pytest plugin it runs by
``pytest --pyargs ttt_conformance --ttt-backend NAME``.
"""

from .laws import LAWS as LAWS
from .laws import Law as Law
from .report import Failure as Failure
from .report import Report as Report
from .report import Result as Result
from .runner import conform as conform
