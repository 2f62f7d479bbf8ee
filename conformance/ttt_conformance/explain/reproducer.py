"""A broken law as a script that needs NumPy alone: the problem, the backend's answer, the definition, and a table of what differs."""

from __future__ import annotations

import json
import pprint
import textwrap
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from tttcore.tree import leaves, paths

from .evidence import Evidence

DEFINITION = Path(__file__).with_name("definition.py")
WIDTH = 140


def script(evidence: Evidence) -> str:
    """The text of the script. Run, it prints the error of each array of the answer against the definition; exit status 1 when one is wrong."""
    problem, options = evidence.problem, evidence.options
    given = {"mask": options.mask, "cu_seqlens": options.cu_seqlens}
    names = ("x",) if problem.subject == "layer" else ("q", "k", "v", "lr")
    introduction, code = _definition()
    return _SCRIPT.substitute(
        title=_quoted(evidence.title),
        statement=_quoted(evidence.statement),
        what=_quoted(evidence.what),
        form=options.form,
        subject=problem.subject,
        spec=_entries({name: repr(value) for name, value in json.loads(problem.spec.to_json()).items()}),
        params=_arrays(problem.params),
        inputs=_arrays(dict(zip(names, problem.inputs, strict=True))),
        state=None if problem.state is None else _arrays(dict(zip(paths(problem.state), leaves(problem.state), strict=True))),
        options=_arrays({name: x for name, x in given.items() if x is not None}),
        got=_arrays(evidence.got),
        allowed=_entries({path: repr(float(limit)) for path, limit in evidence.allowed.items()}),
        introduction=introduction,
        code=code,
    )


def _definition() -> tuple[str, str]:
    """Its introduction, as a comment, and its code below the imports."""
    _, introduction, rest = DEFINITION.read_text(encoding="utf-8").split('"""', 2)
    return textwrap.indent(introduction.strip(), "# "), rest.partition("import numpy as np\n")[2].strip()


def _quoted(text: str) -> str:
    """The text as it must stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """A dict of arrays, exactly."""
    return _entries({name: literal(np.asarray(x)) for name, x in arrays.items()})


def _entries(values: Mapping[str, str]) -> str:
    """A dict of expressions, one below the other."""
    return "{\n" + "".join(f'    "{name}": {value},\n' for name, value in values.items()) + "}"


def literal(x: np.ndarray) -> str:
    """An expression whose value is x, bit for bit and of its dtype; float32 for a dtype that NumPy has not (bfloat16), which holds its values.

    It speaks of ``np``, ``nan`` and ``inf``.
    """
    x = x.astype(np.float32) if x.dtype.kind == "V" else x
    if not x.size:  # nested lists would lose the axes after an empty one
        return f'np.zeros({x.shape}, dtype="{x.dtype}")'
    numbers: Any = x.tolist()  # wider or equal Python numbers, whose repr is exact
    text = pprint.pformat(numbers, width=WIDTH, compact=True)
    if "\n" in text:
        text = "\n" + textwrap.indent(text, " " * 8) + ","
        return f'np.array({text}\n        dtype="{x.dtype}",\n    )'
    return f'np.array({text}, dtype="{x.dtype}")'


_SCRIPT = Template('''"""$title

The law: $statement
Compared: $what

This script needs NumPy alone. It holds a problem, what the backend answered in form "$form" (GOT), how far each array of an answer may be from
the truth (ALLOWED), and the layer from its definition. Run it: it computes the definition in float64 and prints the error of each array of GOT;
the exit status is 1 when one is wrong. To check code of your own, put its answer where YOUR CODE is asked for, in main.
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

# What the backend answered.

GOT = $got

ALLOWED = $allowed

# The definition.
#
$introduction

$code


# The comparison.


def main():
    """Print the error of each array; 1 when one is wrong, else 0."""
    answer = GOT  # YOUR CODE: its answer to SPEC, PARAMS, INPUTS, STATE and OPTIONS instead, a dict of arrays with the keys of GOT

    y, state = $subject(SPEC, wide(PARAMS), **wide(INPUTS), state=wide(STATE), **OPTIONS)
    truth = {"y": y} | {f"state.{name}": x for name, x in state.items()}
    shared = [path for path in answer if path in truth and path in ALLOWED]
    if not shared:
        print(f"nothing to compare: the answer has {list(answer)}, the definition {list(truth)}")
        return 1
    wrong = False
    print(f"{'':20}{'error':>12}{'allowed':>12}")
    for path in shared:
        error, verdict = compare(np.asarray(answer[path]), truth[path], ALLOWED[path])
        print(f"{path:20}{error:>12}{ALLOWED[path]:12.3g}  {verdict}")
        wrong = wrong or verdict != "ok"
    return int(wrong)


def wide(arrays):
    """The floating-point arrays in float64."""
    return arrays and {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in arrays.items()}


def compare(got, truth, allowed):
    """The largest error, and "ok" or what is wrong."""
    if got.shape != truth.shape:
        return "shape", f"WRONG: got {got.shape}, expected {truth.shape}"
    errors = np.abs(got.astype(np.float64) - truth)
    largest = np.max(errors, initial=0.0)
    if largest <= allowed:
        return f"{largest:.3g}", "ok"
    place = tuple(map(int, np.unravel_index(np.argmax(errors), errors.shape)))
    return f"{largest:.3g}", f"WRONG, most at {place}: got {got[place]}, expected {truth[place]}"


if __name__ == "__main__":
    raise SystemExit(main())
''')
