"""``ttt diff``: exit statuses and words."""

import dataclasses

import pytest
from command import said, ttt

from ttt_conformance.report import Report, Result
from ttt_conformance.report.results import BROKEN, HOLDS, SCHEMA_VERSION


@pytest.fixture
def reports(tmp_path):
    """Reports of one cell: as it was, broken, grown; and what is none."""
    row = Result("mine", "rest", "dual", "inner", "linear", "float64", HOLDS, 0.2, 3, 2, 0.5)
    rows = {
        "same": row,
        "slower": dataclasses.replace(row, seconds=9.0),
        "grown": dataclasses.replace(row, worst=0.9),
        "broken": dataclasses.replace(row, status=BROKEN, worst=9.0, message="wrong"),
    }
    for name, result in rows.items():
        Report([result], 1.0).write(tmp_path / name)
    (tmp_path / "none").write_text("{}")
    (tmp_path / "newer").write_text((tmp_path / "same").read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "status", "words"),
    [
        ("same", "same", 0, "no cell changed"),
        ("same", "slower", 0, "no cell changed"),
        ("broken", "same", 0, "mended"),
        ("grown", "same", 0, "no cell changed"),
        ("same", "grown", 1, "error grew"),
        ("same", "broken", 1, "newly broken"),
        ("broken", "broken", 0, "no cell changed"),
        ("same", "none", 2, "expected a report of ttt conform --json"),
        ("none", "same", 2, "expected a report of ttt conform --json"),
        ("newer", "same", 2, "schema_version: got 99; expected"),
        ("same", "absent", 2, "does not exist"),
        ("same", ".", 2, "is a directory"),
    ],
)
def test_two_reports_compared(old, new, status, words, reports):
    result = ttt("diff", reports / old, reports / new)
    assert result.exit_code == status, result.output
    assert words in said(result)
    assert "Traceback" not in result.output
