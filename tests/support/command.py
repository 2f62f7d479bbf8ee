"""``ttt`` in this process, backends for it, and what it said."""

import json

import pytest
from typer.testing import CliRunner

from ttt_conformance.cli import app

BASE = "import dataclasses, tttcore\nBASE = tttcore.get_backend('numpy')\n"
NARROW = "tttcore.Supports(forms=('dual',), inner=('linear',), dtypes=('float64',), mask=False, cu_seqlens=False)"
WRONG = f"""
def inner(*given, **options):
    y, state = BASE.inner_function(*given, **options)
    return 1.5 * y, state
BACKEND = dataclasses.replace(BASE, name='wrong', inner_function=inner, supports={NARROW})
"""
CRASH = """
def crash(*given, **options):
    raise ZeroDivisionError('a bug')
"""


def ttt(command, *arguments, jobs=1):
    """The command's outcome, on a terminal wide enough that nothing is folded; in this process, where a test can change the suite."""
    options = ["--jobs", jobs] if command == "conform" and jobs else []
    return CliRunner().invoke(app, [command, *map(str, [*options, *arguments])], env={"COLUMNS": "400", "TERM": "dumb"})


def backend_module(folder, name, source):
    (folder / f"{name}.py").write_text(BASE + source, encoding="utf-8")
    return f"{name}:BACKEND"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def said(result):
    """What was said, as one line."""
    return " ".join(result.output.split())
