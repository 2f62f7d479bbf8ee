"""The run in several processes."""

import dataclasses

import pytest
from command import NARROW, WRONG, backend_module, read, said, ttt

from ttt_conformance.matrix import cells
from ttt_conformance.processes import _shares
from tttcore import get_backend


def timeless(path):
    content = read(path)
    for part in (content, *content["results"]):
        del part["seconds"]
    return content


def test_processes_find_the_same(folder):
    """Everything but the seconds, in two processes and in one; what is broken, and its explanation, too."""
    names = [backend_module(folder, "wrong_one", WRONG), "numpy"]
    found = []
    for jobs in (1, 2):
        path = folder / f"report-{jobs}.json"
        given = [part for name in names for part in ("--backend", name)]
        result = ttt("conform", *given, "--quick", "--max-examples", 1, "--json", path, "--reproducers", f"scripts-{jobs}", jobs=jobs)
        assert result.exit_code == 1, result.output
        found.append(timeless(path))
    assert found[0] == found[1]
    assert found[0]["results"][0]["backend"] == "wrong"
    assert sum(row["failure"] is not None for row in found[0]["results"]) >= 4
    scripts = [{path.name: path.read_text(encoding="utf-8") for path in (folder / f"scripts-{jobs}").iterdir()} for jobs in (1, 2)]
    assert scripts[0] == scripts[1] != {}


@pytest.mark.parametrize("together", [True, False])
def test_every_cell_is_in_one_share(together):
    """Together, those of a subject and inner model; else those of a backend and form among them."""
    numpy = get_backend("numpy")
    every = cells([numpy, dataclasses.replace(numpy, name="other")])
    shares = _shares(every, together)
    assert sorted(name for share in shares for name in share) == sorted(cell.name for cell in every)
    parts = {cell.name: (cell.subject, cell.inner) if together else (cell.subject, cell.inner, cell.backend.name, cell.form) for cell in every}
    assert all(len({parts[name] for name in share}) == 1 for share in shares)
    assert len(shares) == len(set(parts.values()))
    assert [len(share) for share in shares] == sorted(map(len, shares), reverse=True)


def test_a_process_that_dies_is_told(folder):
    source = f"""
import os
def leave(*given, **options):
    os._exit(3)
BACKEND = dataclasses.replace(BASE, name='dying', inner_function=leave, supports={NARROW})
"""
    result = ttt("conform", "--quick", "--backend", backend_module(folder, "dying_backend", source), jobs=2)
    assert result.exit_code == 2
    assert "processes: got one that died while it checked a law: " in said(result)
    assert "Fix: see which backend it is, with --backend one by one and --jobs 1." in said(result)
