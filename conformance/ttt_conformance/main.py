"""Entry point of ``ttt``: says what to install when the suite's own requirements are missing."""

from __future__ import annotations

import importlib.util
import os
import sys

REQUIRED = ("hypothesis", "jinja2", "matplotlib", "ml_dtypes", "rich", "safetensors", "typer")


def main() -> None:
    """Run the command line."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"ttt needs {', '.join(missing)}: pip install 'tttcore[conformance]'", file=sys.stderr)
        raise SystemExit(2)
    if sys.argv[1:2] in (["conform"], ["vectors"]):
        # The problems are tiny: several threads would only wait for one another. Read by OpenMP when a framework is imported.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # And they are compiled by the hundred, run once or twice each.
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if sys.argv[1:2] == ["train"]:
        # OpenMP's threads spin while they wait. Where another program has the core that a thread waits for, a step of many small operations takes
        # twenty times as long: 4.6 instead of 0.25 s on two cores. After so many turns they sleep, which costs nothing where nobody else is.
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from .cli import app

    app()
