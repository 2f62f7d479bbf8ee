"""The conformance suite: laws that every TTT backend must satisfy, checked on draws and on real text."""

from .laws import LAWS as LAWS
from .report import table as table
from .results import Report as Report
from .results import Result as Result
from .runner import conform as conform
