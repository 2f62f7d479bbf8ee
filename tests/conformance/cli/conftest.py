import sys

import pytest

from ttt_conformance.laws import LAWS


@pytest.fixture
def rest_only(monkeypatch):
    """One law alone: quick, and enough to be broken."""
    monkeypatch.setattr("ttt_conformance.matrix.LAWS", {"rest": LAWS["rest"]})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty and on the path of Python, for backends of a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)
