"""The vectors for use elsewhere: their files, and a JSON index of what each of them is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tttcore import SPEC_VERSION, InvalidInput

from ..report.files import write_whole
from .catalogue import CATALOGUE
from .container import DTYPES, read
from .store import FOLDER, FORMAT

INDEX = "index.json"


def export(folder: Path) -> list[Path]:
    """Copy every vector to the folder, which is made if its parent exists, and write the index; the files, the index last."""
    if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise InvalidInput(
            "folder", got=str(folder), expected="a folder, or a new name in one", fix=f"create {folder.parent}, or choose another name"
        )
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    for entry in CATALOGUE:
        source = FOLDER / f"{entry.name}.safetensors"
        write_whole(folder / source.name, source.read_bytes())
        written.append(folder / source.name)
    write_whole(folder / INDEX, index())
    return [*written, folder / INDEX]


def index() -> str:
    """The JSON: versions, and of every vector its texts, its spec, and the dtype and shape of each array; a line a vector, in the order to go by."""
    vectors = [json.dumps(_described(FOLDER / f"{entry.name}.safetensors"), ensure_ascii=False) for entry in CATALOGUE]
    versions = json.dumps({"format": FORMAT, "spec_version": SPEC_VERSION})
    return f'{versions[:-1]}, "vectors": [\n' + ",\n".join(vectors) + "\n]}\n"


def _described(path: Path) -> dict[str, Any]:
    metadata, arrays = read(path)
    texts = {key: metadata[key] for key in ("name", "about", "description")}
    kinds = {name: {"dtype": DTYPES[x.dtype.name], "shape": list(x.shape)} for name, x in arrays.items()}
    return {**texts, "spec": json.loads(metadata["spec"]), "arrays": kinds}
