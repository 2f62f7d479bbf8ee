"""A run on disk."""

import json

import pytest

from benchmarks.kernels.record import read
from tttcore import InvalidInput


def test_what_is_written_is_read(record, tmp_path):
    record.write(tmp_path / "run.json")
    assert read(tmp_path / "run.json") == record


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"results": [{"name": "a"}]}'])
def test_another_file_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"expected a file of --json. Fix: "):
        read(tmp_path / "run.json")


def test_another_schema_is_refused(record, tmp_path):
    path = tmp_path / "run.json"
    record.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    with pytest.raises(InvalidInput, match=r"schema of .*: got 0; expected 1. Fix: "):
        read(path)
