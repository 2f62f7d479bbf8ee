"""A broken law as a script that needs NumPy alone: the problem, the backend's answer, the definition, and a table of what differs."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from tttcore.tree import leaves, paths

from .comparisons import ANSWER, COTANGENTS
from .evidence import Evidence, GradientEvidence
from .literals import arrays, entries, numbers

HERE = Path(__file__).parent
DEFINITION, SLOPES = HERE / "definition.py", HERE / "slopes.py"


def script(evidence: Evidence) -> str:
    """The text of the script. Run, it prints what it compares, an array a line; exit status 1 when one is wrong."""
    problem, options = evidence.problem, evidence.options
    given = {"mask": options.mask, "cu_seqlens": options.cu_seqlens}
    found = {"What the backend answered.": f"GOT = {arrays(evidence.got)}\n\nALLOWED = {numbers(evidence.allowed)}"}
    comparison, pasted = ANSWER, pasted_from(DEFINITION)
    if isinstance(evidence, GradientEvidence):
        found = {
            "The cotangents of its results.": f"BARS = {arrays(evidence.bars)}",
            "What the backend found as the cotangents of its arguments, each compared along one direction.": (
                f"GOT = {arrays(evidence.got)}\n\nALONG = {arrays(evidence.along)}\n\nALLOWED = {numbers(evidence.allowed)}"
            ),
        }
        comparison, pasted = COTANGENTS, f"{pasted}\n\n\n{pasted_from(SLOPES)}"
    names = {"form": options.form, "subject": problem.subject}
    return _SCRIPT.substitute(
        title=_quoted(evidence.title),
        statement=_quoted(evidence.statement),
        what=_quoted(evidence.what),
        introduction=Template(comparison.introduction).substitute(names),
        spec=entries({name: repr(value) for name, value in json.loads(problem.spec.to_json()).items()}),
        params=arrays(problem.params),
        inputs=arrays(problem.named_inputs),
        state=None if problem.state is None else arrays(dict(zip(paths(problem.state), leaves(problem.state), strict=True))),
        options=arrays({name: x for name, x in given.items() if x is not None}),
        found="\n\n".join(f"# {comment}\n\n{text}" for comment, text in found.items()),
        pasted=pasted,
        comparison=Template(comparison.code).substitute(names),
    )


def pasted_from(module: Path) -> str:
    """Its introduction, as a comment, and its code below the imports."""
    _, introduction, rest = module.read_text(encoding="utf-8").split('"""', 2)
    comment = "\n".join(f"# {line}".rstrip() for line in introduction.strip().splitlines())
    code = rest.partition("import numpy as np\n")[2].strip()
    return f"{comment}\n\n{code}"


def _quoted(text: str) -> str:
    """The text as it must stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


_SCRIPT = Template('''"""$title

The law: $statement
Compared: $what

$introduction
"""

from typing import Any

import numpy as np

nan, inf = np.nan, np.inf

# The problem.

SPEC = $spec

PARAMS = $params

INPUTS = $inputs

STATE = $state

OPTIONS = $options

$found

# The definition.
#
$pasted


# The comparison.


$comparison


if __name__ == "__main__":
    raise SystemExit(main())
''')
