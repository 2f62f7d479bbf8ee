"""Axis 3, the learnable views around the inner loop."""

from .projections import VIEWS as VIEWS
from .projections import Projected as Projected
from .projections import Projections as Projections
from .projections import Views as Views
