"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the content to a file beside ``path``, then put it in its place; what goes wrong leaves what was there, and nothing else."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.close()
            os.chmod(file.name, 0o644)  # temporary files are their owner's alone
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
