"""What the README shows, run as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("import ")[1].split()[0])
def test_examples_run(example, capsys):
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    if "print(" in example:
        assert float(printed) < 1e-4, "the two pieces must equal the whole"


def test_there_are_two_examples():
    assert len(EXAMPLES) == 2


def test_ci_runs_the_commands_of_the_readme():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert [command.rpartition("/")[2] for command in commands] == ["ttt conform", "pytest -n 2"]
    assert "README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")
