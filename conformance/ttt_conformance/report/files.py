"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from tttcore.files import whole


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the content to ``path``; what goes wrong leaves what was there, and nothing else."""
    with whole(path) as file:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
