"""The laws, in the order in which a report shows them."""

from .frozen import FROZEN
from .gradients import GRADIENTS
from .law import Law as Law
from .law import LawBroken as LawBroken
from .law import Scope as Scope
from .law import Trial as Trial
from .sequence import CAUSALITY, MASK, PACKED, REFERENCE, SPLIT

LAWS: dict[str, Law] = {law.name: law for law in (FROZEN, REFERENCE, SPLIT, CAUSALITY, MASK, PACKED, GRADIENTS)}
