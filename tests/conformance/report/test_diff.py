"""Two reports side by side."""

import dataclasses

import pytest
import synthetic
from rich.console import Console
from synthetic import broken, report, result, unclaimed

from ttt_conformance.report.diff import KINDS, difference, table


def shown(found):
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table(found))
    return capture.get()


@pytest.mark.parametrize(
    ("old", "new", "kind", "worse"),
    [
        (result("a"), broken("a"), "broken", True),
        (unclaimed("a"), broken("a"), "broken", True),
        (broken("a"), result("a"), "mended", False),
        (result("a"), unclaimed("a"), "unclaimed", True),
        (broken("a"), unclaimed("a"), "unclaimed", False),
        (unclaimed("a"), result("a"), "claimed", False),
        (None, result("a"), "added", False),
        (None, unclaimed("a"), "added", False),
        (None, broken("a"), "added", True),
        (result("a"), None, "removed", True),
        (unclaimed("a"), None, "removed", False),
        (broken("a"), None, "removed", False),
        (result("a", worst=0.1), result("a", worst=0.21), "grown", True),
        (result("a", worst=0.0), result("a", worst=0.2), "grown", True),
        (result("a", worst=0.1), result("a", worst=0.2), None, False),
        (result("a", worst=0.001), result("a", worst=0.09), None, False),
        (result("a", worst=0.9), result("a", worst=0.1), None, False),
        (broken("a"), broken("a", worst=1e20), None, False),
        (unclaimed("a"), unclaimed("a"), None, False),
    ],
)
def test_a_change_is_of_one_kind(old, new, kind, worse):
    same = result("same")
    found = difference(*(report(*filter(None, (same, cell))) for cell in (old, new)))
    changes = {name: [change.name for change in getattr(found, name)] for name in KINDS}
    name = (new or old).name
    assert changes == {other: [name] if other == kind else [] for other in KINDS}
    assert found.worse is worse
    text = shown(found)
    assert (name in text) == (kind is not None)
    assert kind is None or KINDS[kind] in text
    assert ("worse" if worse else "no cell changed" if kind is None else "not worse") in text
    assert same.name not in text


def test_the_worst_is_first_and_the_words_are_there():
    text = shown(difference(synthetic.holding(), synthetic.mixed()))
    assert text.index("BROKEN") < text.index("not claimed")
    mended = shown(difference(synthetic.mixed(), synthetic.holding()))
    assert "removed" in mended


def test_what_the_runs_ran_on_is_told():
    old = report(result())
    new = dataclasses.replace(old, spec_version="1.1", effort="thorough", environment={**synthetic.ENVIRONMENT, "torch": "2.13.0", "new": "[1]"})
    found = difference(old, new)
    assert found.ran_on == (
        ("spec_version", "1.0", "1.1"),
        ("effort", "default", "thorough"),
        ("torch", "not installed", "2.13.0"),
        ("new", "—", "[1]"),
    )
    assert "torch: not installed → 2.13.0" in shown(found)
    assert "new: — → [1]" in shown(found)
    assert not found.worse


def test_hostile_names_are_shown_as_they_are():
    assert r"alert('[red]')</script> \x1b[31m \x00" in shown(difference(synthetic.empty(), synthetic.hostile())).replace("\n", "")
