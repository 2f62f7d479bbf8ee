"""The terminal's view."""

import dataclasses
from pathlib import Path

import synthetic
from rich.console import Console

from ttt_conformance.laws import LAWS
from ttt_conformance.report.terminal import table


def shown(*arguments):
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table(*arguments))
    return capture.get()


def rows(text):
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in cells if len(row) > 1}


def test_a_row_a_law_and_a_column_a_backend():
    text = shown(synthetic.mixed())
    found, laws = rows(text), list(LAWS)
    assert list(found) == laws
    assert found[laws[0]] == ["0.02 · 1.2 s", "0.02 · 1.2 s (partly claimed)", "BROKEN 2/2 · 1.0 s", "not claimed"]
    assert found[laws[1]][:2] == ["exact · 5.2 s"] * 2
    assert found[laws[3]][2:] == ["—", "—"]
    assert found[laws[-1]][1] == "not claimed"
    assert "Broken: jax · " in text
    assert "(3 broken)" in text


def test_all_laws_hold():
    text = shown(synthetic.holding())
    assert "All laws hold · " in text
    assert "╭" not in text


def test_a_failure_is_told_in_full():
    report = synthetic.mixed()
    text = shown(report, {report.broken[0].name: Path("folder/script.py")})
    for part in (
        "jax: ",
        "2 rows of 5 tokens",
        "0.1234567890123",
        "0.25",
        "0.127 where 2.5e-13 is allowed",
        "the mini-batch's gradient",
        "folder/script.py",
    ):
        assert part in text
    assert "weights.W1 at [1, 0, 3]" in text
    assert LAWS[synthetic.LAW].statement in text
    assert "and 1 more broken cell, of these laws and backends" in text


def test_a_failure_without_numbers_is_told_by_its_message():
    failure = dataclasses.replace(synthetic.FAILURE, index=[], got=None, expected=None, error=None, allowed=0.0, cause="")
    message = "y: got shape (1,); expected shape (2,)"
    for what in (failure.what, message):
        text = shown(synthetic.report(synthetic.broken(failure=dataclasses.replace(failure, what=what, spec={}), message=message)))
        assert text.count(message) == 1
        assert what in text
        assert failure.case in text
        assert "no finite number" not in text
        assert "spec  " not in text


def test_no_path_no_reproducer():
    assert "reproducer" not in shown(synthetic.mixed())


def test_brackets_are_shown_and_control_characters_are_escaped():
    text = shown(synthetic.hostile())
    assert r"alert('[red]')</script> \x1b[31m \x00 \ud800 ]]> & [B, T]" in text
    assert "\x1b" not in text
    assert "shape [b, t] [/red]" in shown(synthetic.mixed())


def test_a_report_of_nothing():
    assert "Nothing was compared" in " ".join(shown(synthetic.empty()).split())
