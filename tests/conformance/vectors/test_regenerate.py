"""The generator: it makes the shipped vectors, and the same bytes every time."""

from dataclasses import replace

import numpy as np
import pytest

from ttt_conformance.laws import Trial
from ttt_conformance.vectors import FOLDER, load
from ttt_conformance.vectors.catalogue import CATALOGUE
from ttt_conformance.vectors.container import encode
from ttt_conformance.vectors.questions import CUT, LENGTHS
from ttt_conformance.vectors.regenerate import gradients, vector
from tttcore import get_backend
from tttcore.tree import leaves, paths

NAMED = {entry.name: entry for entry in CATALOGUE}


def shipped(name):
    return load(FOLDER / f"{name}.safetensors")


@pytest.mark.parametrize("name", NAMED)
def test_the_shipped_questions_are_asked_again(name):
    """Bit for bit; a state that the reference computed, to a rounding step of float32."""
    entry, found = NAMED[name], shipped(name)
    asked = entry.ask(entry.draw)
    assert (found.name, found.about, found.description) == (entry.name, entry.about, entry.description)
    assert asked.problem.spec == found.question.problem.spec
    for new, old in zip(asked, found.question, strict=True):
        new, old = ((x.params, x.inputs) if hasattr(x, "params") else x for x in (new, old))
        assert list(paths(new)) == list(paths(old))
        for x, y in zip(leaves(new), leaves(old), strict=True):
            np.testing.assert_array_equal(x, y)
    for x, y in zip(leaves(asked.problem.state), leaves(found.question.problem.state), strict=True):
        np.testing.assert_array_max_ulp(x.astype(np.float32), y.astype(np.float32), 1)


@pytest.mark.parametrize("name", ["inner-linear-initial", "inner-linear-resumed", "inner-bare-resumed"])
def test_the_shipped_gradients_are_found_again(name):
    found = shipped(name)
    trial = Trial(get_backend("numpy"), "primal")
    trial.compare(name, gradients(found.slopes.bars, found.question.problem), found.slopes.gradients, found.allowances("float64")[1])
    assert trial.comparisons


def test_a_new_vector_has_the_same_bytes_twice():
    entry = NAMED["inner-linear-resumed"]
    entry = replace(entry, draw=replace(entry.draw, length=3))
    assert encode(vector(entry).content()) == encode(vector(entry).content())


def test_the_two_parts_are_the_whole():
    whole, first, second = (shipped(f"inner-linear-{part}") for part in ("initial", "cut-first", "cut-second"))
    np.testing.assert_array_equal(first.question.problem.inputs[0], whole.question.problem.inputs[0][:, :CUT])
    for x, y in zip(leaves(first.answer.truth.state), leaves(second.question.problem.state), strict=True):
        np.testing.assert_array_equal(x, y)
    joined = whole.answer.truth._replace(y=np.concatenate([first.answer.truth.y, second.answer.truth.y], axis=1), state=second.answer.truth.state)
    Trial(get_backend("numpy"), "primal").compare("joined", joined, whole.answer.truth, whole.allowances("float64")[0])


def test_what_each_vector_is_there_for_is_in_it():
    assert 0 in LENGTHS
    assert len(set(shipped("inner-linear-resumed").question.problem.state.phase)) == 2
    assert shipped("inner-linear-empty").question.problem.length == 0
    assert not any(x.any() for x in shipped("inner-linear-whole").answer.truth.state.grads.values())
    assert np.max(np.abs(shipped("inner-linear-faint").question.problem.params["W1"])) < 1e-3
    assert shipped("layer-linear-mask").question.problem.state.conv.any()
