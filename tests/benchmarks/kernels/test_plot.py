"""The picture of a run."""

import dataclasses

import pytest

pytest.importorskip("matplotlib")

from benchmarks.kernels import plot

PNG = b"\x89PNG"


def test_a_record_becomes_a_picture(record, tmp_path, capsys):
    record.write(tmp_path / "run.json")
    assert plot.main([str(tmp_path / "run.json"), str(tmp_path / "run.png")]) == 0
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)
    assert "wrote" in capsys.readouterr().out


def test_a_line_is_of_nanoseconds_a_token(record):
    assert plot._points(record, "attention", False, "forward") == [(1024, 1e6 * 4 / 4096), (4096, 1e6 * 16 / 4096)]
    assert [label for label, *_ in plot._lines(record)] == ["TTT-Linear", "attention", "TTT-MLP"]


@pytest.mark.parametrize("arguments", [[], ["none.json", "picture.png"]])
def test_usage(arguments, capsys):
    assert plot.main(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("got", "expected", "Fix"))


def test_nothing_timed_is_no_picture(record, tmp_path, capsys):
    dataclasses.replace(record, results=[]).write(tmp_path / "run.json")
    assert plot.main([str(tmp_path / "run.json"), str(tmp_path / "run.png")]) == 2
    assert "expected one at the least" in capsys.readouterr().err
