"""Wrong cotangents: shown by a script with NumPy alone, and told by the term that is left out."""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from small import case_of

from ttt_conformance.cases import INNER_MODELS
from ttt_conformance.explain import GradientEvidence
from ttt_conformance.explain.failure import of_gradient
from ttt_conformance.explain.gradient_causes import MISTAKES, changed, likely, slope_of
from ttt_conformance.explain.reproducer import DEFINITION, script
from ttt_conformance.laws import LAWS, Trial
from ttt_conformance.laws.expected import continued
from ttt_conformance.laws.gradients import oracle
from ttt_conformance.matrix import EFFORTS, Cell
from ttt_conformance.mutants import Mutant
from ttt_conformance.problem import Options, argument_paths
from ttt_conformance.runner import run
from tttcore import get_backend
from tttcore.tree import leaves, paths

TORCH = get_backend("torch")
LENGTH = 6
"""One and a half mini-batches."""


def cell_of(backend, subject="inner", inner="linear"):
    return Cell(backend, LAWS["gradients"], "dual", subject, inner, "float64")


@functools.cache
def evidence_of(subject="inner", inner="linear", kind="resumed", length=None):
    """What a backend without a fault answers to a question of the law."""
    question, bars, _ = oracle(case_of(subject, inner, length=length), kind, True)
    trial = Trial(TORCH, "dual")
    trial.gradient(question.problem, bars, question.mask, question.cu_seqlens)
    about = {"title": "torch", "statement": "⟨x̄, u⟩ = ⟨ȳ, ∂f(x)·u⟩", "what": "⟨x̄, u⟩"}
    return of_gradient(trial.call, about | {"problem": question.problem, "options": trial.call.options})


def spoiled(evidence, **changes):
    """Other cotangents, by argument."""
    return dataclasses.replace(evidence, got=evidence.got | {path: change(evidence.got[path]) for path, change in changes.items()})


def broken_at(wrong, change):
    """torch with the cotangents of those arguments changed, in questions of the linear inner loop."""

    def vjp(function, primals, cotangents):
        found = TORCH.vjp_function(function, primals, cotangents)
        names = next(names for names in ARGUMENTS if len(names) == len(found))
        return [change(x) if name in wrong else x for name, x in zip(names, found, strict=True)]

    return dataclasses.replace(TORCH, name="broken", vjp_function=vjp)


# Without a state and with one.
ARGUMENTS = [argument_paths(problem) for problem in (case_of("inner", "linear").problem(), continued(case_of("inner", "linear")))]


def deaf_to_the_state():
    def vjp(function, primals, cotangents):
        return TORCH.vjp_function(function, primals, [cotangents[0], *(0 * bar for bar in cotangents[1:])])

    return dataclasses.replace(TORCH, name="deaf", vjp_function=vjp)


def detaching():
    change = "[(x.detach(), g.detach()) for x, g in zip(trace.inputs, gradients, strict=True)]"
    old = "list(zip(trace.inputs, gradients, strict=True))"
    return Mutant("tttcore.forms.gradients:token_gradients", old, change, law="gradients", cause="", see="").backend("detaching", "torch")


def run_alone(text, folder):
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", path], capture_output=True, text=True, encoding="utf-8", cwd=folder, timeout=60)
    assert done.stderr == ""
    return done.returncode, [line.split()[0] for line in done.stdout.splitlines() if "WRONG" in line], done.stdout


# The slopes that all of this stands on.


@pytest.mark.parametrize(
    ("subject", "inner", "kind"),
    [*itertools.product(["inner", "layer"], INNER_MODELS, ["resumed"]), *itertools.product(["inner", "layer"], ["mlp"], ["fresh", "masked"])],
)
def test_a_complex_step_passes_through_the_definition(subject, inner, kind):
    """To rounding, the slopes are those of the reference; NaN in the padding."""
    question, bars, directions = oracle(case_of(subject, inner, length=LENGTH), kind, True)
    options = Options("dual", question.mask, question.cu_seqlens)
    along = {direction.path: direction.along for direction in directions}
    evidence = GradientEvidence("", "", "", question.problem, options, along, {}, bars=dict(zip(paths(bars), leaves(bars), strict=True)), along=along)
    for path, _, slope, allowed in directions:
        assert abs(slope_of(evidence, path) - slope) <= allowed, path


# A run that finds a broken backend.


@pytest.mark.parametrize(
    ("backend", "wrong", "cause"),
    [
        (broken_at({"q"}, lambda x: 0 * x), {"q"}, "zero cotangents of q: detached"),
        (broken_at({"v"}, lambda x: 0.5 * x), {"v"}, "0.5 times what they should be: the cotangents of v"),
        (broken_at({"params.norm_bias", "k"}, lambda x: -x), {"params.norm_bias", "k"}, "-1 times what they should be"),
        (deaf_to_the_state(), None, MISTAKES["state_bar"].cause),
        (detaching(), None, MISTAKES["inner_gradient"].cause),
    ],
    ids=["zero", "half", "sign", "state", "detached"],
)
def test_a_broken_backend(backend, wrong, cause, tmp_path):
    result = run(cell_of(backend), EFFORTS["quick"], explain=True)
    assert result.status == "broken"
    assert cause in result.failure.cause
    status, found, _ = run_alone(result.failure.reproducer, tmp_path)
    assert (status, bool(found)) == (1, True)
    assert any(f"x = {path}," in result.failure.what for path in found)
    assert wrong is None or set(found) == wrong


# The script.


@pytest.mark.parametrize(("subject", "inner", "kind"), [("inner", "mlp", "masked"), ("inner", "linear", "packed"), ("layer", "linear", "resumed")])
def test_right_cotangents_exit_0(subject, inner, kind, tmp_path):
    evidence = evidence_of(subject, inner, kind)
    status, found, table = run_alone(script(evidence), tmp_path)
    assert (status, found) == (0, [])
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(evidence.got), "one line an argument"


def test_the_wrong_argument_is_named_and_no_other(tmp_path):
    wrong = spoiled(evidence_of("layer", "linear", length=LENGTH), **{"state.grads.W1": lambda x: x + 1e-6, "x": lambda x: x[:, 1:]})
    status, found, table = run_alone(script(wrong), tmp_path)
    assert (status, sorted(found)) == (1, ["state.grads.W1", "x"])
    assert "got (2, 5, 8), expected (2, 6, 8)" in table


def test_what_is_no_argument_is_left_out(tmp_path):
    evidence = evidence_of()
    none = dataclasses.replace(evidence, got={"x": np.ones(3)})
    status, _, table = run_alone(script(none), tmp_path)
    assert status == 1
    assert table.startswith("nothing to compare: the cotangents are of ['x'], the arguments are ['params.W1', ")


def test_not_a_number_is_wrong(tmp_path):
    status, found, _ = run_alone(script(spoiled(evidence_of(), q=lambda x: np.nan * x)), tmp_path)
    assert (status, found) == (1, ["q"])


# The causes.


def with_mistake(evidence, mistake):
    """Cotangents along u alone, such that each slope is what the mistake makes it."""
    got = {path: u * (slope_of(evidence, path, mistake) / np.sum(u * u)) for path, u in evidence.along.items()}
    return dataclasses.replace(evidence, got=got)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("subject", ["inner", "layer"])
def test_each_mistake_is_told_from_all_others(subject, name):
    if (subject, name) == ("inner", "convolution"):
        pytest.skip("the inner loop has none")
    mistake = MISTAKES[name]
    told = likely(with_mistake(evidence_of(subject, "linear", length=LENGTH), mistake))
    assert told == f"{mistake.cause} (see {mistake.see})"


def test_right_cotangents_have_no_cause():
    assert likely(evidence_of()) == ""


def test_cotangents_of_another_shape_have_no_cause_but_a_script(tmp_path):
    wrong = spoiled(evidence_of(), q=lambda x: x[..., :1])
    assert likely(wrong) == ""
    assert run_alone(script(wrong), tmp_path)[:2] == (1, ["q"])


def test_different_factors_have_no_cause():
    assert likely(spoiled(evidence_of(), q=lambda x: 2 * x, k=lambda x: 3 * x)) == ""
    assert likely(spoiled(evidence_of(), q=lambda x: x * np.arange(x.size).reshape(x.shape))) == ""


def test_the_mistakes_are_in_the_definition():
    source = DEFINITION.read_text(encoding="utf-8")
    for name, mistake in MISTAKES.items():
        assert source.count(mistake.old) == 1 or not mistake.old, name
    with pytest.raises(LookupError, match="no longer contains 'a line that there is not'"):
        changed("a line that there is not", "")


def test_evidence_is_exact():
    evidence = evidence_of("layer", "linear", length=LENGTH)
    assert isinstance(evidence, GradientEvidence)
    names = {"__name__": "script"}
    exec(compile(script(evidence), "script.py", "exec"), names)
    for name in ("bars", "got", "along"):
        given = getattr(evidence, name)
        assert {path: x.tobytes() for path, x in names[name.upper()].items()} == {path: x.tobytes() for path, x in given.items()}
    assert names["ALLOWED"] == evidence.allowed
    assert json.loads(evidence.problem.spec.to_json()) == names["SPEC"]
