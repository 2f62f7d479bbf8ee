"""Text as bytes: documents, a split by document, and windows that lie within one."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tttcore import InvalidInput

SKIPPED = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3")
HELD_OUT = 20
"""One document of so many is held out, by a hash of its bytes, so that more text does not move one from one side to the other."""


@dataclass(frozen=True)
class Corpus:
    """Documents for training and held out, each ``[N]`` uint8, and a name with a digest of all bytes."""

    train: list[np.ndarray]
    held_out: list[np.ndarray]
    name: str

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Corpus:
        """The files, and all files in the folders, of ``paths``; by default the sources of the Python standard library on this machine.

        Raises ``InvalidInput`` where nothing is left to train on or to hold out.
        """
        files = sorted(_standard_library() if not paths else (file for path in paths for file in _files(path)))
        documents, digest = {}, hashlib.sha256()
        for file in files:
            document = file.read_bytes()
            key = hashlib.sha256(document).digest()
            if document and key not in documents:
                documents[key] = np.frombuffer(document, np.uint8)
                digest.update(key)
        sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for key, document in documents.items():
            sides[key[0] % HELD_OUT == 0].append(document)
        where = ", ".join(map(str, paths)) or "the Python standard library"
        if not all(sides):
            got = f"{len(documents)} different documents in {where}, {len(sides[1])} of them held out"
            raise InvalidInput("--text", got=got, expected="several on both sides", fix="name more files, or a folder of them")
        return cls(*sides, f"{'+'.join(path.name for path in paths) or 'stdlib'}-{digest.hexdigest()[:12]}")

    def describe(self) -> str:
        """How much there is."""
        (n, size), (m, held) = ((len(side), sum(map(len, side))) for side in (self.train, self.held_out))
        return f"{self.name}: {n:,} documents to train on ({size / 1e6:.1f} MB), {m:,} held out ({held / 1e6:.1f} MB)"

    def windows(self, length: int) -> Windows:
        """Training windows of ``length`` bytes."""
        return Windows(_long_enough(self.train, length, "to train on"), length)

    def held_out_windows(self, length: int, most: int) -> np.ndarray:
        """The first ``most`` windows of held-out documents, one behind the other ``[N, length]``, the documents in an order without meaning."""
        documents = _long_enough(self.held_out, length, "held out")
        cut = [document[start : start + length] for document in documents for start in range(0, len(document) - length + 1, length)]
        order = np.random.default_rng(0).permutation(len(cut))[:most]
        return np.stack([cut[n] for n in order])

    def unigram_entropy(self) -> float:
        """−Σ p log p of single bytes in nats: the loss of a model that knows how often each comes."""
        count = np.sum([np.bincount(document, minlength=256) for document in self.train], axis=0)
        p = count[count > 0] / count.sum()
        return float(-(p * np.log(p)).sum())


@dataclass(frozen=True)
class Windows:
    """Every window of ``length`` bytes within a document, each as likely as the others."""

    documents: list[np.ndarray]
    length: int

    @cached_property
    def ends(self) -> np.ndarray:
        """Windows in each document and all before it."""
        return np.cumsum([len(document) - self.length + 1 for document in self.documents])

    def batch(self, seed: int, step: int, rows: int) -> np.ndarray:
        """``[rows, length]`` uint8: of step ``step`` of a run with this seed, whatever was drawn before."""
        places = np.random.default_rng([seed, step]).integers(0, self.ends[-1], rows)
        which = np.searchsorted(self.ends, places, side="right")
        starts = places - np.concatenate([[0], self.ends])[which]
        return np.stack([self.documents[n][start : start + self.length] for n, start in zip(which, starts, strict=True)])


def _long_enough(documents: list[np.ndarray], length: int, what: str) -> list[np.ndarray]:
    found = [document for document in documents if len(document) >= length]
    if not found:
        got = f"no document of {length} bytes {what} (the longest has {max(map(len, documents))})"
        raise InvalidInput("--context", got=got, expected="windows that fit into documents", fix="lower --context, or name longer text")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidInput("--text", got=str(path), expected="a file or a folder", fix="check the path")
    return [file for file in path.rglob("*") if file.is_file()]


def _standard_library() -> list[Path]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = [file for file in folder.rglob("*.py") if not set(file.relative_to(folder).parts[:-1]) & set(SKIPPED)]
    if not found:
        raise InvalidInput("--text", got=f"no source file in {folder}", expected="the Python standard library's", fix="name files with --text")
    return found
