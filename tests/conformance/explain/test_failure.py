"""What is said of a broken law, whatever the call that broke it."""

import dataclasses

import pytest
from small import case_of

from ttt_conformance.explain.failure import LONGEST, finding
from ttt_conformance.laws import LAWS, LawBroken, Trial
from ttt_conformance.laws.gradients import oracle
from ttt_conformance.matrix import EFFORTS, Cell
from ttt_conformance.runner import run
from tttcore import get_backend

TORCH = get_backend("torch")


def cell_of(law, dtype="float64", backend=TORCH):
    return Cell(backend, LAWS[law], "dual", "inner", "linear", dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_tokens_are_judged_by_their_own_rounding(dtype):
    def too_large(*arguments, **options):
        y, state = TORCH.inner_function(*arguments, **options)
        return 2 * y, state

    failure = run(
        cell_of("dtype", dtype, dataclasses.replace(TORCH, name="broken", inner_function=too_large)), EFFORTS["quick"], explain=True
    ).failure
    assert "narrow tokens" in failure.what
    names = {"__name__": "script"}
    exec(compile(failure.reproducer, "script.py", "exec"), names)
    assert names["main"]() == 1


def test_what_a_script_cannot_show_has_none():
    """A law that right numbers broke by something else."""
    trial, (question, bars, _) = Trial(TORCH, "dual"), oracle(case_of("inner", "linear"), "resumed", True)
    trial.answer(question.problem)
    answered = trial.call
    trial.gradient(question.problem, bars)
    for call in (answered, trial.call, None):
        assert finding(cell_of("gradients"), LawBroken("dtype", "float32", "float64", "nothing else", call=call)) == ("", None)


def test_no_script_for_more_tokens_than_anyone_reads():
    trial = Trial(TORCH, "dual")
    trial.answer(case_of("inner", "linear", (1, 1, 4, 64), length=LONGEST + 1).problem())
    wrong = trial.call._replace(got=trial.call.got._replace(y=trial.call.got.y + 1))
    assert finding(cell_of("drift"), LawBroken("y", "1", "0", "0", call=wrong)).evidence is None
