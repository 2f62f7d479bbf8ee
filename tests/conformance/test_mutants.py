"""The suite finds every wrong layer with the effort of a default run, by the law that is named for it and not by a crash."""

import functools
import re
from pathlib import Path

import pytest

from ttt_conformance import mutants
from ttt_conformance.laws import LAWS, expected, gradients, numbers, positions, sequence, steps, symmetry, theorems
from ttt_conformance.matrix import EFFORTS, cells
from ttt_conformance.mutants import MUTANTS, OF_BACKENDS
from ttt_conformance.report.results import BROKEN
from ttt_conformance.runner import run
from tttcore import get_backend

DOCS = Path(__file__).parents[2]
DEFAULT = EFFORTS["default"]
CACHES = [
    function
    for module in (expected, gradients, numbers, positions, sequence, steps, symmetry, theorems)
    for function in vars(module).values()
    if hasattr(function, "cache_clear")
]
NAMED = ("strict_causality", "eta_transposed", "phase_reset_on_split", "eps_in_backward", "no_1_over_d")
RELATIONS = ("mask", "split", "packed", "rest", "online", "causality", "positions", "repeat", "dtype", "refusal", "reference")
"""Laws that find a mistake of the reference itself: they compare other calls, or compute the truth in another way."""


@pytest.mark.parametrize("name", MUTANTS)
def test_every_wrong_reference_is_found_by_its_law(name):
    assert_found(MUTANTS[name].backend(name), MUTANTS[name])


@pytest.mark.parametrize("name", [name for name, mutant in OF_BACKENDS.items() if mutant.base == "torch"])
def test_every_wrong_torch_is_found_by_its_law(name):
    assert_found(OF_BACKENDS[name].backend(name), OF_BACKENDS[name])


@pytest.mark.parametrize("name", [name for name, mutant in OF_BACKENDS.items() if mutant.base == "jax"])
def test_every_wrong_jax_is_found_by_its_law(name):
    assert_found(OF_BACKENDS[name].backend(name), OF_BACKENDS[name])


@pytest.mark.parametrize("base", ["torch", "jax"])
@pytest.mark.parametrize("name", NAMED)
def test_a_wrong_core_is_found_under_every_backend(name, base):
    assert_found(MUTANTS[name].backend(f"{base}_{name}", base), MUTANTS[name])


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_moves_no_truth(name):
    """In the whole process: the reference and what is expected of it go wrong together, and the frozen vectors or a relation tell."""
    for cache in CACHES:
        cache.cache_clear()
    try:
        with MUTANTS[name].applied():
            laws = dict.fromkeys(("frozen", MUTANTS[name].law, *RELATIONS))
            assert any(found(cell) for cell in ordered(MUTANTS[name], list(laws))), f"{name} is right by itself"
    finally:
        for cache in CACHES:
            cache.cache_clear()


@pytest.mark.parametrize(("name", "mutant"), (MUTANTS | OF_BACKENDS).items())
def test_every_mutant_says_what_and_where(name, mutant):
    assert mutant.law in LAWS
    assert mutant.cause
    assert not mutant.cause.endswith(".")
    page, _, anchor = mutant.see.partition("#")
    assert anchor in anchors(page), f"{name}: {mutant.see}"


def test_names_are_backends_over_any_base():
    assert mutants.eta_transposed.name == "eta_transposed"
    assert mutants.torch_eta_transposed.array_type is get_backend("torch").array_type
    with pytest.raises(AttributeError, match="no mutant 'eta_upside_down'"):
        _ = mutants.eta_upside_down


def assert_found(backend, mutant):
    """A cell of the mutant's law is red, and no cell of it that was run before was red by a crash."""
    assert any(found(cell) for cell in ordered(mutant, (mutant.law,), backend)), f"law {mutant.law} does not find {backend.name}"


def ordered(mutant, laws, backend=None):
    """The cells of the laws, the likely finder first: the mutant's form and subject."""
    around = "views" in mutant.target or "layer" in mutant.target or mutant.target.endswith(".gate")
    form = next((form for form, part in (("decode", "forms.decode"), ("decode", "_by_token"), ("primal", "primal")) if part in mutant.target), "dual")
    chosen = [cell for cell in cells([backend or get_backend("numpy")], DEFAULT) if cell.law.name in laws]
    return sorted(chosen, key=lambda cell: (laws.index(cell.law.name), (cell.subject == "layer") != around, cell.form != form))


def found(cell):
    """Whether the law is broken in that cell, by a comparison."""
    result = run(cell, DEFAULT)
    broken = result.status == BROKEN
    assert not broken or ": got " in result.message, f"{result.name} crashed: {result.message}"
    return broken


@functools.cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
