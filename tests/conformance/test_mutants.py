"""The suite must catch every wrong layer, by a law and not by a crash."""

import pytest
from mutants import MUTANTS

from ttt_conformance.results import BROKEN, Result
from ttt_conformance.runner import cells, run
from tttcore import Backend

ORDER = ("frozen", "packed", "mask", "split", "reference", "gradients", "causality")  # the law that kills most comes first
NAMED = ("strict_causality", "eta_transposed", "phase_reset_on_split", "eps_in_backward", "no_1_over_d")


def first_broken(backend: Backend) -> Result:
    """The first cell of the matrix that turns red."""
    for cell in sorted(cells([backend]), key=lambda cell: ORDER.index(cell.law.name)):
        result = run(cell, max_examples=2)
        if result.status == BROKEN:
            return result
    pytest.fail(f"mutant {backend.name} survived every law")


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_killed(name):
    result = first_broken(MUTANTS[name].backend(name))
    assert "got an error of" in result.message, f"killed by a crash: {result.message}"


@pytest.mark.parametrize("base", ["torch", "jax"])
@pytest.mark.parametrize("name", NAMED)
def test_a_seeded_bug_in_a_backend_is_killed(name, base):
    result = first_broken(MUTANTS[name].backend(f"{base}_{name}", base))
    assert "got an error of" in result.message, f"killed by a crash: {result.message}"
