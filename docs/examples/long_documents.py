"""The text of docs/results.md: long C sources of Linux, from Debian's package ``linux-source-6.1``, which needs no installing.

apt-get download linux-source-6.1 && dpkg -x linux-source-6.1_*.deb . && python long_documents.py usr/src/linux-source-6.1.tar.xz FOLDER
"""

import random
import sys
import tarfile
from pathlib import Path

LEAST, ENOUGH = 32 * 1024 + 1, 230_000_000
"""Bytes of a document, so that a window of 32 Ki tokens and the one after it fits in; and of all of them."""


def long_documents(archive: Path) -> list[tuple[str, bytes]]:
    """Name and text of every long ``.c`` file, in an order without meaning, until there are enough; generated register tables are left out."""
    found = []
    with tarfile.open(archive, "r|xz") as files:
        for file in files:
            if file.isfile() and file.name.endswith(".c") and file.size >= LEAST and "/drm/amd/include" not in file.name:
                found.append((file.name.split("/", 1)[1].replace("/", "__"), files.extractfile(file).read()))
    random.Random(0).shuffle(found)
    kept, size = [], 0
    for name, text in found:
        if size > ENOUGH:
            break
        kept.append((name, text))
        size += len(text)
    return kept


if __name__ == "__main__":
    archive, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True)
    for name, text in long_documents(archive):
        (folder / name).write_bytes(text)
