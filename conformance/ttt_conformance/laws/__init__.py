"""The laws, in the order in which a report shows them."""

from .calls import REPEAT
from .frozen import FROZEN
from .gradients import GRADIENTS
from .law import Law as Law
from .law import LawBroken as LawBroken
from .law import Place as Place
from .law import Scope as Scope
from .law import Trial as Trial
from .numbers import DRIFT, DTYPE, HOSTILE
from .positions import POSITIONS
from .refusal import REFUSAL
from .sequence import CAUSALITY, MASK, PACKED, REFERENCE, SPLIT
from .steps import ONLINE, REST
from .symmetry import EQUIVARIANCE, INDEPENDENCE, PERMUTATION
from .theorems import LINEAR_ATTENTION, SOFTMAX_ATTENTION

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        *(FROZEN, REFERENCE, SPLIT, CAUSALITY, EQUIVARIANCE, INDEPENDENCE, PERMUTATION, MASK, PACKED, POSITIONS),
        *(REST, ONLINE, LINEAR_ATTENTION, SOFTMAX_ATTENTION, GRADIENTS, REPEAT, DTYPE, HOSTILE, DRIFT, REFUSAL),
    )
}
