# Shortcuts for an environment that the README's commands made; each is one command.
.PHONY: conform test lint vectors wheel demo
conform:
	.venv/bin/ttt conform
test:
	.venv/bin/pytest
lint:
	.venv/bin/pre-commit run --all-files
vectors:
	.venv/bin/python -m ttt_conformance.vectors.regenerate
demo:
	.venv/bin/ttt train --out run && .venv/bin/ttt generate run
wheel:
	.venv/bin/python -m build --wheel
