"""Problems, modules and comparisons for tests of the PyTorch backend."""

import numpy as np
import pytest
import torch

from ttt_conformance.allowance import allowance
from ttt_conformance.laws import Trial
from ttt_torch import BACKEND, TTTLayer
from tttcore.tree import tree_map

FORMS = ("primal", "dual", "decode")
TRIAL = Trial(BACKEND, "dual")
every_form = pytest.mark.parametrize("form", FORMS)


def module_of(problem, form="dual"):
    """A module with the parameters of a problem."""
    layer = TTTLayer(problem.spec, form=form, dtype=torch.float64)
    layer.load_state_dict({name: torch.tensor(x) for name, x in problem.params.items()})
    return layer


def native(tree, grad=True):
    """Tensors of a tree, leaves of a graph where they are floating-point."""
    return tree_map(lambda x: torch.tensor(x, requires_grad=grad and np.issubdtype(x.dtype, np.floating)), tree)


def sensitivity(problem, run):
    """How far a right answer of ``run`` may be from its own."""
    truth = run(problem)
    return truth, allowance(problem, truth, run)
