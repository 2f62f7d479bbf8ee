"""Reports: what a run found, for terminals, browsers, other programs and later runs."""

from .results import Failure as Failure
from .results import Point as Point
from .results import Report as Report
from .results import Result as Result
